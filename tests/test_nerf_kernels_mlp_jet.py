"""A network's derivatives in one forward pass, against derivatives that share nothing with it; and its squared error."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.autograd.functional import hessian, jacobian

from nerf.kernels import cpu
from nerf.kernels import mlp as reference
from nerf.kernels.mlp import ACTIVATIONS, activate
from nerf.kernels.mlp_jet import derivatives, mlp_jet
from tests.cpu_levels import MARKS, SIZES, error, levels, network, seed, worst  # noqa: F401 (seed: a fixture)

CPU = [*MARKS]


def forms_of(dims: int, count: int, dtype=torch.float64) -> torch.Tensor:
    drawn = torch.randn(count, dims, dims, generator=torch.Generator().manual_seed(9), dtype=dtype)
    return drawn + drawn.mT


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_activations_by_central_differences(name):
    z = torch.linspace(-3, 3, 41, dtype=torch.float64) + 0.013  # clear of ReLU's kink
    step = 1e-4
    below, here, above = (activate(z + shift, name, 3.0) for shift in (-step, 0.0, step))
    value, first, second = derivatives(z, name, 3.0)
    torch.testing.assert_close(value, here)
    torch.testing.assert_close(first, (above - below) / (2 * step), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(second, (above - 2 * here + below) / step**2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sine", "softplus", "sigmoid", "exponential", "none", "relu"])
def test_a_jet_is_jacobian_and_hessian(name):
    torch.manual_seed(2)
    weights, biases = network([3, 7, 6, 2], dtype=torch.float64, scale=0.5)
    x, forms = torch.randn(4, 3, dtype=torch.float64), forms_of(3, 2)
    jet = mlp_jet(x, weights, biases, forms, name, 1.7)
    for i, point in enumerate(x):
        for o in range(2):
            scalar = lambda p, o=o: reference.mlp(p[None], weights, biases, name, "none", 1.7)[0, o]  # noqa: E731
            torch.testing.assert_close(jet.value[i, o], scalar(point))
            torch.testing.assert_close(jet.gradient[i, o], jacobian(scalar, point))
            curve = hessian(scalar, point)
            torch.testing.assert_close(jet.second[i, o], (forms * curve).sum((1, 2)))


def test_the_laplacian_of_a_wave_is_known():
    # u = sin(k . x + 0.3): grad u = k cos, lap u = -|k|^2 sin.
    k = torch.tensor([[1.5, -2.0, 0.5]], dtype=torch.float64)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = [k, torch.ones(1, 1, dtype=torch.float64)]
    biases = [torch.full((1,), 0.3, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    jet = mlp_jet(x, weights, biases, torch.eye(3, dtype=torch.float64)[None], "sine", 1.0)
    phase = x @ k[0] + 0.3
    torch.testing.assert_close(jet.gradient[:, 0], phase.cos()[:, None] * k)
    torch.testing.assert_close(jet.second[:, 0, 0], -k.square().sum() * phase.sin())


def test_a_jet_trains_by_differences():
    torch.manual_seed(3)
    weights, biases = network([2, 5, 4, 1], dtype=torch.float64)
    x = torch.randn(3, 2, dtype=torch.float64).requires_grad_()
    forms = forms_of(2, 2)
    assert gradcheck(lambda x, *p: tuple(mlp_jet(x, p[:3], p[3:], forms, "sine", 1.3)), (x, *weights, *biases))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.usefixtures("seed")
@pytest.mark.skipif(not levels(), reason="no backend cpu")
def test_the_cpu_backend_is_the_reference(level, activation):
    for widths, dims in (([2, 17, 33, 1], 2), ([3, 64, 64, 2], 3), ([1, 5], 1)):
        for count in (0, 1, 3):
            for p in SIZES[:-1]:
                weights, biases = network(widths, p != 7, scale=0.3 if activation == "exponential" else 1.0)
                x = torch.randn(p, dims).requires_grad_()
                arguments = (x, weights, biases, forms_of(dims, count, torch.float32), activation, 2.0)
                inputs = [x, *weights, *(biases or [])]
                found, expected = cpu.mlp_jet(*arguments), mlp_jet(*arguments)
                if activation == "relu":  # a slope jumps where a rounding tips the sign: float64 doesn't tip it
                    assert error(found.value, expected.value) < 1e-5
                    double = [t.detach().double().requires_grad_() for t in inputs]
                    parts = double[0], double[1 : len(weights) + 1], double[len(weights) + 1 :] or None
                    pair = [op(*parts, arguments[3].double(), "relu") for op in (cpu.mlp_jet, mlp_jet)]
                    assert worst(*pair, double) < 1e-12, (widths, count, p)
                else:
                    assert worst(found, expected, inputs) < 2e-5, (widths, count, p)


@pytest.mark.usefixtures("seed")
@pytest.mark.skipif(not levels(), reason="no backend cpu")
def test_the_papers_network_to_five_digits(level):
    from siren.network import Siren, SirenConfig

    siren = Siren(SirenConfig(), generator=torch.Generator().manual_seed(0))
    weights, biases = siren.layers()
    x = torch.rand(200, 2) * 2 - 1
    double = [[t.detach().double().requires_grad_() for t in group] for group in (weights, biases)]
    exact = mlp_jet(x.double(), *double, torch.eye(2, dtype=torch.float64)[None])
    found = cpu.mlp_jet(x, weights, biases, torch.eye(2)[None])
    for part, truth in zip(found, exact):
        assert float((part.detach() - truth.detach()).norm() / truth.detach().norm()) < 1e-5
    cotangents = [torch.randn_like(part) / part.norm() for part in found]
    one = torch.autograd.grad(found, [*weights, *biases], cotangents)
    other = torch.autograd.grad(exact, [*double[0], *double[1]], [c.double() for c in cotangents])
    for a, b in zip(one, other):
        assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.usefixtures("seed")
@pytest.mark.skipif(not levels(), reason="no backend cpu")
def test_cpu_gradients_by_differences(level):
    weights, biases = network([2, 5, 4, 2], dtype=torch.float64)
    x = torch.randn(5, 2, dtype=torch.float64).requires_grad_()
    forms = forms_of(2, 2)
    for activation in ("sine", "softplus", "sigmoid", "exponential"):
        op = lambda x, *p, a=activation: tuple(cpu.mlp_jet(x, p[:3], p[3:], forms, a, 1.3))  # noqa: E731
        assert gradcheck(op, (x, *weights, *biases)), activation
    target = torch.randn(5, 2, dtype=torch.float64)
    for activation in ("sine", "sigmoid"):
        op = lambda *p, a=activation: cpu.mlp_squared_error(x.detach(), target, p[:3], p[3:], a, 1.3)  # noqa: E731
        assert gradcheck(op, (*weights, *biases)), activation


@pytest.mark.parametrize("activation", ["sine", "relu", "softplus"])
@pytest.mark.usefixtures("seed")
@pytest.mark.skipif(not levels(), reason="no backend cpu")
def test_squared_error_is_the_mean_of_squares(level, activation):
    for widths in ([2, 17, 33, 1], [3, 64, 64, 3], [4, 2]):
        for p in SIZES[1:]:
            weights, biases = network(widths)
            x, target = torch.randn(p, widths[0]), torch.randn(p, widths[-1])
            found = cpu.mlp_squared_error(x, target, weights, biases, activation, 2.0, dtype="float32")
            expected = (reference.mlp(x, weights, biases, activation, "none", 2.0) - target).square().mean()
            assert worst(found, expected, [*weights, *biases]) < 1e-5, (widths, p)
            again = reference.mlp_squared_error(x, target, weights, biases, activation, 2.0)
            torch.testing.assert_close(again, expected)


@pytest.mark.usefixtures("seed")
@pytest.mark.skipif("v4bf16" not in levels(), reason="this processor doesn't multiply bfloat16 numbers")
def test_a_siren_in_bfloat16_keeps_its_phase():
    # Coordinates rounded to bfloat16 would be off by half a pixel of 256; the first layer isn't rounded.
    from siren.network import Siren, SirenConfig

    siren = Siren(SirenConfig(first_omega=120.0), generator=torch.Generator().manual_seed(0))
    weights, biases = siren.layers()
    x = torch.rand(2000, 2) * 2 - 1
    exact = reference.mlp(x, weights, biases, "sine")
    found = cpu.mlp(x, weights, biases, "sine", dtype="bfloat16")
    rounded = reference.mlp(x.bfloat16().float(), weights, biases, "sine")
    off, far = ((other - exact).norm() / exact.norm() for other in (found, rounded))
    assert off < 0.01 and off < far / 3, (off, far)
    jet = cpu.mlp_jet(x, weights, biases, torch.eye(2)[None], dtype="bfloat16")
    truth = mlp_jet(x, weights, biases, torch.eye(2)[None])
    assert all(float((a - b).detach().norm() / b.detach().norm()) < 0.03 for a, b in zip(jet, truth))


@pytest.mark.usefixtures("seed")
@pytest.mark.skipif(not levels(), reason="no backend cpu")
def test_wrong_arguments_are_named():
    weights, biases = network([2, 4, 1])
    x = torch.rand(5, 2)
    lopsided = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    for message, op in {
        "expected symmetric forms": lambda: cpu.mlp_jet(x, weights, biases, lopsided),
        "don't follow one another": lambda: cpu.mlp_jet(torch.rand(5, 3), weights, biases, torch.eye(3)[None]),
        "expected a target of shape": lambda: cpu.mlp_squared_error(x, torch.rand(5, 2), weights, biases),
        r"expected skips among the 2 layers, found \[2\]": lambda: cpu.mlp(x, weights, biases, skips=[2]),
        "no gradient to x": lambda: cpu.mlp_squared_error(x.clone().requires_grad_(), x[:, :1], weights, biases),
    }.items():
        with pytest.raises(ValueError, match=message):
            op()
    with pytest.raises(cpu.KernelError, match="up to 8 coordinates and 36 forms"):
        cpu.mlp_jet(torch.rand(5, 9), [torch.rand(1, 9)], None, torch.eye(9)[None])
    with pytest.raises(cpu.KernelError, match="up to 8 coordinates and 36 forms"):
        cpu.mlp_jet(x, weights, biases, torch.eye(2).expand(37, 2, 2))
    for op in (
        lambda d: mlp_jet(x, weights, biases, torch.eye(2)[None], dtype=d),
        lambda d: reference.mlp(x, weights, biases, dtype=d),
    ):
        with pytest.raises(ValueError, match="expected auto or float32 on backend reference, found 'bfloat16'"):
            op("bfloat16")
    with pytest.raises(RuntimeError, match="use backend reference"):
        (slope,) = torch.autograd.grad(
            cpu.mlp_jet(x.requires_grad_(), weights, biases, torch.eye(2)[None]).value.sum(), x, create_graph=True
        )
        slope.sum().backward()
