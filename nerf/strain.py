"""How far a 3 x 3 matrix is from a rotation: what the elastic loss asks of a warp's Jacobian."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

NEAR = 1e-4  # eigenvalues closer than this share of the smallest are taken for one another in quotients of differences


def log_strain(jacobian: Float[Tensor, "p 3 3"], floor: float = 1e-6) -> Float[Tensor, "p"]:
    """||log Sigma||_F^2, the sum of the squared logarithms of the singular values (Nerfies, equation 6).

    In closed form, in float64: the squares of the singular values are the eigenvalues of C = J^T J, the roots of a cubic,
    and the gradient is 2 J C^-1 log Sigma = J g(C) with g(x) = log(x) / x, which needs no singular vectors and is smooth
    where singular values are equal, as at the identity.

    Args:
        floor: smaller singular values count as this one, and are not pulled at.
    """
    return _LogStrain.apply(jacobian, floor)


class _LogStrain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, jacobian, floor):
        exact = jacobian.double()
        stretch = exact.mT @ exact
        squares = eigenvalues(stretch)
        ctx.save_for_backward(exact, stretch, squares)
        ctx.floor, ctx.dtype = floor**2, jacobian.dtype
        return (squares.clamp_min(floor**2).log() / 2).square().sum(0).to(jacobian.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        exact, stretch, squares = ctx.saved_tensors
        slope = exact @ _of_matrix(stretch, squares, ctx.floor)
        return (slope * grad.double()[:, None, None]).to(ctx.dtype), None


def eigenvalues(c: Float[Tensor, "p 3 3"]) -> Float[Tensor, "3 p"]:
    """The eigenvalues of symmetric matrices, largest first: the roots of their cubic (Smith 1961).

    Two that are nearly equal are found to sqrt(epsilon) of what parts them from the third; their sum, to epsilon.
    """
    xx, xy, xz, _, yy, yz, _, _, zz = c.flatten(1).T.contiguous()
    mean = (xx + yy + zz) / 3
    x, y, z = xx - mean, yy - mean, zz - mean
    size = ((x * x + y * y + z * z + 2 * (xy * xy + xz * xz + yz * yz)) / 6).sqrt()
    det = x * (y * z - yz * yz) - xy * (xy * z - yz * xz) + xz * (xy * yz - y * xz)
    cubed = size**3
    angle = (det / torch.where(cubed > 0, 2 * cubed, 1.0)).clamp(-1, 1).acos() / 3
    high, low = (mean + 2 * size * torch.cos(angle + turn) for turn in (0.0, 2 * math.pi / 3))
    return torch.stack([high, 3 * mean - high - low, low])


def _of_matrix(c: Float[Tensor, "p 3 3"], squares: Float[Tensor, "3 p"], floor: float) -> Float[Tensor, "p 3 3"]:
    """g(C) for g(x) = log(x) / x above `floor` and 0 below: Newton's polynomial through g at the eigenvalues."""
    high, middle, low = squares
    near = NEAR * low.abs()

    def derivatives(x: Tensor) -> list[Tensor]:
        log, inside = x.clamp_min(floor).log(), x > floor
        safe = x.clamp_min(floor)
        return [torch.where(inside, f, 0.0) for f in (log / safe, (1 - log) / safe**2, (2 * log - 3) / safe**3)]

    def quotient(difference: Tensor, by: Tensor, limit: Tensor) -> Tensor:
        close = by.abs() <= near
        return torch.where(close, limit, difference / torch.where(close, 1.0, by))

    def first(a: Tensor, b: Tensor) -> Tensor:  # g[a, b]
        return quotient(derivatives(a)[0] - derivatives(b)[0], a - b, derivatives((a + b) / 2)[1])

    by_high = first(high, low)
    pair = (middle + low) / 2
    _, slope, curve = derivatives(pair)
    limit = quotient(slope - first(high, pair), pair - high, curve / 2)
    by_both = quotient(first(high, middle) - by_high, middle - low, limit)
    eye = torch.eye(3, dtype=c.dtype, device=c.device)
    from_high, from_low = c - high[:, None, None] * eye, c - low[:, None, None] * eye
    value = derivatives(high)[0][:, None, None] * eye + by_high[:, None, None] * from_high
    return value + by_both[:, None, None] * (from_high @ from_low)
