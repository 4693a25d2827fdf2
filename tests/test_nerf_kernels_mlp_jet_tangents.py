"""A network's derivatives along tangents of its inputs, with inputs that enter again, against the chain rule."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.autograd.functional import hessian, jacobian

from nerf.kernels import cpu
from nerf.kernels import mlp as reference
from nerf.kernels.cpu_library import multiplies_bfloat16
from nerf.kernels.mlp import ACTIVATIONS
from nerf.kernels.mlp_jet import mlp_jet
from tests.cpu_levels import SIZES, Narrow, error, levels, network, worst
from tests.test_nerf_kernels_mlp_jet import forms_of


def with_skips(widths: list[int], skips: tuple[int, ...], dtype=torch.float64, scale: float = 0.5, bias: bool = True):
    """Weights and biases of a network whose inputs enter the layers `skips` again."""
    weights, biases = network(widths, bias, dtype, scale)
    for layer in skips:
        more = torch.randn(widths[layer + 1], widths[0], dtype=dtype) * scale / widths[0] ** 0.5
        weights[layer] = torch.cat([weights[layer].detach(), more], 1).requires_grad_()
    return weights, biases


@pytest.mark.parametrize("name", ["sine", "softplus", "sigmoid", "exponential", "none", "relu"])
@pytest.mark.parametrize("skips", [(), (1,), (0, 3)], ids=str)
def test_along_tangents_a_jet_is_the_chain_rule(name, skips):
    # The network behind a curved map of two coordinates; second derivatives are those behind a linear map.
    torch.manual_seed(4)
    weights, biases = with_skips([5, 7, 6, 9, 2], skips)
    s, forms = torch.randn(4, 2, dtype=torch.float64), forms_of(2, 2)
    matrix, wave = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    maps = {"curved": lambda s: s @ matrix.T + torch.sin(s @ wave.T), "linear": lambda s: s @ matrix.T + 0.3}
    for kind, encode in maps.items():
        tangents = torch.stack([jacobian(lambda p: encode(p[None])[0], point) for point in s], 1).permute(2, 1, 0)  # noqa: B023
        jet = mlp_jet(encode(s), weights, biases, forms, name, 1.7, tangents=tangents, skips=skips)
        for i, point in enumerate(s):
            for o in range(2):
                scalar = lambda p, o=o, f=encode: reference.mlp(  # noqa: E731
                    f(p[None]), weights, biases, name, "none", 1.7, skips=skips
                )[0, o]
                torch.testing.assert_close(jet.value[i, o], scalar(point))
                torch.testing.assert_close(jet.gradient[i, o], jacobian(scalar, point))
                if kind == "linear":
                    torch.testing.assert_close(jet.second[i, o], (forms * hessian(scalar, point)).sum((1, 2)))


def test_along_tangents_a_jet_trains_by_differences():
    torch.manual_seed(3)
    weights, biases = with_skips([4, 5, 6, 2], (2,))
    x, tangents = (torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in ((3, 4), (2, 3, 4)))
    for op in [mlp_jet, *([cpu.mlp_jet] if levels() else [])]:
        for name in ("sine", "softplus", "relu"):

            def along(x, tangents, *p, op=op, name=name):
                return tuple(op(x, p[:3], p[3:], forms_of(2, 2), name, 1.3, tangents=tangents, skips=(2,)))

            assert gradcheck(along, (x, tangents, *weights, *biases)), (op, name)


@pytest.mark.parametrize("activation", ["relu", "none", "sine", "softplus"])
@pytest.mark.usefixtures("seed")
@pytest.mark.skipif(not levels(), reason="no backend cpu")
def test_the_cpu_backend_is_the_reference_along_tangents(level, activation):
    cases = (([59, 32, 32, 32, 6], (2,), 3), ([187, 40, 7], (), 8), ([5, 17, 33, 1], (1, 2), 1), ([6, 4], (0,), 2))
    for widths, skips, dims in cases:
        for count in (0, 2):
            for p in SIZES[:-1]:
                weights, biases = with_skips(widths, skips, torch.float32, 1.0, p != 7)
                x = torch.randn(p, widths[0]).requires_grad_()
                tangents = torch.randn(dims, p, widths[0]).requires_grad_()
                inputs = [x, tangents, *weights, *(biases or [])]
                if activation == "relu":  # as above
                    inputs = [t.detach().double().requires_grad_() for t in inputs]
                depth, forms = len(weights), forms_of(dims, count, inputs[0].dtype)
                parts = inputs[2 : 2 + depth], inputs[2 + depth :] or None
                pair = [
                    op(inputs[0], *parts, forms, activation, 2.0, tangents=inputs[1], skips=skips)
                    for op in (cpu.mlp_jet, mlp_jet)
                ]
                assert worst(*pair, inputs) < (1e-12 if activation == "relu" else 2e-5), (widths, count, p)


@pytest.mark.usefixtures("seed")
@pytest.mark.skipif(not levels(), reason="no backend cpu")
def test_without_tangents_the_inputs_are_the_coordinates(level):
    for activation in ACTIVATIONS:
        for dtype in ("float32", *(["bfloat16"] if multiplies_bfloat16() else [])):
            weights, biases = network([3, 33, 17, 2], scale=0.5)
            x, forms = torch.randn(65, 3), forms_of(3, 2, torch.float32)
            unit = torch.eye(3)[:, None].expand(3, 65, 3)
            one = cpu.mlp_jet(x, weights, biases, forms, activation, 2.0, dtype)
            other = cpu.mlp_jet(x, weights, biases, forms, activation, 2.0, dtype, unit)
            assert all(torch.equal(a, b) for a, b in zip(one, other)), (activation, dtype)
            value = cpu.mlp(x, weights, biases, activation, "none", 2.0, dtype)
            assert error(one.value, value) < (1e-5 if dtype == "float32" else 1e-2)


@pytest.mark.usefixtures("seed")
@pytest.mark.skipif("v4bf16" not in levels(), reason="this processor doesn't multiply bfloat16 numbers")
def test_a_jet_in_bfloat16_rounds_operands_only():
    for widths, skips in (([59, 64, 64, 48, 6], (2,)), ([20, 17, 3], ())):
        for p in (1, 7, 65, 500):
            weights, biases = with_skips(widths, skips, torch.float32, 1.0)
            x, tangents = torch.randn(p, widths[0]).requires_grad_(), torch.randn(3, p, widths[0]).requires_grad_()
            inputs = [x, tangents, *weights, *biases]
            double = [tensor.detach().double().requires_grad_() for tensor in inputs]
            expected = rounded_jet(
                double[0], double[1], double[2 : 2 + len(weights)], double[2 + len(weights) :], skips
            )
            none = torch.zeros(0, 3, 3)
            jet = cpu.mlp_jet(x, weights, biases, none, "relu", dtype="bfloat16", tangents=tangents, skips=skips)
            found = jet.value, jet.gradient
            cotangents = [torch.randn_like(part) for part in found]
            gradients = torch.autograd.grad(found, inputs, cotangents)
            exact = torch.autograd.grad(expected, double, [c.double() for c in cotangents])
            # As for `mlp`: now and then a sum in another order tips a rounding.
            pairs = zip([*found, *gradients], [*expected, *exact])
            assert max(error(a.double(), b) for a, b in pairs) < 3e-3, (widths, p)


def rounded_jet(x, tangents, weights, biases, skips):
    """Value and gradient in float64, rounded where the bfloat16 kernel rounds: operands of products, and nothing else."""
    inputs, streams = torch.cat([x[None], tangents]), torch.cat([x[None], tangents])
    for index, (weight, bias) in enumerate(zip(weights, biases)):
        if index in skips:
            streams = torch.cat([streams, inputs], 2)
        z = torch.nn.functional.linear(Narrow.apply(streams, True), Narrow.apply(weight, True))
        # What comes back to the value and to the tangents is rounded once, and summed into the bias's gradient.
        z = Narrow.apply(torch.cat([z[:1] + bias, z[1:]]), False)
        streams = z if index == len(weights) - 1 else z * (z[:1] > 0)
    return streams[0], streams[1:].permute(1, 2, 0)


@pytest.mark.usefixtures("seed")
@pytest.mark.skipif(not levels(), reason="no backend cpu")
def test_wrong_tangents_are_named():
    weights, biases = network([2, 4, 1])
    x, none = torch.rand(5, 2), torch.zeros(0, 2, 2)
    with pytest.raises((ValueError, TypeError), match="tangents"):
        cpu.mlp_jet(x, weights, biases, none, tangents=torch.rand(2, 4, 2))
    with pytest.raises(TypeError, match="all float32 or all float64"):
        cpu.mlp_jet(x, weights, biases, none, tangents=torch.rand(2, 5, 2).double())
    with pytest.raises((ValueError, TypeError), match="forms"):
        cpu.mlp_jet(x, weights, biases, none, tangents=torch.rand(3, 5, 2))
    with pytest.raises(cpu.KernelError, match="up to 8 coordinates and 36 forms"):
        cpu.mlp_jet(x, weights, biases, torch.zeros(0, 9, 9), tangents=torch.rand(9, 5, 2))
