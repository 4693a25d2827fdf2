"""The `cuda` backend for tests: on a GPU where there is one, else emulated, when tensors are the CPU's and everything else
is what a GPU gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_driver import Driver
from tests import emulator

GPU = not cuda_driver.why_not()
NEEDS = pytest.mark.skipif(not GPU and bool(emulator.why_not()), reason=emulator.why_not())


def image(source: str, options: tuple[tuple[str, object], ...]) -> bytes:
    """Stands for NVRTC."""
    return emulator.compile_image(f"gpu/{source}", tuple(f"-D{name}={value}" for name, value in options))


@pytest.fixture(scope="module")
def emulated() -> Iterator[Driver]:
    """The backend's driver is the emulated one while a module's tests run; or a GPU's, and new tensors lie there."""
    if GPU:
        with torch.device("cuda"):
            yield cuda_driver.driver()
        return
    with cuda_driver.emulated(str(emulator.driver()), image) as driver:
        yield driver


def distance(found: Tensor, expected: Tensor) -> float:
    """How far float32 results are from float64 ones: the norm of the difference, by that of what was expected."""
    assert found.shape == expected.shape
    difference = (found.detach().double() - expected.detach().double()).norm()
    ratio = difference / expected.detach().double().norm().clamp_min(1e-30)
    return float(ratio.nan_to_num(nan=torch.inf))  # the largest of several distances would pass over a NaN
