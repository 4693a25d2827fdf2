"""The occupancy grid against dictionaries of cells and loops over neighbours."""

from __future__ import annotations

import math

import pytest
import torch

from nerf.kernels.space import Space
from nerf.occupancy import OccupancyConfig, OccupancyGrid

SPACE = Space((0.5, 0.0, -0.5), 2.0, False)
STEP = 0.1


def build(n: int = 8, space: Space = SPACE, cone: float = 0.0, reach: float = 5.0, **more) -> OccupancyGrid:
    return OccupancyGrid(OccupancyConfig(resolution=n, **more), space, STEP, cone, reach)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cell_slowly(x: list[float], n: int) -> int:
    i, j, k = (min(max(math.floor(((v - c) / SPACE.half + 1) / 2 * n), 0), n - 1) for v, c in zip(x, SPACE.center))
    return i + n * (j + n * k)


def test_everything_is_occupied_at_first():
    grid = build()
    assert grid.occupied.all() and grid.dilated.all()
    grid.observe(torch.tensor([SPACE.center]), torch.tensor([0.0]))  # looking alone empties nothing
    assert grid.occupied.all()


def test_what_is_observed_raises_its_cell():
    grid = build()
    grid.values.fill_(0.02)
    x = torch.rand(300, 3, generator=generator()) * 4.4 - 2.2 + torch.tensor(SPACE.center)
    density = torch.rand(300, generator=generator(1))
    expected = [0.02] * 512
    for point, sigma in zip(x.tolist(), density.tolist()):
        cell = cell_slowly(point, 8)
        expected[cell] = max(expected[cell], sigma * STEP)
    grid.observe(x, density)
    assert grid.values.tolist() == pytest.approx(expected, rel=1e-6)


def settled(values: list[float], n: int, **more) -> OccupancyGrid:
    grid = build(n, **more)
    grid.values.copy_(torch.tensor(values))
    grid.decide()
    return grid


def test_values_above_the_threshold_are_occupied():
    values = torch.linspace(0, 1, 512).tolist()
    assert settled(values, 8, grow=0).occupied.tolist() == [v > 0.01 for v in values]


def test_an_unseen_cell_empties_after_its_half_life():
    grid, fadings = build(n=4, grow=0), 0
    grid.values[21] = 1.0
    grid.values[42] = 1e6  # holds the mean above the threshold
    while grid.occupied[21]:
        grid.fade()
        grid.decide()
        fadings += 1
    assert fadings == math.ceil(math.log(0.01) / math.log(0.9))
    assert grid.values[42] == pytest.approx(1e6 * 0.9**fadings)


def test_in_thin_fog_the_mean_is_the_threshold():
    thin = (torch.rand(64, generator=generator(2)) * 1e-3).tolist()
    assert settled(thin, 4, grow=0).occupied.tolist() == [v > sum(thin) / 64 for v in thin]


@pytest.mark.parametrize("grow", [0, 1, 2])
def test_an_occupied_cell_brings_its_neighbours(grow):
    grid = settled([1.0 if cell == 7 + 8 * (4 + 8 * 1) else 0.0 for cell in range(512)], 8, grow=grow)
    for cell in range(512):
        x, y, z = cell % 8, cell // 8 % 8, cell // 64
        assert grid.occupied[cell] == (max(abs(x - 7), abs(y - 4), abs(z - 1)) <= grow)


def test_where_steps_grow_thickness_is_that_of_a_step_halfway():
    grid = build(cone=0.1, reach=6.0)
    grid.values.zero_()
    grid.observe(torch.tensor([SPACE.center]), torch.tensor([2.0]))
    assert grid.values.max().item() == pytest.approx(2.0 * 0.1 * 3.0)
    assert build(cone=0.1, reach=1.0).step == STEP  # never shorter than the shortest


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_the_dilated_grid_covers_every_neighbour(cells):
    n = 12
    # The half block is 4 steps long: `cells` of the grid's 2 * half / n.
    config = OccupancyConfig(resolution=n, grow=0)
    grid = OccupancyGrid(config, SPACE, (cells - 0.5) * (2 * SPACE.half / n) / 4, 0.0, 5.0)
    assert grid.grow == cells
    scattered = torch.rand(n**3, generator=generator(cells)) < 0.01
    grid.values.copy_(scattered.float())
    grid.decide()
    assert torch.equal(grid.occupied, scattered)
    near = torch.zeros(n, n, n, dtype=torch.bool)
    for k, j, i in scattered.view(n, n, n).nonzero().tolist():
        near[
            max(k - cells, 0) : k + cells + 1, max(j - cells, 0) : j + cells + 1, max(i - cells, 0) : i + cells + 1
        ] = True
    assert torch.equal(grid.dilated.view(n, n, n), near)
    assert not grid.dilated.all()


def test_the_grid_travels_with_the_model():
    grid, other = settled([1.0] * 32 + [0.0] * 32, 4, grow=0), build(n=4)
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other.occupied, grid.occupied) and torch.equal(other.dilated, grid.dilated)
    assert torch.equal(other.values, grid.values) and grid.occupied.float().mean() == 0.5
