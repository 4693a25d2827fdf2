"""Adam's CUDA kernel, emulated, beside `reference`."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import cuda_rays
from nerf.kernels.adam import adam
from tests.cuda_emulated import NEEDS, distance, emulated  # noqa: F401 (a fixture)

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]
RATE, BETAS, EPS = 0.03, (0.8, 0.95), 1e-10


def run(op, start, gradients, offset=0):
    """Parameter, mean and square after a step a gradient; each begins `offset` numbers behind a boundary."""
    state = [
        torch.cat([torch.zeros(offset, dtype=start.dtype), value])[offset:] for value in (start, start * 0, start * 0)
    ]
    for step, gradient in enumerate(gradients, 1):
        op(state[0], gradient, *state[1:], step, RATE, *BETAS, EPS)
    return state


def reference(parameter, gradient, mean, square, step, rate, beta1, beta2, eps):
    adam(parameter, gradient, mean, square, step, rate, (beta1, beta2), eps)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 1023, 1024, 5000])
def test_steps_are_the_references_and_leave_the_rest(count, offset):
    start, gradients = torch.randn(count), torch.randn(4, count) * torch.rand(4, count).round()
    gradients[:, ::3] = 0.0
    gradients[:, 40:900] = 0.0
    gradients[1, 1::5] = -0.0
    found = run(cuda_rays.adam, start, list(gradients), offset)
    for value, wanted in zip(found, run(reference, start.double(), list(gradients.double()))):
        assert distance(value, wanted) < 1e-6  # measured: 2.5e-7 at most
    assert torch.equal(found[0][::3], start[::3]) and not found[1][::3].any() and not found[2][::3].any()


def test_a_gradient_in_any_one_place_is_seen():
    for place in range(40):
        for value in (1e-3, -1e-30, torch.nan):
            gradient = torch.zeros(40)
            gradient[place] = value
            mean = run(cuda_rays.adam, torch.zeros(40), [gradient])[1]
            assert mean.nonzero().flatten().tolist() == [place]
