"""What a network that is being fitted looks like: any part of it, at any size, with its gradient and Laplacian."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from siren.differences import image_gradient, image_laplacian, left_open, plane
from siren.figures import gradient_colors, gradient_scale, laplacian_grays, laplacian_scale, picture
from siren.image import Grid, to_signal
from siren.network import Siren

MODES = ("image", "gradient", "laplacian", "photo")
Window = tuple[float, float, float, float]
POINTS = {"image": 8192, "gradient": 4096, "laplacian": 3072}  # of a slice, which then takes 20 to 30 ms on two cores
SPARSE = 4096  # pixels at most that tell what derivatives leave open while a fit is under way

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)


@contextmanager
def exactly(siren: Siren) -> Iterator[None]:
    """The network in float32, which its derivatives and fine gradations need; a fit may multiply bfloat16."""
    kept = siren.precision
    siren.precision = "float32"
    try:
        with torch.no_grad():
            yield
    finally:
        siren.precision = kept


def values_at(siren: Siren, points: Float[Tensor, "p 2"], mode: str) -> Float[Tensor, "p c *d"]:
    """Values, gradients "p c 2" or Laplacians at points."""
    with exactly(siren):
        return (
            siren(points)
            if mode == "image"
            else siren.gradient(points)
            if mode == "gradient"
            else siren.laplacian(points)
        )


def opened(
    siren: Siren, truth: Float[Tensor, "h w c"], target: str, every: bool
) -> Generator[None, None, Float[Tensor, "3 c"]]:
    """What a fit to derivatives leaves open, taken from the image: coefficients of 1, x and y; slice by slice.

    Args:
        every: look at every pixel; else at some thousand.
    """
    grid = Grid(*truth.shape[:2])
    if target == "image":
        return torch.zeros(3, truth.shape[2])
    step = 1 if every else max(1, len(grid) // SPARSE)
    indices = torch.arange(step // 2, len(grid), step)
    points, found = grid.points(indices), []
    for block in points.split(POINTS["image"]):
        found.append(values_at(siren, block, "image"))
        yield
    return left_open(torch.cat(found), truth.flatten(0, 1)[indices], points, target)


def rendered(
    siren: Siren,
    coefficients: Float[Tensor, "3 c"],
    grid: Grid,
    window: Window,
    shown: Grid,
    mode: str,
) -> Generator[None, None, Float[Tensor, "H W c *d"]]:
    """A part of the picture at any size, slice by slice.

    Args:
        coefficients: of 1, x and y, which are added (see `opened`).
        grid: of the image that was fitted.
        window: left, top, right and bottom as shares of it.
        shown: size of the result.
    """
    parts = []
    for points in grid.within(window, shown).split(POINTS[mode]):
        part = values_at(siren, points, mode)
        if mode == "image":
            part = part + plane(coefficients, points)
        elif mode == "gradient":
            part = part + coefficients[1:].T
        parts.append(part)
        yield
    return torch.cat(parts).unflatten(0, (shown.height, shown.width))


def pixels_of(values: Tensor, mode: str, scale: float) -> UInt8[np.ndarray, "h w 3"]:
    """Values, gradients or Laplacians as colours; `scale` is the brightest of the last two."""
    match mode:
        case "image":
            return picture(values)
        case "gradient":
            return gradient_colors(values, scale)
    return laplacian_grays(values, scale)


def photo_part(photo: UInt8[np.ndarray, "h w c"], window: Window, shown: Grid) -> UInt8[np.ndarray, "H W 3"]:
    """A part of the photo at any size, its pixels as squares."""
    height, width = photo.shape[:2]
    left, top, right, bottom = window
    columns = (left + (np.arange(shown.width) + 0.5) / shown.width * (right - left)) * width
    rows = (top + (np.arange(shown.height) + 0.5) / shown.height * (bottom - top)) * height
    rows, columns = rows.astype(int).clip(0, height - 1), columns.astype(int).clip(0, width - 1)
    part = photo[rows[:, None], columns[None]]
    return np.repeat(part, 3, -1) if part.shape[2] == 1 else part


def mean_square(
    siren: Siren, coefficients: Float[Tensor, "3 c"], truth: Float[Tensor, "h w c"]
) -> Generator[None, None, float]:
    """Mean squared difference from an image in [-1, 1], slice by slice."""
    grid = Grid(*truth.shape[:2])
    found = yield from rendered(siren, coefficients, grid, WHOLE, grid, "image")
    return float((found - truth).double().square().mean())


def scales(photo: UInt8[np.ndarray, "h w c"]) -> tuple[float, float]:
    """The gradient and the Laplacian that are shown brightest: those of the photo's own."""
    values, pitch = to_signal(photo), Grid(*photo.shape[:2]).pitch
    return gradient_scale(image_gradient(values, pitch)), laplacian_scale(image_laplacian(values, pitch))
