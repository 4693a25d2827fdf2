"""Where the scene is: its centre and scale, the box that the fields model, near and far.

Every rule, in the order in which it is tried. "File units" are those of the poses' file.

1. The file normalises itself (Nerfies trees): its centre, scale, near and far are kept. The box covers the training
   cameras' frusta between near and far.
2. The file names a box (instant-ngp's aabb_scale): it becomes [-1, 1]^3. Far is the farthest corner of the box from
   any camera; near is the least distance to the box, at least 5% of the median distance to the focus.
3. The file names depths per photo (LLFF, NR-NeRF): near is 90% of their nearest bounds' 10th percentile (a few are
   always far too small), far 110% of their farthest bounds' 90th. The box covers the frusta between those depths and is
   scaled to fit [-1, 1]^3; far is then taken along the ray in the photos' corners.
4. Cut-outs (photos transparent around an object, or of one colour all along their edges) in a Blender file whose
   cameras look at [-1.5, 1.5]^3 from 2 to 12 units away (NeRF-synthetic) keep their units and that box. Near and far
   as in 2.
5. Other cut-outs: the centre is the focus, the point nearest to all optical axes; the box holds the sphere that fills the
   photos. Near and far as in 2.
6. Photos that look inward: the centre is the focus, and the 95th percentile of the cameras' distances from it becomes
   1; the box is [-1, 1]^3 and the background goes on beyond it. Inward means that the focus lies ahead of 4 of 5
   cameras and that the axes' directions spread by more than 8 degrees (root mean square).
7. Photos that look one way: the centre lies at the points' median depth (without points, at the focus if it
   lies ahead, else at ten times the cameras' spread) ahead of the mean camera; what the photos show at that depth
   fits in [-1, 1]^3.
8. Photos that look outward: the centre is the mean camera, and the points' median distance (without points, four times
   the cameras' spread) becomes 1.

For 6 to 8, near is half of the 1st percentile of the distances between cameras and the points in their view, far twice
the 99th; without points, near is 5% of the median distance to the centre, and far five times the farthest corner's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from data.camera import Camera, Cameras
from data.shots import Capture, Shot

_UNIT_BOX = np.array([[-1.0] * 3, [1.0] * 3])


@dataclass
class Bounds:
    """`transform` (4x4) takes the file's world to the scene's; the rest is in scene units, as in `Scene`."""

    transform: np.ndarray
    box: np.ndarray
    near: float
    far: float
    bounded: bool


def find_bounds(capture: Capture, cut_out: bool) -> Bounds:
    """The module's rules applied to a capture. `cut_out`: the photos show an object before nothing, or a plain colour."""
    shots = [s for s in capture.shots if not s.test]
    poses = np.stack([s.pose for s in shots])
    if capture.transform is not None and capture.near_far is not None:
        near, far = capture.near_far
        moved = move_poses(poses, capture.transform)
        return Bounds(capture.transform, _frusta(shots, moved, near, far, along_ray=True), near, far, True)
    if capture.box is not None:
        return _in_box(poses, capture.box, similarity(capture.box.mean(0), 2 / np.ptp(capture.box, axis=0).max()))
    if capture.depths is not None:
        return _between_depths(shots, poses, capture.depths)
    if cut_out and capture.synthetic_box is not None and _looks_at(poses, capture.synthetic_box):
        return _in_box(poses, capture.synthetic_box, np.eye(4))
    centre = focus(poses)
    if cut_out and centre is not None:
        reach = np.linalg.norm(poses[:, :, 3] - centre, axis=1)
        half = np.max(reach * np.sin([_half_angle(s.lens) for s in shots]))
        box = np.stack((centre - half, centre + half))
        return _in_box(poses, box, similarity(centre, 1 / half))
    return _open(shots, poses, centre, capture.points)


def similarity(centre: np.ndarray, scale: float) -> np.ndarray:
    """The 4x4 matrix of x -> scale (x - centre)."""
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = -scale * np.asarray(centre)
    return matrix


def move_poses(poses: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Poses "n 3 4" carried along by a similarity without rotation; their rotations stay orthonormal."""
    moved = poses.copy()
    moved[:, :, 3] = poses[:, :, 3] @ transform[:3, :3].T + transform[:3, 3]
    return moved


def focus(poses: np.ndarray) -> np.ndarray | None:
    """The point nearest to all optical axes (least squares); None if the photos don't look inward (rule 6)."""
    centre, ahead = poses[:, :, 3], -poses[:, :, 2]
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    spread = np.linalg.eigvalsh(across.mean(0))[0]  # mean squared sine of the axes' angles to their main direction
    if spread < np.sin(np.radians(8)) ** 2:
        return None
    origin = centre.mean(0)  # so that a scene far from its origin keeps its digits
    point = origin + np.linalg.solve(across.sum(0), np.einsum("nij,nj->i", across, centre - origin))
    depth = np.einsum("ni,ni->n", point - centre, ahead)
    return point if (depth > 0).mean() >= 0.8 else None


def find_up(poses: torch.Tensor) -> torch.Tensor:
    """The mean of the cameras' y axes "n 3 4", unit length; z where they point everywhere."""
    mean = poses[:, :, 1].mean(0)
    return mean / mean.norm() if mean.norm() > 1e-3 else torch.tensor([0.0, 0.0, 1.0])


def _in_box(poses: np.ndarray, box: np.ndarray, transform: np.ndarray) -> Bounds:
    box = box @ transform[:3, :3].T + transform[:3, 3]
    centre = move_poses(poses, transform)[:, :, 3]
    outside = np.maximum(np.maximum(box[0] - centre, centre - box[1]), 0)
    corner = np.maximum(np.abs(centre - box[0]), np.abs(centre - box[1]))
    middle = focus(move_poses(poses, transform))
    reach = np.median(np.linalg.norm(centre - (box.mean(0) if middle is None else middle), axis=1))
    near = max(np.linalg.norm(outside, axis=1).min(), 0.05 * reach, 1e-3 * np.ptp(box, axis=0).max())
    return Bounds(transform, box, float(near), float(np.linalg.norm(corner, axis=1).max()), True)


def _between_depths(shots: list[Shot], poses: np.ndarray, depths: np.ndarray) -> Bounds:
    near = 0.9 * np.percentile(depths[:, 0], 10)
    far = 1.1 * np.percentile(depths[:, 1], 90)
    box = _frusta(shots, poses, near, far, along_ray=False)
    scale = 2 / np.ptp(box, axis=0).max()
    transform = similarity(box.mean(0), scale)
    slant = np.cos(np.median([_half_angle(s.lens, corner=True) for s in shots]))
    return Bounds(transform, (box - box.mean(0)) * scale, near * scale, far * scale / slant, True)


def _looks_at(poses: np.ndarray, box: np.ndarray) -> bool:
    point = focus(poses)
    if point is None or (point < box[0]).any() or (point > box[1]).any():
        return False
    reach = np.median(np.linalg.norm(poses[:, :, 3] - box.mean(0), axis=1))
    return bool(2 <= reach <= 12)


def _open(shots: list[Shot], poses: np.ndarray, centre: np.ndarray | None, points: np.ndarray | None) -> Bounds:
    """Rules 6 to 8: photos whose background goes on beyond the box."""
    camera, ahead = poses[:, :, 3], -poses[:, :, 2]
    middle, main = camera.mean(0), ahead.mean(0)
    spread = float(np.linalg.norm(camera - middle, axis=1).max())
    seen = None if points is None else _seen(shots, poses, points)
    if centre is not None:
        half = np.percentile(np.linalg.norm(camera - centre, axis=1), 95)
    elif np.linalg.norm(main) > 0.5:
        main /= np.linalg.norm(main)
        depth = _parallel_depth(poses, spread) if seen is None else np.median(seen[:, 1])
        centre = middle + depth * main
        half = depth * np.tan(min(max(_half_angle(s.lens) for s in shots), 1.2)) + spread
    else:
        centre = middle
        half = 4 * spread or 1.0
        if points is not None and seen is not None:
            half = np.median(np.linalg.norm(points - middle, axis=1))
    transform = similarity(centre, 1 / half)
    if seen is None:
        reach = np.linalg.norm(camera - centre, axis=1) / half
        near, far = 0.05 * max(np.median(reach), 0.1), 5 * (reach.max() + np.sqrt(3))
    else:
        near, far = 0.5 * np.percentile(seen[:, 0], 1) / half, 2 * np.percentile(seen[:, 0], 99) / half
    return Bounds(transform, _UNIT_BOX.copy(), float(near), float(far), False)


def _parallel_depth(poses: np.ndarray, spread: float) -> float:
    """A guess at how far away the subject is, from axes that are nearly parallel."""
    centre, ahead = poses[:, :, 3], -poses[:, :, 2]
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    if np.linalg.cond(across.sum(0)) < 1e6:
        offset = np.linalg.solve(across.sum(0), np.einsum("nij,nj->i", across, centre - centre.mean(0)))
        depth = float(offset @ ahead.mean(0))
        if 2 * spread < depth < 30 * spread:
            return depth
    return 10 * spread or 1.0


def _seen(shots: list[Shot], poses: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """Distance and depth "m 2" of the pairs of a camera and a point in its view; None if there are too few.
    At most 64 cameras and 4096 points are looked at, evenly chosen. File units."""
    points = points[:: max(1, len(points) // 4096)]
    rows = []
    for i in range(0, len(shots), max(1, len(shots) // 64)):
        offset = points - poses[i, :, 3]
        distance = np.linalg.norm(offset, axis=1)
        depth = -offset @ poses[i, :, 2]
        view = depth > np.cos(_half_angle(shots[i].lens)) * distance
        rows.append(np.stack((distance[view], depth[view]), 1))
    pairs = np.concatenate(rows)
    pairs = pairs[pairs[:, 1] > 0]
    return pairs if len(pairs) >= 10 else None


def _half_angle(lens: Camera, corner: bool = False) -> float:
    """The angle, in radians, between the lens's axis and the middle of the image's longer side, or its corner."""
    half = 0.5 * lens.width, 0.5 * lens.height
    wide = half[0] / lens.fx > half[1] / lens.fy
    edge = half[0] * (corner or wide), half[1] * (corner or not wide)
    pixel = torch.tensor([[lens.cx + edge[0], lens.cy + edge[1]]], dtype=torch.float64)
    return float(torch.arccos(-lens.rays(pixel)[1][0, 2]))


def _frusta(shots: list[Shot], poses: np.ndarray, near: float, far: float, along_ray: bool) -> np.ndarray:
    """The box "2 3" around what the shots see between near and far, from 5x5 rays each. Distances are along the
    rays, or depths. The outermost 1% of the corners are left out on each side: one stray camera mustn't widen it."""
    cameras = Cameras.stack([s.lens.with_pose(torch.eye(3, 4)) for s in shots])
    step = torch.linspace(0, 1, 5, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(step, step, indexing="ij"), -1).reshape(-1, 2)
    size = torch.tensor([(s.lens.width, s.lens.height) for s in shots], dtype=torch.float64)
    pixels = (grid * size[:, None]).reshape(-1, 2)
    index = torch.arange(len(shots)).repeat_interleave(len(grid))
    local = cameras.rays(index, pixels)[1].reshape(len(shots), -1, 3).numpy()
    if not along_ray:
        local = local / np.maximum(-local[..., 2:], 0.05)
    world = np.einsum("nij,nkj->nki", poses[:, :, :3], local)
    ends = np.concatenate([poses[:, None, :, 3] + t * world for t in (near, far)], 1).reshape(-1, 3)
    return np.percentile(ends, (0.5, 99.5), axis=0)
