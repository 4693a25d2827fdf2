"""The `cuda` backend's networks: checked tensors in, results and gradients out.

A program is compiled for each shape of network, with its layers' padded widths, activations and format as constants:

| program          | what                                                          | for                                |
|------------------|---------------------------------------------------------------|------------------------------------|
| mlp_forward.cu   | all layers, activations in registers from one to the next     | up to 128 columns and 16 layers    |
| mlp_backward.cu  | all gradients in one pass, forward again; nothing is kept     | up to 64 columns, about 3 layers   |
| mlp_rows.cu      | gradients by every layer's sums, forward again                | others of up to 128 columns        |
| mlp_weights.cu   | gradients of weights and biases from those                    | likewise                           |
| mlp_epilogue.cu  | biases, activations and slopes around cuBLAS's products       | wider ones                         |
| mlp_largest.cu   | what gradients are scaled by before they become float16       | all                                |
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from nerf.kernels import cuda_driver, cuda_mlp_rows, cuda_mlp_wide
from nerf.kernels.cuda_arguments import fields, place, ready
from nerf.kernels.cuda_mlp_shape import (
    FORMATS,
    MOST_LAYERS,
    Network,
    Settings,
    Shape,
    blocks_at_once,
    exact_first,
    network,
    shape_of,
)

__all__ = ["FORMATS", "backward", "exact_first", "format_of", "forward", "shape_of"]


class _ForwardArguments(ctypes.Structure):
    """mlp::ForwardArgs."""

    _fields_ = [("net", Network), *fields(p="out")]


class _BackwardArguments(ctypes.Structure):
    """mlp::BackwardArgs."""

    _fields_ = [
        ("net", Network),
        *fields(p="grad largest to_x"),
        ("to_weight", ctypes.c_void_p * MOST_LAYERS),
        ("to_bias", ctypes.c_void_p * MOST_LAYERS),
    ]


class _LargestArguments(ctypes.Structure):
    """LargestArgs."""

    _fields_ = fields(p="x largest", l="count")


def format_of(dtype: str, activations: tuple[str, str], architecture: int) -> str:
    """What products' operands are rounded to, of `FORMATS`; "" where nothing may be rounded.

    Args:
        dtype: as `mlp` takes it. "auto": float16, whose 11 bits keep a sine's phase, with gradients scaled to its range;
            bfloat16 where a hidden layer is an exponential, which leaves that range, on GPUs that multiply it.
        architecture: the GPU's, such as 86.
    """
    if dtype == "auto":
        dtype = "float16"
        if activations[0] == "exponential":
            dtype = "bfloat16" if architecture >= 80 else "float32"
    if dtype not in ("float32", *FORMATS):
        raise ValueError(f"mlp: expected dtype auto, float32, float16 or bfloat16, found {dtype!r}")
    if dtype == "bfloat16" and architecture < 80:
        raise ValueError(f"mlp: dtype bfloat16 needs a GPU of sm_80 or newer, this one is sm_{architecture}")
    return "" if dtype == "float32" else dtype


def _shape(x: Tensor, weights: Sequence[Tensor], settings: Settings) -> Shape | None:
    rows, activations = tuple(weight.shape[0] for weight in weights), (settings.activation, settings.output_activation)
    return shape_of(x.shape[1], rows, activations, settings.dtype, settings.skips)


def forward(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    output_activation: str,
    omega: float,
    dtype: str,
    skips: Sequence[int],
) -> Tensor:
    """`nerf.kernels.mlp.mlp` of products whose operands are rounded to `dtype`, one of `FORMATS`."""
    x, weights, biases = ready(x), [*map(ready, weights)], [*map(ready, biases)]
    settings = Settings(activation, output_activation, omega, dtype, tuple(skips))
    shape = _shape(x, weights, settings)
    if shape is None:
        return cuda_mlp_wide.forward(x, weights, biases, settings)
    out = x.new_empty(len(x), weights[-1].shape[0])
    arguments = _ForwardArguments(network(x, weights, biases, omega), out.data_ptr())
    shared = shape.forward_bytes()
    kernel = cuda_driver.kernel("mlp_forward.cu", "mlp_forward", x.device, shape.options())
    blocks = min(-(-len(x) // 128), blocks_at_once(x.device, 256, shared))
    cuda_driver.launch(kernel, blocks, 256, shared, arguments)
    return out


def _largest(grad: Tensor, dtype: str) -> Tensor | None:
    """The largest magnitude, on the device; None where gradients needn't be scaled."""
    if dtype != "float16":
        return None
    largest = grad.new_zeros(1)
    arguments = _LargestArguments(grad.data_ptr(), largest.data_ptr(), grad.numel())
    kernel = cuda_driver.kernel("mlp_largest.cu", "mlp_largest", grad.device)
    blocks = min(-(-grad.numel() // 1024), blocks_at_once(grad.device, 256, 0))
    cuda_driver.launch(kernel, blocks, 256, 0, arguments)
    return largest


def _backward_at_once(
    shape: Shape, grad: Tensor, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omega: float,
    largest: Tensor | None, given: Tensor | None, made: Sequence[Tensor],
) -> None:  # fmt: skip
    """Gradients: given to x where it is wanted, and added to what is made of the parameters'."""
    arguments = _BackwardArguments(network(x, weights, biases, omega), grad.data_ptr(), place(largest), place(given))
    for layer in range(len(weights)):
        arguments.to_weight[layer] = made[layer].data_ptr()
        arguments.to_bias[layer] = made[len(weights) + layer].data_ptr() if biases else None
    shared = shape.backward_bytes()
    kernel = cuda_driver.kernel("mlp_backward.cu", "mlp_backward", x.device, shape.options())
    blocks = min(-(-len(x) // 64), blocks_at_once(x.device, 128, shared))
    cuda_driver.launch(kernel, blocks, 128, shared, arguments)


def backward(
    grad: Tensor,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    output_activation: str,
    omega: float,
    dtype: str,
    skips: Sequence[int],
    to_x: bool,
) -> list[Tensor]:
    """The gradients of x (empty unless it is wanted), of each matrix and of each vector.

    Sums over rows are atomic where several blocks add to them: their last bits vary from run to run.
    """
    grad, x, weights, biases = ready(grad), ready(x), [*map(ready, weights)], [*map(ready, biases)]
    settings = Settings(activation, output_activation, omega, dtype, tuple(skips))
    given, made = torch.empty_like(x) if to_x else None, [torch.empty_like(tensor) for tensor in (*weights, *biases)]
    torch._foreach_zero_(made)
    shape, largest = _shape(x, weights, settings), _largest(grad, dtype)
    where = (largest, given, made)
    if shape is None:
        cuda_mlp_wide.backward(grad, x, weights, biases, settings, *where)
    elif shape.backward_at_once():
        _backward_at_once(shape, grad, x, weights, biases, omega, *where)
    else:
        cuda_mlp_rows.backward(shape, grad, x, weights, biases, omega, *where)
    return [x.new_empty(0) if given is None else given, *made]
