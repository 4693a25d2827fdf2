"""Which cells of the scene hold anything, so that rays skip the rest (Mueller et al. 2022, appendix E.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.kernels.march import cell_index, dilation
from nerf.kernels.space import Space, from_unit, to_unit


@dataclass(frozen=True)
class OccupancyConfig:
    """The occupancy grid.

    Attributes:
        resolution: cells per side.
        threshold: optical thickness of one step from which a cell counts as occupied.
        decay: a cell's value shrinks by this factor at every update, until it is seen again.
        every: training steps between updates.
        probes: random cells asked at every update, so that emptied ones can fill again.
        sweeps: steps at which every cell is asked. Up to the first, while all is fog, every cell counts as occupied.
    """

    resolution: int = 128
    threshold: float = 0.01
    decay: float = 0.95
    every: int = 16
    probes: int = 16384
    sweeps: tuple[int, ...] = (128, 512)


class OccupancyGrid(nn.Module):
    """A grid over x_unit in observation space: for a moving scene, a cell is occupied if any instant occupies it.

    Cells hold optical thickness: density times a step of the march (where steps grow, of one
    halfway to the far end of the cube). They start occupied. Training hands in what it
    computed anyway (`observe`); `update` lets old values fade, asks random cells, and thresholds.

    Args:
        space: the map into the unit cube.
        step, cone: the march's, see `nerf.kernels.march.march`.
        reach: largest distance at which a ray is inside the inner cube, scene units.
    """

    values: Tensor
    coarsen: Tensor
    occupied: Tensor
    dilated: Tensor

    def __init__(self, config: OccupancyConfig, space: Space, step: float, cone: float, reach: float) -> None:
        super().__init__()
        self.config, self.space = config, space
        self.step = max(step, cone * reach / 2)  # the step that a cell's thickness is told for
        self.grow = dilation(step, cone, reach, space, config.resolution)
        cells = config.resolution**3
        self.register_buffer("coarsen", torch.ones(()))  # how much longer than their own length the march's steps are
        self.register_buffer("values", torch.zeros(cells))
        self.register_buffer("occupied", torch.ones(cells, dtype=torch.bool))
        self.register_buffer("dilated", torch.ones(cells, dtype=torch.bool))

    @torch.no_grad()
    def observe(self, x_world: Float[Tensor, "p 3"], density: Float[Tensor, "p"]) -> None:
        """Raise the cells of points whose density is known."""
        cell = cell_index(to_unit(x_world, self.space), self.config.resolution)
        self.values.scatter_reduce_(0, cell.long(), density * self.step, "amax")

    def centers(self, cells: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "p 3"]:
        """A random point (or, without a generator, the middle) of each cell, x_world."""
        n = self.config.resolution
        corner = torch.stack([cells % n, cells // n % n, cells // (n * n)], dim=-1).float()
        inside = torch.full_like(corner, 0.5) if generator is None else torch.rand(corner.shape, generator=generator)
        return from_unit((corner + inside) / n, self.space)

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        """Fade, ask `probes` random cells for their density (x_world "p 3" -> "p"), and threshold."""
        self.values *= self.config.decay
        cells = torch.randint(len(self.values), (self.config.probes,), generator=generator)
        self._ask(cells, density, generator)
        self._threshold()

    @torch.no_grad()
    def sweep(self, density: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        """Ask every cell and forget what was there before."""
        self.values.zero_()
        for cells in torch.arange(len(self.values)).split(1 << 18):
            self._ask(cells, density, generator)
        self._threshold()

    def _ask(self, cells: Tensor, density: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        found = density(self.centers(cells, generator)) * self.step
        self.values.scatter_reduce_(0, cells, found, "amax")  # a cell may have been drawn twice

    def _threshold(self) -> None:
        # Where everything is thin (an early fog), the mean keeps the threshold below the scene itself.
        limit = min(self.config.threshold, float(self.values.mean()))
        torch.gt(self.values, limit, out=self.occupied)
        n = self.config.resolution
        grown = self.occupied.view(1, 1, n, n, n).float()
        for axis in range(3):  # a cube's dilation is one along each axis in turn
            kernel = [1, 1, 1]
            kernel[axis] = 2 * self.grow + 1
            grown = nn.functional.max_pool3d(grown, kernel, stride=1, padding=[k // 2 for k in kernel])
        self.dilated.copy_(grown.view(-1) > 0)

    @property
    def share(self) -> float:
        """Share of the cells that are occupied."""
        return float(self.occupied.float().mean())
