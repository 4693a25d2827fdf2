"""Whole pictures from a model: colour, depth and opacity of a camera's view."""

from __future__ import annotations

import time as clock
from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from data.camera import Camera
from nerf.kernels.frame import Motion
from nerf.kernels.space import constant
from nerf.model import MarchConfig, SceneModel
from nerf.rays import Rays, between, clip
from nerf.volume import render_rays
from nerf.waves import render_waves

R = TypeVar("R")

CHUNK = 8192  # rays at once
FEWEST, MOST = 16, 65536  # rays of a slice


class Picture(NamedTuple):
    """A rendered view, on the CPU. depth is the mean distance of what is seen (scene units), 0 where nothing is."""

    rgb: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"]
    opacity: Float[Tensor, "h w"]


class Box(NamedTuple):
    """An axis-aligned box of the scene, corners "3" in scene units: what lies outside of it isn't shown."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


def render_image(
    model: SceneModel,
    camera: Camera,
    time: float | None = None,
    appearance_time: float | None = None,
    lens: int | None = None,
) -> Picture:
    """Render what `camera` sees.

    Args:
        time: the instant whose deformation is undone, in [0, 1]; None shows the canonical scene itself.
        appearance_time: the instant whose exposure is used; None: `time`, or the middle of the capture.
        lens: index of the camera whose code colours have, where cameras have codes; None: the mean of them.

    Returns:
        rgb in [0, 1], depth, opacity.
    """
    return finished(rendering(model, camera, time, appearance_time, lens))


def finished(work: Generator[Any, None, R]) -> R:
    """Drive work that is done in slices to its end; what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@torch.no_grad()
def rendering(
    model: SceneModel,
    camera: Camera,
    time: float | None = None,
    appearance_time: float | None = None,
    lens: int | None = None,
    *,
    background: tuple[float, float, float] | None = None,
    crop: Box | None = None,
    motion: Motion | None = None,
    pace: float | None = None,
) -> Generator[float, None, Picture]:
    """`render_image` in slices: yields the share that is done, returns the picture.

    Args:
        background: the colour behind everything; None: the scene's own.
        crop: show only what lies in this box.
        motion: the warp at `time` as `SceneModel.motion` gives it, where the caller has it already.
        pace: seconds that a slice should take, so that other work can go on between slices; None: CHUNK rays each.
    """
    look = appearance_time if appearance_time is not None else (0.5 if time is None else time)
    warp = model.codes(torch.tensor([time]))[0] if time is not None else None
    if motion is None and time is not None:
        motion = model.motion(time)
    codes = warp, model.codes(torch.tensor([look]), lens)[1]
    marched = isinstance(model.config.sampling, MarchConfig)
    behind = model.geometry.background if background is None else background
    ground = None if behind is None else torch.tensor([behind]).to(model.device)
    origins, directions = camera.rays(None)
    size = CHUNK if pace is None or marched else 4 * FEWEST
    first, count, parts = 0, len(origins), []
    while first < count:
        began = clock.perf_counter()
        o, d = (ends[first : first + size].to(model.device) for ends in (origins, directions))
        near, far = clip(o, d, model.geometry)
        if crop is not None:
            near, far = between(o, d, near, far, constant(crop.low, o), constant(crop.high, o))
        rays = Rays(o, d, near, far, *(None if c is None else c.expand(len(o), -1) for c in codes))
        out = render_waves(model, rays, ground, motion) if marched else render_rays(model, rays, background=ground).out
        seen = out.rgb, out.depth / out.opacity.clamp_min(1e-6), out.opacity
        parts.append(tuple(part.to(origins.device) for part in seen))
        first += size
        if pace is not None:
            faster = pace / max(clock.perf_counter() - began, 1e-6)
            size = int(min(max(size * min(max(faster, 0.25), 4.0), FEWEST), MOST))
        yield min(first / count, 1.0)
    rgb, depth, opacity = (torch.cat(part) for part in zip(*parts))
    shape = (camera.height, camera.width)
    return Picture(rgb.clamp(0, 1).reshape(*shape, 3), depth.reshape(shape), opacity.reshape(shape))
