"""The `tcnn` backend with a stand-in for tiny-cuda-nn, which keeps its parameters and pads as that does."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import Tensor, nn

from nerf.kernels import BackendError, backends, tcnn
from nerf.kernels import mlp as reference
from nerf.kernels.tcnn import TcnnError
from tests.cpu_levels import network, worst
from tests.cuda_emulated import NEEDS, emulated  # noqa: F401 (a fixture)

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]

ACTIVATIONS = {"None": lambda x: x, "ReLU": torch.relu, "Sigmoid": torch.sigmoid, "Exponential": torch.exp}


class StandIn(nn.Module):
    """tinycudann.Network of a FullyFusedMLP: all matrices in one vector, inputs filled up with ones, outputs cut off."""

    made = 0

    def __init__(self, inputs: int, outputs: int, config: dict) -> None:
        super().__init__()
        assert config["otype"] == "FullyFusedMLP" and config["n_neurons"] in (16, 32, 64, 128)
        padded_in, padded_out = (-(-size // 16) * 16 for size in (inputs, outputs))
        sizes = [padded_in, *[config["n_neurons"]] * config["n_hidden_layers"], padded_out]
        self.shapes, self.outputs = list(zip(sizes[1:], sizes)), outputs
        self.hidden, self.last = (ACTIVATIONS[config[name]] for name in ("activation", "output_activation"))
        self.params = nn.Parameter(torch.zeros(sum(a * b for a, b in self.shapes)))
        StandIn.made += 1

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.ones(len(x), self.shapes[0][1] - x.shape[1])], dim=1).half()
        at = 0
        for layer, (rows, columns) in enumerate(self.shapes):
            weight = self.params[at : at + rows * columns].view(rows, columns)
            at += rows * columns
            last = layer == len(self.shapes) - 1
            x = (self.last if last else self.hidden)(x.float() @ weight.half().float().T).half()
        return x[:, : self.outputs]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """tiny-cuda-nn is there."""
    module = types.ModuleType("tinycudann")
    module.Network = StandIn
    module.__spec__ = types.SimpleNamespace(name="tinycudann", loader=None)
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    kept = (tcnn._module, tcnn._network, backends.available, backends.load)
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


@pytest.mark.parametrize(
    ("widths", "last"), [([3, 64, 64, 5], "none"), ([32, 16, 1], "sigmoid"), ([7, 128, 128, 16], "relu")]
)
def test_what_it_can_express_is_the_same_function(widths, last):
    weights, _ = network(widths, bias=False)
    x = torch.randn(40, widths[0], requires_grad=True)
    found = tcnn.mlp(x, weights, None, "relu", last)
    expected = reference.mlp(x, weights, None, "relu", last)
    assert found.dtype == torch.float32
    assert worst(found, expected, [x, *weights]) < 3e-3  # float16's rounding


def test_a_network_is_made_once_for_its_shape():
    weights, _ = network([3, 64, 5], bias=False)
    before = StandIn.made
    for _ in range(3):
        tcnn.mlp(torch.randn(4, 3), weights, None)
    assert StandIn.made == before + 1


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"bias": True}, "no biases"),
        ({"activation": "sine"}, "the activations none, relu, sigmoid, exponential, not 'sine'"),
        ({"activation": "softplus"}, "not 'softplus'"),
        ({"widths": [3, 256, 5]}, r"hidden layers of one width among \(16, 32, 64, 128\), not \[256\]"),
        ({"widths": [3, 64, 32, 5]}, r"not \[64, 32\]"),
        ({"widths": [3, 5]}, r"not \[\]"),
        ({"skips": (1,)}, "no layers that inputs enter again"),
        ({"dtype": "bfloat16"}, "products of float16, not bfloat16"),
    ],
)
def test_what_it_cannot_express_is_named(change, part):
    widths = change.get("widths", [3, 64, 5])
    weights, biases = network(widths, bias=change.get("bias", False))
    settings = {name: value for name, value in change.items() if name not in ("widths", "bias")}
    with pytest.raises(TcnnError, match=f"mlp: tiny-cuda-nn's fused network has .*{part}.*; use backend cuda"):
        tcnn.mlp(torch.randn(4, widths[0]), weights, biases, **settings)


def test_it_is_never_chosen_unasked_and_its_grids_are_an_error():
    assert backends.available()["tcnn"] == "" and backends.choose()[0] == "cuda"
    ops = backends.load("tcnn")
    assert ops.name == "tcnn" and ops.mlp is tcnn.mlp and ops.march is backends.load("cuda").march
    for op in ("hash_encode", "look", "frame", "shade"):
        with pytest.raises(BackendError, match=f"{op}: tiny-cuda-nn's hash grid has its corners half a cell off"):
            getattr(ops, op)(torch.rand(2, 3))


def test_why_it_cannot_be_had(monkeypatch):
    monkeypatch.setattr(tcnn, "_module", refuse)
    assert tcnn.why_not() == "tiny-cuda-nn does not load: Unknown compute capability"
    monkeypatch.setattr(tcnn.cuda_driver, "why_not", lambda: "no NVIDIA GPU")
    assert tcnn.why_not() == "no NVIDIA GPU"
    monkeypatch.delitem(sys.modules, "tinycudann")
    assert tcnn.why_not().startswith("tiny-cuda-nn is not installed (pip install git+https://")


def refuse():
    raise OSError("Unknown compute capability")
