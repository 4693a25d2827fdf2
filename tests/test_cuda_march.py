"""The march's CUDA kernels, emulated, beside `reference`: the same samples."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import cuda_rays
from nerf.kernels.march import dilation, march
from nerf.kernels.space import Space
from tests import emulator
from tests.cuda_emulated import NEEDS, emulated, on_the_cpu  # noqa: F401 (a fixture)

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]
N = 16
BOUNDED, CONTRACTED = Space((0.3, -0.2, 0.1), 1.5, False), Space((0.1, 0.0, -0.1), 1.2, True)


def rays(count: int, far: float) -> tuple[torch.Tensor, ...]:
    aims, origins = torch.rand(count, 3) - 0.5, torch.randn(count, 3) * 2
    near, ends = torch.rand(count) * 0.5, torch.rand(count) * far
    ends[::7] = near[::7] - 1  # these miss
    ends[::11] = near[::11]
    return origins, torch.nn.functional.normalize(aims - origins, dim=-1), near, ends


def found(ends, occupied, space, step, cone, jitter=None, dilated=None):
    return cuda_rays.march(*ends, occupied, N, *space, step, cone, jitter, dilated)


@pytest.mark.parametrize("jittered", [False, True])
@pytest.mark.parametrize("space, far", [(BOUNDED, 6.0), (CONTRACTED, 30.0)], ids=["cube", "contracted"])
@pytest.mark.parametrize("count", [0, 1, 150])
def test_samples_of_steps_of_one_length_are_the_references_to_the_bit(space, far, jittered, count):
    ends, occupied = rays(count, far), torch.rand(N**3) < 0.3
    jitter = torch.rand(count) if jittered else None
    expected = on_the_cpu(march, *ends, occupied, N, space, 0.02, 0.0, jitter)
    assert count < 100 or len(expected.t) > 1000
    for schedule in emulator.SCHEDULES:
        with emulator.schedule(schedule):
            for value, wanted in zip(found(ends, occupied, space, 0.02, 0.0, jitter), expected):
                assert value.dtype == wanted.dtype and torch.equal(value.cpu(), wanted)


@pytest.mark.parametrize("space", [BOUNDED, CONTRACTED], ids=["cube", "contracted"])
def test_samples_of_growing_steps_are_the_references_but_for_rounding(space):
    ends, occupied, jitter = rays(150, 40.0), torch.rand(N**3) < 0.3, torch.rand(150)
    t, dt, offsets = found(ends, occupied, space, 0.03, 1 / 64, jitter)
    expected = march(*(value.double() for value in ends), occupied, N, space, 0.03, 1 / 64, jitter.double())
    # A step on a cell's border now and then falls to its other side; rays without one have the same samples.
    same = (offsets.diff() == expected.offsets.diff()).nonzero().flatten().tolist()
    assert len(same) >= 147 and len(t) > 1000
    for r in same:
        here, there = slice(*offsets[r : r + 2].tolist()), slice(*expected.offsets[r : r + 2].tolist())
        torch.testing.assert_close(t[here].double(), expected.t[there], rtol=2e-5, atol=0)
        torch.testing.assert_close(dt[here].double(), expected.dt[there], rtol=1e-3, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.004, 1.0])
def test_the_dilated_grid_changes_nothing(share):
    ends, occupied = rays(150, 6.0), torch.rand(N**3) < share
    by = dilation(0.01, 0.0, 4.0, BOUNDED, N)
    dilated = torch.nn.functional.max_pool3d(occupied.view(1, 1, N, N, N).float(), 2 * by + 1, 1, by).view(-1) > 0
    plain, quick = (found(ends, occupied, BOUNDED, 0.01, 0.0, None, d) for d in (None, dilated))
    assert all(torch.equal(a, b) for a, b in zip(plain, quick)) and (len(plain[0]) > 0) == (share > 0)
    # And it is asked: one that promises nothing yields nothing.
    assert len(found(ends, occupied, BOUNDED, 0.01, 0.0, None, torch.zeros_like(occupied))[0]) == 0


def test_rays_that_are_no_numbers_stay_in_the_grid():
    ends = rays(40, 6.0)
    whole = found(ends, torch.ones(N**3, dtype=torch.bool), BOUNDED, 0.05, 0.0)
    for r, bad in ((3, torch.nan), (5, torch.inf), (9, 1e30)):
        ends[0][r, r % 3] = bad
    t, _, offsets = found(ends, torch.ones(N**3, dtype=torch.bool), BOUNDED, 0.05, 0.0)
    assert torch.equal(t, whole[0]) and torch.equal(offsets, whole[2])  # where all is occupied, it doesn't matter where


@pytest.mark.parametrize("far", [torch.nan, torch.inf, 1e9])
def test_rays_of_more_steps_than_can_be_counted_are_refused(far):
    ends = rays(9, 2.0)
    ends[3][4] = far
    with pytest.raises(ValueError, match="fewer than 2\\^24 steps"):
        found(ends, torch.ones(N**3, dtype=torch.bool), BOUNDED, 0.01, 0.0)
