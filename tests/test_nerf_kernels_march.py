"""The march against a loop over every step of every ray."""

from __future__ import annotations

import math

import pytest
import torch

from nerf.kernels.march import dilation, distance_to_steps, march, steps_to_distance
from nerf.kernels.space import Space

BOUNDED = Space((0.2, -0.1, 0.3), 1.0, False)
CONTRACTED = BOUNDED._replace(contract=True)


def distance_slowly(u: float, step: float, cone: float) -> float:
    """Steps of max(step, cone t): straight up to t = step / cone, then dt/du = cone t."""
    if cone == 0 or u < 1 / cone:
        return u * step
    return step / cone * math.exp(cone * (u - 1 / cone))


def steps_slowly(t: float, step: float, cone: float) -> float:
    if cone == 0 or t < step / cone:
        return t / step
    return 1 / cone + math.log(t * cone / step) / cone


def cell_slowly(x: list[float], space: Space, n: int) -> int:
    y = [(v - c) / space.half for v, c in zip(x, space.center)]
    if space.contract:
        size = max(1.0, *(abs(v) for v in y))
        unit = [((2 - 1 / size) * v / size + 2) / 4 for v in y]
    else:
        unit = [(v + 1) / 2 for v in y]
    i, j, k = (min(max(math.floor(v * n), 0), n - 1) for v in unit)
    return (k * n + j) * n + i


def march_slowly(origins, directions, near, far, occupied, n, space, step, cone, jitter):
    """Every step from `near` on whose middle lies before `far` and in an occupied cell."""
    t, dt, counts = [], [], []
    for o, d, a, b, j in zip(origins.tolist(), directions.tolist(), near.tolist(), far.tolist(), jitter.tolist()):
        u, count = steps_slowly(a, step, cone) + j, 0
        while a < b and distance_slowly(u + 0.5, step, cone) < b:
            middle = distance_slowly(u + 0.5, step, cone)
            if occupied[cell_slowly([p + middle * v for p, v in zip(o, d)], space, n)]:
                t.append(middle)
                dt.append(distance_slowly(u + 1, step, cone) - distance_slowly(u, step, cone))
                count += 1
            u += 1
        counts.append(count)
    return t, dt, [sum(counts[:i]) for i in range(len(counts) + 1)]


def dilate_slowly(occupied: torch.Tensor, n: int, cells: int) -> torch.Tensor:
    grown = torch.zeros(n, n, n, dtype=torch.bool)
    for k, j, i in occupied.view(n, n, n).nonzero().tolist():
        low = [max(v - cells, 0) for v in (k, j, i)]
        grown[low[0] : k + cells + 1, low[1] : j + cells + 1, low[2] : i + cells + 1] = True
    return grown.flatten()


def rays(count: int, spread: float = 1.5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    origins = torch.randn(count, 3, generator=g, dtype=torch.float64) * spread
    aims = torch.randn(count, 3, generator=g, dtype=torch.float64) * 0.6
    return origins, torch.nn.functional.normalize(aims - origins, dim=-1)


def grid(n: int, share: float, seed: int = 3) -> torch.Tensor:
    return torch.rand(n**3, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("jittered", [False, True])
@pytest.mark.parametrize(
    "space, cone, far",
    [(BOUNDED, 0.0, 4.0), (BOUNDED, 1 / 64, 4.0), (CONTRACTED, 0.0, 9.0), (CONTRACTED, 1 / 32, 60.0)],
)
def test_samples_are_those_of_the_loop(space, cone, far, jittered):
    n, step = 16, 0.03
    origins, directions = rays(24)
    g = torch.Generator().manual_seed(9)
    near = torch.rand(24, generator=g, dtype=torch.float64) * 0.5
    far = near + torch.rand(24, generator=g, dtype=torch.float64) * far
    far[5], far[11] = near[5] - 1, near[11]  # two rays miss
    jitter = torch.rand(24, generator=g, dtype=torch.float64) if jittered else None
    occupied = grid(n, 0.3)
    found = march(origins, directions, near, far, occupied, n, space, step, cone, jitter)
    t, dt, offsets = march_slowly(
        origins, directions, near, far, occupied, n, space, step, cone, torch.zeros(24) if jitter is None else jitter
    )
    assert len(t) > 100
    assert found.offsets.tolist() == offsets
    assert found.t.tolist() == pytest.approx(t, rel=1e-9)
    assert found.dt.tolist() == pytest.approx(dt, rel=1e-6)


@pytest.mark.parametrize("eye", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(
    "space, cone", [(BOUNDED, 0.0), (CONTRACTED, 0.0), (CONTRACTED, 1 / 128), (CONTRACTED, 1 / 32)]
)
def test_the_dilated_grid_loses_nothing(space, cone, eye):
    # Few, scattered cells: the hardest for a block that asks only at its middle.
    n, step, count = 32, 0.03, 2500
    centre = torch.tensor(space.center, dtype=torch.float64)
    origins, directions = rays(count, seed=int(10 * eye))
    origins = centre + torch.nn.functional.normalize(origins, dim=-1) * eye
    near, far = torch.full_like(origins[:, 0], 0.02), torch.full_like(origins[:, 0], 20.0 if space.contract else 4.0)
    reach = eye + math.sqrt(3) * space.half
    occupied = grid(n, 0.001)
    dilated = dilate_slowly(occupied, n, dilation(step, cone, reach, space, n))
    parts = (origins, directions, near, far, occupied, n, space, step, cone)
    plain, quick = march(*parts), march(*parts, dilated=dilated)
    assert len(plain.t) > 100 and dilated.float().mean() < 0.9
    assert (
        torch.equal(plain.offsets, quick.offsets) and torch.equal(plain.t, quick.t) and torch.equal(plain.dt, quick.dt)
    )


def test_a_dilated_grid_that_is_too_small_would_be_noticed():
    n, step, count = 32, 0.02, 500
    origins, directions = rays(count)
    near, far = torch.zeros(count, dtype=torch.float64), torch.full((count,), 4.0, dtype=torch.float64)
    occupied = grid(n, 0.002)
    parts = (origins, directions, near, far, occupied, n, BOUNDED, step)
    assert len(march(*parts, dilated=occupied).t) < len(march(*parts).t)


@pytest.mark.parametrize("cone", [0.0, 1 / 128, 0.1])
def test_steps_and_distances_undo_each_other(cone):
    u = torch.linspace(0, 400 if cone < 0.05 else 60, 300, dtype=torch.float64)
    t = steps_to_distance(u, 0.01, cone)
    assert t.tolist() == pytest.approx([distance_slowly(float(v), 0.01, cone) for v in u], rel=1e-12)
    torch.testing.assert_close(distance_to_steps(t, 0.01, cone), u)
    lengths = t.diff() / u.diff()
    assert (lengths >= 0.01 * (1 - 1e-9)).all()  # never shorter than the shortest
    assert (lengths >= cone * t[:-1] * (1 - 1e-9)).all() and (
        lengths <= torch.clamp(cone * t[1:], min=0.01) * (1 + 1e-9)
    ).all()


def test_intervals_tile_the_ray_where_everything_is_occupied():
    origins, directions = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]])
    found = march(
        origins,
        directions,
        torch.tensor([0.5]),
        torch.tensor([20.0]),
        torch.ones(8, dtype=torch.bool),
        2,
        CONTRACTED,
        0.05,
        1 / 16,
    )
    ends = 0.5 + found.dt.cumsum(0)
    assert abs(float(ends[-1]) - 20) < float(
        found.dt[-1]
    )  # the last step's middle lies before far, the next one's behind
    middles = ends - found.dt / 2
    torch.testing.assert_close(found.t, middles, rtol=2e-3, atol=0)  # the middle in steps, which are exponential in t


def test_an_empty_grid_and_no_rays_give_no_samples():
    origins, directions = rays(4)
    near, far = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    empty = march(origins, directions, near, far, torch.zeros(8, dtype=torch.bool), 2, BOUNDED, 0.1)
    assert empty.t.tolist() == [] and empty.offsets.tolist() == [0] * 5
    none = march(origins[:0], directions[:0], near[:0], far[:0], torch.ones(8, dtype=torch.bool), 2, BOUNDED, 0.1)
    assert none.t.tolist() == [] and none.offsets.tolist() == [0]


def test_jitter_moves_every_sample_of_a_ray_by_its_share_of_a_step():
    origins, directions = rays(3)
    near, far = torch.full((3,), 0.2, dtype=torch.float64), torch.full((3,), 3.0, dtype=torch.float64)
    jitter = torch.tensor([0.0, 0.25, 0.999], dtype=torch.float64)
    found = march(origins, directions, near, far, torch.ones(1, dtype=torch.bool), 1, BOUNDED, 0.1, jitter=jitter)
    firsts = found.t[found.offsets[:-1]]
    assert firsts.tolist() == pytest.approx([0.25, 0.275, 0.3499])
