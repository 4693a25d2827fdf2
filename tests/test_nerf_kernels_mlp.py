"""Perceptrons against sums over scalars."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from nerf.kernels.mlp import ACTIVATIONS, activate, mlp

SCALAR = {
    "none": lambda v, w: v,
    "relu": lambda v, w: v if v > 0 else 0.0,
    "sine": lambda v, w: math.sin(w * v),
    "softplus": lambda v, w: math.log1p(math.exp(-abs(v))) + max(v, 0.0),
    "sigmoid": lambda v, w: 1 / (1 + math.exp(-v)),
    "exponential": lambda v, w: math.exp(v),
}


def layers(sizes: list[int], seed: int = 0, scale: float = 0.5) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(o, i, generator=generator, dtype=torch.float64) * scale for i, o in itertools.pairwise(sizes)
    ]
    biases = [torch.randn(o, generator=generator, dtype=torch.float64) * scale for o in sizes[1:]]
    return weights, biases


def mlp_slowly(x, weights, biases, hidden, output, omega):
    rows = []
    for row in x.tolist():
        for layer, weight in enumerate(weights):
            name = output if layer == len(weights) - 1 else hidden
            row = [
                SCALAR[name](
                    sum(w * v for w, v in zip(line, row)) + (0 if biases is None else float(biases[layer][o])), omega
                )
                for o, line in enumerate(weight.tolist())
            ]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def test_every_activation_has_its_oracle():
    assert set(SCALAR) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_value(name):
    values = [-30.0, -2.5, -1e-3, 0.0, 1e-3, 0.7, 3.0, 25.0]
    expected = torch.tensor([SCALAR[name](v, 7.0) for v in values], dtype=torch.float64)
    torch.testing.assert_close(
        activate(torch.tensor(values, dtype=torch.float64), name, 7.0), expected, rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("output", ACTIVATIONS)
@pytest.mark.parametrize("hidden", ["relu", "sine", "softplus"])
@pytest.mark.parametrize("biased", [True, False])
def test_networks_are_their_sums(hidden, output, biased):
    weights, biases = layers([3, 7, 5, 2])
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = mlp(x, weights, biases if biased else None, hidden, output, omega=3.0)
    torch.testing.assert_close(found, mlp_slowly(x, weights, biases if biased else None, hidden, output, 3.0))


def test_one_layer_has_only_the_output_activation():
    weights, biases = layers([2, 3])
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    expected = mlp_slowly(x, weights, biases, "none", "sigmoid", 1.0)
    torch.testing.assert_close(mlp(x, weights, biases, "exponential", "sigmoid"), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_first_and_second_derivatives(name):
    weights, biases = layers([2, 4, 3, 2], seed=8)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (x, *weights, *biases)]

    def network(x, *parameters):
        return mlp(x, parameters[:3], parameters[3:], name, name, omega=1.5)

    assert gradcheck(network, inputs)
    assert gradgradcheck(network, inputs)


def test_unknown_activations_are_named():
    with pytest.raises(ValueError, match=r"expected one of none, relu, sine, .* found 'gelu'"):
        activate(torch.zeros(1), "gelu")
