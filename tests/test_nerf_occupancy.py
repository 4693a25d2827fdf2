"""The occupancy grid against dictionaries of cells and loops over neighbours."""

from __future__ import annotations

import math

import pytest
import torch

from nerf.kernels.space import Space, to_unit
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
    assert grid.occupied.all() and grid.dilated.all() and grid.share == 1
    grid.observe(torch.tensor([SPACE.center]), torch.tensor([0.0]))  # looking alone empties nothing
    assert grid.share == 1


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


def test_a_sweep_asks_every_cell_inside_it_and_forgets():
    grid = build(space=SPACE._replace(contract=True))
    asked = []

    def density(x):
        asked.append(x)
        return (x[:, 0] > 0.5).float() * 3

    grid.sweep(density, generator())
    x = torch.cat(asked)
    cells = (to_unit(x, grid.space) * 8).floor().long()
    assert (cells[:, 0] + 8 * cells[:, 1] + 64 * cells[:, 2]).tolist() == list(range(512))
    assert grid.values.tolist() == pytest.approx((0.3 * (x[:, 0] > 0.5)).tolist())
    assert grid.occupied.tolist() == (x[:, 0] > 0.5).tolist() and grid.share == 0.5


def test_probes_are_anywhere_in_their_cells():
    grid = build(n=2)
    x = torch.cat([grid.centers(torch.arange(8), generator(s)) for s in range(400)])
    within = (to_unit(x, SPACE) * 2) % 1
    assert within.min() < 0.01 and within.max() > 0.99
    assert within.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.02)
    middles = (to_unit(grid.centers(torch.arange(8)), SPACE) * 2) % 1
    assert middles.flatten().tolist() == pytest.approx([0.5] * 24)


def test_values_fade_and_are_asked_again():
    grid = build(probes=64)
    grid.values.copy_(torch.linspace(0, 1, 512))
    asked, answers = [], []

    def density(x):
        asked.append(x)
        answers.append(torch.rand(len(x), generator=generator(5)) * 8)
        return answers[-1]

    grid.update(density, generator(3))
    expected = [v * 0.95 for v in torch.linspace(0, 1, 512).tolist()]
    for point, sigma in zip(torch.cat(asked).tolist(), torch.cat(answers).tolist()):
        cell = cell_slowly(point, 8)
        expected[cell] = max(expected[cell], sigma * STEP)
    assert len(torch.cat(asked)) == 64
    assert grid.values.tolist() == pytest.approx(expected, rel=1e-6)
    assert grid.occupied.tolist() == [v > 0.01 for v in expected]


def test_a_cell_that_is_asked_twice_keeps_its_largest_answer():
    grid = build(n=2, probes=4096)  # 512 probes a cell
    answers = {}

    def density(x):
        sigma = torch.rand(len(x), generator=generator(7))
        for point, value in zip(x.tolist(), sigma.tolist()):
            cell = cell_slowly(point, 2)
            answers[cell] = max(answers.get(cell, 0.0), value * STEP)
        return sigma

    grid.values.zero_()
    grid.update(density, generator(1))
    assert grid.values.tolist() == pytest.approx([answers[cell] for cell in range(8)], rel=1e-6)


def test_an_unseen_cell_empties_after_its_half_life():
    grid, updates = build(n=4, probes=1), 0
    grid.values.zero_()
    grid.values[21] = 1.0
    grid.values[42] = 100.0  # holds the mean above the threshold
    while grid.occupied[21]:
        grid.update(lambda x: torch.zeros(len(x)), generator(updates))
        updates += 1
    assert updates == math.ceil(math.log(0.01) / math.log(0.95))


def test_in_thin_fog_the_mean_is_the_threshold():
    grid = build(n=4)
    thin = torch.rand(64, generator=generator(2)) * 1e-3 / STEP
    grid.sweep(lambda x: thin, generator())
    assert grid.occupied.tolist() == [v > float(thin.mean()) for v in thin.tolist()]


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
    grid = OccupancyGrid(OccupancyConfig(resolution=n), SPACE, (cells - 0.5) * (2 * SPACE.half / n) / 4, 0.0, 5.0)
    assert grid.grow == cells
    scattered = torch.rand(n**3, generator=generator(cells)) < 0.01
    grid.sweep(lambda x: scattered.float() * 100, generator())
    assert torch.equal(grid.occupied, scattered)
    near = torch.zeros(n, n, n, dtype=torch.bool)
    for k, j, i in scattered.view(n, n, n).nonzero().tolist():
        near[
            max(k - cells, 0) : k + cells + 1, max(j - cells, 0) : j + cells + 1, max(i - cells, 0) : i + cells + 1
        ] = True
    assert torch.equal(grid.dilated.view(n, n, n), near)
    assert not grid.dilated.all()


def test_the_grid_travels_with_the_model():
    grid, other = build(n=4), build(n=4)
    grid.sweep(lambda x: (x[:, 1] > 0).float(), generator())
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other.occupied, grid.occupied) and torch.equal(other.dilated, grid.dilated)
    assert torch.equal(other.values, grid.values) and grid.share == 0.5
