"""The hash grid's CUDA kernels, emulated, beside `reference` in float64."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import cuda_driver, cuda_grid
from nerf.kernels.hash_encode import GridGeometry, hash_encode
from tests import emulator
from tests.cuda_emulated import NEEDS, distance, emulated  # noqa: F401 (a fixture)

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]
LIMIT = 1e-6  # measured: 1.3e-7 at most


def grid(features: int = 4) -> GridGeometry:
    """Two dense levels and two hashed ones."""
    return GridGeometry(levels=4, features=features, log2_rows=10, base_resolution=4, finest_resolution=64)


def points(count: int) -> torch.Tensor:
    """Also beyond the cube. Odd multiples of 2^-13, whose places in a cell float32 holds exactly, and none on a border."""
    return (torch.randint(-400, 4496, (count, 3)) * 2 + 1) / 8192


@pytest.fixture(params=[86, 90])
def architecture(request, monkeypatch):
    """Two of them: one that adds a row's features at once, one that has a lane for each."""
    monkeypatch.setattr(cuda_driver, "capability", lambda device: request.param)


@pytest.mark.usefixtures("architecture")
@pytest.mark.parametrize("features", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("count", [0, 1, 127, 700])
def test_values_and_gradients_are_the_references(features, count):
    geometry = grid(features)
    x, table = points(count), torch.randn(geometry.offsets[-1], features)
    grad = torch.randn(count, geometry.width)
    exact = [value.double().requires_grad_() for value in (x, table)]
    expected = hash_encode(*exact, geometry)
    to_x, to_table = torch.autograd.grad(expected, exact, grad.double())
    for found, wanted in (
        (cuda_grid.encode(x, table, geometry), expected),
        (cuda_grid.encode_x(x, table, grad, geometry), to_x),
        (cuda_grid.encode_table(x, grad, geometry), to_table),
    ):
        assert found.dtype == torch.float32 and distance(found, wanted) < LIMIT


@pytest.mark.usefixtures("architecture")
def test_levels_of_many_blocks_add_to_the_same_rows():
    # All points in one cell: every block's sums meet in eight rows a level.
    geometry = GridGeometry(levels=3, features=2, log2_rows=8, base_resolution=2, finest_resolution=9)
    x, grad = torch.full((500, 3), 0.3), torch.randn(500, geometry.width)
    table = torch.zeros(geometry.offsets[-1], 2, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(hash_encode(x.double(), table, geometry), table, grad.double())
    for schedule in emulator.SCHEDULES:
        with emulator.schedule(schedule, seed=3):
            assert distance(cuda_grid.encode_table(x, grad, geometry), expected) < 3e-6  # measured: 6.6e-7 at most


def test_a_point_that_is_no_number_harms_no_other():
    geometry = grid()
    x, table = points(40), torch.randn(geometry.offsets[-1], 4)
    whole = cuda_grid.encode(x, table, geometry)
    for place, bad in ((3, torch.nan), (7, torch.inf), (11, -torch.inf), (20, 1e30)):
        x[place, place % 3] = bad
    found = cuda_grid.encode(x, table, geometry)
    slopes = cuda_grid.encode_x(x, table, torch.ones(40, geometry.width), geometry)
    good = torch.ones(40, dtype=torch.bool)
    good[[3, 7, 11, 20]] = False
    assert torch.equal(found[good], whole[good]) and slopes[good].isfinite().all()
    assert found[3].isnan().all() and not found[7].isfinite().any() and not found[11].isfinite().any()
    cuda_grid.encode_table(x, torch.ones(40, geometry.width), geometry)


def test_slices_that_begin_anywhere_are_taken():
    geometry = grid()
    x, table = points(9)[1:], torch.randn(geometry.offsets[-1] * 4 + 1)[1:].view(-1, 4)
    assert table.data_ptr() % 16 and torch.equal(
        cuda_grid.encode(x, table, geometry), cuda_grid.encode(x.clone(), table.clone(), geometry)
    )


def test_more_levels_than_a_launch_holds_are_refused():
    geometry = GridGeometry(levels=33, features=1, log2_rows=4, base_resolution=1, finest_resolution=2)
    with pytest.raises(ValueError, match="at most 32 levels, found 33"):
        cuda_grid.encode(torch.rand(2, 3), torch.rand(geometry.offsets[-1], 1), geometry)
