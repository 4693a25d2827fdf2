"""Screw motions against the matrix exponential, and their derivatives against autograd's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import jacobian

from nerf.kernels.screw import screw, screw_jet

ANGLES = [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.05, 0.1, 0.5, 0.9999, 1.0, 1.0001, 1.5, 3.1, math.pi, 5.0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def screw_by_exponential(x: np.ndarray, r: np.ndarray, v: np.ndarray) -> np.ndarray:
    """exp of the 4x4 matrix ((K, v), (0, 0)), with K the cross product with r."""
    twist = np.zeros((4, 4))
    twist[:3, :3] = [[0, -r[2], r[1]], [r[2], 0, -r[0]], [-r[1], r[0], 0]]
    twist[:3, 3] = v
    return (scipy.linalg.expm(twist) @ np.append(x, 1))[:3]


@pytest.mark.parametrize("angle", ANGLES)
def test_screw_is_the_exponential_of_the_twist(angle):
    random = np.random.default_rng(3)
    axis = random.normal(size=(8, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    x, r, v = random.normal(size=(8, 3)), axis * angle, random.normal(size=(8, 3))
    expected = np.stack([screw_by_exponential(*row) for row in zip(x, r, v)])
    np.testing.assert_allclose(screw(*map(torch.from_numpy, (x, r, v))).numpy(), expected, rtol=0, atol=2e-13)
    single = screw(*(torch.from_numpy(a).float() for a in (x, r, v))).double().numpy()
    np.testing.assert_allclose(single, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4, 0.1, 0.9999, 1.0001, 3.1])
def test_screw_has_first_and_second_derivatives(angle):
    g = generator(2)
    x, v = (torch.randn(2, 3, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    axis = torch.nn.functional.normalize(torch.randn(2, 3, generator=g, dtype=torch.float64), dim=-1)
    r = (axis * angle).requires_grad_()
    assert gradcheck(screw, (x, r, v))
    assert gradgradcheck(screw, (x, r, v))


def test_at_rotation_zero_the_first_order_is_the_cross_product():
    x, v = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.1, 0.2, 0.3]])
    r = torch.zeros(1, 3, requires_grad=True)
    out = screw(x, r, v)
    assert out.tolist()[0] == pytest.approx([1.1, 2.2, 3.3])
    slopes = torch.stack([torch.autograd.grad(out[0, i], r, create_graph=True)[0][0] for i in range(3)])
    # d/dr (r x x + r x v / 2) at 0: minus the cross-product matrix of x + v / 2.
    a, b, c = 1.05, 2.1, 3.15
    assert slopes.flatten().tolist() == pytest.approx([0, c, -b, -c, 0, a, b, -a, 0], abs=1e-5)
    (curvature,) = torch.autograd.grad(slopes.square().sum(), r)
    assert torch.isfinite(curvature).all()


def twists(angle: float, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Points, twists that turn by `angle`, and how the twists change with the points."""
    g = generator(4)
    drawn = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    r = torch.nn.functional.normalize(drawn(6, 3), dim=-1) * angle
    return [tensor.to(dtype) for tensor in (drawn(6, 3), r, drawn(6, 3), drawn(6, 3, 3), drawn(6, 3, 3))]


@pytest.mark.parametrize("angle", ANGLES)
def test_a_screw_that_changes_with_the_place_has_this_derivative(angle):
    x, r, v, by_r, by_v = twists(angle)
    moved, slopes = screw_jet(x, r, v, by_r, by_v)
    torch.testing.assert_close(moved, screw(x, r, v))
    for i in range(len(x)):

        def at(p, i=i):
            away = p - x[i]
            return screw(p[None], (r[i] + by_r[i] @ away)[None], (v[i] + by_v[i] @ away)[None])[0]

        if angle < 1e-9:  # autograd's own rule at 0 is what is in question
            h, eye = 1e-5, torch.eye(3, dtype=torch.float64)
            expected = torch.stack([(at(x[i] + h * e) - at(x[i] - h * e)) / (2 * h) for e in eye], dim=1)
            torch.testing.assert_close(slopes[i], expected, rtol=1e-8, atol=1e-8)
        else:
            torch.testing.assert_close(slopes[i], jacobian(at, x[i]), rtol=1e-9, atol=1e-9)
    single = screw_jet(*twists(angle, torch.float32))[1].double()
    assert float((single - slopes).norm() / slopes.norm()) < 2e-6


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4, 0.9999, 1.0001, 3.1])
def test_the_derivative_of_a_screw_trains(angle):
    inputs = [tensor[:2].requires_grad_() for tensor in twists(angle)]
    assert gradcheck(screw_jet, inputs)
