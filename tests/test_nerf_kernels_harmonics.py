"""`harmonics` of the compiled backends beside `reference`, whose oracle is scipy's (tests/test_nerf_encoding.py)."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import cpu, cuda, load
from nerf.kernels.harmonics import harmonics
from tests.cpu_levels import MARKS
from tests.cuda_emulated import NEEDS, emulated  # noqa: F401 (a fixture)

COUNTS = [0, 1, 255, 256, 257, 1500]


def directions(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Also some whose memory isn't contiguous."""
    d = torch.nn.functional.normalize(torch.randn(count, 4)[:, 1:], dim=-1)
    return (d.repeat_interleave(2, dim=1)[:, ::2]).to(dtype)


@MARKS[0]
@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("count", COUNTS)
def test_cpu_is_the_reference(level, count):
    d = directions(count)
    torch.testing.assert_close(cpu.harmonics(d).double(), harmonics(d.double()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.usefixtures("seed")
def test_directions_have_gradients_and_float64_stays(backend):
    if backend == "cpu" and cpu.why_not():
        pytest.skip(cpu.why_not())
    op = load(backend).harmonics
    assert torch.autograd.gradcheck(op, directions(7, torch.float64).requires_grad_())
    d = directions(5).requires_grad_()
    assert op(d).requires_grad and op(d.detach().double()).dtype == torch.float64


@NEEDS
@pytest.mark.usefixtures("emulated", "seed")
@pytest.mark.parametrize("count", COUNTS)
def test_cuda_is_the_reference(count):
    d = directions(count)
    torch.testing.assert_close(cuda.harmonics(d).double(), harmonics(d.double()), rtol=0, atol=1e-6)
