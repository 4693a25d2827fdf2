"""`warp`: the fused kernel beside the reference, whose own oracle is tests/test_nerf_warp.py; and rays that look through one."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from nerf.kernels import cpu, frame
from nerf.kernels import warp as reference
from nerf.kernels.cpu_library import multiplies_bfloat16
from nerf.kernels.march import cell_index
from nerf.kernels.space import Space, to_unit
from nerf.kernels.warp import WarpField, Warping
from tests.cpu_levels import MARKS, SIZES, error, network
from tests.test_nerf_kernels_frame import RESOLUTION, make_course, make_field, make_rays

pytestmark = MARKS
SPACE = Space((0.1, -0.2, 0.3), 1.5, True)
OWN = 5  # numbers of a code beside the parts' twists


def make_warp(parts: int = 0, fade: float = 0.25, turns: bool = True, scale: float = 0.3, skips=(2,)) -> WarpField:
    """A warp of three bands, the last half let in, whose rotations reach both sides of an angle of 1."""
    encoded, outputs = 3 + 6 * 3, 6 if turns else 3
    weights, biases = network((encoded + OWN, 16, 16, 16, outputs))
    if skips:
        weights[2] = torch.cat([weights[2].detach(), torch.randn(16, encoded + OWN) * 0.2], 1).requires_grad_()
    with torch.no_grad():
        weights[-1] *= scale
    shares = network((encoded, 32, parts)) if parts else ([], [])
    return WarpField(weights, biases, skips, *shares, torch.tensor([1.0, 1.0, 0.5]), fade, turns)


def make_codes(rays: int, field: WarpField) -> torch.Tensor:
    return (torch.randn(rays, OWN + 6 * field.parts) * 0.4).requires_grad_()


def parameters(field: WarpField) -> list[torch.Tensor]:
    return [*field.weights, *field.biases, *field.share_weights, *field.share_biases]


@pytest.mark.parametrize("given", ["a code a ray", "a code a point"])
@pytest.mark.parametrize("parts, fade, turns, skips", [(0, 0.25, True, (2,)), (3, 0.0, True, ()), (0, 0.1, False, ())])
def test_cpu_is_the_reference(level, parts, fade, turns, skips, given):
    # What bfloat16 products round is the network's test; here both ask the same network.
    exact = partial(reference.warp, network=cpu.mlp) if multiplies_bfloat16() else reference.warp
    for p in SIZES:
        field = make_warp(parts, fade, turns, skips=skips)
        rays = p if given == "a code a point" else 9
        code, ray = make_codes(rays, field), None if rays == p else torch.randint(0, 9, (p,))
        x = torch.randn(p, 3) * 1.2 + torch.tensor(SPACE.center)
        wanted, cotangent, results = [code, *parameters(field)], torch.randn(p, 3), []
        for op in (exact, cpu.warp):
            out = op(x, code, ray, SPACE, field)
            results.append([out, *torch.autograd.grad(out, wanted, cotangent)])
        assert max(error(a, b) for a, b in zip(*results)) < (2e-3 if multiplies_bfloat16() else 2e-5), p
        if p == SIZES[-1]:
            moved = (results[1][0] - x).norm(dim=1)
            outside = ((x - torch.tensor(SPACE.center)).abs() > SPACE.half).any(1)
            assert moved.max() > 0.3 and (fade == 0 or (outside.sum() > 100 and not moved[outside].any()))


def test_both_sides_of_an_angle_of_one(level):
    field = make_warp()
    with torch.no_grad():
        field.weights[-1].zero_()
    for angle in (0.0, 1e-4, 0.999, 1.001, 3.0, 7.0):
        with torch.no_grad():
            field.biases[-1].copy_(torch.tensor([angle, 0, 0, 0.1, -0.2, 0.05]))
        x = torch.rand(40, 3) + torch.tensor(SPACE.center)
        code, results = torch.zeros(1, OWN), []
        for op in (reference.warp, cpu.warp):
            out = op(x, code, torch.zeros(40, dtype=torch.int64), SPACE, field)
            results.append([out, *torch.autograd.grad(out.square().sum(), [field.biases[-1]])])
        assert all(torch.isfinite(value).all() for value in results[1])
        # The gradient of what turns the weights' products is rounded; nothing else is here.
        assert max(error(a, b) for a, b in zip(*results)) < (5e-3 if multiplies_bfloat16() else 1e-5), angle


def test_points_that_want_gradients_get_them(level):
    field, x = make_warp(3), (torch.rand(50, 3) + torch.tensor(SPACE.center)).requires_grad_()
    code, ray, results = make_codes(4, field), torch.randint(0, 4, (50,)), []
    for op in (reference.warp, cpu.warp):
        out = op(x, code, ray, SPACE, field)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, code])])
    fused = cpu.warp(x.detach(), code, ray, SPACE, field)
    # Gradients of bfloat16 products turn some rectifiers round; without gradients the same points go through the kernel.
    limit = 6e-2 if multiplies_bfloat16() else 2e-5
    assert max(error(a, b) for a, b in zip(*results)) < limit and error(fused, results[1][0]) < 2e-3
    assert results[1][1].abs().min() > 0


def test_the_same_bits_on_any_number_of_threads(level):
    field, x = make_warp(3), torch.randn(5000, 3)
    code, ray = make_codes(300, field), torch.randint(0, 300, (5000,)).sort().values
    threads, runs = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            out = cpu.warp(x, code, ray, SPACE, field)
            runs.append([out, *torch.autograd.grad(out.square().sum(), [code, *parameters(field)])])
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


@pytest.mark.parametrize("contract", [False, True])
@pytest.mark.parametrize("parts", [0, 2])
def test_rays_look_through_a_warp(level, contract, parts, monkeypatch):
    if multiplies_bfloat16():
        monkeypatch.setattr(frame, "mlp", cpu.mlp)
        monkeypatch.setattr(frame, "warp", partial(reference.warp, network=cpu.mlp))
    limit = 2e-3 if multiplies_bfloat16() else 3e-4  # a sample now and then crosses `stop` or `faint`
    for count in (0, 1, 1500):
        rays, field, view = make_rays(count), make_field(), torch.randn(count, 5)
        course, warp = make_course(contract, torch.rand(count)), make_warp(parts)
        warping = Warping(warp, make_codes(count, warp).detach())
        expected = frame.frame(*rays, course, field, view, 1e-3, 1e-4, None, warping)
        found = cpu.frame(*rays, course, field, view, 1e-3, 1e-4, None, warping)
        assert max(error(a, b) for a, b in zip(found, expected)) < limit, count
        values, raised = torch.full((2, RESOLUTION**3), 0.01)
        there = frame.look(*rays, course, field, 1e-3, 0.01, values, 0.5, warping)
        here = cpu.look(*rays, course, field, 1e-3, 0.01, raised, 0.5, warping)
        assert abs(len(here.t) - len(there.t)) <= limit * len(there.t) + 1
        assert abs(here.lit - there.lit) <= limit * there.lit + 1
        # Where a sample crosses `stop` a whole cell differs.
        assert ((raised - values).abs() > 0.01 * (values + 1)).sum() <= limit * len(values)
    still = cpu.frame(*rays, course, field, view, 1e-3, 1e-4)
    assert error(still.rgb, found.rgb) > 0.05


def by(shift: list[float]) -> WarpField:
    """Everything moves by `shift`, in world units."""
    field = make_warp(fade=0.0, turns=False)
    with torch.no_grad():
        field.weights[-1].zero_()
        field.biases[-1].copy_(torch.tensor(shift) / 1.5)
    return field


@pytest.mark.parametrize("op", [frame, cpu])
def test_a_translation_moves_the_rays_but_not_the_cells(op):
    shift = [0.05, -0.1, 0.02]
    rays, field, view = make_rays(300), make_field(), torch.randn(300, 5)
    course = make_course(True, None, share=1.1)  # everything is occupied, so that samples stay where they are
    warping, still = Warping(by(shift), torch.zeros(300, OWN)), (rays[0] + torch.tensor(shift), *rays[1:])
    found = op.frame(*rays, course, field, view, 1e-3, 1e-4, None, warping)
    expected = op.frame(*still, course, field, view, 1e-3, 1e-4)
    assert max(error(a, b) for a, b in zip(found, expected)) < (0.02 if multiplies_bfloat16() and op is cpu else 2e-3)
    values = torch.zeros(RESOLUTION**3)
    looked = op.look(*rays, course, field, 1e-3, 0.0, values, 1.0, warping)
    x = rays[0][looked.ray] + rays[1][looked.ray] * looked.t[:, None]
    cells = torch.zeros_like(values).index_fill_(0, cell_index(to_unit(x, course.space), RESOLUTION).long(), 1.0)
    assert torch.equal(values > 0, cells > 0)


def test_wrong_arguments_are_named():
    field = make_warp(2)
    x, code, ray = torch.rand(6, 3), make_codes(3, field), torch.zeros(6, dtype=torch.int64)
    rays, course, view = make_rays(4), make_course(False, None), torch.rand(4, 5)
    lattice = frame.Motion(torch.zeros(2, 2, 2, 3))
    warping = Warping(field, make_codes(4, field).detach())
    for message, op in {
        "a code for each of 6 points": lambda: cpu.warp(x, code, None, SPACE, field),
        "among 3": lambda: cpu.warp(x, code, ray + 3, SPACE, field),
        "codes with 6 numbers a part": lambda: cpu.warp(x, code[:, :8], ray, SPACE, field),
        "warp of 3 outputs": lambda: cpu.warp(x, code, ray, SPACE, field._replace(turns=False)),
        "don't follow one another": lambda: cpu.warp(x, code[:, :-1], ray, SPACE, field),
        "a row for each of 4 rays": lambda: cpu.look(
            *rays, course, make_field(), 0.1, 0.1, None, 1.0, Warping(field, code.detach())
        ),
        "found both": lambda: cpu.frame(*rays, course, make_field(), view, 0.1, 0.1, lattice, warping),
    }.items():
        with pytest.raises(ValueError, match=message):
            op()
