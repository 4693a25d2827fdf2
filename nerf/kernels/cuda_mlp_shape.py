"""Networks as the `cuda` backend's programs see them: padded shapes, shared memory, and the structure that kernels take."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_arguments import fields
from nerf.kernels.mlp import ACTIVATIONS

MOST_LAYERS = 16  # mlp::most_layers
WIDTHS = (16, 32, 64, 128)
FORMATS = {"float16": "Float16", "bfloat16": "Bfloat16"}
_RESIDENT = 96 * 1024  # mlp::resident_bytes
_REGISTERS = 140  # of sums and slopes that mlp_backward.cu may keep: with more of them the compiler spills


class Settings(NamedTuple):
    """What a network is beside its parameters; as `mlp` takes it, but for dtype: one of `FORMATS`."""

    activation: str
    output_activation: str
    omega: float
    dtype: str
    skips: tuple[int, ...]


class Network(ctypes.Structure):
    """mlp::Network."""

    _fields_ = [
        ("weight", ctypes.c_void_p * MOST_LAYERS),
        ("bias", ctypes.c_void_p * MOST_LAYERS),
        *fields(p="x", l="count"),
        ("rows", ctypes.c_int32 * MOST_LAYERS),
        *fields(i="inputs", f="omega"),
    ]


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
        return self._options

    @cached_property
    def _options(self) -> tuple[tuple[str, object], ...]:
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
        """Shared memory of mlp_forward.cu and mlp_rows.cu."""
        return self._forward_bytes

    @cached_property
    def _forward_bytes(self) -> int:
        every = self.staged(True)
        return every if every <= _RESIDENT else self.staged(False)

    def backward_bytes(self) -> int:
        """Shared memory of mlp_backward.cu."""
        kept = [self.input, *[self.width] * (self.layers - 1), self.output]
        return self.staged(True) + sum(_matrix(64, columns) for columns in kept)

    def backward_at_once(self) -> bool:
        """Whether mlp_backward.cu is for this network: its shared memory and registers suffice."""
        return self._backward_at_once

    @cached_property
    def _backward_at_once(self) -> bool:
        sums = 0
        for rows, columns in self.matrices():
            lines, pieces = rows // 16, columns // 16
            own = max(lines // 4, 1) * -(-pieces // max(4 // lines, 1))
            sums += 8 * own + 4 * max(lines // 4, 1)
        slopes = (self.layers - 1) * self.width // 4
        registers = sums + slopes + max(self.width, self.output) // 2
        fits = self.backward_bytes() <= cuda_driver.SHARED and registers <= _REGISTERS
        return self.width <= 64 and not self.skips and fits


def exact_first(inputs: int, activation: str, depth: int, skips: tuple[int, ...]) -> bool:
    """Whether a first layer's operands keep all their bits, or twice a format's: a sine turns a rounded coordinate into
    noise, and coordinates are few."""
    return activation == "sine" and depth > 1 and 3 * inputs <= 64 and not skips


@cache
def shape_of(
    inputs: int, rows: tuple[int, ...], activations: tuple[str, str], dtype: str, skips: tuple[int, ...]
) -> Shape | None:
    """A network's shape; None where it is too wide or too deep for the programs.

    Args:
        rows: of each layer's matrix.
    """
    between, last = (
        next((width for width in WIDTHS if width >= most), 0) for most in (max(rows[:-1], default=1), rows[-1])
    )
    exact = exact_first(inputs, activations[0], len(rows), skips)
    columns = _padded(3 * inputs if exact else inputs)
    if not between or not last or columns > 128 or len(rows) > MOST_LAYERS or 0 in skips:
        return None
    kind, last_kind = (ACTIVATIONS.index(name) for name in activations)
    again = sum(1 << layer for layer in skips)
    return Shape(dtype, columns, between, last, len(rows), again, kind, last_kind, exact)


def network(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omega: float) -> Network:
    """Tensors have to outlive the launch."""
    net = Network(x=x.data_ptr(), count=len(x), inputs=x.shape[1], omega=omega)
    for layer, weight in enumerate(weights):
        net.weight[layer], net.rows[layer] = weight.data_ptr(), weight.shape[0]
    for layer, bias in enumerate(biases):
        net.bias[layer] = bias.data_ptr()
    return net


def blocks_at_once(device: torch.device, threads: int, shared: int) -> int:
    """How many blocks the device may run at once: more of them than that would stage weights for nothing."""
    each = max(1, min(1024 // threads, 100 * 1024 // (shared + 1024)))
    return cuda_driver.multiprocessors(device) * each
