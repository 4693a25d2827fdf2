"""A network in float64 that rounds where the `cuda` backend's kernels do: operands of products, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nerf.kernels.mlp import activate

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Rounded(NamedTuple):
    """Results and gradients."""

    out: Tensor
    to_x: Tensor
    to_weights: list[Tensor]
    to_biases: list[Tensor]


def value_and_slope(z: Tensor, activation: str, omega: float) -> tuple[Tensor, Tensor]:
    """An activation and its derivative, by autograd."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = activate(z, activation, omega)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def rounded_mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activations: tuple[str, str],
    omega: float,
    dtype: str,
    grad: Tensor,
    skips: Sequence[int] = (),
) -> Rounded:
    """`nerf.kernels.mlp.mlp` and its gradients for the cotangent `grad`; all in float64, but for what is rounded.

    A sine network's first operands, x = x1 + x2 and W = W1 + W2, are rounded to twice the bits: x W^T is x1 W1^T + x2 W1^T
    + x1 W2^T; only x1 and W1 enter its gradients' products, but for x1 + x2 in the weights'.
    """

    def near(value: Tensor) -> Tensor:
        return value.to(FORMATS[dtype]).double()

    depth, exact = len(weights), activations[0] == "sine" and len(weights) > 1 and not skips and x.shape[1] <= 21
    kept, coarse = [near(weight) for weight in weights], near(x)
    fine = near(x.double() - coarse)
    rows, entered, slopes, z = coarse, [], [], torch.empty(0)
    for layer, weight in enumerate(kept):
        entered.append(torch.cat([rows, coarse], 1) if layer in skips else rows)
        z = entered[-1] @ weight.T
        if exact and layer == 0:
            z = z + fine @ weight.T + coarse @ near(weights[0].double() - weight).T
            entered[0] = coarse + fine
        z = z + biases[layer].double() if len(biases) else z
        if layer < depth - 1:
            value, slope = value_and_slope(z, activations[0], omega)
            rows, slopes = near(value), [*slopes, near(slope)]
    out, slope = value_and_slope(z, activations[1], omega)
    # A power of two that brings the largest to [1, 2): float16 has few of them.
    scale = 2.0 ** -float(grad.abs().max().log2().floor()) if dtype == "float16" and grad.abs().sum() > 0 else 1.0
    above, to_x = near(grad.double() * scale * slope), torch.zeros_like(coarse)
    to_weights, to_biases = [], []
    for layer in reversed(range(depth)):
        to_weights.insert(0, above.T @ entered[layer] / scale)
        to_biases.insert(0, above.sum(0) / scale)
        below = above @ kept[layer]
        if layer in skips:
            to_x, below = to_x + below[:, -x.shape[1] :], below[:, : -x.shape[1]]
        above = near(below * slopes[layer - 1]) if layer else below
    return Rounded(out, (to_x + above) / scale, to_weights, to_biases if len(biases) else [])
