"""The SIREN: its initialisation and what that guarantees, its derivatives, and its own omega."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from nerf.kernels import available, load
from nerf.kernels.mlp_jet import mlp_jet
from siren.network import Siren, SirenConfig

BACKENDS = [name for name in ("reference", "cpu") if not available()[name]]


def siren_of(seed: int = 0, backend: str = "reference", **config) -> Siren:
    return Siren(SirenConfig(**config), load(backend), torch.Generator().manual_seed(seed))


def test_the_papers_network_has_its_parameters():
    assert sum(p.numel() for p in siren_of().parameters()) == 198401


def test_weights_start_in_the_papers_ranges():
    siren = siren_of(width=256)
    for layer, weight in enumerate(siren.weights):
        n = weight.shape[1]
        bound = 1 / n if layer == 0 else math.sqrt(6 / n) / 30
        assert weight.abs().max() <= bound
        uniform = scipy.stats.kstest(weight.detach().flatten()[:5000].numpy() / bound, "uniform", (-1, 2))
        assert uniform.pvalue > 1e-3, layer


def test_activations_keep_their_distribution_with_depth():
    # Theorem 1.8: every sine's argument is standard normal, every sine arcsine-distributed, at any depth. Over many networks, since
    # within one the neurons share their inputs.
    arguments: list[list[torch.Tensor]] = [[] for _ in range(9)]
    for seed in range(24):
        siren = siren_of(seed, width=256, layers=10)
        x = torch.rand(64, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        h = x
        for layer, (weight, bias) in enumerate(zip(siren.weights, siren.biases)):
            if layer == 10:
                break
            if layer > 0:
                # The theorem's layers have no biases; theirs (1/16 here, times 30) only widen the argument.
                arguments[layer - 1].append((30 * torch.nn.functional.linear(h, weight)).detach().flatten()[::7])
            h = torch.sin(30 * torch.nn.functional.linear(h, weight, bias)).detach()
    spread = [float(torch.cat(z).std()) for z in arguments]
    assert all(0.93 < s < 1.07 for s in spread), spread
    for depth in (1, 4, 8):
        z = torch.cat(arguments[depth]).double().numpy()
        assert abs(scipy.stats.skew(z)) < 0.05 and abs(scipy.stats.kurtosis(z)) < 0.15
        # and its sine, with a bias that spreads the phase, is arcsine distributed
        arcsine = scipy.stats.arcsine(-1, 2)
        phase = z + 1.875 * (
            torch.rand(len(z), generator=torch.Generator().manual_seed(depth)).double().numpy() * 2 - 1
        )
        found = scipy.stats.ks_1samp(torch.sin(torch.from_numpy(phase)).numpy()[:20000], arcsine.cdf)
        assert found.statistic < 0.04


def test_other_initial_ranges_would_fail_that():
    # The same measurement on layers ten times as narrow: the argument dies out.
    siren = siren_of(width=256, layers=10)
    h = torch.rand(64, 2) * 2 - 1
    for weight in list(siren.weights)[:10]:
        z = 30 * torch.nn.functional.linear(h, weight * 0.3)
        h = torch.sin(z)
    assert float(z.detach().std()) < 0.3


@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives_are_autograds(backend):
    siren = siren_of(1, backend, inputs=3, outputs=2, width=64, layers=3)
    exact = siren_of(1, inputs=3, outputs=2, width=64, layers=3).double()
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(5)) * 2 - 1
    point = x.double().requires_grad_()
    value = exact(point)
    gradient = torch.stack([torch.autograd.grad(value[:, o].sum(), point, create_graph=True)[0] for o in range(2)], 1)
    laplacian = torch.stack(
        [
            sum(torch.autograd.grad(gradient[:, o, i].sum(), point, retain_graph=True)[0][:, i] for i in range(3))
            for o in range(2)
        ],
        1,
    )
    for found, truth in ((siren(x), value), (siren.gradient(x), gradient), (siren.laplacian(x), laplacian)):
        assert float((found - truth).detach().norm() / truth.detach().norm()) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_layer_has_its_own_omega(backend):
    siren = siren_of(2, backend, width=32, layers=2, first_omega=90.0)
    x = torch.rand(30, 2) * 2 - 1
    w, b = list(siren.weights), list(siren.biases)
    h = torch.sin(90 * (x @ w[0].T + b[0]))
    h = torch.sin(30 * (h @ w[1].T + b[1]))
    torch.testing.assert_close(siren(x), h @ w[2].T + b[2], rtol=1e-4, atol=1e-5)
    (grad,) = torch.autograd.grad(siren(x).sum(), w[0])
    (truth,) = torch.autograd.grad((h @ w[2].T + b[2]).sum(), w[0])
    torch.testing.assert_close(grad, truth, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_squared_error_is_that_of_the_outputs(backend):
    siren = siren_of(3, backend, outputs=3, width=48, layers=2, first_omega=50.0)
    x, target = torch.rand(70, 2), torch.rand(70, 3)
    loss, expected = siren.squared_error(x, target), (siren(x) - target).square().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(torch.autograd.grad(loss, siren.parameters()), torch.autograd.grad(expected, siren.parameters())):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_jet_without_forms_has_no_second_derivatives():
    siren = siren_of(width=16, layers=2)
    x = torch.rand(9, 2)
    jet = siren.jet(x)
    assert jet.second.shape == (9, 1, 0)
    weights, biases = siren.layers()
    torch.testing.assert_close(jet.gradient, mlp_jet(x, weights, biases, torch.eye(2)[None]).gradient)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("width", 0, "width: expected at least 1, found 0"), ("omega", -1.0, "omega: expected a positive number")],
)
def test_shapes_that_are_none_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        SirenConfig(**{field: value})


def test_bfloat16_needs_the_backend_cpu():
    with pytest.raises(ValueError, match="precision: expected float32 on backend reference"):
        Siren(SirenConfig(width=8), load("reference"), precision="bfloat16")
