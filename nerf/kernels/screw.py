"""Screw motions of SE(3), and how they change with what they depend on (Nerfies, section 3.1)."""

from __future__ import annotations

from math import factorial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import cross

TERMS = 9  # of the series below: exact to float64 rounding up to an angle of 1


def _series(q: Tensor, first: int, slope: bool = False) -> Tensor:
    """sum_n (-q)^n / (2 n + first)!, or its derivative by q."""
    total = torch.zeros_like(q)
    for n in reversed(range(int(slope), TERMS)):
        total = total * q + (n if slope else 1) * (-1) ** n / factorial(2 * n + first)
    return total


def _coefficients(square: Float[Tensor, "p 1"]) -> tuple[Tensor, Tensor]:
    """b = (1 - cos theta) / theta^2 and c = (theta - sin theta) / theta^3, of theta^2.

    Below an angle of 1 they are their series: finite at 0 with all derivatives, and no digits lost near it.
    """
    small = square < 1
    near, far = torch.where(small, square, 0.0), torch.where(small, 1.0, square)
    theta = far.sqrt()
    b = torch.where(small, _series(near, 2), (1 - torch.cos(theta)) / far)
    return b, torch.where(small, _series(near, 3), (theta - torch.sin(theta)) / (theta * far))


def _coefficients_slopes(square: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of `_coefficients` by theta^2, with sin theta = theta (1 - c theta^2), cos theta = 1 - b theta^2."""
    small = square < 1
    near, far = torch.where(small, square, 0.0), torch.where(small, 1.0, square)
    by_b = torch.where(small, _series(near, 2, slope=True), (1 - c * far - 2 * b) / (2 * far))
    return by_b, torch.where(small, _series(near, 3, slope=True), (b - 3 * c) / (2 * far))


def screw(x: Float[Tensor, "p 3"], r: Float[Tensor, "p 3"], v: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
    """Move x by the screw motion exp([r]x, v) of SE(3): x' = R x + p (Nerfies, equations 3 to 5).

    With theta = |r| and K the cross product with r: R = I + sin(theta)/theta K + (1 - cos theta)/theta^2 K^2 and
    p = (I + (1 - cos theta)/theta^2 K + (theta - sin theta)/theta^3 K^2) v. Since K^3 = -theta^2 K, both gather into
    x' = x + y + b K y + c K^2 y with y = K x + v, b = (1 - cos theta)/theta^2, c = (theta - sin theta)/theta^3.
    """
    b, c = _coefficients((r * r).sum(-1, keepdim=True))
    y = cross(r, x) + v
    ky = cross(r, y)
    return x + y + b * ky + c * cross(r, ky)


def screw_jet(
    x: Float[Tensor, "p 3"],
    r: Float[Tensor, "p 3"],
    v: Float[Tensor, "p 3"],
    by_r: Float[Tensor, "p 3 3"],
    by_v: Float[Tensor, "p 3 3"],
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3 3"]]:
    """`screw` where the twist depends on the place: x' and dx'/dx, given dr/dx and dv/dx.

    The product rule on x' = x + y + b K y + c K^2 y: one column for each coordinate of x, which moves along `eye`.
    """
    square = (r * r).sum(-1, keepdim=True)
    b, c = _coefficients(square)
    y = cross(r, x) + v
    ky = cross(r, y)
    kky = cross(r, ky)
    x_, r_, y_, ky_ = (tensor[:, :, None] for tensor in (x, r, y, ky))
    eye = torch.eye(3, dtype=x.dtype, device=x.device)[None]
    by_y = cross(by_r, x_, dim=1) + cross(r_, eye, dim=1) + by_v
    by_ky = cross(by_r, y_, dim=1) + cross(r_, by_y, dim=1)
    by_kky = cross(by_r, ky_, dim=1) + cross(r_, by_ky, dim=1)
    turn = 2 * (r_ * by_r).sum(1, keepdim=True)  # d theta^2 / dx
    b_slope, c_slope = _coefficients_slopes(square, b, c)
    along = (b_slope * ky + c_slope * kky)[:, :, None] * turn
    return x + y + b * ky + c * kky, eye + by_y + b[:, :, None] * by_ky + c[:, :, None] * by_kky + along
