"""The `cuda` backend's networks as ops of torch's library `nerf`, as cuda_ops has its others.

No biases are an empty list. Layers that x enters again are the bits of one number, the first layer the lowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nerf.kernels import cuda_mlp
from nerf.kernels.cuda_ops import define, gradient, once_only

_NETWORK = "Tensor[] weights, Tensor[] biases, str activation, str output_activation, float omega, str dtype, int skips"


def bits(layers: Sequence[int]) -> int:
    """Layers as the ops take them."""
    return sum(1 << layer for layer in set(layers))


def _layers(bits: int) -> list[int]:
    return [layer for layer in range(bits.bit_length()) if bits >> layer & 1]


def _forward(x: Tensor, weights: list[Tensor], biases: list[Tensor], *settings: Any) -> Tensor:
    activation, output_activation, omega, dtype, skips = settings
    return cuda_mlp.forward(x, weights, biases, activation, output_activation, omega, dtype, _layers(skips))


def _backward(grad: Tensor, x: Tensor, weights: list[Tensor], biases: list[Tensor], *settings: Any) -> list[Tensor]:
    activation, output_activation, omega, dtype, skips, to_x = settings
    kinds = activation, output_activation
    return cuda_mlp.backward(grad, x, weights, biases, *kinds, omega, dtype, _layers(skips), to_x)


mlp = define(
    f"mlp(Tensor x, {_NETWORK}) -> Tensor",
    _forward,
    lambda x, weights, *rest: x.new_empty(x.shape[0], weights[-1].shape[0]),
)
# The gradients of x (empty unless it is wanted), of each matrix and of each vector.
mlp_backward = define(
    f"mlp_backward(Tensor grad, Tensor x, {_NETWORK}, bool to_x) -> Tensor[]",
    _backward,
    lambda grad, x, weights, biases, activation, output_activation, omega, dtype, skips, to_x: [
        torch.empty_like(x) if to_x else x.new_empty(0),
        *(torch.empty_like(parameter) for parameter in (*weights, *biases)),
    ],
)


def _keep_network(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weights, biases, *ctx.settings = inputs
    ctx.depth = len(weights)
    ctx.save_for_backward(x, *weights, *biases)


def _network_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, *parameters = ctx.saved_tensors
    weights, biases = parameters[: ctx.depth], parameters[ctx.depth :]
    to_x = ctx.needs_input_grad[0]
    given, *made = mlp_backward(grad.contiguous(), x, weights, biases, *ctx.settings, to_x)
    return given if to_x else None, made[: ctx.depth], made[ctx.depth :], None, None, None, None, None


gradient("mlp", _keep_network, _network_backward)
once_only("mlp_backward")
