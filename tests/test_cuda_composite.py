"""The CUDA kernels of compositing, emulated, beside `reference` in float64."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import cuda_rays
from nerf.kernels.composite import composite, transmittance
from nerf.kernels.shade import NearGradients
from tests import emulator
from tests.cuda_emulated import NEEDS, distance, emulated  # noqa: F401 (a fixture)

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]
LIMIT = 1e-6  # measured: 3.7e-7 at most
# A warp takes 32 samples of a ray at once: none, a part, all, one more, several.
COUNTS = (0, 1, 31, 32, 33, 0, 64, 65, 200, 5, 2, 0)


def pack(counts=COUNTS):
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.tensor(counts, dtype=torch.int64).cumsum(0)])
    p = int(offsets[-1])
    density = torch.rand(p) ** 3 * 4
    return density, torch.rand(p, 3), torch.rand(p) * 4, torch.rand(p) * 0.2, offsets


def exact(*tensors):
    return [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("behind", ["black", "one", "a ray"])
@pytest.mark.parametrize("counts", [COUNTS, (0, 0), (7,), ()], ids=str)
def test_values_and_gradients_are_the_references(behind, counts, schedule):
    parts, rays = pack(counts), len(counts)
    background = {"black": None, "one": torch.rand(1, 3), "a ray": torch.rand(rays, 3)}[behind]
    density, rgb, t, dt, offsets = exact(*parts)
    for value in (density, rgb):
        value.requires_grad_()
    expected = composite(density, rgb, t, dt, offsets, None if background is None else background.double())
    with emulator.schedule(schedule):
        found = cuda_rays.composite(*parts, background)
        for value, wanted in zip(found, expected):
            assert distance(value, wanted) < LIMIT
        cotangents = [torch.randn_like(value) for value in found]
        wanted = torch.autograd.grad(expected, (density, rgb), exact(*cotangents))
        gradients = cuda_rays.composite_backward(*parts, background, found[3], *cotangents, 0.0)
        for value, right in zip(gradients, wanted):
            assert distance(value, right) < LIMIT


@pytest.mark.parametrize("which", range(4))
def test_each_result_alone_has_gradients(which):
    parts = pack()
    density, rgb, t, dt, offsets = exact(*parts)
    for value in (density, rgb):
        value.requires_grad_()
    expected, found = composite(density, rgb, t, dt, offsets)[which], cuda_rays.composite(*parts, None)
    cotangents = [None] * 4
    cotangents[which] = torch.randn_like(found[which])
    wanted = torch.autograd.grad(expected, (density, rgb), cotangents[which].double(), allow_unused=True)
    gradients = cuda_rays.composite_backward(*parts, None, found[3], *cotangents, 0.0)
    for value, right in zip(gradients, wanted):
        assert distance(value, torch.zeros_like(value) if right is None else right) < LIMIT


def test_gradients_near_a_camera_are_scaled():
    parts = pack()
    density, rgb, t, dt, offsets = exact(*parts)
    leaves = [value.requires_grad_() for value in (density, rgb)]
    scaled = NearGradients.apply(*leaves, (t / 1.5).square().clamp(max=1.0))
    expected, found = composite(*scaled, t, dt, offsets), cuda_rays.composite(*parts, None)
    grad = torch.randn_like(found[0])
    wanted = torch.autograd.grad(expected.rgb, leaves, grad.double())
    gradients = cuda_rays.composite_backward(*parts, None, found[3], grad, None, None, None, 1.5)
    for value, right in zip(gradients, wanted):
        assert distance(value, right) < LIMIT


def test_light_and_its_gradient():
    density, _, _, dt, offsets = pack()
    leaves = [value.double().requires_grad_() for value in (density, dt)]
    expected, found = transmittance(*leaves, offsets), cuda_rays.transmittance(density, dt, offsets)
    assert distance(found, expected) < LIMIT
    grad = torch.randn_like(found)
    wanted = torch.autograd.grad(expected, leaves, grad.double())
    for value, right in zip(cuda_rays.transmittance_backward(density, dt, offsets, found, grad), wanted):
        assert distance(value, right) < LIMIT


def test_a_wall_hides_what_is_behind_it_and_has_finite_gradients():
    offsets = torch.tensor([0, 4, 44])
    density, dt = torch.full((44,), 0.5), torch.full((44,), 0.1)
    density[1], dt[3], density[20], dt[43] = 1e8, 1e10, 1e12, 1e10  # NeRF's last samples stand for 1e10
    density[3] = 0.0
    rgb, t = torch.rand(44, 3), torch.rand(44)
    found = cuda_rays.composite(density, rgb, t, dt, offsets, None)
    expected = composite(*exact(density, rgb, t, dt), offsets)
    for value, wanted in zip(found, expected):
        assert distance(value, wanted) < LIMIT
    assert not found[3][2:4].any() and not found[3][21:].any()
    for value in cuda_rays.composite_backward(
        density, rgb, t, dt, offsets, None, found[3], torch.ones(2, 3), None, None, None, 0.0
    ):
        assert value.isfinite().all()


def test_a_density_that_is_no_number_harms_no_other_ray():
    density, rgb, t, dt, offsets = pack()
    whole = cuda_rays.composite(density, rgb, t, dt, offsets, None)
    density[int(offsets[8]) + 40] = torch.nan  # sample 40 of the ray that has 200
    found = cuda_rays.composite(density, rgb, t, dt, offsets, None)
    others = torch.arange(len(COUNTS)) != 8
    assert torch.equal(found[0][others], whole[0][others]) and found[0][8].isnan().all()
    weights = found[3][offsets[8] : offsets[9]]
    assert torch.equal(weights[:40], whole[3][offsets[8] : offsets[9]][:40]) and weights[40:].isnan().all()
