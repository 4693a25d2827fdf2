"""Whether what was read can be learned from: numbers that float32 holds, cameras that see, photos that show something."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data.bounds import Bounds
from data.camera import Camera, Cameras
from data.errors import mismatch

NEAREST = 1e-7  # of far: what float32 can still tell apart along a ray


def check_bounds(bounds: Bounds, source: Path) -> None:
    """Raises SceneError for bounds that enclose nothing, or that no ray can be marched between."""
    finite = np.isfinite(bounds.box).all() and np.isfinite(bounds.transform).all() and np.isfinite(bounds.far)
    if not (finite and NEAREST * bounds.far < bounds.near < bounds.far and (np.ptp(bounds.box, axis=0) > 0).all()):
        raise mismatch(
            source, "cameras", "poses and depths that enclose a scene", f"near {bounds.near:g}, far {bounds.far:g}"
        )


def moved_points(points: Float[np.ndarray, "n 3"], transform: Float[np.ndarray, "4 4"], source: Path) -> Tensor:
    """Points of the file's world in scene units, float32 "n 3". Raises SceneError where one is beyond float32."""
    moved = torch.from_numpy(points @ transform[:3, :3].T + transform[:3, 3]).float()
    if not moved.isfinite().all():
        raise mismatch(source, "points", "coordinates that scene units can tell", f"{np.abs(points).max():g}")
    return moved


def check_rays(names: Sequence[str], cameras: Sequence[Camera], source: Path) -> None:
    """Raises SceneError for a camera whose rays are no numbers: its place or its lens is beyond all measure."""
    stack = Cameras.stack(cameras)
    index = torch.arange(len(cameras)).repeat_interleave(3)
    at = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]).repeat(len(cameras), 1)
    sizes = torch.tensor([(camera.width, camera.height) for camera in cameras])[index]
    origins, directions = stack.rays(index, at * sizes)
    bad = ~(origins.isfinite().all(-1) & directions.isfinite().all(-1) & (directions.norm(dim=-1) > 0.5))
    if bad.any():
        i = int(index[bad][0])
        found = f"fx {cameras[i].fx:g}, cx {cameras[i].cx:g} at {cameras[i].pose[:, 3].tolist()}"
        raise mismatch(source, f"camera of {names[i]}", "a place and a lens whose rays are numbers", found)


PLAIN = 2  # gray levels within which photos are of one colour


def warn_of_little(spans: Sequence[tuple[int, int]], places: Float[np.ndarray, "n 3"], source: Path) -> None:
    """Warn of training photos that a scene can't be learned from, though a network will fit them: they are all from one place
    (one photo is), so that they show no depth, or of one colour all over.

    Args:
        spans: the lowest and the highest value of each.
        places: where they were taken, in the file's units.
    """
    apart = np.linalg.norm(places - places.mean(0), axis=1).max()
    if apart <= 1e-6 * np.abs(places).max():
        found = "one photo" if len(spans) == 1 else f"{len(spans)} from one place"
        said = "they show no depth, so views from elsewhere will be wrong"
        warnings.warn(f"{source}: expected training photos from different places, found {found}: {said}", stacklevel=3)
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    if high - low > PLAIN:
        return
    said = f"values from {low} to {high}: too dark, too bright, or wholly transparent"
    warnings.warn(f"{source}: expected training photos that show something, found one colour, {said}", stacklevel=3)
