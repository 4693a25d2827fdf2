"""Spherical harmonics, which a colour's dependence on the direction is encoded with (Mueller et al. 2022, section 5.4)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

COUNT = 16  # of degrees 0 to 3


def harmonics(d: Float[Tensor, "p 3"]) -> Float[Tensor, "p 16"]:
    """Real spherical harmonics of a unit direction, degrees 0 to 3: 16 values, orthonormal over the sphere."""
    x, y, z = d.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    pi = math.pi
    c1, c2, c2z, c2d = (
        math.sqrt(3 / (4 * pi)),
        math.sqrt(15 / (4 * pi)),
        math.sqrt(5 / (16 * pi)),
        math.sqrt(15 / (16 * pi)),
    )
    c33, c32, c31, c30 = (
        math.sqrt(35 / (32 * pi)),
        math.sqrt(105 / (4 * pi)),
        math.sqrt(21 / (32 * pi)),
        math.sqrt(7 / (16 * pi)),
    )
    values = [
        torch.full_like(x, math.sqrt(1 / (4 * pi))),
        c1 * y, c1 * z, c1 * x,
        c2 * x * y, c2 * y * z, c2z * (3 * zz - 1), c2 * x * z, c2d * (xx - yy),
        c33 * y * (3 * xx - yy), c32 * x * y * z, c31 * y * (5 * zz - 1), c30 * z * (5 * zz - 3),
        c31 * x * (5 * zz - 1), c32 / 2 * z * (xx - yy), c33 * x * (xx - 3 * yy),
    ]  # fmt: skip
    return torch.stack(values, dim=-1)
