"""Deformations against their parts written out, Jacobians against autograd and finite differences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from nerf.kernels.backends import available, load
from nerf.kernels.space import Space
from nerf.warp import Codes, Warp, WarpConfig, reference_ops
from tests.test_nerf_kernels_screw import screw_by_exponential

CENTER, HALF = (0.5, -1.0, 0.25), 2.0
SUBJECT = Space(CENTER, HALF, True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(kind: str = "se3", ops: str = "reference", **more) -> Warp:
    """A warp whose heads are 300 times as large as at first: a real deformation."""
    config = WarpConfig(kind=kind, **{"width": 16, "depth": 3, "skip": 2, "bands": 3, "code": 4, **more})
    warp = Warp(config, SUBJECT, load(ops), generator())
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


OPS = ["reference", *([] if available()["cpu"] else ["cpu"])]


@pytest.mark.parametrize("kind, parts", [("se3", 0), ("se3", 3), ("translation", 0)])
@pytest.mark.parametrize("bands", [None, 1.5, 0.0])
@pytest.mark.parametrize("fade", [0.0, 0.25])
@pytest.mark.parametrize("ops", OPS)
def test_the_jacobian_is_autograds_and_that_of_differences(kind, parts, bands, fade, ops):
    warp = build(kind, fade=fade, parts=parts, ops=ops).double()
    x = (torch.rand(9, 3, generator=generator(8), dtype=torch.float64) * 2.2 - 1.1) * HALF + torch.tensor(CENTER)
    local = ((x - torch.tensor(CENTER)) / HALF).abs().amax(1)
    assert (local > 1).any() and ((local < 1) & (local > 0.75)).any() and (local < 0.75).any()
    code = torch.randn(9, 4 + 6 * parts, generator=generator(2), dtype=torch.float64)
    found = warp.jacobian(x, code, bands)
    for i in range(len(x)):
        one = torch.autograd.functional.jacobian(lambda p, i=i: warp(p[None], code[i : i + 1], bands)[0], x[i])
        torch.testing.assert_close(found[i], one)
    h = 1e-6
    steps = [torch.eye(3, dtype=torch.float64)[k] * h for k in range(3)]
    differences = torch.stack([(warp(x + s, code, bands) - warp(x - s, code, bands)) / (2 * h) for s in steps], dim=-1)
    torch.testing.assert_close(found, differences, rtol=1e-6, atol=1e-7)
    assert (found - torch.eye(3)).abs().max() > 0.02


@pytest.mark.parametrize("kind, parts, fade", [("se3", 0, 0.0), ("se3", 2, 0.25), ("translation", 0, 0.25)])
@pytest.mark.parametrize("ops", OPS)
def test_the_jacobian_trains_weights_codes_and_points(kind, parts, fade, ops):
    warp = build(kind, width=4, depth=2, skip=1, bands=1, parts=parts, fade=fade, ops=ops).double()
    x = torch.tensor([[0.1, -0.4, 0.2], [0.8, 0.5, -0.6], [0.95, 0.9, -0.3]]).double() * HALF + torch.tensor(CENTER)
    code = torch.randn(3, 4 + 6 * parts, generator=generator(2), dtype=torch.float64) * 0.3
    names = ["network.weights.0", "network.weights.1", "network.biases.2", *(["shares.weights.1"] if parts else [])]
    own = dict(warp.named_parameters())

    def function(x, code, *values):
        changed = {f"warp.{name}": value for name, value in zip(names, values)}
        return torch.func.functional_call(Jacobian(warp), changed, (x, code))

    assert gradcheck(function, (x.requires_grad_(), code.requires_grad_(), *(own[name] for name in names)))


@pytest.mark.parametrize("ops", OPS)
def test_at_rotation_zero_the_jacobian_trains(ops):
    warp = build(width=4, depth=1, skip=9, bands=1, ops=ops).double()
    with torch.no_grad():
        warp.network.weights[-1].zero_()
    x, code = inputs(2)

    def function(weight, bias):
        changed = {"warp.network.weights.1": weight, "warp.network.biases.1": bias}
        return torch.func.functional_call(Jacobian(warp), changed, (x, code))

    bias = torch.tensor([0, 0, 0, 0.3, -0.2, 0.1]).double().requires_grad_()
    assert gradcheck(function, (warp.network.weights[-1], bias))


class Jacobian(torch.nn.Module):
    def __init__(self, warp: Warp) -> None:
        super().__init__()
        self.warp = warp

    def forward(self, x, code):
        return self.warp.jacobian(x, code)


@pytest.mark.parametrize("ops", OPS)
def test_the_jacobian_of_an_untrained_warp_is_the_identity_with_finite_gradients(ops):
    warp = Warp(WarpConfig(code=4), SUBJECT, load(ops), generator())
    with torch.no_grad():
        warp.network.weights[-1].zero_()  # rotation exactly 0
    x, code = inputs(6, torch.float32)
    jacobian = warp.jacobian(x, code)
    torch.testing.assert_close(jacobian, torch.eye(3).expand(6, 3, 3))
    (jacobian * torch.randn(6, 3, 3, generator=generator(4))).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in warp.network.parameters() if p.grad is not None)
    assert warp.network.weights[-1].grad.abs().max() > 0


def test_reference_ops_leave_the_backend_in_place():
    warp = build(parts=2)
    mine = dataclasses.replace(warp.network.ops, name="mine")
    warp.network.ops = mine
    with pytest.raises(KeyError), reference_ops(warp):
        assert warp.network.ops.name == warp.shares.ops.name == "reference"
        raise KeyError
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
