"""Deformations: screw motions against the matrix exponential, Jacobians against autograd and finite differences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck

from nerf.kernels.space import Space
from nerf.warp import Codes, Warp, WarpConfig, screw

CENTER, HALF = (0.5, -1.0, 0.25), 2.0
SUBJECT = Space(CENTER, HALF, True)
ANGLES = [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.05, 0.0999, 0.1, 0.1001, 0.5, 1.5, 3.1, math.pi, 5.0]


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


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4, 0.0999, 0.1001, 1.0, 3.1])
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


def build(kind: str = "se3", **more) -> Warp:
    """A warp whose heads are 300 times as large as at first: a real deformation."""
    config = WarpConfig(kind=kind, **{"width": 16, "depth": 3, "skip": 2, "bands": 3, "code": 4, **more})
    warp = Warp(config, SUBJECT, generator=generator())
    with torch.no_grad():
        warp.network.weights[-1] *= 300
        for bias in warp.network.biases:
            bias.uniform_(-0.2, 0.2, generator=generator(5))
    return warp


def inputs(count: int = 5, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 3, generator=generator(1), dtype=dtype) + torch.tensor(CENTER, dtype=dtype)
    return x, torch.randn(count, 4, generator=generator(2), dtype=dtype)


@pytest.mark.parametrize("kind", ["se3", "translation"])
def test_a_fresh_warp_is_the_identity_to_a_thousandth(kind):
    warp = Warp(WarpConfig(kind=kind), SUBJECT, generator=generator())
    x, code = inputs(200, torch.float32)
    code = torch.cat([code, code], 1)
    assert 0 < (warp(x, code) - x).abs().max() < 2e-3 * HALF


def test_a_warp_moves_as_its_network_says():
    warp = build().double()
    x, code = inputs()
    local = (x - torch.tensor(CENTER)) / HALF
    wave = [local] + [f(2**k * math.pi * local) for k in range(3) for f in (torch.sin, torch.cos)]
    twist = warp.network(torch.cat([*wave, code], 1)).detach().numpy()
    expected = [screw_by_exponential(p, t[:3], t[3:]) for p, t in zip(local.numpy(), twist)]
    torch.testing.assert_close(warp(x, code), torch.from_numpy(np.stack(expected)) * HALF + torch.tensor(CENTER))
    assert (warp(x, code) - x).abs().max() > 0.1


def with_parts(count: int = 3) -> tuple[Warp, torch.Tensor, torch.Tensor]:
    """A warp of rigid parts, points, and rows of code and twists."""
    warp = build(parts=count).double()
    x, code = inputs()
    return warp, x, torch.cat([code, torch.randn(5, 6 * count, generator=generator(6), dtype=torch.float64) * 0.2], 1)


def test_rigid_parts_share_their_twists_out_by_place():
    warp, x, row = with_parts()
    local = (x - torch.tensor(CENTER)) / HALF
    encoded = torch.cat([local] + [f(2**k * math.pi * local) for k in range(3) for f in (torch.sin, torch.cos)], 1)
    shares = warp.shares(encoded).exp()
    shares = shares / shares.sum(1, keepdim=True)
    assert shares.std(0).min() > 0.01
    twist = warp.network(torch.cat([encoded, row[:, :4]], 1))
    for k in range(3):
        twist = twist + shares[:, k, None] * row[:, 4 + 6 * k : 10 + 6 * k]
    expected = [screw_by_exponential(p, t[:3], t[3:]) for p, t in zip(local.numpy(), twist.detach().numpy())]
    torch.testing.assert_close(warp(x, row), torch.from_numpy(np.stack(expected)) * HALF + torch.tensor(CENTER))


def test_one_rigid_part_without_the_network_moves_everything_as_a_whole():
    warp, x, row = with_parts(1)
    with torch.no_grad():
        warp.network.weights[-1].zero_()
        warp.network.biases[-1].zero_()
    row = row[:1].expand(5, -1)
    jacobian = warp.jacobian(x, row)
    torch.testing.assert_close(jacobian.transpose(1, 2) @ jacobian, torch.eye(3).double().expand(5, 3, 3))
    torch.testing.assert_close(torch.cdist(warp(x, row), warp(x, row)), torch.cdist(x, x))
    assert (warp(x, row) - x).abs().max() > 0.1


def test_rigid_parts_start_at_rest_and_can_be_learned():
    warp = Warp(WarpConfig(code=4, parts=2), SUBJECT, generator=generator())
    codes = Codes(torch.tensor(TIMES), 4, generator(), "time", zeros=12)
    assert codes.table.shape == (4, 16) and not codes.table[:, 4:].any() and codes.table[:, :4].any()
    x = inputs(4, torch.float32)[0]
    moved = warp(x, codes(torch.arange(4)))
    assert (moved - x).abs().max() < 2e-3 * HALF
    moved.square().sum().backward()
    assert codes.table.grad[:, 4:].abs().min() > 1e-3


def test_with_a_fade_motion_sets_in_behind_the_walls_of_the_cube():
    free, walled = build().double(), build(fade=0.25).double()
    local = torch.rand(400, 3, generator=generator(4), dtype=torch.float64) * 2.4 - 1.2
    x, code = local * HALF + torch.tensor(CENTER), inputs(400)[1]
    shares = [math.prod(min(max(0.0, 1 - abs(v)) / 0.25, 1.0) for v in row) for row in local.tolist()]
    assert 0.0 in shares and 1.0 in shares and any(0 < share < 1 for share in shares)
    expected = x + (free(x, code) - x) * torch.tensor(shares, dtype=torch.float64)[:, None]
    torch.testing.assert_close(walled(x, code), expected)
    assert torch.equal(walled(x, code)[torch.tensor(shares) == 0], x[torch.tensor(shares) == 0])


def test_a_translation_adds_what_its_network_says():
    warp = build("translation").double()
    with torch.no_grad():
        warp.network.weights[-1].zero_()
        warp.network.biases[-1].copy_(torch.tensor([0.1, -0.2, 0.3]))
    x, code = inputs()
    torch.testing.assert_close(
        warp(x, code) - x, torch.tensor([[0.2, -0.4, 0.6]]).double().expand(5, 3), rtol=1e-6, atol=1e-7
    )


def test_without_bands_a_warp_sees_only_the_position():
    warp = build().double()
    x, code = inputs()
    with torch.no_grad():
        moved = warp(x, code, 0.0)
        warp.network.weights[0][:, 3:21] = 0
        warp.network.weights[2][:, 16 + 3 : 16 + 21] = 0
        torch.testing.assert_close(warp(x, code), moved)
    assert not torch.allclose(build().double()(x, code), moved)


@pytest.mark.parametrize("kind", ["se3", "translation"])
@pytest.mark.parametrize("bands", [None, 1.5])
@pytest.mark.parametrize("fade", [0.0, 0.25])
def test_the_jacobian_is_autograds_and_that_of_differences(kind, bands, fade):
    warp = build(kind, fade=fade).double()
    x, code = inputs()
    found = warp.jacobian(x, code, bands)
    for i in range(len(x)):
        one = torch.autograd.functional.jacobian(lambda p, i=i: warp(p[None], code[i : i + 1], bands)[0], x[i])
        torch.testing.assert_close(found[i], one)
    h = 1e-6
    steps = [torch.eye(3, dtype=torch.float64)[k] * h for k in range(3)]
    differences = torch.stack([(warp(x + s, code, bands) - warp(x - s, code, bands)) / (2 * h) for s in steps], dim=-1)
    torch.testing.assert_close(found, differences, rtol=1e-6, atol=1e-7)
    assert (found - torch.eye(3)).abs().max() > 0.05


def test_the_jacobian_of_rigid_parts_is_autograds():
    warp, x, row = with_parts()
    found = warp.jacobian(x, row, 1.5)
    for i in range(len(x)):
        one = torch.autograd.functional.jacobian(lambda p, i=i: warp(p[None], row[i : i + 1], 1.5)[0], x[i])
        torch.testing.assert_close(found[i], one)


def test_the_jacobian_trains_weights_and_codes():
    warp = build(width=4, depth=1, skip=9, bands=1).double()
    x, code = inputs(2)
    parameters = (code.requires_grad_(), warp.network.weights[0], warp.network.biases[-1])

    def function(code, weight, bias):
        return torch.func.functional_call(
            Jacobian(warp), {"warp.network.weights.0": weight, "warp.network.biases.1": bias}, (x, code)
        )

    assert gradcheck(function, parameters)


class Jacobian(torch.nn.Module):
    def __init__(self, warp: Warp) -> None:
        super().__init__()
        self.warp = warp

    def forward(self, x, code):
        return self.warp.jacobian(x, code)


def test_the_jacobian_of_an_untrained_warp_is_the_identity_with_finite_gradients():
    warp = Warp(WarpConfig(code=4), SUBJECT, generator=generator())
    with torch.no_grad():
        warp.network.weights[-1].zero_()  # rotation exactly 0
    x, code = inputs(6, torch.float32)
    jacobian = warp.jacobian(x, code)
    torch.testing.assert_close(jacobian, torch.eye(3).expand(6, 3, 3))
    (jacobian * torch.randn(6, 3, 3, generator=generator(4))).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in warp.network.parameters() if p.grad is not None)
    assert warp.network.weights[-1].grad.abs().max() > 0


def test_the_jacobian_leaves_the_backend_in_place():
    warp = build()
    mine = dataclasses.replace(warp.network.ops, name="mine")
    warp.network.ops = mine
    warp.jacobian(*inputs(2, torch.float32))
    assert warp.network.ops is mine
    with pytest.raises(RuntimeError):
        warp.jacobian(torch.zeros(2, 3), torch.zeros(2, 99))
    assert warp.network.ops is mine


def test_parts_of_a_translation_are_refused():
    with pytest.raises(ValueError, match=r"WarpConfig.parts: expected kind 'se3', found 'translation'"):
        Warp(WarpConfig(kind="translation", parts=2), SUBJECT)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match=r"WarpConfig.kind: expected 'se3' or 'translation', found 'affine'"):
        Warp(WarpConfig(kind="affine"), SUBJECT)


TIMES = [0.0, 0.25, 0.4, 1.0]


def test_codes_are_mixed_between_their_instants_and_held_beyond():
    codes = Codes(torch.tensor(TIMES), 3, generator())
    wanted = [-0.5, 0.0, 0.1, 0.25, 0.3, 0.4, 0.7, 0.999, 1.0, 2.0]
    found = codes.at(torch.tensor(wanted)).detach().numpy()
    table = codes.table.detach().numpy()
    for k in range(3):
        np.testing.assert_allclose(found[:, k], np.interp(wanted, TIMES, table[:, k]), atol=1e-6)
    assert torch.equal(codes.at(torch.tensor(TIMES)), codes.table)
    assert torch.equal(codes(torch.tensor([2, 0])), codes.table[[2, 0]])
    assert 0.03 < codes.table.abs().max() <= 0.05


def test_one_code_serves_all_instants_and_learns_from_them():
    codes = Codes(torch.tensor([0.0]), 2, generator())
    assert torch.equal(codes.at(torch.tensor([0.0, 0.5, 1.0])), codes.table.expand(3, 2))
    codes.at(torch.tensor([0.0, 0.5, 1.0])).sum().backward()
    assert codes.table.grad.tolist() == [[3, 3]]


def test_a_mixed_code_teaches_both_neighbours_by_their_share():
    codes = Codes(torch.tensor(TIMES), 1, generator())
    codes.at(torch.tensor([0.55])).sum().backward()
    assert codes.table.grad.flatten().tolist() == pytest.approx([0, 0, 0.75, 0.25])
