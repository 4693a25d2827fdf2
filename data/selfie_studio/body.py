"""Shoulders in a knitted sweater, built around the neck of the head mesh: a star-shaped surface and its collar."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import NearestNDInterpolator, RBFInterpolator

from data.selfie_studio.head import Head, collar_height
from data.selfie_studio.motion import Pose
from data.selfie_studio.noise import fractal_noise, lattice_noise, smoothstep
from data.selfie_studio.shapes import Surface, grid_triangles, vertex_normals

_HEART = np.array([0.0, -31.0, -2.0])  # every point of the sweater can be seen from here, cm
_AXIS = np.array([0.0, 0.0, -2.2])  # x and z of the neck's axis
_ROWS, _COLUMNS = 260, 520


def collar_curve(head: Head, angles: np.ndarray) -> np.ndarray:
    """Where the collar lies on the neck "n 3", by angle about the neck (0 is the face's direction), cm."""
    skin = np.isin(head.material, [head.names.index("M_Face"), head.names.index("M_BackHead")])
    points = head.rest[np.unique(head.triangles[skin])]
    near = points[(np.abs(points[:, 1] - collar_height(points[:, 2])) < 0.8) & (np.abs(points[:, 0]) < 14)] - _AXIS
    angle, radius = np.arctan2(near[:, 0], near[:, 2]), np.hypot(near[:, 0], near[:, 2])

    def waves(a):
        return np.stack([np.ones_like(a), *(np.cos(k * a) for k in range(1, 6))], 1)  # symmetric: cosines only

    keep = radius > 4.0
    fit, *_ = np.linalg.lstsq(waves(angle[keep]), radius[keep], rcond=None)
    radius = waves(angles) @ fit + 0.25
    curve = np.stack([radius * np.sin(angles), np.zeros_like(angles), radius * np.cos(angles)], 1) + _AXIS
    curve[:, 1] = collar_height(curve[:, 2])
    return curve


def _segment(points, start, end, radius_start, radius_end):
    along = np.array(end, float) - start
    place = np.clip((points - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - start - place[:, None] * along, axis=1) - (
        radius_start + place * (radius_end - radius_start)
    )


def _smooth_union(first, second, reach):
    share = np.clip(0.5 + 0.5 * (second - first) / reach, 0, 1)
    return second * (1 - share) + first * share - reach * share * (1 - share)


def _torso_distance(points: np.ndarray) -> np.ndarray:
    """Signed distance "n" to chest, shoulders and upper arms, cm."""
    mirrored = np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], 1)
    box = np.abs(points - [0, -42, -2.5]) - [8.5, 18.0, 3.0]
    shape = np.linalg.norm(np.maximum(box, 0), axis=1) + np.minimum(box.max(1), 0) - 7.5
    shape = _smooth_union(shape, _segment(mirrored, [4, -15.5, -3.5], [15.4, -20.2, -3.5], 4.0, 5.2), 6.0)
    return _smooth_union(shape, _segment(mirrored, [15.8, -20.8, -3.5], [21.5, -47, -1], 5.3, 4.7), 2.5)


def _bust_radius(head: Head, directions: np.ndarray) -> np.ndarray:
    """How far the mesh's own bust reaches from the heart along unit directions "n 3", cm; 0 where it has none."""
    chosen = (head.rest[:, 1] < collar_height(head.rest[:, 2]) + 2.0) & (head.follow < 0.6)
    local = head.rest[chosen] - _HEART
    reach = np.linalg.norm(local, axis=1)
    unit = local / reach[:, None]
    nearest = NearestNDInterpolator(unit, np.arange(len(unit)))(directions).astype(int)
    gap = np.linalg.norm(unit[nearest] - directions, axis=1)
    smooth = RBFInterpolator(unit, reach, neighbors=12, smoothing=1e-3)(directions)
    return np.where(gap < 0.05, smooth, 0.0)


class Sweater:
    """A crew-neck sweater: `surfaces(pose)` gives its body and its collar, cm."""

    def __init__(self, head: Head):
        angles = np.linspace(-np.pi, np.pi, _COLUMNS)
        self.curve = collar_curve(head, angles)
        rim = self.curve + (self.curve - _AXIS) * [0.035, 0, 0.035] + [0, -0.5, 0]
        rim_direction = (rim - _HEART) / np.linalg.norm(rim - _HEART, axis=1, keepdims=True)
        rim_polar = np.arccos(rim_direction[:, 1])
        around = np.arctan2(rim_direction[:, 0], rim_direction[:, 2])
        share = np.linspace(0, 1, _ROWS)[:, None] ** 1.25
        polar = rim_polar + share * (np.radians(152) - rim_polar)
        around = np.broadcast_to(around, polar.shape)
        directions = np.stack(
            [np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1
        ).reshape(-1, 3)
        radius = self._radius(head, directions, np.linalg.norm(rim - _HEART, axis=1), share)
        self.rest = _HEART + directions * radius[:, None]
        self.triangles = grid_triangles(_ROWS, _COLUMNS)[:, [0, 2, 1]]  # seen from outside
        self.uv = self._unroll()

    def hides(self, head: Head) -> np.ndarray:
        """Which of the head's triangles "t" lie under the wool."""
        local = head.rest - _AXIS
        edge = np.hypot(*(self.curve - _AXIS)[:, [0, 2]].T)
        reach = np.interp(np.arctan2(local[:, 0], local[:, 2]), np.linspace(-np.pi, np.pi, _COLUMNS), edge)
        beside = np.abs(np.arctan2(local[:, 0], local[:, 2])) > np.radians(48)  # not the throat, under the chin
        outside = (np.hypot(local[:, 0], local[:, 2]) > reach + 0.45) & (head.follow < 0.55) & beside
        under = outside[head.triangles].any(1)
        below = head.rest[:, 1] < collar_height(head.rest[:, 2]) - 1.2
        return under | below[head.triangles].all(1)

    @staticmethod
    def _radius(head: Head, directions: np.ndarray, rim_radius: np.ndarray, share: np.ndarray) -> np.ndarray:
        radius = np.full(len(directions), 70.0)
        for _ in range(80):  # march inward from outside: the outermost surface along each direction
            radius -= np.clip(_torso_distance(_HEART + directions * radius[:, None]), -1, 6) * 0.8
        bust = _bust_radius(head, directions) + 0.55
        radius = np.where(bust > 1, np.maximum(radius, bust), radius)
        points = _HEART + directions * radius[:, None]
        drape = points * [1.0, 0.45, 1.0] + 3.0 * lattice_noise(points, 14.0, 70)[:, None]
        folds = 1 - np.abs(fractal_noise(drape, 7.0, 71, 3))  # ridges, as cloth folds
        radius += 1.05 * (folds - 0.6) * smoothstep(0.03, 0.25, np.broadcast_to(share, (_ROWS, _COLUMNS)).ravel())
        pinned = np.tile(rim_radius, _ROWS)
        blend = smoothstep(0.0, 0.10, np.broadcast_to(share, (_ROWS, _COLUMNS)).ravel())
        return pinned * (1 - blend) + radius * blend

    def _unroll(self) -> np.ndarray:
        """Texture coordinates in cm: seen from the front, with the sides and the shoulders' tops folded out."""
        x, y, z = self.rest.T
        return np.stack([x - 0.8 * np.tanh(x / 8) * (z - 9), y - 0.6 * z], 1)

    def _move(self, points: np.ndarray, pose: Pose) -> np.ndarray:
        chest = np.exp(-(((points - [0, -30, 8]) / [14, 10, 9]) ** 2).sum(1))
        return points + pose.sway + 0.25 * pose.breath * chest[:, None] * [0, 0.5, 1.0]

    def surfaces(self, pose: Pose) -> dict[str, Surface]:
        """Sweater and collar in a pose, by name."""
        body = self._move(self.rest, pose)
        collar = self._collar()
        collar.positions = self._move(collar.positions, pose)
        collar.normals = vertex_normals(collar.positions, collar.triangles)
        return {
            "sweater": Surface(body, self.triangles, self.uv, vertex_normals(body, self.triangles)),
            "collar": collar,
        }

    def _collar(self) -> Surface:
        """A ribbed band around the neck: an upright ellipse swept along the collar's curve."""
        centre = self.curve[:-1]
        outward = (centre - _AXIS) * [1, 0, 1]
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        up = np.array([0.0, 1.0, 0.0]) - 0.35 * outward
        turn = np.linspace(0, 2 * np.pi, 33)[:-1]
        ribs = 0.06 * np.cos(np.arange(len(centre)) * 2 * np.pi / 5)[:, None, None]  # a rib every five columns
        ring = (
            np.cos(turn)[None, :, None] * outward[:, None] * (0.42 + ribs)
            + np.sin(turn)[None, :, None] * up[:, None] * 1.15
        )
        points = centre[:, None] + ring + 0.25 * outward[:, None] + [0, -0.35, 0]
        n, m = len(centre), len(turn)
        grid = np.arange(n * m).reshape(n, m)
        right, above = np.roll(grid, -1, 0), np.roll(grid, -1, 1)
        diagonal = np.roll(right, -1, 1)
        triangles = np.concatenate(
            [np.stack([grid, right, above], -1).reshape(-1, 3), np.stack([above, right, diagonal], -1).reshape(-1, 3)]
        )
        uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, n)[:, None], np.linspace(0, 1, m)[None]), -1).reshape(-1, 2)
        return Surface(points.reshape(-1, 3), triangles, uv)
