"""Launches the networks' kernels (cuda/gpu/mlp*.cu): checked tensors in, results and gradients out.

A program is compiled for each shape of network, with its layers' padded widths, activations and format as constants:

| program         | what                                                       | for layers                                 |
|-----------------|------------------------------------------------------------|--------------------------------------------|
| mlp_forward.cu  | forward, activations in registers from layer to layer      | up to 128 wide, 16 of them                 |
| mlp_backward.cu | backward in one pass, forward again; nothing is kept       | up to 64 wide, few                         |
| mlp_largest.cu  | what gradients are scaled by before they become float16    |                                            |
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_arguments import fields, place, ready
from nerf.kernels.mlp import ACTIVATIONS

MOST_LAYERS = 16
WIDTHS = (16, 32, 64, 128)
FORMATS = {"float16": "Float16", "bfloat16": "Bfloat16"}
_RESIDENT = 96 * 1024  # mlp::resident_bytes
_REGISTERS = 140  # of sums and slopes that mlp_backward.cu may keep: with more of them the compiler spills


class _Network(ctypes.Structure):
    """mlp::Network."""

    _fields_ = [
        ("weight", ctypes.c_void_p * MOST_LAYERS),
        ("bias", ctypes.c_void_p * MOST_LAYERS),
        *fields(p="x", l="count"),
        ("rows", ctypes.c_int32 * MOST_LAYERS),
        *fields(i="inputs", f="omega"),
    ]


class _ForwardArguments(ctypes.Structure):
    """mlp::ForwardArgs."""

    _fields_ = [("net", _Network), *fields(p="out")]


class _BackwardArguments(ctypes.Structure):
    """mlp::BackwardArgs."""

    _fields_ = [
        ("net", _Network),
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


def _padded(columns: int) -> int:
    return -(-columns // 16) * 16


def _matrix(rows: int, columns: int) -> int:
    """mlp::matrix_size, in bytes."""
    return 2 * rows * (columns + 8)


@dataclass(frozen=True)
class Shape:
    """A network as its programs are compiled for it: mlp_network.h's options."""

    format: str
    input: int
    width: int
    output: int
    layers: int
    skips: int
    activation: int
    output_activation: int
    exact: bool

    def options(self) -> tuple[tuple[str, object], ...]:
        """The macros."""
        numbers = self.input, self.width, self.output, self.layers, self.skips, self.activation, self.output_activation
        names = ("INPUT", "WIDTH", "OUTPUT", "LAYERS", "SKIPS", "ACTIVATION", "OUTPUT_ACTIVATION")
        given = zip(names, numbers)
        return (
            ("MLP_FORMAT", FORMATS[self.format]),
            *((f"MLP_{name}", value) for name, value in given),
            ("MLP_EXACT", int(self.exact)),
        )

    def matrices(self) -> list[tuple[int, int]]:
        """Padded rows and columns of each layer."""
        widths = [self.input, *[self.width] * (self.layers - 1), self.output]
        return list(zip(widths[1:], widths))

    def staged(self, every: bool) -> int:
        """Bytes of shared memory of all layers, or of the largest; mlp::Staged::bytes."""
        sizes = [
            _matrix(*matrix) + (_matrix(matrix[0], self.input) if self.skips >> layer & 1 else 0)
            for layer, matrix in enumerate(self.matrices())
        ]
        return (sum(sizes) if every else max(sizes)) + 4 * (self.width * (self.layers - 1) + self.output)

    def forward_bytes(self) -> int:
        """Shared memory of mlp_forward.cu."""
        every = self.staged(True)
        return every if every <= _RESIDENT else self.staged(False)

    def backward_bytes(self) -> int:
        """Shared memory of mlp_backward.cu."""
        kept = [self.input, *[self.width] * (self.layers - 1), self.output]
        return self.staged(True) + sum(_matrix(64, columns) for columns in kept)

    def backward_at_once(self) -> bool:
        """Whether mlp_backward.cu is for this network: its shared memory and registers suffice."""
        sums = 0
        for rows, columns in self.matrices():
            lines, pieces = rows // 16, columns // 16
            own = max(lines // 4, 1) * -(-pieces // max(4 // lines, 1))
            sums += 8 * own + 4 * max(lines // 4, 1)
        slopes = (self.layers - 1) * self.width // 4
        registers = sums + slopes + self.width // 2
        fits = self.backward_bytes() <= cuda_driver.SHARED and registers <= _REGISTERS
        return self.width <= 64 and not self.skips and fits


@cache
def shape_of(
    inputs: int, rows: tuple[int, ...], activations: tuple[str, str], format: str, skips: tuple[int, ...]
) -> Shape | None:
    """The programs' shape of a network; None where it is too wide or too deep for them.

    Args:
        rows: of each layer's matrix.
    """
    wide = [next((width for width in WIDTHS if width >= most), 0) for most in (max(rows[:-1], default=1), rows[-1])]
    # A sine turns a rounded coordinate into noise; coordinates are few.
    exact = activations[0] == "sine" and len(rows) > 1 and 3 * inputs <= 64 and not skips
    columns = _padded(3 * inputs if exact else inputs)
    if not all(wide) or columns > 128 or len(rows) > MOST_LAYERS or 0 in skips:
        return None
    kinds = [ACTIVATIONS.index(name) for name in activations]
    again = sum(1 << layer for layer in skips)
    return Shape(format, columns, wide[0], wide[1], len(rows), again, *kinds, exact)


def _network(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omega: float) -> _Network:
    """Tensors have to outlive the launch."""
    net = _Network(x=x.data_ptr(), count=len(x), inputs=x.shape[1], omega=omega)
    for layer, weight in enumerate(weights):
        net.weight[layer], net.rows[layer] = weight.data_ptr(), weight.shape[0]
    for layer, bias in enumerate(biases):
        net.bias[layer] = bias.data_ptr()
    return net


def _launch(source: str, shape: Shape | None, rows: int, shared: int, arguments: ctypes.Structure, x: Tensor) -> None:
    """Blocks for as many rows at a time, but no more than run at once: each takes what is left when it is done."""
    name, threads = source.removesuffix(".cu"), 128 if source == "mlp_backward.cu" else 256
    kernel = cuda_driver.kernel(source, name, x.device, shape.options() if shape else ())
    at_once = cuda_driver.multiprocessors(x.device) * max(1, min(1024 // threads, 100 * 1024 // (shared + 1024)))
    cuda_driver.launch(kernel, min(-(-len(x) // rows), at_once), threads, shared, arguments)


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
    out = x.new_empty(len(x), len(weights[-1]))
    rows = tuple(len(weight) for weight in weights)
    shape = shape_of(x.shape[1], rows, (activation, output_activation), dtype, tuple(skips))
    arguments = _ForwardArguments(_network(x, weights, biases, omega), out.data_ptr())
    _launch("mlp_forward.cu", shape, 128, shape.forward_bytes(), arguments, x)
    return out


def _largest(grad: Tensor, dtype: str) -> Tensor | None:
    """The largest magnitude, on the device; None where gradients needn't be scaled."""
    if dtype != "float16":
        return None
    largest = grad.new_zeros(1)
    arguments = _LargestArguments(grad.data_ptr(), largest.data_ptr(), grad.numel())
    _launch("mlp_largest.cu", None, 16 * 1024, 0, arguments, grad.view(-1))
    return largest


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
    """The gradients of x (empty unless it is wanted), of each matrix and of each vector."""
    grad, x, weights, biases = ready(grad), ready(x), [*map(ready, weights)], [*map(ready, biases)]
    rows = tuple(len(weight) for weight in weights)
    shape = shape_of(x.shape[1], rows, (activation, output_activation), dtype, tuple(skips))
    given = torch.empty_like(x) if to_x else x.new_empty(0)
    made = [torch.empty_like(parameter) for parameter in (*weights, *biases)]
    torch._foreach_zero_(made)
    largest = _largest(grad, dtype)
    arguments = _BackwardArguments(_network(x, weights, biases, omega), grad.data_ptr(), place(largest))
    arguments.to_x = given.data_ptr() if to_x else None
    for layer in range(len(weights)):
        arguments.to_weight[layer] = made[layer].data_ptr()
        arguments.to_bias[layer] = made[len(weights) + layer].data_ptr() if biases else None
    _launch("mlp_backward.cu", shape, 64, shape.backward_bytes(), arguments, x)
    return [given, *made]
