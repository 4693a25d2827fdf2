"""What turns positions and directions into features that a small network can use."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.kernels.backends import Ops, load
from nerf.kernels.harmonics import COUNT
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.warp import angular, frequencies


def window(bands: int, annealed: float | Tensor, like: Tensor) -> Float[Tensor, "k"]:
    """Weight of each frequency band while bands are let in from coarse to fine (Nerfies, equation 8).

    w_j(a) = (1 - cos(pi clamp(a - j, 0, 1))) / 2: band j is off until a reaches j and fully on from j + 1.

    Args:
        bands: number of bands m.
        annealed: a in [0, m]; m lets everything through.
    """
    j = torch.arange(bands, device=like.device, dtype=like.dtype)
    return 0.5 * (1 - torch.cos(math.pi * (annealed - j).clamp(0, 1)))


class Frequency(nn.Module):
    """Positional encoding: (x,) sin(2^0 pi x), cos(2^0 pi x), ..., sin(2^(L-1) pi x), cos(2^(L-1) pi x) (NeRF, equation 4).

    Args:
        bands: L.
        include_input: put x itself in front, as the authors' code does and the equation does not.
    """

    def __init__(self, bands: int, include_input: bool = True) -> None:
        super().__init__()
        self.bands, self.include_input = bands, include_input

    def width(self, inputs: int) -> int:
        """Features for points of `inputs` coordinates."""
        return inputs * (2 * self.bands + int(self.include_input))

    def forward(self, x: Float[Tensor, "p i"], annealed: float | None = None) -> Float[Tensor, "p o"]:
        """Encode x; `annealed` weights the bands by `window`, None leaves them all on."""
        waves = frequencies(x, window(self.bands, self.bands if annealed is None else annealed, x))
        return torch.cat([x, waves], dim=-1) if self.include_input else waves

    def slopes(self, encoded: Float[Tensor, "p o"], inputs: int) -> Float[Tensor, "p o"]:
        """The derivative of each feature by the one coordinate that it depends on: feature k by coordinate k mod `inputs`.

        It needs no more than what `forward` gave, window included: (w sin)' = f (w cos), (w cos)' = -f (w sin).
        """
        first = inputs if self.include_input else 0
        waves = encoded[:, first:].unflatten(1, (self.bands, 2, inputs))
        turned = torch.stack([waves[:, :, 1], -waves[:, :, 0]], dim=2) * angular(self.bands, encoded)[:, None, None]
        ones = torch.ones_like(encoded[:, :first])
        return torch.cat([ones, turned.flatten(1)], dim=-1)


class HashGrid(nn.Module):
    """Multiresolution hash grid with its table of features (Mueller et al. 2022, section 3).

    Args:
        geometry: levels, features, table size, resolutions.
        ops: the kernels' backend.
    """

    def __init__(
        self, geometry: GridGeometry, ops: Ops | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.geometry, self.ops = geometry, ops or load("reference")
        table = torch.empty(geometry.offsets[-1], geometry.features)
        self.table = nn.Parameter(table.uniform_(-1e-4, 1e-4, generator=generator))  # section 4, "Initialization"

    @property
    def width(self) -> int:
        """How many features it gives."""
        return self.geometry.width

    def forward(self, x_unit: Float[Tensor, "p 3"]) -> Float[Tensor, "p o"]:
        """Features of points in the unit cube, the coarsest level's first."""
        return self.ops.hash_encode(x_unit, self.table, self.geometry)


class SphericalHarmonics(nn.Module):
    """The harmonics of a unit direction (`nerf.kernels.harmonics`), degrees 0 to 3.

    Args:
        ops: the kernels' backend.
    """

    width = COUNT

    def __init__(self, ops: Ops | None = None) -> None:
        super().__init__()
        self.ops = ops or load("reference")

    def forward(self, d: Float[Tensor, "p 3"]) -> Float[Tensor, "p 16"]:
        """The harmonics of unit directions."""
        return self.ops.harmonics(d)
