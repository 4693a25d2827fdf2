"""Losses where their value is known, and against double loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from nerf.losses import background, distortion, elastic, geman_mcclure, photometric


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotations(count: int, seed: int = 0) -> torch.Tensor:
    q, r = torch.linalg.qr(random(count, 3, 3, seed=seed))
    q = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None]
    return q * torch.linalg.det(q)[:, None, None].sign()


def robust(residual: float, scale: float = 0.03) -> float:
    """Nerfies, equation 7: rho(x, c) = 2 (x/c)^2 / ((x/c)^2 + 4)."""
    return 2 * (residual / scale) ** 2 / ((residual / scale) ** 2 + 4)


def test_photometric_is_the_mean_square():
    a, b = random(5, 3), random(5, 3, seed=1)
    expected = sum((u - v) ** 2 for u, v in zip(a.flatten().tolist(), b.flatten().tolist())) / 15
    assert photometric(a, b).item() == pytest.approx(expected)


def test_geman_mcclure_by_value():
    x = torch.tensor([0.0, 0.01, 0.03, 0.06, 1.0, 1e3], dtype=torch.float64)
    assert geman_mcclure(x**2).tolist() == pytest.approx([robust(v) for v in x.tolist()])
    assert robust(0.06) == 1 and geman_mcclure(torch.tensor(1e12)).item() == pytest.approx(
        2
    )  # outliers weigh at most 2


def test_rotations_cost_nothing():
    weights = torch.rand(50).double()
    assert elastic(rotations(50), weights, 5).item() == pytest.approx(0, abs=1e-12)
    single = elastic(rotations(50).float(), weights.float(), 5).item()
    assert single < 1e-8


@pytest.mark.parametrize("scale", [0.5, 0.97, 1.01, 2.0])
def test_scaling_costs_its_logarithm(scale):
    weights = torch.tensor([0.2, 0.5, 0.3, 0.7], dtype=torch.float64)
    loss = elastic(rotations(4) * scale, weights, 2).item()
    assert loss == pytest.approx(0.03 * 1.7 / 2 * robust(math.sqrt(3) * abs(math.log(scale))))


def test_stretching_costs_its_singular_values_and_growing_costs_as_much_as_shrinking():
    stretch = torch.diag(torch.tensor([1.1, 0.8, 1.0], dtype=torch.float64))
    jacobian = rotations(1) @ stretch @ rotations(1, seed=7)
    expected = 0.03 * robust(math.hypot(math.log(1.1), math.log(0.8)))
    one = torch.ones(1, dtype=torch.float64)
    assert elastic(jacobian, one, 1).item() == pytest.approx(expected)
    assert elastic(torch.linalg.inv(jacobian), one, 1).item() == pytest.approx(expected)


def test_a_collapsed_warp_costs_a_finite_sum():
    loss = elastic(torch.zeros(2, 3, 3), torch.ones(2), 2)
    assert loss.item() == pytest.approx(0.03 * robust(math.sqrt(3) * math.log(1e6)), rel=1e-6)


def test_elastic_teaches_the_warp_and_not_the_density():
    jacobian = (rotations(3) @ torch.diag(torch.tensor([1.1, 0.9, 1.3], dtype=torch.float64))).requires_grad_()
    weights = torch.rand(3).double().requires_grad_()
    elastic(jacobian, weights, 2).backward()
    assert weights.grad is None and jacobian.grad.abs().max() > 0
    assert gradcheck(lambda j: elastic(j, weights, 2), (jacobian.detach().requires_grad_(),))


@pytest.mark.parametrize("start", ["identity", "rotations"])
def test_gradients_are_finite_where_singular_values_are_equal(start):
    # Where training begins: all three singular values are 1.
    jacobian = (torch.eye(3).repeat(4, 1, 1) if start == "identity" else rotations(4).float()).requires_grad_()
    elastic(jacobian, torch.ones(4), 1).backward()
    assert torch.isfinite(jacobian.grad).all()


def test_background_points_that_stay_cost_nothing():
    x = random(10, 3)
    assert background(x, x).item() == 0
    shift = torch.tensor([0.03, 0.0, 0.04], dtype=torch.float64)
    assert background(x + shift, x).item() == pytest.approx(0.03 * robust(0.05))


def test_background_is_the_mean_over_points():
    moved = torch.zeros(4, 3, dtype=torch.float64)
    moved[1, 0], moved[2, 1], moved[3, 2] = 0.01, 0.06, 5.0
    expected = 0.03 * sum(robust(v) for v in (0, 0.01, 0.06, 5.0)) / 4
    assert background(moved, torch.zeros_like(moved)).item() == pytest.approx(expected)


COUNTS = (4, 0, 1, 7, 0)


def intervals(seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([sum(COUNTS[:i]) for i in range(len(COUNTS) + 1)])
    weights = torch.rand(12, generator=g, dtype=torch.float64)
    s0, s1 = torch.zeros(12, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    for start, stop in zip(offsets.tolist(), offsets.tolist()[1:]):
        cuts = torch.rand(2 * (stop - start), generator=g, dtype=torch.float64).sort().values
        s0[start:stop], s1[start:stop] = cuts[::2], cuts[1::2]
    return weights, s0, s1, offsets


def distortion_slowly(weights, s0, s1, offsets) -> float:
    """Equation 15 of mip-NeRF 360, every pair."""
    w, a, b = weights.tolist(), s0.tolist(), s1.tolist()
    total = 0.0
    for start, stop in zip(offsets.tolist(), offsets.tolist()[1:]):
        for i in range(start, stop):
            for j in range(start, stop):
                total += w[i] * w[j] * abs((a[i] + b[i]) / 2 - (a[j] + b[j]) / 2)
            total += w[i] ** 2 * (b[i] - a[i]) / 3
    return total / (len(offsets) - 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distortion_is_the_sum_over_all_pairs(seed):
    assert distortion(*intervals(seed)).item() == pytest.approx(distortion_slowly(*intervals(seed)))


def test_distortion_of_two_walls_and_of_one():
    offsets = torch.tensor([0, 2])
    thin = torch.tensor([0.2, 0.7]), torch.tensor([0.2, 0.7]), offsets
    assert distortion(torch.tensor([0.5, 0.5]), *thin).item() == pytest.approx(2 * 0.25 * 0.5)
    assert distortion(torch.tensor([0.0, 1.0]), *thin).item() == 0
    wide = torch.tensor([0.2, 0.7]), torch.tensor([0.5, 1.0]), offsets
    assert distortion(torch.tensor([0.0, 1.0]), *wide).item() == pytest.approx(0.1)


def test_distortion_gradients_and_empty_packs():
    weights, s0, s1, offsets = intervals(3)
    assert gradcheck(lambda w, a, b: distortion(w, a, b, offsets), [v.requires_grad_() for v in (weights, s0, s1)])
    none = torch.zeros(0)
    assert distortion(none, none, none, torch.tensor([0, 0, 0])).item() == 0
