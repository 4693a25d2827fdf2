"""The shared perceptron against its layers written out, and its first values against their range."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels.backends import available, load
from nerf.network import MLP


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def forward_slowly(network: MLP, x: torch.Tensor, skips: tuple[int, ...], activation: str) -> torch.Tensor:
    """A layer after the other; before layer k of `skips`, the inputs are set behind the features."""
    h, last = x, len(network.weights) - 1
    for k in range(last + 1):
        if k in skips:
            h = torch.cat([h, x], 1)
        h = h @ network.weights[k].T + network.biases[k]
        h = (
            h.clamp_min(0)
            if k < last
            else {"none": lambda v: v, "sigmoid": lambda v: 1 / (1 + (-v).exp())}[activation](h)
        )
    return h


@pytest.mark.parametrize("skips", [(), (1,), (3,), (2, 4), (5,)], ids=str)
@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_skips_let_the_inputs_in_again(skips, activation):
    network = MLP(4, 9, 5, 3, skips, activation, generator=generator()).double()
    with torch.no_grad():
        for bias in network.biases:
            bias.uniform_(-0.5, 0.5, generator=generator(7))
    x = torch.randn(6, 4, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(network(x), forward_slowly(network, x, skips, activation))
    for k, weight in enumerate(network.weights):
        into = 4 if k == 0 else 9
        assert weight.shape[1] == into + (4 if k in skips else 0)


@pytest.mark.parametrize("skips", [(), (1,), (2, 4), (5,)], ids=str)
@pytest.mark.parametrize("ops", ["reference", *([] if available()["cpu"] else ["cpu"])])
def test_a_jet_is_outputs_and_derivatives_along_tangents(skips, ops):
    network = MLP(4, 9, 5, 3, skips, ops=load(ops), generator=generator()).double()
    with torch.no_grad():
        for bias in network.biases:
            bias.uniform_(-0.5, 0.5, generator=generator(7))
    x = torch.randn(6, 4, generator=generator(1), dtype=torch.float64)
    tangents = torch.randn(2, 6, 4, generator=generator(2), dtype=torch.float64)
    jet = network.jet(x, tangents)
    torch.testing.assert_close(jet.value, forward_slowly(network, x, skips, "none"))
    for i, point in enumerate(x):
        slow = lambda p: forward_slowly(network, p[None], skips, "none")[0]  # noqa: E731
        expected = torch.autograd.functional.jacobian(slow, point) @ tangents[:, i].T
        torch.testing.assert_close(jet.gradient[i], expected)
    assert jet.second.shape == (6, 3, 0) and jet.gradient.abs().max() > 0.01


def test_a_skip_really_reaches_its_layer():
    network = MLP(2, 8, 3, 1, (2,), generator=generator())
    with torch.no_grad():
        network.weights[0].zero_()  # what is left of x comes in through the skip
    x = torch.randn(5, 2, generator=generator(3))
    assert network(x).std() > 0
    with torch.no_grad():
        network.weights[2][:, 8:] = 0
    assert torch.equal(network(x), network(x[:1]).expand(5, 1))


def test_depth_zero_is_one_linear_layer():
    network = MLP(3, 99, 0, 2, generator=generator())
    x = torch.randn(4, 3, generator=generator(1))
    torch.testing.assert_close(network(x), x @ network.weights[0].T + network.biases[0])
    assert sum(p.numel() for p in network.parameters()) == 3 * 2 + 2


def test_layers_start_in_glorots_range_with_zero_bias():
    network = MLP(30, 120, 2, 5, (1,), generator=generator())
    for weight, fans in zip(network.weights, (30 + 120, 150 + 120, 120 + 5)):
        bound = (6 / fans) ** 0.5
        assert 0.97 * bound < weight.abs().max() <= bound
        assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.1)  # of a uniform distribution
    assert all(not bias.any() for bias in network.biases)


def test_the_last_layer_can_start_small():
    network = MLP(3, 16, 2, 6, output_scale=1e-4, generator=generator())
    assert 0.9e-4 < network.weights[-1].abs().max() <= 1e-4
    assert network.weights[0].abs().max() > 0.3


def test_the_generator_decides():
    one, two, other = (MLP(3, 8, 2, 1, generator=generator(s)) for s in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.weights[0], other.weights[0])
