"""`adam`: torch's own where every entry has a gradient, nothing where none has."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import adam as reference
from nerf.kernels import cpu, load
from nerf.optimizer import SceneAdam
from tests.cpu_levels import MARKS

SETTINGS = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-10}


def run(op, start, gradients):
    value, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step, gradient in enumerate(gradients, 1):
        op(value, gradient, mean, square, step, SETTINGS["lr"], SETTINGS["betas"], SETTINGS["eps"])
    return value, mean, square


def torch_run(start, gradients):
    value = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([value], **SETTINGS)
    for gradient in gradients:
        value.grad = gradient.clone()
        optimizer.step()
    state = optimizer.state[value]
    return value.detach(), state["exp_avg"], state["exp_avg_sq"]


@pytest.mark.usefixtures("seed")
def test_reference_is_torchs_where_all_entries_have_a_gradient():
    start, gradients = torch.randn(7, 3, dtype=torch.float64), torch.randn(5, 7, 3, dtype=torch.float64)
    for found, expected in zip(run(reference.adam, start, gradients), torch_run(start, gradients)):
        torch.testing.assert_close(found, expected)


@MARKS[0]
@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 70000])
def test_cpu_is_the_reference_and_leaves_the_rest(level, count):
    start, gradients = torch.randn(count), torch.randn(4, count) * torch.rand(4, count).round()
    gradients[:, ::3] = 0.0
    gradients[1, 1::5] = -0.0
    found, expected = run(cpu.adam, start, gradients), run(reference.adam, start, gradients)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-7)
    assert torch.equal(found[0][::3], start[::3]) and not found[1][::3].any()
    tiny = run(cpu.adam, start, [torch.full((count,), 1e-30)])[1]  # too small to move anything, but it is there
    torch.testing.assert_close(tiny, torch.full((count,), 2e-31), rtol=1e-5, atol=0)


@MARKS[0]
def test_a_gradient_in_any_one_place_is_seen(level):
    for place in range(40):
        for value in (1e-3, -1e-3):
            gradient = torch.zeros(40)
            gradient[place] = value
            moved = run(cpu.adam, torch.zeros(40), [gradient])[0]
            assert moved.nonzero().flatten().tolist() == [place] and moved[place] * value < 0


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.usefixtures("seed")
def test_the_optimiser_keeps_torchs_state(backend):
    if backend == "cpu" and cpu.why_not():
        pytest.skip(cpu.why_not())
    table, weight = torch.randn(6, 4).requires_grad_(), torch.randn(3).requires_grad_()
    other = [value.detach().clone().requires_grad_() for value in (table, weight)]
    groups = [{"params": [weight]}, {"params": [table], "tables": True}]
    ours, theirs = SceneAdam(groups, load(backend), **SETTINGS), torch.optim.Adam([other[1], other[0]], **SETTINGS)
    for _ in range(3):
        for value, twin in zip((table, weight), other):
            value.grad = torch.randn_like(value)
            twin.grad = value.grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close([table, weight], other)
    state, expected = ours.state_dict()["state"], theirs.state_dict()["state"]
    assert state.keys() == expected.keys()
    for index in state:
        torch.testing.assert_close({k: v.float() for k, v in state[index].items()}, expected[index])
