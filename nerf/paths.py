"""Camera paths: round the subject, spirals, and through keyframes. Each is a list of cameras with their instants.

How a capture was taken decides what going round means:

around    the photos surround the subject: a full circle at their mean height and distance
before    they were taken from one side: a loop among the places where they were taken, looking at the subject. It is an
          ellipse in the angles (sideways, up) at which the subject sees the cameras, the largest of its shape inside
          their convex hull; its distance from the subject is that of the photos near by
outward   they look outward from one spot: a full turn on that spot

In a moving scene time runs from the first photo to the last and back, so that the video can be repeated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from data.camera import Camera
from nerf.keyframes import Keyframe, along, field_of_view, load_path, save_path, view
from nerf.rig import PathError, Photo, Rig

__all__ = [
    "Keyframe",
    "PathError",
    "Photo",
    "Rig",
    "along",
    "back_and_forth",
    "central",
    "field_of_view",
    "kind",
    "load_path",
    "look_at",
    "orbit",
    "path",
    "save_path",
    "spiral",
    "view",
]

Path_ = list[tuple[Camera, float]]
GAP = np.radians(100)  # photos that leave a larger gap than this around the subject don't surround it
INSIDE = 0.9  # share of the hull that loops keep to: the outermost photos see little of what lies beyond them
ALONE = np.radians(2)  # half a loop's width where there is only one photo


def path(rig: Rig, name: str, frames: int) -> Path_:
    """The path called `name`, "orbit", "spiral" or a JSON file of keyframes, of `frames` cameras."""
    if frames < 1:
        raise PathError(f"--frames: expected at least 1, found {frames}")
    if name in ("orbit", "spiral"):
        return (orbit if name == "orbit" else spiral)(rig, frames)
    if Path(name).suffix != ".json":
        raise PathError(f"--path: expected orbit, spiral or FILE.json, found {name!r}")
    return through(rig, *load_path(name, rig), frames)


def through(rig: Rig, keyframes: list[Keyframe], loop: bool, frames: int) -> Path_:
    """The path through keyframes."""
    return [(view(rig, key.pose, key.fov), key.time) for key in along(keyframes, frames, loop)]


def orbit(rig: Rig, frames: int) -> Path_:
    """Once around: see the module's text. The first photo's side comes first; equal angles lie between frames."""
    turn = 2 * np.pi * np.arange(frames) / frames
    match kind(rig):
        case "around":
            polar = _polar(rig, _any_horizontal(rig))
            height, reach = np.arcsin(np.sin(polar[:, 1]).mean()), np.median(polar[:, 2])
            stops = np.stack([polar[0, 0] + turn, np.full(frames, height), np.full(frames, reach)], 1)
            eyes = _places(rig, stops, _any_horizontal(rig))
        case "before":
            eyes = _Loop(rig).at(turn, np.ones(frames))
        case _:
            return _timed(rig, _turn_on_the_spot(rig, turn))
    return _timed(rig, [look_at(eye, rig.focus, rig.up) for eye in eyes])


def spiral(rig: Rig, frames: int) -> Path_:
    """Two turns: out from the middle of the loop and back in; around a surrounded subject, up the photos' heights and
    down again."""
    share = np.arange(frames) / frames
    match kind(rig):
        case "around":
            polar = _polar(rig, _any_horizontal(rig))
            low, high = np.percentile(polar[:, 1], (10, 90))
            height = (low + high) / 2 - (high - low) / 2 * np.cos(2 * np.pi * share)
            stops = np.stack([polar[0, 0] + 4 * np.pi * share, height, np.full(frames, np.median(polar[:, 2]))], 1)
            eyes = _places(rig, stops, _any_horizontal(rig))
        case "before":
            eyes = _Loop(rig).at(4 * np.pi * share, np.sin(np.pi * share))
        case _:
            return orbit(rig, frames)
    return _timed(rig, [look_at(eye, rig.focus, rig.up) for eye in eyes])


def central(rig: Rig) -> Camera:
    """The one camera that stands for the capture: the photo nearest to the middle of them all, held straight."""
    centres = rig.poses[:, :, 3]
    pose = rig.poses[np.argmin(np.linalg.norm(centres - centres.mean(0), axis=1))]
    if kind(rig) == "outward":
        return view(rig, pose)
    return view(rig, look_at(pose[:, 3], rig.focus, rig.up))


def kind(rig: Rig) -> str:
    """How the capture was taken: "around", "before" or "outward"."""
    poses = rig.poses
    ahead = np.einsum("ni,ni->n", rig.focus - poses[:, :, 3], -poses[:, :, 2])
    if (ahead > 0).mean() < 0.7:
        return "outward"
    polar = _polar(rig, _any_horizontal(rig))
    azimuth = np.sort(polar[np.abs(polar[:, 1]) < np.radians(80), 0])
    if len(azimuth) < 4:
        return "before"
    gaps = np.diff(azimuth, append=azimuth[0] + 2 * np.pi)
    return "around" if gaps.max() < GAP else "before"


def look_at(eye: Float[ndarray, "3"], target: Float[ndarray, "3"], up: Float[ndarray, "3"]) -> Float[ndarray, "3 4"]:
    """Camera-to-world pose at `eye` whose axis goes through `target`, with the picture's vertical along `up`."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross(up, back)
    if np.linalg.norm(right) < 1e-6:  # straight up or down: any right will do
        right = np.cross(np.eye(3)[np.argmin(np.abs(back))], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, eye], 1)


def back_and_forth(frames: int) -> Float[ndarray, "n"]:
    """Instants from 0 to 1 and back, evenly, such that a video of them can be repeated without a stop."""
    return 1 - np.abs(1 - 2 * np.arange(frames) / max(frames, 1))


def _timed(rig: Rig, poses: list[ndarray]) -> Path_:
    return list(zip([view(rig, pose) for pose in poses], back_and_forth(len(poses)).tolist()))


def _any_horizontal(rig: Rig) -> ndarray:
    return _across(np.eye(3)[np.argmin(np.abs(rig.up))], rig.up)


def _across(v: ndarray, up: ndarray) -> ndarray:
    """The part of v across `up`, of unit length; v = up itself has none, and gets any."""
    flat = v - up * (v @ up)
    if np.linalg.norm(flat) < 1e-6 * max(float(np.linalg.norm(v)), 1e-12):
        return _across(np.eye(3)[np.argmin(np.abs(up))], up)
    return flat / np.linalg.norm(flat)


def _polar(rig: Rig, zero: ndarray) -> Float[ndarray, "n 3"]:
    """Where the focus sees the cameras: azimuth from the direction `zero`, elevation (radians), distance."""
    offset = rig.poses[:, :, 3] - rig.focus
    reach = np.maximum(np.linalg.norm(offset, axis=1), 1e-9)
    azimuth = np.arctan2(offset @ np.cross(rig.up, zero), offset @ zero)
    return np.stack([azimuth, np.arcsin(np.clip(offset @ rig.up / reach, -1, 1)), reach], 1)


def _places(rig: Rig, polar: Float[ndarray, "n 3"], zero: ndarray) -> Float[ndarray, "n 3"]:
    """The inverse of `_polar`."""
    azimuth, elevation, reach = polar.T[:, :, None]
    level = np.cos(azimuth) * zero + np.sin(azimuth) * np.cross(rig.up, zero)
    return rig.focus + reach * (np.cos(elevation) * level + np.sin(elevation) * rig.up)


class _Loop:
    """An ellipse among the cameras of a capture from one side, in azimuth and elevation around the focus."""

    def __init__(self, rig: Rig) -> None:
        offset = rig.poses[:, :, 3] - rig.focus
        self.rig = rig
        self.zero = _across((offset / np.linalg.norm(offset, axis=1, keepdims=True)).mean(0), rig.up)
        polar = _polar(rig, self.zero)
        self.angles, self.reach = polar[:, :2], polar[:, 2]
        mean = self.angles.mean(0)
        spread, self.axes = np.linalg.eigh((self.angles - mean).T @ (self.angles - mean) / len(polar))
        self.axes = self.axes * np.sign(self.axes[np.argmax(np.abs(self.axes), 0), [0, 1]] + 1e-12)
        sizes = np.sqrt(np.maximum(spread, 0))
        # Photos along a line: a loop along it.
        self.sizes = np.where(sizes < 0.02 * sizes.max(), 0, sizes)
        ends = np.percentile(self.angles @ self.axes, (2, 98), axis=0).mean(0) @ self.axes.T
        centres = [mean + share * (ends - mean) for share in (0.0, 0.5, 1.0)]
        fits = [self._fit(centre) for centre in centres]
        best = int(np.argmax(fits))
        self.centre, self.sizes = centres[best], self.sizes * fits[best] * INSIDE
        if not self.sizes.any():
            self.sizes = np.full(2, ALONE)

    def _fit(self, centre: ndarray) -> float:
        """How often the ellipse around `centre` fits into the cameras' hull: by comparing how far each of the two
        reaches in every direction."""
        turn = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        across = np.stack([np.cos(turn), np.sin(turn)], 1)
        hull = ((self.angles - centre) @ across.T).max(0)
        ellipse = np.linalg.norm(across @ self.axes * self.sizes, axis=1)
        known = ellipse > 0.1 * self.sizes.min() if self.sizes.all() else ellipse > 0.1 * self.sizes.max()
        return float(np.maximum(hull[known] / ellipse[known], 0).min()) if known.any() and self.sizes.any() else 0.0

    def at(self, turn: Float[ndarray, "n"], size: Float[ndarray, "n"]) -> Float[ndarray, "n 3"]:
        """Places after a turn (radians) along the ellipse shrunk to `size`, at the distance of the photos near by."""
        local = np.stack([np.cos(turn), np.sin(turn)], 1) * self.sizes[::-1] * size[:, None]  # the long axis first
        angles = self.centre + local @ self.axes[:, ::-1].T
        apart = np.square(angles[:, None] - self.angles).sum(-1)
        weights = np.exp(-0.5 * apart / max(0.25 * float(self.angles.var(0).sum()), 1e-9)) + 1e-12
        reach = (weights * self.reach).sum(1) / weights.sum(1)
        return _places(self.rig, np.c_[angles, reach], self.zero)


def _turn_on_the_spot(rig: Rig, turn: Float[ndarray, "n"]) -> list[ndarray]:
    """Poses at the photo in the middle, looking outward all around at the photos' mean height."""
    poses = rig.poses
    centres, ahead = poses[:, :, 3], -poses[:, :, 2]
    eye = centres[np.argmin(np.linalg.norm(centres - centres.mean(0), axis=1))]
    zero = _across(ahead[0], rig.up)
    rise = float(np.tan(np.arcsin(np.clip((ahead @ rig.up).mean(), -0.9, 0.9))))
    side = np.cross(rig.up, zero)
    return [look_at(eye, eye + np.cos(a) * zero + np.sin(a) * side + rise * rig.up, rig.up) for a in turn]
