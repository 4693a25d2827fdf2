"""Compositing against equation 3 of NeRF, a sample at a time, and against slabs that have closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from nerf.kernels.composite import composite, ray_of_sample, transmittance

COUNTS = (3, 0, 1, 5, 0, 0, 2, 0)


def offsets_of(counts) -> torch.Tensor:
    return torch.tensor([sum(counts[:i]) for i in range(len(counts) + 1)])


def pack(counts=COUNTS, seed: int = 0, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(seed)
    p = sum(counts)
    density = torch.rand(p, generator=g, dtype=torch.float64) * 4
    rgb = torch.rand(p, 3, generator=g, dtype=torch.float64)
    dt = torch.rand(p, generator=g, dtype=torch.float64) * 0.5
    t = torch.cat([torch.rand(n, generator=g, dtype=torch.float64).sort().values + 1 for n in counts])
    return *(v.to(dtype) for v in (density, rgb, t, dt)), offsets_of(counts)


def composite_slowly(density, rgb, t, dt, offsets, background=None):
    """C = sum T_i (1 - exp(-sigma_i delta_i)) c_i, T_i = exp(-sum_{j<i} sigma_j delta_j), in plain Python."""
    colours, depths, opacities, weights = [], [], [], []
    density, rgb, t, dt = density.tolist(), rgb.tolist(), t.tolist(), dt.tolist()
    for r in range(len(offsets) - 1):
        gathered, colour, depth, opacity = 0.0, [0.0, 0.0, 0.0], 0.0, 0.0
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            weight = math.exp(-gathered) * (1 - math.exp(-density[i] * dt[i]))
            gathered += density[i] * dt[i]
            colour = [c + weight * v for c, v in zip(colour, rgb[i])]
            depth, opacity = depth + weight * t[i], opacity + weight
            weights.append(weight)
        if background is not None:
            behind = background[r if len(background) > 1 else 0].tolist()
            colour = [c + (1 - opacity) * b for c, b in zip(colour, behind)]
        colours, depths, opacities = [*colours, colour], [*depths, depth], [*opacities, opacity]
    return tuple(torch.tensor(v, dtype=torch.float64) for v in (colours, depths, opacities, weights))


BACKGROUNDS = [None, torch.tensor([[0.2, 0.5, 1.0]]), torch.linspace(0, 1, 24).reshape(8, 3)]


@pytest.mark.parametrize("background", BACKGROUNDS, ids=["none", "one", "per ray"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_rays_are_the_papers_sum(background, dtype, tolerance):
    parts = pack(dtype=dtype)
    behind = None if background is None else background.to(dtype)
    for found, expected in zip(composite(*parts, behind), composite_slowly(*parts, behind)):
        torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("counts", [(0,), (0, 0, 0), (0, 4), (4, 0), ()], ids=str)
def test_packs_without_samples_show_the_background(counts):
    parts = (
        pack(counts)
        if any(counts)
        else (torch.zeros(0), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0), offsets_of(counts))
    )
    out = composite(*parts, torch.tensor([[0.1, 0.2, 0.3]], dtype=parts[0].dtype))
    for r, count in enumerate(counts):
        if not count:
            assert out.rgb[r].tolist() == pytest.approx([0.1, 0.2, 0.3])
            assert out.opacity[r] == 0 and out.depth[r] == 0


def test_a_slab_of_fog_follows_beer_and_lambert():
    sigma, length, steps = 0.7, 3.0, 400
    dt = torch.full((steps,), length / steps, dtype=torch.float64)
    t = (torch.arange(steps, dtype=torch.float64) + 0.5) * length / steps
    rgb = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64).expand(steps, 3)
    out = composite(
        torch.full_like(dt, sigma), rgb, t, dt, torch.tensor([0, steps]), torch.ones(1, 3, dtype=torch.float64)
    )
    opacity = 1 - math.exp(-sigma * length)
    assert out.opacity.item() == pytest.approx(opacity, abs=1e-12)
    expected = [c * opacity + 1 - opacity for c in (0.9, 0.4, 0.1)]
    assert out.rgb[0].tolist() == pytest.approx(expected, abs=1e-12)
    # integral of t sigma exp(-sigma t) from 0 to L; middles instead of the integral are second order in the step.
    depth = 1 / sigma - math.exp(-sigma * length) * (length + 1 / sigma)
    assert out.depth.item() == pytest.approx(depth, abs=1e-5)


def test_splitting_a_sample_changes_nothing():
    density, rgb, _, dt, offsets = pack((4,))
    out = composite(density, rgb, torch.ones(4, dtype=torch.float64), dt, offsets)
    twice = [v.repeat_interleave(2, 0) for v in (density, rgb, dt / 2)]
    split = composite(twice[0], twice[1], torch.ones(8, dtype=torch.float64), twice[2], offsets * 2)
    torch.testing.assert_close(split.rgb, out.rgb)
    torch.testing.assert_close(split.weights.reshape(4, 2).sum(1), out.weights)


def test_a_wall_hides_what_is_behind_it():
    density = torch.tensor([0.0, 1e6, 5.0])
    out = composite(
        density, torch.eye(3), torch.tensor([1.0, 2, 3]), torch.full((3,), 0.1), torch.tensor([0, 3]), torch.ones(1, 3)
    )
    assert out.weights.tolist() == [0, 1, 0]
    assert out.rgb.tolist() == [[0, 1, 0]] and out.depth.tolist() == [2] and out.opacity.tolist() == [1]


def test_endless_last_samples_leave_other_rays_alone():
    # NeRF's last sample stands for 1e10: thousands of those in one pack mustn't drown the thin ones behind them.
    rays, each = 3000, 4
    parts = list(pack((each,) * rays, dtype=torch.float32))
    parts[3] = parts[3].reshape(rays, each).clone()
    parts[3][:, -1] = 1e10
    parts[3] = parts[3].reshape(-1)
    out = composite(*parts)
    tail = slice((rays - 20) * each, rays * each)
    last = composite_slowly(*(v[tail] for v in parts[:4]), torch.arange(21) * each)
    torch.testing.assert_close(out.weights[tail].double(), last[3], atol=1e-6, rtol=0)
    torch.testing.assert_close(out.rgb[-20:].double(), last[0], atol=1e-6, rtol=0)


def test_transmittance_is_the_light_that_is_left():
    density, _, _, dt, offsets = pack()
    found, expected = transmittance(density, dt, offsets).tolist(), []
    for r in range(len(COUNTS)):
        left = 1.0
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            expected.append(left)
            left *= math.exp(-float(density[i]) * float(dt[i]))
    assert found == pytest.approx(expected, abs=1e-14)


def test_samples_know_their_ray():
    assert ray_of_sample(offsets_of(COUNTS), 11).tolist() == [0, 0, 0, 2, 3, 3, 3, 3, 3, 6, 6]


@pytest.mark.parametrize("background", BACKGROUNDS, ids=["none", "one", "per ray"])
def test_first_and_second_derivatives(background):
    parts = [v.requires_grad_() if v.is_floating_point() else v for v in pack((3, 0, 2), seed=4)]
    behind = None if background is None else background[:3].double().requires_grad_()

    def render(*inputs):
        return composite(*inputs[:4], parts[4], *inputs[4:])

    inputs = (*parts[:4], *(() if behind is None else (behind,)))
    assert gradcheck(render, inputs)
    assert gradgradcheck(render, inputs)


def test_gradients_behind_a_wall_and_at_zero_density_are_finite():
    density = torch.tensor([0.0, 1e8, 3.0, 0.0], requires_grad=True)
    dt = torch.tensor([0.1, 0.1, 0.1, 1e10])
    out = composite(density, torch.rand(4, 3), torch.arange(4.0), dt, torch.tensor([0, 4]))
    (out.rgb.sum() + out.depth.sum()).backward()
    assert torch.isfinite(density.grad).all()
