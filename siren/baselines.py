"""Other networks that stand for a signal, to compare a SIREN with: ReLU alone, behind an encoding, and a hash grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.kernels import Ops, load
from nerf.kernels.hash_encode import GridGeometry
from siren.network import Siren, SirenConfig

KINDS = ("siren", "relu", "encoding", "fourier", "hash")
TITLES = {
    "siren": "SIREN",
    "relu": "ReLU",
    "encoding": "ReLU, positional encoding",
    "fourier": "ReLU, Fourier features",
    "hash": "hash grid",
}
RATES = {"siren": 1e-4, "relu": 1e-3, "encoding": 1e-3, "fourier": 1e-3, "hash": 1e-2}
"""Adam's rate for each; a ReLU network takes more than a SIREN's."""


class Encoding(nn.Module):
    """sin and cos of 2^k pi x for k below `bands` beside x itself (NeRF, equation 4)."""

    def __init__(self, inputs: int, bands: int) -> None:
        super().__init__()
        self.bands, self.outputs = bands, inputs * (1 + 2 * bands)

    def forward(self, x: Float[Tensor, "p i"]) -> Float[Tensor, "p e"]:
        """x, and sine and cosine of it at every band."""
        phase = (x[..., None] * (math.pi * 2.0 ** torch.arange(self.bands))).flatten(1)
        return torch.cat([x, torch.sin(phase), torch.cos(phase)], -1)


class FourierFeatures(nn.Module):
    """sin and cos of 2 pi B x for a fixed B of normal numbers (Tancik et al. 2020, equation 5).

    Args:
        sigma: their standard deviation, in cycles a unit.
    """

    frequencies: Tensor

    def __init__(self, inputs: int, features: int, sigma: float, generator: torch.Generator | None) -> None:
        super().__init__()
        self.outputs = features // 2 * 2
        drawn = torch.randn(features // 2, inputs, generator=generator)
        self.register_buffer("frequencies", 2 * math.pi * sigma * drawn)

    def forward(self, x: Float[Tensor, "p i"]) -> Float[Tensor, "p e"]:
        """Sine and cosine of x along every random frequency."""
        phase = x @ self.frequencies.T
        return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class Hash(nn.Module):
    """Multiresolution hash grid (Mueller et al. 2022) over [-1, 1]^inputs, of up to three coordinates.

    Args:
        finest: cells along an axis of the finest level.
    """

    def __init__(self, inputs: int, finest: int, ops: Ops, generator: torch.Generator | None) -> None:
        super().__init__()
        if inputs > 3:
            raise ValueError(f"Hash: expected at most 3 coordinates, found {inputs}")
        self.geometry = GridGeometry(
            levels=12, features=2, log2_rows=16, base_resolution=8, finest_resolution=max(16, finest)
        )
        self.ops, self.outputs = ops, self.geometry.width
        table = torch.rand(self.geometry.offsets[-1], self.geometry.features, generator=generator)
        self.table = nn.Parameter((table * 2 - 1) * 1e-4)

    def forward(self, x: Float[Tensor, "p i"]) -> Float[Tensor, "p e"]:
        """The grid's features of points in [-1, 1]."""
        x_unit = torch.nn.functional.pad(x, (0, 3 - x.shape[1])) * 0.5 + 0.5  # the grid has three axes
        return self.ops.hash_encode(x_unit, self.table, self.geometry)


class Baseline(nn.Module):
    """An encoding, then layers that end in a ReLU, then a linear one."""

    def __init__(
        self,
        encoding: nn.Module | None,
        inputs: int,
        width: int,
        layers: int,
        outputs: int,
        ops: Ops | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.encoding, self.ops = encoding, ops or load("reference")
        sizes = [inputs, *[width] * layers, outputs]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n, after in pairwise(sizes):
            # He et al. 2015; the last layer a sixth of its variance, so that the first image isn't all noise.
            bound = math.sqrt((6 if len(self.weights) < layers else 1) / n)
            self.weights.append(nn.Parameter(torch.empty(after, n).uniform_(-bound, bound, generator=generator)))
            self.biases.append(nn.Parameter(torch.zeros(after)))

    def forward(self, x: Float[Tensor, "p i"]) -> Float[Tensor, "p o"]:
        """The signal at coordinates x."""
        x = x if self.encoding is None else self.encoding(x)
        # In float32, as the SIREN that it is compared with.
        return self.ops.mlp(x, list(self.weights), list(self.biases), "relu", "none", dtype="float32")

    def squared_error(self, x: Float[Tensor, "p i"], target: Float[Tensor, "p o"]) -> Float[Tensor, ""]:
        """Mean squared difference of the outputs from `target`."""
        return torch.nn.functional.mse_loss(self(x), target)


def build(
    kind: str, config: SirenConfig, finest: int, ops: Ops | None = None, generator: torch.Generator | None = None
) -> Siren | Baseline:
    """The network called `kind` (one of KINDS) with the SIREN's widths and depth.

    Args:
        finest: samples of the signal along its longest axis, which the encodings' highest frequencies follow from.
    """
    ops = ops or load("reference")
    encoding: Encoding | FourierFeatures | Hash
    match kind:
        case "siren":
            return Siren(config, ops, generator)
        case "relu":
            return Baseline(None, config.inputs, config.width, config.layers, config.outputs, ops, generator)
        case "encoding":
            encoding = Encoding(config.inputs, max(1, round(math.log2(finest / 4))))
        case "fourier":
            encoding = FourierFeatures(config.inputs, config.width, finest / 25, generator)
        case "hash":
            encoding = Hash(config.inputs, finest, ops, generator)
            return Baseline(encoding, encoding.outputs, 64, 2, config.outputs, ops, generator)
        case _:
            raise ValueError(f"build: expected one of {', '.join(KINDS)}, found {kind!r}")
    return Baseline(encoding, encoding.outputs, config.width, config.layers, config.outputs, ops, generator)


def derivatives(
    network: Siren | Baseline, x: Float[Tensor, "p i"]
) -> tuple[Float[Tensor, "p o i"], Float[Tensor, "p o"]]:
    """Gradient and Laplacian of any of these networks; a Siren's in one pass, the others' by differentiating twice."""
    if isinstance(network, Siren):
        with torch.no_grad():
            jet = network.jet(x, torch.eye(x.shape[1])[None])
        return jet.gradient, jet.second[..., 0]
    with _reference(network):
        x = x.detach().requires_grad_()
        gradients, laplacians = [], []
        for value in network(x).unbind(-1):
            (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
            bends = torch.zeros(len(x))
            for axis in range(x.shape[1]):
                second = None  # of a network that is linear wherever it has a slope
                if slope.requires_grad:
                    (second,) = torch.autograd.grad(slope[:, axis].sum(), x, retain_graph=True, allow_unused=True)
                bends = bends if second is None else bends + second[:, axis]
            gradients.append(slope.detach())
            laplacians.append(bends.detach())
    return torch.stack(gradients, 1), torch.stack(laplacians, -1)


@contextmanager
def _reference(network: Baseline) -> Iterator[None]:
    """The network on the backend reference, which alone has second derivatives."""
    parts: list[Baseline | Hash] = [network, *([network.encoding] if isinstance(network.encoding, Hash) else [])]
    kept = [part.ops for part in parts]
    for part in parts:
        part.ops = load("reference")
    try:
        yield
    finally:
        for part, ops in zip(parts, kept):
            part.ops = ops
