"""`frame` behind a motion: sums of tents over the whole lattice, linear motions in closed form, and faces that stay."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import cpu
from nerf.kernels import frame as reference
from nerf.kernels.cpu_library import multiplies_bfloat16
from nerf.kernels.frame import Course, Motion, moved
from nerf.kernels.space import Space
from tests.cpu_levels import MARKS, error
from tests.test_nerf_kernels_frame import RESOLUTION, loop, make_course, make_field, make_rays

needs_cpu = MARKS[0]
UNIT = Space((0.0, 0.0, 0.0), 1.0, False)
OPS = [reference.frame, pytest.param(cpu.frame, marks=needs_cpu)]


def make_motion(size: int = 5, scale: float = 0.2) -> Motion:
    return Motion(torch.randn(size, size, size, 3) * scale)


def by_tents(x_world: torch.Tensor, space: Space, motion: Motion) -> torch.Tensor:
    """Every lattice point's displacement, by how near it is: a tent as wide as a cell along each axis."""
    n, out = len(motion.lattice), x_world.clone()
    for p, x in enumerate(x_world.tolist()):
        y = [(v - c) / space.half for v, c in zip(x, space.center)]
        if not all(-1 < v < 1 for v in y):
            continue
        tents = [[max(0.0, 1 - abs((v + 1) / 2 * (n - 1) - node)) for node in range(n)] for v in y]
        for k in range(n):
            for j in range(n):
                for i in range(n):
                    share = tents[0][i] * tents[1][j] * tents[2][k]
                    if share:
                        out[p] += share * space.half * motion.lattice[k, j, i]
    return out


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("size", [2, 5])
def test_moved_is_the_sum_of_tents(size):
    space, motion = Space((0.1, -0.2, 0.3), 1.5, True), make_motion(size)
    x = torch.randn(200, 3) * 1.5
    found = moved(x, space, motion)
    stay = ((x - torch.tensor(space.center)).abs() > 1.5).any(1)
    assert torch.equal(found[stay], x[stay]) and 20 < stay.sum() < 180
    torch.testing.assert_close(found, by_tents(x, space, motion), atol=2e-6, rtol=0)


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("contract", [False, True])
def test_reference_is_the_slow_loop(contract, monkeypatch):
    rays, field, motion = make_rays(20), make_field(), make_motion(3)
    course, view = make_course(contract, torch.rand(20)), torch.randn(20, 5)
    seen = reference.frame(*rays, course, field, view, 1e-2, 1e-3, motion)
    still = reference.frame(*rays, course, field, view, 1e-2, 1e-3)
    monkeypatch.setattr(reference, "moved", by_tents)
    pixels = loop(rays, course, field, view, 1e-2, 1e-3, motion)[0]
    assert error(seen.rgb, still.rgb) > 0.1
    columns = torch.cat([seen.rgb, seen.depth[:, None], seen.opacity[:, None]], 1)
    torch.testing.assert_close(columns, pixels, atol=1e-4, rtol=1e-4)


@needs_cpu
@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("contract", [False, True])
@pytest.mark.parametrize("size", [2, 9])
def test_cpu_is_the_reference(level, contract, size, monkeypatch):
    if multiplies_bfloat16():  # what its products round is the network's test; here both ask the same network
        monkeypatch.setattr(reference, "mlp", cpu.mlp)
    for count in (0, 1, 65, 2000):
        rays, field, motion = make_rays(count), make_field(), make_motion(size)
        course, view = make_course(contract, torch.rand(count)), torch.randn(count, 5)
        expected = reference.frame(*rays, course, field, view, 1e-3, 1e-4, motion)
        found = cpu.frame(*rays, course, field, view, 1e-3, 1e-4, motion)
        # A sample now and then crosses `stop` or `faint`.
        assert max(error(a, b) for a, b in zip(found, expected)) < 2e-4, count


def inner_rays(count: int) -> tuple[torch.Tensor, ...]:
    """Rays within the cube of `make_course`."""
    directions = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    origins = torch.rand(count, 3) * 0.4 + torch.tensor([-0.1, -0.4, 0.1]) - directions * 0.5
    return origins, directions, torch.zeros(count), torch.full((count,), 1.0)


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("contract", [False, True])
@pytest.mark.parametrize("size", [2, 6])
@pytest.mark.parametrize("frame", OPS)
def test_a_linear_motion_is_that_of_the_rays(frame, size, contract):
    rays, field, view = inner_rays(500), make_field(), torch.randn(500, 5)
    course = make_course(contract, None, share=2.0)._replace(step=0.02, cone=0.0)
    turn, shift = torch.randn(3, 3) * 0.1, torch.randn(3) * 0.05
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    motion = Motion(torch.stack([x, y, z], -1) @ turn.T + shift)
    found = frame(*rays, course, field, view, 1e-3, 1e-4, motion)
    # y + turn y + shift along a ray is a ray: (I + turn) d from there on. No cell is empty, so both take the same steps.
    origins, directions, near, far = rays
    to_center = origins - torch.tensor(course.space.center)
    assert (to_center + directions * far[:, None]).abs().max() < 1.5 and to_center.abs().max() < 1.5
    other = origins + to_center @ turn.T + shift * 1.5, directions + directions @ turn.T
    expected = frame(*other, near, far, course, field, view, 1e-3, 1e-4)
    assert max(error(a, b) for a, b in zip(found, expected)) < 2e-4  # what rounding the place does to a rough field
    assert error(found.rgb, frame(*rays, course, field, view, 1e-3, 1e-4).rgb) > 0.05


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("contract", [False, True])
@pytest.mark.parametrize("frame", OPS)
def test_what_lies_on_the_faces_stays(frame, contract):
    # Along each face, and a hair's breadth inside of it.
    origins = torch.tensor([[s, 0.3, -2.0] for s in (-1.0, 1.0)] + [[0.3, s, -2.0] for s in (-1.0, 1.0)])
    across = origins.roll(1, 1), torch.tensor([[1.0, 0.0, 0.0]]).expand(4, 3)
    rays = torch.cat([origins, across[0]]), torch.cat([torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3), across[1]])
    ends = torch.full((8,), 1.25), torch.full((8,), 2.75)
    space, everywhere = UNIT._replace(contract=contract), torch.ones(RESOLUTION**3, dtype=torch.bool)
    course, field, view = Course(everywhere, RESOLUTION, space, 1 / 32), make_field(-2.0), torch.randn(8, 5)
    motion = make_motion(4, 0.4)
    still = frame(*rays, *ends, course, field, view, 1e-3, 1e-4)
    found = frame(*rays, *ends, course, field, view, 1e-3, 1e-4, motion)
    assert still.opacity.min() > 0.1 and all(torch.equal(a, b) for a, b in zip(found, still))
    inside = rays[0].clone()
    inside[inside.abs() == 1] *= 1 - 2**-20
    found = frame(inside, rays[1], *ends, course, field, view, 1e-3, 1e-4, motion)
    assert (found.rgb - still.rgb).abs().amax(1).min() > 1e-3


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("contract", [False, True])
@pytest.mark.parametrize("frame", OPS)
def test_no_motion_is_none_to_the_bit(frame, contract):
    rays, field, view = make_rays(300), make_field(), torch.randn(300, 5)
    course, still = make_course(contract, None), Motion(torch.zeros(7, 7, 7, 3))
    pairs = zip(*(frame(*rays, course, field, view, 1e-3, 1e-4, motion) for motion in (None, still)))
    assert all(torch.equal(a, b) for a, b in pairs)


@needs_cpu
@pytest.mark.usefixtures("seed")
def test_the_same_bits_on_any_number_of_threads(level):
    rays, field, view, motion = make_rays(3000), make_field(), torch.randn(3000, 5), make_motion()
    course, threads, runs = make_course(True, None), torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            runs.append(cpu.frame(*rays, course, field, view, 1e-3, 1e-4, motion))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other))


@needs_cpu
@pytest.mark.usefixtures("seed")
def test_a_lattice_need_not_be_contiguous():
    rays, field, view, motion = make_rays(100), make_field(), torch.randn(100, 5), make_motion()
    spread = torch.stack([motion.lattice, motion.lattice * 2], -1)[..., 0]
    course = make_course(True, None)
    found = [cpu.frame(*rays, course, field, view, 1e-3, 1e-4, Motion(m)) for m in (spread, motion.lattice)]
    assert not spread.is_contiguous() and all(torch.equal(a, b) for a, b in zip(*found))


@needs_cpu
@pytest.mark.parametrize("shape", [(4, 4, 3, 3), (4, 4, 4, 4), (4, 4, 4), (1, 1, 1, 3), (0, 0, 0, 3)])
def test_lattices_of_other_shapes_are_named(shape):
    rays, course, field, view = make_rays(4), make_course(False, None), make_field(), torch.rand(4, 5)
    with pytest.raises(ValueError, match="frame: expected a float32 lattice"):
        cpu.frame(*rays, course, field, view, 0.1, 0.1, Motion(torch.zeros(shape)))


@needs_cpu
def test_lattices_of_other_types_are_named():
    rays, course, field, view = make_rays(4), make_course(False, None), make_field(), torch.rand(4, 5)
    with pytest.raises(ValueError, match=r"expected a float32 lattice .* found torch.float64"):
        cpu.frame(*rays, course, field, view, 0.1, 0.1, Motion(torch.zeros(4, 4, 4, 3, dtype=torch.float64)))
