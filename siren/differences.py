"""Gradient and Laplacian of an image: the targets that a network's derivatives are fitted to.

They are the exact derivatives, at the pixel centres, of the smooth function that passes through all pixels: the sum of
cosines of the discrete cosine transform. A network that has them is that function up to what derivatives leave open, so
the photo comes back; Sobel's kernel, which the paper takes, also blurs, and the photo would come back blurred.

The cosines have no slope across the picture's border. Where only second derivatives are given, that pins down what they
leave open but for a constant.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from siren.image import Grid


def image_gradient(values: Float[Tensor, "h w c"], pitch: float, finer: int = 1) -> Float[Tensor, "H W c 2"]:
    """Derivatives by x (columns) and y (rows).

    Args:
        pitch: distance between pixels.
        finer: evaluate at the centres of pixels that are so many times smaller: H = h finer, W = w finer.
    """
    by_x = _series(_series(values, 1, 1, pitch, finer), 0, 0, pitch, finer)
    by_y = _series(_series(values, 0, 1, pitch, finer), 1, 0, pitch, finer)
    return torch.stack([by_x, by_y], -1)


def image_laplacian(values: Float[Tensor, "h w c"], pitch: float, finer: int = 1) -> Float[Tensor, "H W c"]:
    """Sum of the second derivatives by x and y; arguments as `image_gradient`."""
    by_x = _series(_series(values, 1, 2, pitch, finer), 0, 0, pitch, finer)
    return by_x + _series(_series(values, 0, 2, pitch, finer), 1, 0, pitch, finer)


def mean_rise(laplacian: Float[Tensor, "h w c"], pitch: float, distance: float) -> Float[Tensor, "h w c"]:
    """By how much the mean of a point's four neighbours, at a distance d along x and y, exceeds the point itself, if that
    is the Laplacian: (1 - (cos a d + cos b d) / 2) / (a^2 + b^2) of it for a wave of frequencies (a, b).

    The picture continues mirrored beyond its border. For small distances, d^2 / 4 times the Laplacian.
    """
    height, width = laplacian.shape[:2]
    mirrored = torch.cat([laplacian, laplacian.flip(0)], 0).double()
    mirrored = torch.cat([mirrored, mirrored.flip(1)], 1)
    b = torch.fft.fftfreq(2 * height, pitch / (2 * math.pi), dtype=torch.float64)[:, None]
    a = torch.fft.rfftfreq(2 * width, pitch / (2 * math.pi), dtype=torch.float64)
    square = (a**2 + b**2).clamp_min(1e-12)
    factor = (1 - (torch.cos(a * distance) + torch.cos(b * distance)) / 2) / square
    spectrum = torch.fft.rfft2(mirrored, dim=(0, 1)) * factor[..., None]
    rise = torch.fft.irfft2(spectrum, s=mirrored.shape[:2], dim=(0, 1))
    return rise[:height, :width].to(laplacian.dtype)


def _series(values: Tensor, axis: int, order: int, pitch: float, finer: int) -> Tensor:
    """d^order / d axis^order of the cosine series along an axis, at `finer` times as many centres.

    The mirrored signal's Fourier series is that of cosines about a point half a pixel before the first centre.
    """
    if order == 0 and finer == 1:
        return values
    n = values.shape[axis]
    mirrored = torch.cat([values, values.flip(axis)], axis).double()
    k = torch.arange(n, dtype=torch.float64)  # the highest frequency is zero at the pixels, and left out
    shift = torch.exp(0.5j * math.pi * k / n * (1 / finer - 1))  # from those centres to these
    factor = finer * shift * (1j * math.pi * k / (n * pitch)) ** order
    shape = [1] * values.ndim
    shape[axis] = n
    spectrum = torch.fft.rfft(mirrored, dim=axis).narrow(axis, 0, n) * factor.reshape(shape)
    return torch.fft.irfft(spectrum, n=2 * n * finer, dim=axis).narrow(axis, 0, n * finer).to(values.dtype)


def without_constant(values: Float[Tensor, "h w c"], truth: Float[Tensor, "h w c"]) -> Float[Tensor, "h w c"]:
    """`values` shifted to the truth's mean: what a gradient leaves open."""
    return values + (truth - values).mean((0, 1))


def without_plane(values: Float[Tensor, "h w c"], truth: Float[Tensor, "h w c"]) -> Float[Tensor, "h w c"]:
    """`values` plus the constant and linear part that bring them closest to the truth: of what a Laplacian leaves
    open, the part that has no curvature."""
    points = Grid(*values.shape[:2]).all_points()
    coefficients = left_open(values.flatten(0, 1), truth.flatten(0, 1), points, "laplacian")
    return values + plane(coefficients, points).reshape(values.shape)


def left_open(
    values: Float[Tensor, "p c"], truth: Float[Tensor, "p c"], points: Float[Tensor, "p 2"], target: str
) -> Float[Tensor, "3 c"]:
    """Coefficients of 1, x and y that bring `values` closest to the truth at those points: of the constant alone where
    `target` is "gradient", of all where it is "laplacian"."""
    rest = (truth - values).double()
    basis = F.pad(points, (1, 0), value=1.0).double()
    if target == "gradient":
        basis[:, 1:] = 0
    # gelsd: the solution of least size, also where all points lie in a line
    return torch.linalg.lstsq(basis, rest, driver="gelsd").solution.to(values.dtype)


def plane(coefficients: Float[Tensor, "3 c"], points: Float[Tensor, "p 2"]) -> Float[Tensor, "p c"]:
    """What such coefficients add at points."""
    return F.pad(points, (1, 0), value=1.0) @ coefficients
