"""Networks backward that are too wide or too deep for one pass (cuda/gpu/mlp_rows.cu, then mlp_weights.cu)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_arguments import fields, place
from nerf.kernels.cuda_mlp_shape import Network, Shape, blocks_at_once, network

_CHUNK = 1 << 16  # rows at a time: what is kept of them is at most a few hundred MB
_STRETCH, _SIDE = 128, 64  # rows of a block of mlp_rows.cu; rows and columns of one of mlp_weights.cu


class _RowsArguments(ctypes.Structure):
    """mlp::RowsArgs."""

    _fields_ = [("net", Network), *fields(p="grad largest to_x x values gradients last", l="padded")]


class _WeightsArguments(ctypes.Structure):
    """mlp::WeightsArgs."""

    _fields_ = fields(
        p="g h to_weight to_bias largest", l="rows", i="g_columns h_columns height width apart parts"
    )  # fmt: skip


def _add_product(
    shape: Shape, g: Tensor, h: Tensor, to_weight: Tensor, first: int, width: int, to_bias: Tensor | None,
    largest: Tensor | None, parts: bool,
) -> None:  # fmt: skip
    """Add G^T H to columns `first` to `first + width` of a matrix, and G's sum over rows to a vector."""
    rows, apart = len(g), to_weight.shape[1]
    arguments = _WeightsArguments(
        g.data_ptr(), h.data_ptr(), to_weight.data_ptr() + 4 * first, place(to_bias), place(largest),
        rows, g.shape[1], h.shape[1], len(to_weight), width, apart, parts,
    )  # fmt: skip
    kernel = cuda_driver.kernel("mlp_weights.cu", "mlp_weights", g.device, shape.options()[:1])
    tiles = -(-g.shape[1] // _SIDE) * -(-h.shape[1] // _SIDE)
    shared = 2 * 2 * _SIDE * (_SIDE + 8)
    blocks = min(rows // _SIDE, max(1, blocks_at_once(g.device, 128, shared) // tiles))
    cuda_driver.launch(kernel, (blocks, tiles), 128, shared, arguments)


def _backward_chunk(
    shape: Shape, grad: Tensor, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omega: float,
    largest: Tensor | None, given: Tensor | None, made: Sequence[Tensor],
) -> None:  # fmt: skip
    """Gradients of some rows: given to x, and added to what is made of the parameters'."""
    depth, hidden = shape.layers, shape.layers - 1
    padded = -(-len(x) // _STRETCH) * _STRETCH
    numbers = [shape.input, *[shape.width] * (2 * hidden), shape.output]
    kept = x.new_empty(padded * sum(numbers), dtype=torch.float16)  # or bfloat16: 16 bits
    parts = [part.view(padded, -1) for part in kept.split([padded * count for count in numbers])]
    values, gradients = [parts[0], *parts[1 : hidden + 1]], [*parts[hidden + 1 : -1], parts[-1]]
    arguments = _RowsArguments(
        network(x, weights, biases, omega), grad.data_ptr(), place(largest), place(given), parts[0].data_ptr(),
        kept.data_ptr() + 2 * padded * shape.input, kept.data_ptr() + 2 * padded * sum(numbers[: hidden + 1]),
        parts[-1].data_ptr(), padded,
    )  # fmt: skip
    shared = shape.forward_bytes()
    kernel = cuda_driver.kernel("mlp_rows.cu", "mlp_rows", x.device, shape.options())
    blocks = min(padded // _STRETCH, blocks_at_once(x.device, 256, shared))
    cuda_driver.launch(kernel, blocks, 256, shared, arguments)
    for layer, (g, h) in enumerate(zip(gradients, values)):
        own = weights[layer - 1].shape[0] if layer else x.shape[1]
        to_bias = made[depth + layer] if biases else None
        exact = shape.exact and layer == 0
        _add_product(shape, g, h, made[layer], 0, own, to_bias, largest, exact)
        if shape.skips >> layer & 1:
            _add_product(shape, g, values[0], made[layer], own, x.shape[1], None, largest, False)


def backward(
    shape: Shape, grad: Tensor, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omega: float,
    largest: Tensor | None, given: Tensor | None, made: Sequence[Tensor],
) -> None:  # fmt: skip
    """Gradients: given to x where it is wanted, and added to what is made of the parameters'."""
    for first in range(0, len(x), _CHUNK):
        rows = slice(first, first + _CHUNK)
        to_x = None if given is None else given[rows]
        _backward_chunk(shape, grad[rows], x[rows], weights, biases, omega, largest, to_x, made)
