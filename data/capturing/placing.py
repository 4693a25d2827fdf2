"""A reconstruction's place in the world: which way is up, how long a unit is, what is background, how far photos see.

A reconstruction comes in any turn and size. Here its y axis becomes up, its unit the median distance between a camera and
the points that it sees, its origin the middle of the cameras.

Up is the direction that the cameras' right-hand axes are perpendicular to: people tilt a phone up and down and walk around
with it, but seldom roll it. Where the cameras look one way, that leaves a plane, and the mean of their own up axes decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data.capturing.photos import Photo
from data.capturing.structure import Solution

TURNED = 0.01  # mean squared sine that right-hand axes must spread by before they tell which way is up
TILT = np.cos(np.radians(45))  # what they tell must be so near to the mean up axis
MISS = 1.5  # px at the size that features were found at: a background point's mean reprojection error
LEAST = 3  # photos that a background point is seen in; and of a moving scene's photos, this share:
LASTING = 0.1
CLOSE, FAR = 0.6, 1.25  # of the 1st and the 99th percentile of distances to points: near and far
ARM = 0.12  # of the median distance to the background: where a person before it may begin


@dataclass
class Placed:
    """Poses and points in the world's units, and what scene.json says of them.

    poses     camera-to-world "n 3 4", in the order of `names`
    points    "m 3": the background
    center, scale  (x - center) * scale fits cameras and points into a cube of side 1
    near, far      distances along rays, times scale
    movement  how far apart the cameras are (twice their root mean square distance from their middle), in units
    """

    names: list[str]
    poses: Float[np.ndarray, "n 3 4"]
    points: Float[np.ndarray, "m 3"]
    center: Float[np.ndarray, "3"]
    scale: float
    near: float
    far: float
    movement: float


def place(solution: Solution, photos: Sequence[Photo], moving: bool, coarse: float) -> Placed:
    """Turn, scale and bound a solution with at least one posed photo and ten points.

    Args:
        moving: something moves, which has no points, and may be nearer than all that have.
        coarse: photos are so many times as large as features were found at.
    """
    names = [p.name for p in photos if p.name in solution.poses]
    poses = np.stack([solution.poses[name] for name in names])
    reach = distances(solution, photos)
    turn = upright(poses)
    unit, middle = 1 / float(np.median(reach)), poses[:, :, 3].mean(0)
    poses = _moved(poses, turn, unit, middle)
    least = max(LEAST, LASTING * len(names)) if moving else LEAST
    good = (solution.errors <= MISS * coarse) & (solution.lengths >= least)
    points = unit * (solution.points[good] - middle) @ turn.T
    reach = reach * unit
    near, far = CLOSE * np.percentile(reach, 1), FAR * np.percentile(reach, 99)
    near = min(near, ARM * np.median(reach)) if moving else near
    points = points[np.linalg.norm(points, axis=1) <= far]
    everything = np.concatenate((points, poses[:, :, 3]))
    low, high = np.percentile(everything, (1, 99), axis=0)
    low, high = np.minimum(low, poses[:, :, 3].min(0)), np.maximum(high, poses[:, :, 3].max(0))
    scale = 1 / float((high - low).max())
    spread = poses[:, :, 3] - poses[:, :, 3].mean(0)
    return Placed(
        names,
        poses,
        points,
        center=(low + high) / 2,
        scale=scale,
        near=float(near * scale),
        far=float(far * scale),
        movement=2 * float(np.sqrt((spread**2).sum(1).mean())),
    )


def distances(solution: Solution, photos: Sequence[Photo]) -> Float[np.ndarray, " m"]:
    """Between camera and point of each sighting, in the solution's units."""
    centres = np.full((len(photos), 3), np.nan)
    for i, photo in enumerate(photos):
        if photo.name in solution.poses:
            centres[i] = solution.poses[photo.name][:, 3]
    photo, point = solution.sightings.T
    return np.linalg.norm(solution.points[point] - centres[photo], axis=1)


def upright(poses: Float[np.ndarray, "n 3 4"]) -> Float[np.ndarray, "3 3"]:
    """The rotation that turns the world so that y is up, and that the mean camera looks along -z as far as it can."""
    right, up, back = (poses[:, :, i] for i in range(3))
    mean = up.mean(0) / max(float(np.linalg.norm(up.mean(0))), 1e-12)
    sizes, axes = np.linalg.eigh(right.T @ right / len(right))
    if sizes[1] > max(TURNED, 4 * sizes[0]) and abs(axes[:, 0] @ mean) > TILT:
        y = axes[:, 0] * np.sign(axes[:, 0] @ mean)
    else:
        side = axes[:, 2]
        y = mean - side * (side @ mean)
        y = mean if np.linalg.norm(y) < TILT else y / np.linalg.norm(y)
    z = back.mean(0) - y * (back.mean(0) @ y)
    if np.linalg.norm(z) < 1e-3:  # all around, or straight down
        z = np.eye(3)[np.argmin(np.abs(y))]
        z = z - y * (z @ y)
    z = z / np.linalg.norm(z)
    return np.stack((np.cross(y, z), y, z))


def _moved(poses: np.ndarray, turn: np.ndarray, unit: float, middle: np.ndarray) -> np.ndarray:
    centre = unit * (poses[:, :, 3] - middle) @ turn.T
    return np.concatenate((turn @ poses[:, :, :3], centre[:, :, None]), 2)
