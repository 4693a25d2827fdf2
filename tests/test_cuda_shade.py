"""`shade` of the `cuda` backend, emulated: what stands between its networks to float32, and all of it to float16."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import cuda_mlp, cuda_shade, shade
from nerf.kernels.mlp import mlp
from nerf.kernels.space import Space
from tests.cpu_levels import packed_samples
from tests.cuda_emulated import NEEDS, distance, emulated  # noqa: F401 (a fixture)
from tests.test_nerf_kernels_frame import make_field, make_rays
from tests.test_nerf_kernels_shade import leaves

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]


def make(count: int, seen: int = 5):
    """Rays, packed samples, what colour depends on; samples nearer than they are far, so that some gradients are scaled."""
    origins, directions, _, _ = make_rays(count)
    _, _, t, dt, offsets = packed_samples(count)
    ray = torch.repeat_interleave(torch.arange(count), offsets.diff())
    return (origins, directions, torch.randn(count, seen)), (t, dt * 0.2, offsets, ray)


def exact_forward(x, weights, biases, activation, output_activation, omega, dtype, skips):
    """cuda_mlp.forward, but for its rounding."""
    with torch.no_grad():
        parts = [[value.double() for value in group] for group in (weights, biases)]
        return mlp(x.double(), *parts, activation, output_activation).float()


def exact_backward(grad, x, weights, biases, activation, output_activation, omega, dtype, skips, to_x):
    """cuda_mlp.backward, but for its rounding."""
    with torch.enable_grad():
        inputs = [value.detach().double().requires_grad_() for value in (x, *weights, *biases)]
        w, b = inputs[1 : 1 + len(weights)], inputs[1 + len(weights) :]
        out = mlp(inputs[0], w, b, activation, output_activation)
        return [value.float() for value in torch.autograd.grad(out, inputs, grad.double())]


def compare(count, contract, behind, near, density_scale=1.0) -> list[float]:
    """Errors of the four results, the density, and the gradients of the table and of the networks."""
    field, space = make_field(scale=density_scale), Space((0.1, -0.2, 0.3), 1.5, contract)
    rays, (t, dt, offsets, ray) = make(count)
    background = {"black": None, "one": torch.rand(1, 3), "a ray": torch.rand(count, 3)}[behind]
    own, parameters = leaves(field, torch.float32)
    found = cuda_shade.shade(rays, (t, dt, offsets, ray), space, own, background, near, "float16")
    theirs, exact = leaves(field, torch.float64)
    origins, directions, view, t, dt = (value.double() for value in (*rays, t, dt))
    behind_all = None if background is None else background.double()
    wanted = shade.shade(origins, directions, t, dt, offsets, ray, space, theirs, view, behind_all, near)
    cotangents = [torch.randn_like(value) for value in found.out]
    gradients = torch.autograd.grad(found.out, parameters, cotangents)
    expected = torch.autograd.grad(wanted.out, exact, [value.double() for value in cotangents])
    assert not found.density.requires_grad
    pairs = zip([*found.out, found.density, *gradients], [*wanted.out, wanted.density, *expected])
    return [distance(a, b) for a, b in pairs]


@pytest.mark.parametrize("near", [None, 2.0])
@pytest.mark.parametrize("contract, behind", [(True, "black"), (False, "one"), (True, "a ray")])
def test_all_but_the_networks_is_the_reference(contract, behind, near, monkeypatch):
    monkeypatch.setattr(cuda_mlp, "forward", exact_forward)
    monkeypatch.setattr(cuda_mlp, "backward", exact_backward)
    for count in (0, 1, 65):
        # A raw density is a sum of large numbers here, and its exponential takes the rounding over.
        assert max(compare(count, contract, behind, near)) < 1e-4


def test_with_its_networks_it_is_the_reference_to_float16():
    assert max(compare(60, True, "one", 2.0)) < 2e-2


def test_colour_alone_has_gradients_too_and_densities_too_large_are_cut():
    field = make_field()._replace(density_bias=40.0)
    own, parameters = leaves(field, torch.float32)
    rays, samples = make(20)
    found = cuda_shade.shade(rays, samples, Space((0.1, -0.2, 0.3), 1.5, True), own, None, None, "float16")
    found.out.rgb.sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in parameters)
    assert found.density.isfinite().all() and found.density.max() > 1e15
    with torch.no_grad():
        assert not cuda_shade.shade(
            rays, samples, Space((0, 0, 0), 1, True), own, None, None, "float16"
        ).out.rgb.requires_grad
