"""The `cpu` backend at each instruction-set level of this machine, inputs for its ops, and how far results are apart."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nerf.kernels import cpu, cpu_library
from nerf.kernels.hash_encode import GridGeometry

SIZES = (0, 1, 7, 63, 64, 65, 1000)
CUDA = Path(__file__).parent.parent / "cuda"
MARKS = [
    pytest.mark.skipif(bool(cpu.why_not()), reason=f"backend cpu: {cpu.why_not()}"),
    pytest.mark.usefixtures("seed"),
]


@pytest.fixture
def seed():
    torch.manual_seed(0)


def levels() -> list[str]:
    if cpu.why_not():
        return []
    every = [level for level in cpu_library.LEVELS if level in cpu_library.built()]
    return every[: every.index(cpu.level()) + 1]


@pytest.fixture(params=levels())
def level(request, monkeypatch):
    """Each level in turn."""
    yield from use_level(request.param, monkeypatch)


def use_level(name, monkeypatch):
    monkeypatch.setenv("NERF_CPU_LEVEL", name)
    cpu_library.forget()
    assert cpu.level() == name
    yield name
    cpu_library.forget()


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    found, expected = found.detach(), expected.detach()
    return float((found - expected).norm() / (expected.norm() + 0.1 * max(expected.numel(), 1) ** 0.5))


def worst(found, expected, inputs: list[Tensor]) -> float:
    """The largest error of two ops' results and of their gradients, for one random cotangent a result."""
    found, expected = ([value] if isinstance(value, Tensor) else list(value) for value in (found, expected))
    cotangents = [torch.randn_like(value) for value in expected]
    gradients = [torch.autograd.grad(values, inputs, cotangents, retain_graph=True) for values in (found, expected)]
    return max(error(a, b) for a, b in zip([*found, *gradients[0]], [*expected, *gradients[1]]))


class Narrow(torch.autograd.Function):
    """Rounds to bfloat16: the value, or the gradient. What a test rounds where a kernel does."""

    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.bfloat16().to(x.dtype) if value else x.clone()

    @staticmethod
    def backward(ctx, grad):
        return (grad if ctx.value else grad.bfloat16().to(grad.dtype)), None


def points_and_table(p: int, geometry: GridGeometry, dtype=torch.float32) -> list[Tensor]:
    x = torch.rand(p, 3, dtype=dtype) * 1.2 - 0.1
    return [x.requires_grad_(), torch.randn(geometry.offsets[-1], geometry.features, dtype=dtype).requires_grad_()]


def network(widths, bias=True, dtype=torch.float32, scale=1.0):
    weights = [(torch.randn(o, i, dtype=dtype) * scale / i**0.5).requires_grad_() for i, o in pairwise(widths)]
    return weights, [(torch.randn(o, dtype=dtype) * 0.3).requires_grad_() for o in widths[1:]] if bias else None


def packed_samples(r: int, dtype=torch.float32):
    count = torch.randint(0, 40, (r,)) * (torch.rand(r) < 0.8)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
    p = int(offsets[-1])
    density = (torch.rand(p, dtype=dtype) ** 4 * 50).requires_grad_()
    rgb = torch.rand(p, 3, dtype=dtype).requires_grad_()
    return density, rgb, torch.rand(p, dtype=dtype) * 4, torch.rand(p, dtype=dtype) * 0.1, offsets
