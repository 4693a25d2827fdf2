"""Which cells of the scene hold anything, so that rays skip the rest (Mueller et al. 2022, appendix E.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nerf.kernels.march import cell_index, dilation
from nerf.kernels.space import Space, to_unit


@dataclass(frozen=True)
class OccupancyConfig:
    """The occupancy grid.

    Attributes:
        resolution: cells per side.
        threshold: optical thickness of one step from which a cell counts as occupied.
        decay: a cell's value shrinks by this factor at every update, until it is seen again.
        every: training steps between updates.
        survey: rays marched without the grid at every update, so that emptied cells can fill again.
        grow: occupied cells bring along their neighbours up to this many cells away, so that a thin surface that a cell's
            samples missed, or that moves between photos, is seen before it is lost.
        settle: steps for which every cell counts as occupied, while all is fog.
    """

    resolution: int = 128
    threshold: float = 0.01
    decay: float = 0.9
    every: int = 16
    survey: int = 512
    grow: int = 1
    settle: int = 128


class OccupancyGrid(nn.Module):
    """A grid over x_unit in observation space: for a moving scene, a cell is occupied if any instant occupies it.

    Cells hold optical thickness: density times a step of the march (where steps grow, of one
    halfway to the far end of the cube). They start occupied. Training hands in the samples that light reaches
    (`observe`), each seen at its own photo's instant; what no photo sees, behind surfaces and out of every frame, counts
    as empty, whatever density the field has there.

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
        """Raise the cells of points to their density; a density of 0 leaves a cell as it is."""
        cell = cell_index(to_unit(x_world, self.space), self.config.resolution)
        self.values.scatter_reduce_(0, cell.long(), density * self.step, "amax")

    def fade(self) -> None:
        """Let old observations lose weight."""
        self.values *= self.config.decay

    @torch.no_grad()
    def decide(self) -> None:
        """Decide from the values which cells are occupied."""
        # Where everything is thin (an early fog), the mean keeps the threshold below the scene itself.
        limit = self.values.mean().clamp(max=self.config.threshold)
        self.occupied.copy_(self._dilate(self.values > limit, self.config.grow))
        self.dilated.copy_(self._dilate(self.occupied, self.grow))

    @torch.no_grad()
    def corners(self, size: int) -> Bool[Tensor, "n n n"]:
        """Corners, z, y, x, of the cells of a lattice over the space's cube in which an occupied cell lies, if only partly.

        Args:
            size: lattice points along an axis, both walls included.
        """
        n, wall = self.config.resolution, 2.0 if self.space.contract else 1.0
        device = self.occupied.device
        middle = ((torch.arange(n, device=device) + 0.5) / n * 2 - 1) * wall  # along an axis, in half sides of the cube
        inside = middle.abs() < 1 + wall / n
        places = torch.linspace(-1, 1, size, device=device)
        near = ((middle[inside, None] - places).abs() < 2 / (size - 1) + wall / n).float()
        found = self.occupied.view(n, n, n)[inside][:, inside][:, :, inside].float()
        for _ in range(3):  # from the first axis' cells to the last axis' corners, once for every axis
            found = torch.tensordot(found, near, dims=([0], [0]))
        return found > 0

    def _dilate(self, cells: Tensor, by: int) -> Tensor:
        """The cells and all that lie at most `by` cells from one of them along each axis."""
        n = self.config.resolution
        grown = cells.view(n, n, n)
        for axis in range(3):  # a cube's dilation is one along each axis in turn
            spread = grown.clone()
            for shift in range(1, min(by, n - 1) + 1):
                spread.narrow(axis, shift, n - shift).logical_or_(grown.narrow(axis, 0, n - shift))
                spread.narrow(axis, 0, n - shift).logical_or_(grown.narrow(axis, shift, n - shift))
            grown = spread
        return grown.reshape(-1)
