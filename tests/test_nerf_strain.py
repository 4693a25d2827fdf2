"""Singular values' logarithms against torch's singular value decomposition in float64, and against what they must be."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from nerf.strain import eigenvalues, log_strain


def orthogonal(count: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(random(count, 3, 3, seed=seed))[0]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_svd(jacobian: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(jacobian).clamp_min(1e-6).log().square().sum(-1)


STRETCHES = {
    "any": random(60, 3, seed=1).abs() + 0.05,
    "mild": 1 + 0.1 * random(60, 3, seed=2),
    "slight": 1 + 1e-5 * random(60, 3, seed=3),
    "one": torch.ones(60, 3, dtype=torch.float64) * 1.2,
    "upper pair": torch.tensor([[1.3, 1.3, 0.7]], dtype=torch.float64).expand(60, 3),
    "lower pair": torch.tensor([[1.3, 0.7, 0.7]], dtype=torch.float64).expand(60, 3),
    "close pair": torch.tensor([[1.3, 0.7, 0.70002]], dtype=torch.float64).expand(60, 3),
    "nearly close": torch.tensor([[1.3, 0.7, 0.7001]], dtype=torch.float64).expand(60, 3),
    "flat": torch.tensor([[1.3, 0.9, 1e-3]], dtype=torch.float64).expand(60, 3),
    "thin": torch.tensor([[1.3, 1e-3, 2e-3]], dtype=torch.float64).expand(60, 3),
    "small": (1 + 0.1 * random(60, 3, seed=4)) * 1e-2,
}


@pytest.mark.parametrize("name", STRETCHES)
def test_values_and_gradients_are_those_of_the_decomposition(name):
    jacobian = (orthogonal(60) @ torch.diag_embed(STRETCHES[name]) @ orthogonal(60, 7)).requires_grad_()
    found, expected = log_strain(jacobian), by_svd(jacobian)
    rough = 1e-4 if name == "thin" else 1e-7  # two eigenvalues of C at a millionth of the third
    torch.testing.assert_close(found, expected, rtol=rough, atol=1e-14)
    slopes, truth = (torch.autograd.grad(value.sum(), jacobian)[0] for value in (found, expected))
    assert float((slopes - truth).norm() / truth.norm()) < rough
    single = jacobian.detach().float().requires_grad_()
    exact = single.detach().double().requires_grad_()
    found, expected = log_strain(single), by_svd(exact)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=max(rough, 1e-6), atol=1e-12)
    slopes, truth = (torch.autograd.grad(f.sum(), j)[0] for f, j in ((found, single), (expected, exact)))
    assert slopes.dtype == torch.float32
    assert float((slopes - truth).norm() / truth.norm()) < max(rough, 1e-6)


def test_gradients_by_differences():
    stretch = torch.diag_embed(torch.tensor([[1.4, 1.0, 0.6], [0.8, 0.8, 1.1], [1.2, 1.2, 1.2]], dtype=torch.float64))
    assert gradcheck(log_strain, ((orthogonal(3) @ stretch @ orthogonal(3, 5)).requires_grad_(),))


def test_a_rotation_is_pulled_nowhere_and_what_has_collapsed_is_let_be():
    eye = torch.eye(3).expand(2, 3, 3).clone().requires_grad_()
    log_strain(eye).sum().backward()
    assert not eye.grad.any()
    none = torch.zeros(2, 3, 3, requires_grad=True)
    strain = log_strain(none)
    assert strain.tolist() == pytest.approx([3 * math.log(1e-6) ** 2] * 2)
    strain.sum().backward()
    assert not none.grad.any()
    flat = torch.diag(torch.tensor([1.5, 1.0, 0.0])).expand(2, 3, 3).clone().requires_grad_()
    log_strain(flat).sum().backward()  # the floor pulls at nothing
    assert flat.grad[0].diagonal().tolist() == pytest.approx([2 * math.log(1.5) / 1.5, 0, 0], abs=1e-6)


def test_eigenvalues_of_a_known_matrix():
    turn = orthogonal(20, 3)
    known = torch.tensor([4.0, 2.5, -1.0], dtype=torch.float64)
    found = eigenvalues(turn @ torch.diag(known) @ turn.mT)
    torch.testing.assert_close(found, known[:, None].expand(3, 20), rtol=1e-13, atol=1e-13)
    assert eigenvalues(torch.eye(3)[None].double() * 7).flatten().tolist() == [7, 7, 7]
