"""Whole pictures from a model: colour, depth and opacity of a camera's view."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from data.camera import Camera
from nerf.model import MarchConfig, SceneModel
from nerf.rays import Rays, clip
from nerf.volume import render_rays
from nerf.waves import render_waves


class Picture(NamedTuple):
    """A rendered view. depth is the mean distance of what is seen (scene units), 0 where nothing is."""

    rgb: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"]
    opacity: Float[Tensor, "h w"]


@torch.no_grad()
def render_image(
    model: SceneModel,
    camera: Camera,
    time: float | None = None,
    appearance_time: float | None = None,
    chunk: int = 8192,
) -> Picture:
    """Render what `camera` sees.

    Args:
        time: the instant whose deformation is undone, in [0, 1]; None shows the canonical scene itself.
        appearance_time: the instant whose exposure is used; None: `time`, or the middle of the capture.
        chunk: rays at once.

    Returns:
        rgb in [0, 1], depth, opacity.
    """
    origins, directions = camera.rays(None)
    look = appearance_time if appearance_time is not None else (0.5 if time is None else time)
    warp = model.codes(torch.tensor([time]))[0] if time is not None else None
    appearance = model.codes(torch.tensor([look]))[1]
    marched = isinstance(model.config.sampling, MarchConfig)
    background = None if model.geometry.background is None else torch.tensor([model.geometry.background])
    rgb, depth, opacity = [], [], []
    for o, d in zip(origins.split(chunk), directions.split(chunk)):
        near, far = clip(o, d, model.geometry)
        rays = Rays(o, d, near, far, *(None if c is None else c.expand(len(o), -1) for c in (warp, appearance)))
        out = render_waves(model, rays, background) if marched else render_rays(model, rays).out
        rgb.append(out.rgb)
        depth.append(out.depth / out.opacity.clamp_min(1e-6))
        opacity.append(out.opacity)
    shape = (camera.height, camera.width)
    return Picture(
        torch.cat(rgb).clamp(0, 1).reshape(*shape, 3),
        torch.cat(depth).reshape(shape),
        torch.cat(opacity).reshape(shape),
    )
