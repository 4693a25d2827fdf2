"""`shade`: a slow loop in float64, autograd through the separate ops, and the backends beside each other."""

from __future__ import annotations

import math

import pytest
import torch

from nerf.kernels import cpu, frame, shade
from nerf.kernels.cpu_library import multiplies_bfloat16
from nerf.kernels.frame import GridField
from nerf.kernels.hash_encode import hash_encode
from nerf.kernels.space import Space
from tests.cpu_levels import MARKS, error, packed_samples
from tests.test_nerf_kernels_frame import make_field, make_rays

needs_cpu = MARKS[0]
SPACE = Space((0.1, -0.2, 0.3), 1.5, True)


def make(count: int, field: GridField):
    """Rays, their samples, what colour depends on."""
    origins, directions, _, _ = make_rays(count)
    _, _, t, dt, offsets = packed_samples(count)
    ray = torch.repeat_interleave(torch.arange(count), offsets.diff())
    view = torch.randn(count, len(field.color_weights[0][0]) - len(field.density_weights[-1]))
    return origins, directions, t, dt * 0.2, offsets, ray, SPACE, field, view


def leaves(field: GridField, dtype: torch.dtype = torch.float32) -> tuple[GridField, list[torch.Tensor]]:
    """The field with tensors of its own that want gradients, and these."""
    table = field.table.to(dtype, copy=True).requires_grad_()
    lists = [[value.to(dtype, copy=True).requires_grad_() for value in group] for group in field[2:6]]
    flat = [table, *(value for group in lists for value in group)]
    return GridField(table, field.geometry, *lists, field.density_bias, field.density_scale), flat


@pytest.mark.usefixtures("seed")
def test_reference_is_the_slow_loop():
    field = make_field()
    origins, directions, t, dt, offsets, ray, _, _, view = make(12, field)
    background = torch.rand(12, 3)
    found = shade.shade(origins, directions, t, dt, offsets, ray, SPACE, field, view, background)
    for r in range(12):
        light, rgb, depth = 1.0, [0.0] * 3, 0.0
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            y = (origins[r] + directions[r] * t[i] - torch.tensor(SPACE.center)) / SPACE.half
            norm = max(1.0, float(y.abs().max()))
            unit = ((2 - 1 / norm) * (y / norm) + 2) / 4
            h = hash_encode(unit[None], field.table, field.geometry)[0]
            for k, (w, b) in enumerate(zip(field.density_weights, field.density_biases)):
                h = w @ h + b if k == len(field.density_weights) - 1 else torch.relu(w @ h + b)
            density = math.exp(float(h[0]) + field.density_bias) * field.density_scale
            c = torch.cat([h, view[r]])
            for k, (w, b) in enumerate(zip(field.color_weights, field.color_biases)):
                c = torch.sigmoid(w @ c + b) if k == len(field.color_weights) - 1 else torch.relu(w @ c + b)
            weight = light * (1 - math.exp(-density * float(dt[i])))
            light -= weight
            rgb = [a + weight * float(b) for a, b in zip(rgb, c)]
            depth += weight * float(t[i])
            assert float(found.out.weights[i]) == pytest.approx(weight, abs=1e-5)
            assert float(found.density[i]) == pytest.approx(density, rel=1e-4)
        seen = torch.tensor(rgb) + light * background[r]
        torch.testing.assert_close(found.out.rgb[r], seen, atol=1e-5, rtol=1e-4)
        assert float(found.out.depth[r]) == pytest.approx(depth, abs=1e-4)


@needs_cpu
@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("near", [None, 2.0])
@pytest.mark.parametrize("background", [None, "one", "each"])
def test_cpu_is_the_reference(level, near, background, monkeypatch):
    if multiplies_bfloat16():  # what its products round is the network's test; here both ask the same network
        monkeypatch.setattr(frame, "mlp", cpu.mlp)
    for count in (0, 1, 65, 400):
        field = make_field()
        arguments = make(count, field)
        behind = None if background is None else torch.rand(1 if background == "one" else count, 3)
        results = []
        for op in (shade.shade, cpu.shade):
            own, parameters = leaves(field)
            found = op(*arguments[:7], own, arguments[8], behind, near)
            torch.manual_seed(5)
            loss = sum((value * torch.randn_like(value)).sum() for value in found.out)
            results.append([*found.out, found.density, *torch.autograd.grad(loss, parameters)])
        # In bfloat16 the last digit of what enters a layer now and then tips a rounding.
        assert max(error(a, b) for a, b in zip(*results)) < (1e-3 if multiplies_bfloat16() else 3e-5), count


@needs_cpu
@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("contract", [False, True])
def test_points_and_views_get_gradients(level, contract, monkeypatch):
    if multiplies_bfloat16():
        monkeypatch.setattr(frame, "mlp", cpu.mlp)
    field, space = make_field(), Space(SPACE.center, SPACE.half, contract)
    for count in (0, 1, 90):
        arguments = make(count, field)
        x = (torch.randn(len(arguments[2]), 3) * (1.2 if contract else 0.5)).requires_grad_()
        view, results = arguments[8].clone().requires_grad_(), []
        for op in (shade.shade, cpu.shade):
            found = op(*arguments[:6], space, field, view, None, 2.0, x)
            results.append([*found.out, found.density, *torch.autograd.grad(found.out.rgb.square().sum(), [x, view])])
        assert max(error(a, b) for a, b in zip(*results)) < (5e-3 if multiplies_bfloat16() else 1e-4), count
    outside = ((x - torch.tensor(SPACE.center)).abs() > SPACE.half).any(1)
    assert not contract or 0.2 < outside.float().mean() < 0.9


@needs_cpu
@pytest.mark.usefixtures("seed")
def test_colour_alone_has_gradients_too(level):
    field = make_field()
    arguments = make(50, field)
    own, parameters = leaves(field)
    cpu.shade(*arguments[:7], own, arguments[8]).out.rgb.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
    with torch.no_grad():
        assert not cpu.shade(*arguments[:7], own, arguments[8]).out.rgb.requires_grad


@needs_cpu
@pytest.mark.usefixtures("seed")
def test_wrong_arguments_are_named():
    field = make_field()
    a = make(6, field)
    wanting = a[0].clone().requires_grad_()
    for message, op in {
        "gradients to the field, to view": lambda: cpu.shade(wanting, *a[1:]),
        "offsets that rise": lambda: cpu.shade(*a[:4], a[4].flip(0), *a[5:]),
        "samples' rays among 6": lambda: cpu.shade(*a[:5], a[5] + 6, *a[6:]),
        "don't follow one another": lambda: cpu.shade(*a[:8], torch.rand(6, 9)),
        "a table of shape": lambda: cpu.shade(*a[:7], field._replace(table=field.table[1:]), a[8]),
    }.items():
        with pytest.raises((ValueError, TypeError), match=message):
            op()
