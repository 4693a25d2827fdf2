"""The map from the world into the unit cube that grids live in."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Space(NamedTuple):
    """A cube of the world, and what is done with the rest of it.

    Args:
        center: the cube's centre, scene units.
        half: half of its side, scene units.
        contract: False: the cube fills [0, 1]^3 and nothing lies outside. True: the cube fills [1/4, 3/4]^3 and
            all of space beyond is squeezed into the rest (Barron et al. 2022, mip-NeRF 360, equation 10, with the
            maximum norm, so that the result is a cube).
    """

    center: tuple[float, float, float]
    half: float
    contract: bool


def constant(values: tuple[float, ...], like: Tensor) -> Float[Tensor, "n"]:
    """Numbers of the host as a tensor of the type and on the device of `like`. A GPU's are kept: to send them each time
    would wait for it."""
    if like.device.type == "cpu":
        return torch.tensor(values, dtype=like.dtype)
    return _kept(values, like.dtype, like.device)


@lru_cache(maxsize=256)
def _kept(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype).to(device)


def to_unit(x_world: Float[Tensor, "p 3"], space: Space) -> Float[Tensor, "p 3"]:
    """x_world -> x_unit in [0, 1]^3 (see `Space`). Differentiable; the identity up to scale inside the cube."""
    y = (x_world - constant(space.center, x_world)) / space.half
    if not space.contract:
        return (y + 1) / 2
    norm = y.abs().amax(-1, keepdim=True).clamp_min(1.0)
    return ((2 - 1 / norm) * (y / norm) + 2) / 4
