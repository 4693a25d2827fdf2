"""The head: one individual of the ICT FaceKit mesh, posed by expressions, a neck that bends and eyes that look."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.selfie_studio.motion import Pose
from data.selfie_studio.noise import smoothstep
from data.selfie_studio.shapes import Surface, vertex_normals

ORIGIN = np.array([0.0, 1.20, 0.0])  # where the mesh's origin, the middle of the skull, stands in the room, metres
_PIVOT = np.array([0.0, -8.0, -1.0])  # the neck's joint, cm
# A game engine's shading aids, and lash cards, for which there are strands.
_HIDDEN = ("M_EyeOcclusion", "M_EyeBlend", "M_LacrimalFluid", "M_IrisLeft", "M_IrisRight", "M_EyeLashes")
# Who this is: weights of FaceKit's identity modes (each a principal direction, about one standard deviation per unit).
_IDENTITY = {0: 0.5, 1: -0.7, 2: 0.6, 3: 0.5, 4: -0.6, 5: 0.7, 6: 0.4, 8: -0.5, 10: 0.5, 12: -0.4, 15: 0.5, 19: -0.5}
# FaceKit's vertices for the 68 landmarks of iBUG (jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, lips 48-67).
LANDMARKS = np.array([
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443, 268, 493,
    1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542,
    1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461,
    5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
])  # fmt: skip


def to_room(points: np.ndarray) -> np.ndarray:
    """Head frame, cm, to room, metres."""
    return points * 0.01 + ORIGIN


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix from degrees: yaw turns to the person's left, pitch nods down, roll tilts to the right."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def collar_height(z: np.ndarray) -> np.ndarray:
    """The plane of the sweater's collar, low on the collar bones, high on the nape: y in cm from z in cm."""
    return -12.6 - 0.30 * z


def neck_follow(points: np.ndarray) -> np.ndarray:
    """How far points "n 3" (cm, at rest) follow the head: 0 on the shoulders, 1 from the jaw up."""
    depth = np.clip(points[:, 2], -6, 9)  # the throat lies in front of the neck and belongs to the head sooner
    return smoothstep(collar_height(depth) + 0.3, -7.0 - 0.18 * depth, points[:, 1])


class Head:
    """The FaceKit mesh as one person. Positions are centimetres in the head's frame until `Stage` places them."""

    def __init__(self, path: Path):
        with np.load(path) as data:
            self.names = [str(name) for name in data["materials"]]
            expressions = [str(name) for name in data["expression_names"]]
            self.deltas = dict(zip(expressions, data["expression_deltas"].astype(np.float32)))
            self.triangles, self.uv_triangles = data["tri"], data["tri_uv"]
            self.material, self.uv = data["tri_material"], data["uv"].astype(np.float64)
            rest = data["neutral"].astype(np.float64)
            for mode, weight in _IDENTITY.items():
                rest += weight * data["identity_deltas"][mode].astype(np.float64)
        self.rest = rest
        self.follow = neck_follow(rest)
        self.cover(np.zeros(len(self.triangles), bool))
        self.normals = vertex_normals(rest, self.triangles)
        self.landmarks = rest[LANDMARKS]
        self.eye_centres = {
            side: np.mean(
                [rest[self._vertices(f"M_Sclera{side}")].min(0), rest[self._vertices(f"M_Sclera{side}")].max(0)], 0
            )
            for side in ("Left", "Right")
        }

    def cover(self, hidden: np.ndarray) -> None:
        """Leave out the triangles that are `hidden` "t" under the clothes."""
        self.shown = ~hidden
        self.parts = [name for name in self.names if name not in _HIDDEN and self._triangles(name).any()]

    def _triangles(self, part: str) -> np.ndarray:
        return (self.material == self.names.index(part)) & self.shown

    def _vertices(self, part: str) -> np.ndarray:
        return np.unique(self.triangles[self._triangles(part)])

    def bend(self, points: np.ndarray, follow: np.ndarray, pose: Pose) -> np.ndarray:
        """Turn rest points "n 3" about the neck, each by its share `follow` "n" of the head's rotation; cm."""
        levels = np.linspace(0, 1, 33)  # rotations at 33 shares, interpolated: the neck twists, no vertex shears
        matrices = np.stack([rotation(f * pose.yaw, f * pose.pitch, f * pose.roll) for f in levels])
        place = np.clip(follow, 0, 1) * 32
        low = np.minimum(place.astype(int), 31)
        blend = (place - low)[:, None, None]
        matrix = matrices[low] * (1 - blend) + matrices[low + 1] * blend
        turned = np.einsum("nij,nj->ni", matrix, points - _PIVOT) + _PIVOT
        return turned + follow[:, None] * pose.shift + pose.sway

    def rigid(self, pose: Pose) -> np.ndarray:
        """The skull's motion as a 4 x 4 matrix, cm: what `bend` does to points that follow fully."""
        matrix = np.eye(4)
        matrix[:3, :3] = rotation(pose.yaw, pose.pitch, pose.roll)
        matrix[:3, 3] = _PIVOT - matrix[:3, :3] @ _PIVOT + pose.shift + pose.sway
        return matrix

    def express(self, pose: Pose) -> np.ndarray:
        """Rest positions with the pose's expression "v 3", not yet bent, cm."""
        points = self.rest.copy()
        for name, weight in pose.expression.items():
            if abs(weight) > 1e-3:
                points += weight * self.deltas[name]
        return points

    def gaze(self, pose: Pose, camera_position: np.ndarray, side: str) -> tuple[float, float]:
        """Where one eye looks in the head's frame, degrees (left, down): at the lens (metres), more or less."""
        matrix = self.rigid(pose)
        lens = (np.asarray(camera_position) - ORIGIN) * 100
        towards = matrix[:3, :3].T @ (lens - matrix[:3, 3]) - self.eye_centres[side]
        yaw = np.degrees(np.arctan2(towards[0], towards[2])) + pose.gaze[0]
        pitch = -np.degrees(np.arctan2(towards[1], np.hypot(towards[0], towards[2]))) - pose.gaze[1]
        return float(np.clip(yaw, -28, 28)), float(np.clip(pitch, -18, 18))

    def vertices(self, pose: Pose, camera_position: np.ndarray) -> np.ndarray:
        """All vertices of the posed head "v 3", cm; the eyes look at the camera that films the training photos."""
        points = self.express(pose)
        for side in ("Left", "Right"):
            ball, centre = self._vertices(f"M_Sclera{side}"), self.eye_centres[side]
            left, down = self.gaze(pose, camera_position, side)
            points[ball] = (points[ball] - centre) @ rotation(left, down, 0.0).T + centre
            open_share = 1 - pose.expression["eyeBlink_" + side[0]]  # lids follow the iris, unless they're shut
            points += open_share * max(0.0, -down / 16) * self.deltas["eyeLookUp_" + side[0]]
            points += open_share * max(0.0, down / 30) * self.deltas["eyeLookDown_" + side[0]]
        return self.bend(points, self.follow, pose)

    def surfaces(self, points: np.ndarray) -> dict[str, Surface]:
        """Every visible part of the head with posed vertices "v 3"."""
        normals = vertex_normals(points, self.triangles)
        return {part: self._surface(part, points, normals) for part in self.parts}

    def _surface(self, part: str, points: np.ndarray, normals: np.ndarray) -> Surface:
        chosen = self._triangles(part)
        corners = np.stack([self.triangles[chosen].ravel(), self.uv_triangles[chosen].ravel()], 1)
        unique, index = np.unique(corners, axis=0, return_inverse=True)
        uv = self.uv[unique[:, 1]] % 1.0
        if part.startswith("M_Sclera"):
            uv = self._eye_uv(unique[:, 0], part.removeprefix("M_Sclera"))
        return Surface(points[unique[:, 0]], index.reshape(-1, 3), uv, normals[unique[:, 0]])

    def _eye_uv(self, vertices: np.ndarray, side: str) -> np.ndarray:
        """Texture coordinates of an eyeball: distance from the middle is the angle from the pupil, 0.5 a half turn."""
        local = self.rest[vertices] - self.eye_centres[side]
        angle = np.arctan2(np.hypot(local[:, 0], local[:, 1]), local[:, 2]) / np.pi * 0.5
        around = np.arctan2(local[:, 1], local[:, 0])
        return 0.5 + np.stack([angle * np.cos(around), angle * np.sin(around)], 1)
