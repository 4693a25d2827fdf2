"""`look` and `frame`: slow loops over one ray at a time, and the backends beside each other."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from nerf.kernels import cpu
from nerf.kernels import frame as reference
from nerf.kernels.cpu_library import multiplies_bfloat16
from nerf.kernels.frame import Course, GridField
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.march import dilation
from nerf.kernels.space import Space
from tests.cpu_levels import MARKS, error

RESOLUTION = 16
needs_cpu = MARKS[0]


def make_field(
    bias: float = 1.0, features: int = 4, view: int = 5, width: int = 32, geometry: int = 7, scale: float = 1.0
) -> GridField:
    """A field with enough contrast that rays end, pass through and graze; `geometry` outputs of its density network."""
    grid = GridGeometry(levels=3, features=features, log2_rows=10, base_resolution=4, finest_resolution=40)

    def layers(*widths: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        weights = [torch.randn(o, i) * 1.5 / i**0.5 for i, o in pairwise(widths)]
        return weights, [torch.randn(o) * 0.1 for o in widths[1:]]

    density, color = layers(grid.width, width, geometry), layers(geometry + view, width, width, 3)
    density[0][-1][0] *= 2
    return GridField(torch.randn(grid.offsets[-1], features), grid, *density, *color, bias, scale / 1.5)


def make_course(contract: bool, jitter: torch.Tensor | None, share: float = 0.5) -> Course:
    space = Space((0.1, -0.2, 0.3), 1.5, contract)
    occupied = torch.rand(RESOLUTION**3) < share
    step, cone = (0.02, 1 / 128) if contract else (0.03, 0.0)
    return Course(occupied, RESOLUTION, space, step, cone, jitter, torch.ones_like(occupied))


def make_rays(count: int) -> tuple[torch.Tensor, ...]:
    directions = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    origins = torch.rand(count, 3) - 0.5 - directions * 2
    near, far = torch.rand(count) * 0.3 + 0.5, torch.full((count,), 3.5)
    far[::7] = near[::7] - 1  # these miss
    return origins, directions, near, far


def loop(rays, course: Course, field: GridField, view, stop: float, faint: float, motion=None):
    """One ray after another, one sample after another, in Python's own numbers."""
    asked = reference.asked(rays, course, field, motion, None, reference.reference_steps())
    colour = reference.mlp(
        torch.cat([asked.features, view[asked.ray]], 1), field.color_weights, field.color_biases, "relu", "sigmoid"
    )
    pixels, kept, values = [], [], [0.0] * course.resolution**3
    for r in range(len(rays[2])):
        light, rgb, depth, opacity = 1.0, [0.0] * 3, 0.0, 0.0
        for i in (asked.ray == r).nonzero().flatten().tolist():
            density, dt = float(asked.density[i]), float(asked.dt[i])
            if light <= stop:
                break
            x, y, z = (max(0, min(int(c * RESOLUTION), RESOLUTION - 1)) for c in asked.place[i].tolist())
            cell = (z * RESOLUTION + y) * RESOLUTION + x
            values[cell] = max(values[cell], density * 0.5)
            if density * dt > 0.01:
                kept.append((r, float(asked.t[i])))
            weight = light * -math.expm1(-density * dt)
            if weight > faint:
                rgb = [a + weight * b for a, b in zip(rgb, colour[i].tolist())]
                depth, opacity = depth + weight * float(asked.t[i]), opacity + weight
            light *= math.exp(-density * dt)
        pixels.append([*rgb, depth, opacity])
    return torch.tensor(pixels), kept, torch.tensor(values)


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("contract", [False, True])
def test_reference_is_the_slow_loop(contract):
    rays, field = make_rays(40), make_field()
    course, view = make_course(contract, torch.rand(40)), torch.randn(40, 5)
    pixels, kept, expected_values = loop(rays, course, field, view, 1e-2, 1e-3)
    seen = reference.frame(*rays, course, field, view, 1e-2, 1e-3)
    assert pixels[:, 4].max() > 0.9 and pixels[:, 4].min() == 0
    torch.testing.assert_close(torch.cat([seen.rgb, seen.depth[:, None], seen.opacity[:, None]], 1), pixels)
    values = torch.zeros(RESOLUTION**3)
    looked = reference.look(*rays, course, field, 1e-2, 0.01, values, 0.5)
    assert list(zip(looked.ray.tolist(), looked.t.tolist())) == kept and 0 < len(kept) < looked.lit
    torch.testing.assert_close(values, expected_values)


@needs_cpu
@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("contract", [False, True])
@pytest.mark.parametrize("features", [2, 4])
def test_cpu_is_the_reference(level, contract, features, monkeypatch):
    if multiplies_bfloat16():  # what its products round is the network's test; here both ask the same network
        monkeypatch.setattr(reference, "mlp", cpu.mlp)
    limit = 2e-4  # a sample now and then crosses `stop` or `faint`
    for count in (0, 1, 65, 3000):
        rays, field = make_rays(count), make_field(features=features)
        course, view = make_course(contract, torch.rand(count)), torch.randn(count, 5)
        expected = reference.frame(*rays, course, field, view, 1e-3, 1e-4)
        found = cpu.frame(*rays, course, field, view, 1e-3, 1e-4)
        assert max(error(a, b) for a, b in zip(found, expected)) < limit, count
        values, raised = torch.full((2, RESOLUTION**3), 0.01)
        there = reference.look(*rays, course, field, 1e-3, 0.01, values, 0.5)
        here = cpu.look(*rays, course, field, 1e-3, 0.01, raised, 0.5)
        assert abs(len(here.t) - len(there.t)) <= limit * len(there.t) + 1 and len(here.ray) == len(here.t)
        assert abs(here.lit - there.lit) <= limit * there.lit + 1
        assert torch.equal(here.ray, reference.composite.ray_of_sample(here.offsets, len(here.t)))
        assert error(raised, values) < limit
        if len(here.t) == len(there.t):
            torch.testing.assert_close(here.t, there.t)
            torch.testing.assert_close(here.dt, there.dt)


@needs_cpu
@pytest.mark.usefixtures("seed")
def test_the_same_bits_on_any_number_of_threads(level):
    rays, field, view = make_rays(5000), make_field(), torch.randn(5000, 5)
    course, threads, runs = make_course(True, None), torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            values = torch.zeros(RESOLUTION**3)
            looked = cpu.look(*rays, course, field, 1e-3, 0.01, values)
            runs.append(
                [*cpu.frame(*rays, course, field, view, 1e-3, 1e-4), *looked[:4], torch.tensor(looked.lit), values]
            )
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


@needs_cpu
@pytest.mark.usefixtures("seed")
def test_the_dilated_grid_changes_nothing(level):
    rays, field, view = make_rays(500), make_field(), torch.randn(500, 5)
    course = make_course(False, None, share=0.01)
    by = dilation(course.step, course.cone, 4.0, course.space, RESOLUTION)
    cube = course.occupied.view(1, 1, *[RESOLUTION] * 3).float()
    dilated = torch.nn.functional.max_pool3d(cube, 2 * by + 1, 1, by).view(-1) > 0
    assert 0 < dilated.float().mean() < 1
    found = [cpu.frame(*rays, course._replace(dilated=d), field, view, 1e-3, 1e-4) for d in (dilated, None)]
    assert all(torch.equal(a, b) for a, b in zip(*found)) and found[0].opacity.max() > 0


@needs_cpu
def test_wrong_arguments_are_named():
    rays, field = make_rays(4), make_field()
    course = make_course(False, None)
    for message, op in {
        "don't follow one another": lambda: cpu.frame(*rays, course, field, torch.rand(4, 6), 0.1, 0.1),
        "float32 table of shape": lambda: cpu.look(*rays, course, field._replace(table=field.table[1:]), 0.1, 0.1),
        "values of a flat grid": lambda: cpu.look(*rays, course, field, 0.1, 0.1, torch.zeros(5)),
        "flat bool grid": lambda: cpu.look(*rays, course._replace(resolution=8), field, 0.1, 0.1),
        "takes float32 rays": lambda: cpu.look(*(x.double() for x in rays), course, field, 0.1, 0.1),
    }.items():
        with pytest.raises((ValueError, TypeError), match=message):
            op()
