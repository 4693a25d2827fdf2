"""Pictures of images and their derivatives, as the paper shows them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from siren.command import save_figure
from siren.image import to_pixels


def gradient_colors(gradient: Float[Tensor, "h w c 2"], scale: float | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """A gradient field in colour: hue is its direction, brightness its length (`scale` is full; None: the 99th percentile)."""
    mean = gradient.mean(2).numpy()
    length = np.hypot(mean[..., 0], mean[..., 1])
    full = scale or max(float(np.percentile(length, 99)), 1e-12)
    hue = (np.arctan2(mean[..., 1], mean[..., 0]) / (2 * math.pi)) % 1
    hsv = np.stack([hue, np.full_like(hue, 0.9), np.clip(length / full, 0, 1)], -1)
    return (hsv_to_rgb(hsv) * 255).round().astype(np.uint8)


def gradient_scale(gradient: Float[Tensor, "h w c 2"]) -> float:
    """The length that `gradient_colors` shows at full brightness."""
    return max(float(torch.quantile(gradient.mean(2).norm(dim=-1).flatten()[: 1 << 24], 0.99)), 1e-12)


def laplacian_grays(laplacian: Float[Tensor, "h w c"], scale: float | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """A Laplacian in gray, zero in the middle; `scale` is white (None: the 98th percentile of its size)."""
    mean = laplacian.mean(-1).numpy()
    full = scale or max(float(np.percentile(np.abs(mean), 98)), 1e-12)
    gray = (np.clip(mean / full, -1, 1) * 127.5 + 127.5).round().astype(np.uint8)
    return np.repeat(gray[..., None], 3, -1)


def laplacian_scale(laplacian: Float[Tensor, "h w c"]) -> float:
    """The value that `laplacian_grays` shows as white."""
    return max(float(torch.quantile(laplacian.mean(-1).abs().flatten()[: 1 << 24], 0.98)), 1e-12)


def picture(values: Float[Tensor, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Values in [-1, 1] as RGB pixels."""
    pixels = to_pixels(values)
    return np.repeat(pixels, 3, -1) if pixels.shape[2] == 1 else pixels


def show(axes: Any, pixels: np.ndarray, title: str = "") -> None:
    """Put pixels on axes, without ticks."""
    axes.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) < 400 else "antialiased")
    axes.set_title(title, fontsize=9.5)
    axes.set_xticks([])
    axes.set_yticks([])


def sheet(rows: list[list[tuple[np.ndarray, str]]], file: Path, title: str = "", cell: float = 3.0) -> None:
    """Rows of pictures with their titles, in one file."""
    height, width = rows[0][0][0].shape[:2]
    columns = max(len(row) for row in rows)
    down = cell * height / width
    figure = Figure(figsize=(cell * columns, (down + 0.35) * len(rows) + (0.4 if title else 0.05)), dpi=110)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(grid, rows):
        for axes, cell_of in zip(line, [*row, *[None] * (columns - len(row))]):
            if cell_of is None:
                axes.axis("off")
            else:
                show(axes, *cell_of)
    if title:
        figure.suptitle(title, fontsize=11)
    figure.tight_layout(pad=0.5)
    save_figure(figure, file)
