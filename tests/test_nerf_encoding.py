"""Encodings against their formulas, quadrature, and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch

from nerf.encoding import Frequency, HashGrid, SphericalHarmonics, window
from nerf.kernels.hash_encode import GridGeometry


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize(
    "bands, inputs, keep", [(10, 3, True), (4, 3, True), (6, 2, False), (0, 3, True), (1, 1, False)]
)
def test_positions_are_encoded_by_equation_4(bands, inputs, keep):
    x = random(7, inputs)
    encoding = Frequency(bands, keep)
    expected = []
    for point in x.tolist():
        row = list(point) if keep else []
        for k in range(bands):
            row += [math.sin(2**k * math.pi * v) for v in point]
            row += [math.cos(2**k * math.pi * v) for v in point]
        expected.append(row)
    assert encoding.width(inputs) == len(expected[0])
    torch.testing.assert_close(encoding(x), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_papers_widths():
    assert (Frequency(10).width(3), Frequency(4).width(3)) == (63, 27)


# Nerfies, equation 8: (1 - cos(pi clamp(a - j, 0, 1))) / 2 for j = 0, 1, 2, 3.
@pytest.mark.parametrize(
    "annealed, expected",
    [
        (0.0, [0, 0, 0, 0]), (0.5, [0.5, 0, 0, 0]), (1.0, [1, 0, 0, 0]), (1.25, [1, (1 - math.sqrt(0.5)) / 2, 0, 0]),
        (2 + 1 / 3, [1, 1, 0.25, 0]), (3.5, [1, 1, 1, 0.5]), (4.0, [1, 1, 1, 1]), (9.0, [1, 1, 1, 1]),
    ],
)  # fmt: skip
def test_bands_come_in_from_coarse_to_fine(annealed, expected):
    like = torch.zeros(1, dtype=torch.float64)
    assert window(4, annealed, like).tolist() == pytest.approx(expected, abs=1e-12)
    assert window(4, torch.tensor(annealed, dtype=torch.float64), like).tolist() == pytest.approx(expected, abs=1e-12)


def test_annealing_weights_waves_and_spares_the_position():
    x, encoding = random(5, 3), Frequency(4)
    full, half = encoding(x).tolist(), encoding(x, 2.5).tolist()
    factor = [1] * 3 + [1] * 6 + [1] * 6 + [0.5] * 6 + [0] * 6
    expected = [[f * v for f, v in zip(factor, row)] for row in full]
    torch.testing.assert_close(torch.tensor(half), torch.tensor(expected))
    torch.testing.assert_close(encoding(x, 4.0), encoding(x))


def sphere(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Directions and weights of a rule on the sphere that integrates polynomials up to degree 2 count - 1 exactly."""
    z, wz = np.polynomial.legendre.leggauss(count)
    turn = 2 * np.pi * (np.arange(2 * count) + 0.25) / (2 * count)
    z, turn = np.meshgrid(z, turn, indexing="ij")
    flat = np.sqrt(1 - z**2)
    weights = np.repeat(wz * np.pi / count, 2 * count)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], -1).reshape(-1, 3), weights


def harmonics_of_scipy(d: np.ndarray) -> np.ndarray:
    """Real spherical harmonics by degree and order -l..l, made of scipy's complex ones."""
    polar, turn = np.arccos(d[:, 2]), np.arctan2(d[:, 1], d[:, 0])
    columns = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            if hasattr(scipy.special, "sph_harm_y"):
                y = scipy.special.sph_harm_y(degree, abs(order), polar, turn)
            else:
                y = scipy.special.sph_harm(abs(order), degree, turn, polar)
            part = y.real if order == 0 else math.sqrt(2) * (y.imag if order < 0 else y.real)
            columns.append(part)
    return np.stack(columns, 1)


def test_harmonics_are_scipys_up_to_sign():
    d, _ = sphere(6)
    found, expected = SphericalHarmonics()(torch.from_numpy(d)).numpy(), harmonics_of_scipy(d)
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-12)


def test_harmonics_are_orthonormal():
    d, weights = sphere()
    y = SphericalHarmonics()(torch.from_numpy(d)).numpy()
    np.testing.assert_allclose(y.T @ (weights[:, None] * y), np.eye(16), atol=1e-12)


def test_a_fresh_hash_grid_is_uniform_in_a_ten_thousandth():
    geometry = GridGeometry(levels=4, features=2, log2_rows=12, base_resolution=4, finest_resolution=64)
    grid = HashGrid(geometry, generator=torch.Generator().manual_seed(0))
    values = np.sort(grid.table.detach().numpy().ravel()) / 1e-4
    assert -1 <= values[0] < -0.99 and 0.99 < values[-1] <= 1
    assert np.abs(values - np.linspace(-1, 1, len(values))).max() < 0.03  # Kolmogorov-Smirnov, n = 19136
    again = HashGrid(geometry, generator=torch.Generator().manual_seed(0))
    assert torch.equal(grid.table, again.table)
    assert grid.width == 8


def test_a_hash_grid_reads_its_own_table():
    geometry = GridGeometry(levels=1, features=2, log2_rows=8, base_resolution=2, finest_resolution=2)
    grid = HashGrid(geometry)
    with torch.no_grad():
        grid.table.zero_()
        grid.table[13] = torch.tensor([3.0, -1.0])  # 1 + 3 * (1 + 3 * 1): the middle of the cube
    at = torch.tensor([[0.5, 0.5, 0.5], [0.25, 0.5, 0.5], [0.25, 0.25, 0.5], [0.0, 0.5, 0.5]])
    assert grid(at)[:, 0].tolist() == [3, 1.5, 0.75, 0]
    assert grid(at)[:, 1].tolist() == [-1, -0.5, -0.25, 0]
