"""The map into the unit cube against mip-NeRF 360's formula, number by number."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from nerf.kernels.space import Space, to_unit

BOUNDED = Space((0.5, -1.0, 2.0), 1.5, False)
CONTRACTED = BOUNDED._replace(contract=True)


def points(count: int, spread: float, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    away = torch.randn(count, 3, generator=g, dtype=torch.float64) * spread
    return away + torch.tensor(BOUNDED.center, dtype=torch.float64)


def contract_slowly(x, space):
    """contract(y) = y inside the unit ball, (2 - 1/|y|) y/|y| beyond (equation 10), |.| the largest coordinate; then
    [-2, 2] -> [0, 1]."""
    y = [(v - c) / space.half for v, c in zip(x, space.center)]
    size = max(abs(v) for v in y)
    if size > 1:
        y = [(2 - 1 / size) * v / size for v in y]
    return [v / 4 + 0.5 for v in y]


def test_the_bounded_cube_fills_the_unit_cube():
    corners = torch.tensor([[-1.0, -2.5, 0.5], [2.0, 0.5, 3.5], [0.5, -1.0, 2.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0] * 3, [1.0] * 3, [0.5] * 3], dtype=torch.float64)
    torch.testing.assert_close(to_unit(corners, BOUNDED), expected)


@pytest.mark.parametrize("spread", [0.5, 2.0, 50.0])
def test_contraction_is_the_papers(spread):
    x = points(200, spread)
    expected = torch.tensor([contract_slowly(p, CONTRACTED) for p in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(to_unit(x, CONTRACTED), expected)


def test_the_inner_cube_keeps_its_shape_and_infinity_is_the_border():
    inner = torch.tensor([[-1.0, -2.5, 0.5], [2.0, 0.5, 3.5]], dtype=torch.float64)
    assert to_unit(inner, CONTRACTED).flatten().tolist() == pytest.approx([0.25] * 3 + [0.75] * 3)
    far = to_unit(torch.tensor([[1e9, -1.0, 2.0], [0.5, -1e9, 1e9]], dtype=torch.float64), CONTRACTED)
    assert far.flatten().tolist() == pytest.approx([1, 0.5, 0.5, 0.5, 0, 1], abs=1e-8)


def from_unit(u: torch.Tensor, space: Space) -> torch.Tensor:
    """The inverse of `to_unit`, solved from mip-NeRF 360's equation 10: a norm m in (1, 2) came from 1 / (2 - m)."""
    if not space.contract:
        y = u * 2 - 1
    else:
        squeezed = u * 4 - 2
        m = squeezed.abs().amax(-1, keepdim=True)
        y = torch.where(m <= 1, squeezed, squeezed / m.clamp_min(1) / (2 - m))
    return y * space.half + torch.tensor(space.center, dtype=u.dtype)


@pytest.mark.parametrize("space", [BOUNDED, CONTRACTED], ids=["bounded", "contracted"])
@pytest.mark.parametrize("spread", [0.3, 3.0, 30.0])
def test_there_and_back(space, spread):
    x = points(300, spread)
    torch.testing.assert_close(from_unit(to_unit(x, space), space), x, rtol=1e-9, atol=1e-9)


def test_back_and_there_fills_the_cube():
    u = torch.rand(500, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.998 + 0.001
    for space in (BOUNDED, CONTRACTED):
        torch.testing.assert_close(to_unit(from_unit(u, space), space), u)


def test_contraction_never_moves_points_apart():
    # In the largest-coordinate norm the map is Lipschitz; its constant is at most twice the inner cube's 1 / (4 half):
    # y / |y| turns at a rate of (2 - 1/n) / n <= 1 while |y| grows at 1 / n^2 <= 1.
    a, b = points(4000, 3.0, seed=5), points(4000, 3.0, seed=6)
    near = torch.cat([b, a + (b - a) * 1e-4])
    a = torch.cat([a, a])
    apart = (to_unit(a, CONTRACTED) - to_unit(near, CONTRACTED)).abs().amax(-1) / (a - near).abs().amax(-1)
    assert apart.max() <= 2 / (4 * CONTRACTED.half) + 1e-9


def test_infinitely_far_points_stay_finite():
    x = torch.tensor([[1e30, -1e30, 3.0]])
    assert torch.isfinite(to_unit(x, CONTRACTED)).all()


def test_gradients_inside_and_outside():
    x = torch.cat([points(4, 0.3, 3), points(4, 9.0, 4)]).requires_grad_()
    for space in (BOUNDED, CONTRACTED):
        assert gradcheck(lambda v, s=space: to_unit(v, s), (x,))


def test_one_unit_of_world_is_a_quarter_of_the_cubes_half():
    x = points(10, 0.1)
    shift = torch.tensor([0.01, 0, 0], dtype=torch.float64)
    for space, scale in ((BOUNDED, 1 / (2 * 1.5)), (CONTRACTED, 1 / (4 * 1.5))):
        moved = (to_unit(x + shift, space) - to_unit(x, space)).norm(dim=-1)
        assert moved.tolist() == pytest.approx([0.01 * scale] * 10)
        assert math.isclose(float(to_unit(x, space).mean()), 0.5, abs_tol=0.1)
