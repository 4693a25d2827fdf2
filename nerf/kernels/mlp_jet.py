"""A perceptron's value, gradient and second derivatives in one forward pass.

Forward mode: beside its value h, every layer carries d h / d s_i by the coordinates s and a few weighted sums of second
derivatives, each through the same weights. For one layer z = W h + b followed by a:

    value     a(z)
    gradient  a'(z) dz_i
    second    a''(z) sum_ij Q_ij dz_i dz_j + a'(z) d2z            d2z = W applied to the second of h

which is what differentiating twice computes (Sitzmann et al. 2020, section 4.1 and supplement 2), without its graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nerf.kernels.mlp import ACTIVATIONS, unrounded


class Jet(NamedTuple):
    """A network at p points with d coordinates.

    Attributes:
        value: the network's outputs.
        gradient: their derivatives by the coordinates.
        second: one number for each of the m quadratic forms asked for.
    """

    value: Float[Tensor, "p o"]
    gradient: Float[Tensor, "p o d"]
    second: Float[Tensor, "p o m"]


def derivatives(
    z: Float[Tensor, "..."], activation: str, omega: float = 30.0
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """An activation and its first and second derivative; differentiable themselves."""
    match activation:
        case "none":
            return z, torch.ones_like(z), torch.zeros_like(z)
        case "relu":
            return F.relu(z), (z > 0).to(z.dtype), torch.zeros_like(z)
        case "sine":
            s, c = torch.sin(omega * z), torch.cos(omega * z)
            return s, omega * c, -(omega**2) * s
        case "softplus":
            share = torch.sigmoid(z)
            return F.softplus(z), share, share * (1 - share)
        case "sigmoid":
            share = torch.sigmoid(z)
            slope = share * (1 - share)
            return share, slope, slope * (1 - 2 * share)
        case "exponential":
            value = torch.exp(z)
            return value, value, value
    raise ValueError(f"derivatives: expected one of {', '.join(ACTIVATIONS)}, found {activation!r}")


def mlp_jet(
    x: Float[Tensor, "p i"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    forms: Float[Tensor, "m d d"],
    activation: str = "sine",
    omega: float = 30.0,
    dtype: str = "float32",
    tangents: Float[Tensor, "d p i"] | None = None,
    skips: Sequence[int] = (),
) -> Jet:
    """`nerf.kernels.mlp.mlp` without an output activation, with its derivatives by d coordinates s.

    Args:
        x: what enters the network.
        weights, biases: one matrix and vector a layer, as `mlp` takes them.
        forms: symmetric matrices Q; `second[..., k]` is sum_ij Q_kij d2 u / ds_i ds_j. The identity gives the
            Laplacian; none of them (m = 0) leaves second derivatives out.
        dtype, skips: as `mlp` takes them.
        tangents: dx / ds_k, where x is not the coordinates but a function of them, such as their positional encoding.
            Its second derivatives are taken as 0. None: x is the coordinates, and d = i.

    Gradients flow to x, tangents, weights and biases.

    Example:
        >>> jet = mlp_jet(x, weights, biases, torch.eye(2)[None])  # doctest: +SKIP
        >>> laplacian = jet.second[..., 0]  # doctest: +SKIP
    """
    unrounded("mlp_jet", dtype)
    points, width = x.shape
    value, slope = x, tangents  # slope: d p width
    if slope is None:
        slope = torch.eye(width, dtype=x.dtype, device=x.device)[:, None, :].expand(width, points, width)
    second = x.new_zeros(len(forms), points, width)  # m p width
    inputs = value, slope, second
    for index, weight in enumerate(weights):
        if index in skips:
            value, slope, second = (torch.cat(pair, dim=-1) for pair in zip((value, slope, second), inputs))
        z = F.linear(value, weight, None if biases is None else biases[index])
        dz, d2z = F.linear(slope, weight), F.linear(second, weight)
        if index == len(weights) - 1:
            value, slope, second = z, dz, d2z
            continue
        value, first, curve = derivatives(z, activation, omega)
        slope = first * dz
        second = curve * torch.einsum("mij,ipn,jpn->mpn", forms, dz, dz) + first * d2z
    return Jet(value, slope.permute(1, 2, 0), second.permute(1, 2, 0))
