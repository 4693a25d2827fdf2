"""What a picture of a scene can show: its colour, depth, opacity, the canonical scene, or how it is warped."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data.camera import Camera
from nerf.model import SceneModel
from nerf.picture import Picture, finished, render_image, rendering
from nerf.video import depth_colors, depth_range

Mode = Literal["color", "depth", "opacity", "canonical", "warp", "both"]
Shot = tuple[Camera, float | None]  # a camera and its instant; None: the canonical scene

PROBES, PROBE_SIZE = 8, 64  # frames and pixels (longer side) from which ranges are read


@dataclass(frozen=True)
class Ranges:
    """What the ends of the colour maps stand for, the same for all frames of a film so that colours hold.

    Attributes:
        near, far: distances of the brightest and the darkest depth.
        shift: motion along an axis (scene units) at which that axis's colour is at its end.
    """

    near: float = 1.0
    far: float = 2.0
    shift: float = 1.0


def sized(camera: Camera, width: int | None, even: bool = False, longest: int | None = None) -> Camera:
    """The camera with pictures `width` wide, or at most `longest` on their longer side; `even` rounds both sides."""
    factor = min(1.0, (longest or 1e9) / max(camera.width, camera.height)) if width is None else width / camera.width
    step = 2 if even else 1
    w, h = (max(step, round(side * factor / step) * step) for side in (camera.width, camera.height))
    return camera.scaled(factor, w, h)


@torch.no_grad()
def shifts(model: SceneModel, shot: Shot, picture: Picture) -> Float[Tensor, "h w 3"]:
    """How far the warp takes what is seen, from the instant's scene to the canonical one (scene units)."""
    camera, time = shot
    if model.warp is None or time is None:
        return torch.zeros_like(picture.rgb)
    origins, directions = camera.rays(None)
    x = origins + directions * picture.depth.reshape(-1, 1)
    code = model.codes(torch.tensor([time]))[0]
    assert code is not None
    parts = [part.to(model.device) for part in x.split(1 << 16)]
    moved = torch.cat([model.to_canonical(part, code.expand(len(part), -1)).to(x.device) for part in parts])
    return (moved - x).reshape(picture.rgb.shape)


def warp_colors(shift: Float[Tensor, "h w 3"], opacity: Float[Tensor, "h w"], end: float) -> Float[Tensor, "h w 3"]:
    """Motion as colour: x, y and z about a middle gray as red, green and blue; black where there is nothing."""
    return (0.5 + 0.5 * shift / max(end, 1e-9)).clamp(0, 1) * opacity.clamp(0, 1)[..., None]


def probe(model: SceneModel, film: Sequence[Shot], mode: Mode) -> Ranges:
    """The ranges that colours of a film's mode stand for, from a few small frames of it."""
    if mode not in ("depth", "both", "warp"):
        return Ranges()
    picked = [film[i] for i in np.unique(np.linspace(0, len(film) - 1, PROBES).round().astype(int))]
    shots = [(sized(camera, None, longest=PROBE_SIZE), time) for camera, time in picked]
    pictures = [render_image(model, *shot) for shot in shots]
    opacity = torch.cat([picture.opacity.flatten() for picture in pictures])
    if mode == "warp":
        moved = torch.cat([shifts(model, *pair).abs().amax(-1).flatten() for pair in zip(shots, pictures)])
        seen = moved[opacity > 0.5]
        return Ranges(shift=float(torch.quantile(seen, 0.98)) if len(seen) else 1.0)
    depth = torch.cat([picture.depth.flatten() for picture in pictures])
    near, far = depth_range(depth, opacity, (model.geometry.near, model.geometry.far))
    return Ranges(near, far)


def drawing(
    model: SceneModel, shot: Shot, mode: Mode, ranges: Ranges, look: float | None = None, **how: Any
) -> Generator[float, None, Float[Tensor, "h w 3"]]:
    """One frame in slices, "h w 3" in [0, 1].

    Args:
        look: the instant whose exposure is used; None: the shot's own.
        how: what else `rendering` takes.
    """
    camera, time = shot
    picture: Picture = yield from rendering(model, camera, None if mode == "canonical" else time, look, **how)
    depths = (
        depth_colors(picture.depth, picture.opacity, ranges.near, ranges.far) if mode in ("depth", "both") else None
    )
    if mode == "opacity":
        return picture.opacity[..., None].expand(-1, -1, 3)
    if mode == "warp":
        return warp_colors(shifts(model, shot, picture), picture.opacity, ranges.shift)
    if depths is None:
        return picture.rgb
    return depths if mode == "depth" else torch.cat([picture.rgb, depths], dim=1)


def draw(model: SceneModel, shot: Shot, mode: Mode, ranges: Ranges, look: float | None = None) -> Tensor:
    """`drawing` at once."""
    return finished(drawing(model, shot, mode, ranges, look))
