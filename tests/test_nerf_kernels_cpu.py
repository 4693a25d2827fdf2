"""The `cpu` backend against `reference`, at every instruction-set level that this machine runs.

Errors are ||found - expected|| / (||expected|| + 0.1 sqrt(n)): relative, but not to a number that cancelled to almost
nothing. The bounds are about three times the worst that was measured.
"""

import pytest
import torch

from nerf.kernels import composite as reference_composite
from nerf.kernels import cpu
from nerf.kernels import march as reference_march
from nerf.kernels.cpu_library import multiplies_bfloat16
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.hash_encode import hash_encode as reference_hash_encode
from nerf.kernels.mlp import ACTIVATIONS, activate
from nerf.kernels.mlp import mlp as reference_mlp
from tests.cpu_levels import (
    MARKS,
    SIZES,
    Narrow,
    error,
    levels,
    network,
    packed_samples,
    points_and_table,
    worst,
)

pytestmark = MARKS


@pytest.mark.parametrize("features", [1, 2, 3, 4, 8])
def test_hash_encode_is_the_reference(level, features):
    geometry = GridGeometry(levels=5, features=features, log2_rows=10, base_resolution=3, finest_resolution=200)
    assert any(geometry.dense) and not all(geometry.dense)
    for p in SIZES:
        x, table = points_and_table(p, geometry)
        found, expected = cpu.hash_encode(x, table, geometry), reference_hash_encode(x, table, geometry)
        assert worst(found, expected, [x, table]) < 2e-6, p


def test_hash_encode_survives_points_that_are_not_numbers(level):
    geometry = GridGeometry(levels=3, features=4, log2_rows=10)
    x, table = points_and_table(40, geometry)
    x = torch.cat([x.detach(), torch.full((3, 3), float("nan")), torch.full((3, 3), 1e30)])
    assert torch.isfinite(cpu.hash_encode(x, table, geometry)[:40]).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_is_the_reference(level, activation):
    for widths in ([3, 17, 100, 1], [32, 64, 64, 16], [5, 4]):
        for p in SIZES:
            for bias in (True, False):
                # Exponentials of exponentials lose digits in any arithmetic, unless they stay small.
                weights, biases = network(widths, bias, scale=0.3 if activation == "exponential" else 1.0)
                x = torch.randn(p, widths[0]).requires_grad_()
                arguments = (x, weights, biases, activation, "none", 3.0)
                found, expected = cpu.mlp(*arguments, dtype="float32"), reference_mlp(*arguments)
                assert worst(found, expected, [x, *weights, *(biases or [])]) < 1e-5, (widths, p, bias)


@pytest.mark.parametrize("output_activation", ACTIVATIONS)
def test_mlp_output_activations_and_wide_layers(level, output_activation):
    weights, biases = network([100, 256, 256, 33], scale=0.5)
    x = torch.randn(200, 100).requires_grad_()
    arguments = (x, weights, biases, "relu", output_activation, 5.0)
    found, expected = cpu.mlp(*arguments, dtype="float32"), reference_mlp(*arguments)
    assert worst(found, expected, [x, *weights, *biases]) < 2e-5


def rounded_mlp(x, weights, biases, activation):
    """`reference` in float64, rounded where the bfloat16 kernel rounds: operands of products, and nothing else."""
    for index, (weight, bias) in enumerate(zip(weights, biases)):
        # A bias's gradient sums the rounded gradients too.
        z = Narrow.apply(torch.nn.functional.linear(Narrow.apply(x, True), Narrow.apply(weight, True), bias), False)
        x = z if index == len(weights) - 1 else activate(z, activation)
    return x


@pytest.mark.parametrize("activation", ["relu", "none", "softplus"])
def test_inputs_enter_again_as_in_the_reference(level, activation):
    for widths, skips in (([51, 64, 64, 64, 33], (2,)), ([5, 17, 30, 3], (1, 2)), ([20, 40, 7], (0,)), ([6, 4], (0,))):
        for p in SIZES:
            weights, biases = network(widths)
            for layer in skips:
                more = torch.randn(widths[layer + 1], widths[0]) / widths[0] ** 0.5
                weights[layer] = torch.cat([weights[layer].detach(), more], 1).requires_grad_()
            x = torch.randn(p, widths[0])
            inputs = [x.requires_grad_(), *weights, *biases]
            if activation == "relu":  # float64 doesn't tip the sign of a sum
                inputs = [tensor.detach().double().requires_grad_() for tensor in inputs]
            arguments = (inputs[0], inputs[1 : len(widths)], inputs[len(widths) :], activation, "sigmoid", 3.0)
            found = cpu.mlp(*arguments, dtype="float32", skips=skips)
            expected = reference_mlp(*arguments, skips=skips)
            assert worst(found, expected, inputs) < (1e-12 if activation == "relu" else 1e-5), (widths, p)
            if multiplies_bfloat16() and activation == "none":
                rounded = cpu.mlp(*arguments, dtype="bfloat16", skips=skips)
                assert worst(rounded, expected, inputs) < 2e-2, (widths, p)


@pytest.mark.skipif("v4bf16" not in levels(), reason="this processor doesn't multiply bfloat16 numbers")
@pytest.mark.parametrize("activation", ["none", "relu", "softplus", "sigmoid"])
def test_mlp_in_bfloat16_rounds_operands_only(activation):
    for widths in ([31, 64, 64, 16], [5, 17, 100, 3]):
        for p in (1, 7, 65, 1000):
            weights, biases = network(widths)
            x = torch.randn(p, widths[0]).requires_grad_()
            inputs = [x, *weights, *biases]
            double = [tensor.detach().double().requires_grad_() for tensor in inputs]
            depth = len(weights)
            expected = rounded_mlp(double[0], double[1 : depth + 1], double[depth + 1 :], activation)
            found = cpu.mlp(x, weights, biases, activation)
            cotangent = torch.randn_like(found)
            gradients = torch.autograd.grad(found, inputs, cotangent)
            exact = torch.autograd.grad(expected, double, cotangent.double())
            # Sums in another order now and then tip a rounding: one unit of 2^-9 in a few numbers.
            pairs = zip([found, *gradients], [expected, *exact])
            assert max(error(a.double(), b) for a, b in pairs) < 3e-3, (widths, p)


def test_mlp_takes_frozen_parts(level):
    weights, biases = network([8, 16, 4])
    x = torch.randn(50, 8)
    frozen = [weights[0].detach(), weights[1]]
    assert (
        worst(cpu.mlp(x, frozen, biases, dtype="float32"), reference_mlp(x, frozen, biases), [weights[1], *biases])
        < 1e-5
    )
    frozen, still = [w.detach() for w in weights], [b.detach() for b in biases]
    x.requires_grad_()
    assert worst(cpu.mlp(x, frozen, still, dtype="float32"), reference_mlp(x, frozen, still), [x]) < 1e-5


@pytest.mark.parametrize("background", [None, "one", "each"])
def test_composite_is_the_reference(level, background):
    for r in (0, 1, 7, 63, 64, 65, 1000):
        density, rgb, t, dt, offsets = packed_samples(r)
        behind = None if background is None else torch.rand(1 if background == "one" else r, 3).requires_grad_()
        found = cpu.composite(density, rgb, t, dt, offsets, behind)
        expected = reference_composite.composite(density, rgb, t, dt, offsets, behind)
        inputs = [density, rgb] + ([] if behind is None else [behind])
        assert worst(found, expected, inputs) < 2e-6, r
        assert worst(found.depth, expected.depth, [density]) < 2e-6, r  # the others' gradients absent
        light = cpu.transmittance(density, dt, offsets)
        assert error(light, reference_composite.transmittance(density, dt, offsets).detach()) < 2e-6, r


@pytest.mark.parametrize("contract", [False, True])
@pytest.mark.parametrize("use_dilated", [False, True])
def test_march_keeps_the_same_samples(level, contract, use_dilated):
    r, resolution, step = 500, 48, 0.02
    space = reference_march.Space((0.1, -0.2, 0.3), 1.5, contract)
    origins, directions = torch.randn(r, 3), torch.nn.functional.normalize(torch.randn(r, 3), dim=-1)
    near = torch.rand(r) * 0.3
    far = near + torch.rand(r) * 5 - 0.5
    occupied = torch.rand(resolution, resolution, resolution) < 0.02
    for cone in (0.0, 0.01):
        k = reference_march.dilation(step, cone, 4.0, space, resolution)
        grown = torch.nn.functional.max_pool3d(occupied[None, None].float(), 2 * k + 1, 1, k)[0, 0] > 0
        arguments = (origins, directions, near, far, occupied.flatten(), resolution, space, step, cone, torch.rand(r))
        dilated = grown.flatten() if use_dilated else None
        found, expected = cpu.march(*arguments, dilated), reference_march.march(*arguments, dilated)
        assert len(expected.t) > 100
        if cone == 0:
            assert all(torch.equal(a, b) for a, b in zip(found, expected))
        else:  # a point may round across the border of a cell
            assert (found.offsets - expected.offsets).abs().max() <= 2
            every = torch.cat([expected.t.sort().values, torch.tensor([1e9])])
            there = torch.searchsorted(every, found.t - 1e-5 * found.t)
            assert ((every[there] - found.t).abs() < 1e-5 * found.t).float().mean() > 0.999


def test_march_without_rays_or_samples(level):
    space, occupied = reference_march.Space((0.0, 0.0, 0.0), 1.0, False), torch.zeros(8, dtype=torch.bool)
    for r in (0, 3):
        found = cpu.march(torch.zeros(r, 3), torch.ones(r, 3), torch.zeros(r), torch.ones(r), occupied, 2, space, 0.01)
        assert len(found.t) == len(found.dt) == 0 and torch.equal(found.offsets, torch.zeros(r + 1, dtype=torch.int64))


def test_gradients_by_differences(level):
    geometry = GridGeometry(levels=3, features=2, log2_rows=6, base_resolution=2, finest_resolution=8)
    x, table = points_and_table(6, geometry, torch.float64)
    assert torch.autograd.gradcheck(lambda x, table: cpu.hash_encode(x, table, geometry), (x, table))
    for activation in ACTIVATIONS:
        weights, biases = network([3, 5, 4, 2], dtype=torch.float64)
        x = torch.randn(5, 3, dtype=torch.float64).requires_grad_()
        inputs = (x, *weights, *biases)
        op = lambda x, *p, a=activation: cpu.mlp(x, p[:3], p[3:], a, a if a != "exponential" else "sigmoid", 2.0)  # noqa: E731
        assert torch.autograd.gradcheck(op, inputs), activation
    density, rgb, t, dt, offsets = packed_samples(4, torch.float64)
    background = torch.rand(4, 3, dtype=torch.float64).requires_grad_()
    op = lambda d, c, b: cpu.composite(d, c, t, dt, offsets, b)  # noqa: E731
    assert torch.autograd.gradcheck(op, (density, rgb, background))
