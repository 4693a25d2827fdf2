"""The fused networks' CUDA kernels, emulated, beside a float64 network that rounds where they do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nerf.kernels import cuda_mlp
from nerf.kernels.mlp import ACTIVATIONS
from tests import emulator
from tests.cpu_levels import network
from tests.cuda_emulated import NEEDS, distance, emulated  # noqa: F401 (a fixture)
from tests.rounded import FORMATS, rounded_mlp

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]
# A sum that lies between two numbers of the format may round to the other one, in float32; the rest is float32's error.
LIMIT = {"float16": 1e-4, "bfloat16": 1e-3}


def errors(
    p: int,
    widths: list[int],
    activations: tuple[str, str] = ("relu", "none"),
    dtype: str = "float16",
    bias: bool = True,
    omega: float = 3.0,
    skips: tuple[int, ...] = (),
    size: float = 1.0,
) -> dict[str, float]:
    """How far results and gradients are from a float64 network that rounds where the kernels do."""
    weights, biases = network(widths, bias)
    for layer in skips:
        weights[layer] = torch.randn(widths[layer + 1], widths[layer] + widths[0]) / widths[layer] ** 0.5
    weights, biases = [weight.detach() for weight in weights], [vector.detach() for vector in biases or ()]
    x, grad = torch.randn(p, widths[0]), torch.randn(p, widths[-1]) * size
    network_arguments = (x, weights, biases, *activations, omega, dtype, list(skips))
    out = cuda_mlp.forward(*network_arguments)
    to_x, *made = cuda_mlp.backward(grad, *network_arguments, True)
    expected = rounded_mlp(x, weights, biases, activations, omega, dtype, grad, skips)
    found: dict[str, tuple[Tensor, Tensor]] = {"out": (out, expected.out), "to_x": (to_x, expected.to_x)}
    for layer, pair in enumerate(zip(made, [*expected.to_weights, *expected.to_biases])):
        found[f"parameter {layer}"] = pair
    return {name: distance(*pair) for name, pair in found.items()}


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("p", [0, 1, 15, 16, 17, 64, 200])
def test_any_number_of_rows(p, dtype):
    assert max(errors(p, [32, 64, 64, 16], dtype=dtype).values()) < LIMIT[dtype]
