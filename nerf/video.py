"""Colours and depths as pictures' bytes."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_bytes(rgb: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours in [0, 1] as bytes, rounded to the nearest."""
    return (rgb.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


@cache
def _palette(name: str) -> Tensor:
    import matplotlib

    return torch.from_numpy(np.array(matplotlib.colormaps[name](np.linspace(0, 1, 256)))[:, :3]).float()


def colormap(values: Float[Tensor, "h w"], name: str = "magma") -> Float[Tensor, "h w 3"]:
    """Values in [0, 1] as colours of one of matplotlib's maps; "magma" is even to the eye, dark to bright."""
    return _palette(name)[(values.nan_to_num().clamp(0, 1) * 255).round().long()]


def depth_colors(
    depth: Float[Tensor, "h w"], opacity: Float[Tensor, "h w"], near: float, far: float
) -> Float[Tensor, "h w 3"]:
    """Depth as colour: bright at `near`, dark at `far`, even in disparity (1 / depth); black where there is nothing."""
    disparity = (1 / depth.clamp_min(1e-9) - 1 / far) / max(1 / near - 1 / far, 1e-9)
    # Not down to the map's black, which stands for nothing.
    return colormap(0.12 + 0.88 * disparity.clamp(0, 1)) * opacity.clamp(0, 1)[..., None]


def depth_range(
    depth: Float[Tensor, " n"], opacity: Float[Tensor, " n"], default: tuple[float, float]
) -> tuple[float, float]:
    """The 2nd and 98th percentile of the depths of what is seen; `default` where nothing is."""
    seen = depth[opacity > 0.5]
    if not len(seen):
        return default
    near, far = torch.quantile(seen[:: max(1, len(seen) // 1_000_000)], torch.tensor([0.02, 0.98])).tolist()
    return max(near, 1e-6), max(far, near * 1.001)
