"""The hash grid against a loop over Python integers, in the paper's own words."""

from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from nerf.kernels.hash_encode import GridGeometry, hash_encode

# Two dense levels, two hashed ones; large coordinates so that products leave 32 bits.
MIXED = GridGeometry(levels=4, features=2, log2_rows=9, base_resolution=3, finest_resolution=1500)
SMALL = GridGeometry(levels=3, features=2, log2_rows=6, base_resolution=2, finest_resolution=9)


@cache
def resolutions_exactly(geometry: GridGeometry) -> list[int]:
    """floor(N_min (N_max / N_min)^(l / (L - 1))), decided in whole numbers: N^(L-1) <= N_max^l N_min^(L-1-l)."""
    last = geometry.levels - 1
    low, high = geometry.base_resolution, geometry.finest_resolution
    found = []
    for level in range(geometry.levels):
        n = low
        while level and (n + 1) ** last <= high**level * low ** (last - level):
            n += 1
        found.append(n)
    return found


def encode_slowly(point: list[float], table: torch.Tensor, geometry: GridGeometry) -> list[float]:
    """Sections 3 and 4 of the paper, a corner at a time. Also: each level's corners are counted here again."""
    features, start = [], 0
    for n in resolutions_exactly(geometry):
        count = (n + 1) ** 3
        dense = count <= 2**geometry.log2_rows
        held = min(math.ceil(count / 8) * 8, 2**geometry.log2_rows)
        cell = [min(max(math.floor(v * n), 0), n - 1) for v in point]
        share = [v * n - c for v, c in zip(point, cell)]
        total = [0.0] * geometry.features
        for step in itertools.product((0, 1), repeat=3):
            corner = [c + s for c, s in zip(cell, step)]
            if dense:
                row = corner[0] + (n + 1) * (corner[1] + (n + 1) * corner[2])
            else:
                hashed = corner[0] & 0xFFFFFFFF
                hashed ^= (corner[1] * 2654435761) & 0xFFFFFFFF
                hashed ^= (corner[2] * 805459861) & 0xFFFFFFFF
                row = hashed % 2**geometry.log2_rows
            weight = math.prod(f if s else 1 - f for f, s in zip(share, step))
            for feature in range(geometry.features):
                total[feature] += weight * float(table[start + row, feature])
        features += total
        start += held
    assert start == len(table)
    return features


def grid(geometry: GridGeometry, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(geometry.offsets[-1], geometry.features, generator=generator, dtype=dtype)


def points(count: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    "levels, low, high",
    [(16, 16, 2048), (16, 16, 65536), (8, 16, 1024), (4, 3, 1500), (2, 5, 5), (1, 7, 90), (5, 16, 256), (12, 4, 8192)],
)
def test_resolutions_are_the_papers_to_the_integer(levels, low, high):
    geometry = GridGeometry(levels, 2, 19, low, high)
    assert list(geometry.resolutions) == resolutions_exactly(geometry)


def test_the_finest_level_is_the_finest_resolution():
    for levels, low, high in itertools.product((2, 3, 7, 16), (3, 16), (64, 1000, 2048)):
        assert GridGeometry(levels, 2, 19, low, high).resolutions[-1] == high


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 5e-4)])
def test_features_are_those_of_the_loop(dtype, tolerance):
    # float32 at resolution 1500: a place within the cell is known to 1500 * 6e-8 = 9e-5.
    assert MIXED.dense == (True, False, False, False)
    table, x = grid(MIXED, dtype), points(60, dtype)
    x[:4] = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0.5], [0.25, 0.75, 1]], dtype=dtype)
    expected = torch.tensor([encode_slowly(p, table, MIXED) for p in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(hash_encode(x, table, MIXED).double(), expected, atol=tolerance, rtol=0)


def test_outside_the_cube_the_border_cells_go_on_linearly():
    table = grid(SMALL)
    outside = torch.tensor([[-0.1, 0.3, 0.6], [1.2, -0.05, 1.01], [0.5, 0.5, 3.0]], dtype=torch.float64)
    expected = torch.tensor([encode_slowly(p, table, SMALL) for p in outside.tolist()], dtype=torch.float64)
    torch.testing.assert_close(hash_encode(outside, table, SMALL), expected)


def test_a_dense_grid_reproduces_a_linear_function():
    geometry = GridGeometry(levels=1, features=2, log2_rows=12, base_resolution=6, finest_resolution=6)
    table = torch.zeros(geometry.offsets[-1], 2, dtype=torch.float64)
    for i, j, k in itertools.product(range(7), repeat=3):
        table[i + 7 * j + 49 * k, 0] = 2 * i / 6 - 3 * j / 6 + 5 * k / 6 + 1
        table[i + 7 * j + 49 * k, 1] = -i / 6
    x = points(200)
    expected = torch.stack([x @ torch.tensor([2.0, -3.0, 5.0], dtype=torch.float64) + 1, -x[:, 0]], dim=1)
    torch.testing.assert_close(hash_encode(x, table, geometry), expected)


def test_a_hashed_levels_rows_are_used_evenly():
    geometry = GridGeometry(levels=1, features=1, log2_rows=8, base_resolution=200, finest_resolution=200)
    table = torch.zeros(256, 1, requires_grad=True)
    hash_encode(points(20_000, torch.float32), table, geometry).sum().backward()
    used = table.grad.flatten()  # each point hands out a weight of 1 over its corners: 20000 over 256 rows
    assert used.sum().item() == pytest.approx(20_000, rel=1e-4)
    assert used.min() > 0.7 * 20_000 / 256
    assert used.max() < 1.4 * 20_000 / 256


def test_neighbouring_cells_agree_on_their_common_face():
    table = grid(MIXED)
    for n in MIXED.resolutions:
        face = torch.tensor([[(n // 2) / n, 0.3, 0.7]], dtype=torch.float64)
        step = torch.tensor([[1e-9, 0, 0]], dtype=torch.float64)
        torch.testing.assert_close(
            hash_encode(face - step, table, MIXED), hash_encode(face + step, table, MIXED), atol=1e-4, rtol=0
        )


def test_gradients_by_table_and_place():
    table, x = grid(SMALL).requires_grad_(), (points(4) * 0.9 + 0.03).requires_grad_()
    assert gradcheck(lambda a, b: hash_encode(a, b, SMALL), (x, table))


def test_second_derivatives_by_table_and_place():
    geometry = GridGeometry(levels=2, features=1, log2_rows=5, base_resolution=2, finest_resolution=7)
    table, x = grid(geometry).requires_grad_(), (points(3) * 0.9 + 0.03).requires_grad_()
    assert gradgradcheck(lambda a, b: hash_encode(a, b, geometry), (x, table))


def test_float32_gradients_are_those_of_float64():
    table, x, cotangent = (
        grid(MIXED),
        points(50),
        torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)),
    )

    def gradients(dtype):
        a, b = x.to(dtype, copy=True).requires_grad_(), table.to(dtype, copy=True).requires_grad_()
        hash_encode(a, b, MIXED).backward(cotangent.to(dtype))
        return a.grad.double(), b.grad.double()

    for wide, narrow in zip(gradients(torch.float64), gradients(torch.float32)):
        # Measured: 1.3e-4 of the largest, from the place within the finest cells.
        assert (wide - narrow).abs().max() < 1e-3 * wide.abs().max()


def test_no_points_give_no_features_and_a_zero_gradient():
    table = grid(SMALL, torch.float32).requires_grad_()
    out = hash_encode(torch.zeros(0, 3), table, SMALL)
    out.sum().backward()
    assert out.shape == (0, 6) and not table.grad.any()


@pytest.mark.parametrize(
    "broken",
    [
        {"levels": 0},
        {"features": 0},
        {"base_resolution": 0},
        {"log2_rows": 25},
        {"log2_rows": 0},
        {"finest_resolution": 8},
    ],
)
def test_impossible_grids_are_refused(broken):
    with pytest.raises(ValueError, match="GridGeometry: expected"):
        GridGeometry(**broken)


def test_a_table_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"hash_encode: expected a table of shape \(\d+, 2\), found \(5, 2\)"):
        hash_encode(torch.zeros(1, 3), torch.zeros(5, 2), SMALL)
