"""Points through a photo's deformation, as a network of the place and the photo's code tells it (Nerfies, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerf.kernels.mlp import mlp
from nerf.kernels.screw import screw
from nerf.kernels.space import Space, constant


class WarpField(NamedTuple):
    """A deformation that photos share; each adds a code.

    With y = (x - center) / half, a point in units of a space's cube: a network with rectified hidden layers makes a twist
    (r, v), or a translation, of y's frequencies and the code, and the point moves by it, from y to y'. A code may end in
    twists of rigid parts: a second network's softmax says how much of each a place takes.

    Args:
        weights, biases, skips: the network, as `mlp` takes it; its inputs are `frequencies` and then the code.
        share_weights, share_biases: the second network, a row of outputs a part; its input is `frequencies`. Empty: no parts.
        window: weight of each frequency band (Nerfies, equation 8).
        fade: 0: everything moves. Otherwise only what is inside the cube, and motion sets in over this share of its half
            side behind the walls.
        turns: the outputs are six numbers, a twist (equations 3 to 5); otherwise three, a translation (equation 2).
    """

    weights: list[Tensor]
    biases: list[Tensor]
    skips: tuple[int, ...]
    share_weights: list[Tensor]
    share_biases: list[Tensor]
    window: Float[Tensor, "b"]
    fade: float
    turns: bool

    @property
    def parts(self) -> int:
        """How many rigid parts it has beside its network."""
        return len(self.share_biases[-1]) if self.share_biases else 0


class Warping(NamedTuple):
    """A deformation, and the code of each ray."""

    field: WarpField
    code: Float[Tensor, "r k"]


def angular(bands: int, like: Tensor) -> Float[Tensor, "b"]:
    """Each band's angular frequency."""
    return math.pi * 2.0 ** torch.arange(bands, device=like.device, dtype=like.dtype)


def frequencies(x: Float[Tensor, "p i"], window: Float[Tensor, "b"]) -> Float[Tensor, "p o"]:
    """sin(2^0 pi x), cos(2^0 pi x), ..., sin(2^(b-1) pi x), cos(2^(b-1) pi x), each band times its weight."""
    phase = x[:, None, :] * angular(len(window), x)[:, None]  # p b i
    waves = torch.stack([torch.sin(phase), torch.cos(phase)], dim=2)  # p b 2 i
    return (waves * window[:, None, None]).flatten(1)


def share(y: Float[Tensor, "p 3"], fade: float) -> Float[Tensor, "p 1"]:
    """How much of their motion points inside of a walled cube make."""
    return ((1 - y.abs()) / fade).clamp(max=1).prod(-1, keepdim=True)


def displacement(
    y: Float[Tensor, "p 3"], code: Float[Tensor, "p k"], field: WarpField, network: Callable[..., Tensor] = mlp
) -> Float[Tensor, "p 3"]:
    """y' - y before it is faded. `network` computes `mlp`."""
    encoded = torch.cat([y, frequencies(y, field.window)], dim=-1)
    code, twists = code.split([code.shape[1] - 6 * field.parts, 6 * field.parts], dim=1)
    inputs = torch.cat([encoded, code], dim=-1)
    out = network(inputs, field.weights, field.biases, "relu", "none", skips=field.skips)
    if field.parts:
        raw = network(encoded, field.share_weights, field.share_biases, "relu", "none")
        out = out + (torch.softmax(raw, dim=-1)[:, :, None] * twists.reshape(len(y), field.parts, 6)).sum(1)
    return screw(y, out[:, :3], out[:, 3:]) - y if field.turns else out


def warp(
    x_world: Float[Tensor, "p 3"],
    code: Float[Tensor, "r k"],
    ray: Int[Tensor, "p"] | None,
    space: Space,
    field: WarpField,
    network: Callable[..., Tensor] = mlp,
) -> Float[Tensor, "p 3"]:
    """x_world -> x_canonical, differentiable in everything but `ray` and the space.

    Args:
        code: a row a ray.
        ray: the ray of each point; None: a row of `code` a point.
        space: the cube that places are told in.
        network: computes `nerf.kernels.mlp.mlp`.
    """
    y = (x_world - constant(space.center, x_world)) / space.half
    # index_select: its gradient is a plain sum of rows, where that of table[...] sorts them first.
    code = code if ray is None else code.index_select(0, ray)
    if not field.fade:
        return x_world + displacement(y, code, field, network) * space.half
    inside = (y.detach().abs().amax(-1) < 1).nonzero().squeeze(1)
    y = y[inside]
    motion = displacement(y, code[inside], field, network) * (share(y, field.fade) * space.half)
    return x_world.index_add(0, inside, motion)
