"""The `cuda` backend for tests: on a GPU where there is one, else emulated, when tensors are the CPU's and everything else
is what a GPU gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_map

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_driver import Driver
from tests import emulator

GPU = not cuda_driver.why_not()
NEEDS = pytest.mark.skipif(not GPU and bool(emulator.why_not()), reason=emulator.why_not())


def image(source: str, options: tuple[tuple[str, object], ...]) -> bytes:
    """Stands for NVRTC."""
    return emulator.compile_image(f"gpu/{source}", tuple(f"-D{name}={value}" for name, value in options))


class Moved(TorchFunctionMode):
    """What is made without saying where is made on the CPU and moved to the GPU: the same random numbers, whoever runs the
    tests."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in _device_constructors() or kwargs.get("device") is not None:
            return function(*args, **kwargs)
        made = function(*args, **kwargs | {"device": "cpu"})
        return made.to("cuda") if isinstance(made, Tensor) else made


@pytest.fixture(scope="module")
def emulated() -> Iterator[Driver]:
    """The backend's driver is the emulated one while a module's tests run; or a GPU's, and new tensors lie there."""
    if GPU:
        with Moved():
            yield cuda_driver.driver()
        return
    with cuda_driver.emulated(str(emulator.driver()), image) as driver:
        yield driver


def on_the_cpu(function: Callable[..., Any], *given: Any) -> Any:
    """What a function makes of tensors on the CPU. A GPU's own arithmetic rounds otherwise: torch divides by a number there
    by multiplying with its inverse."""
    with torch.device("cpu"):
        return function(*tree_map(lambda value: value.cpu() if isinstance(value, Tensor) else value, given))


def distance(found: Tensor, expected: Tensor) -> float:
    """How far float32 results are from float64 ones: the norm of the difference, by that of what was expected."""
    assert found.shape == expected.shape
    found, expected = found.cpu(), expected.cpu()
    difference = (found.detach().double() - expected.detach().double()).norm()
    ratio = difference / expected.detach().double().norm().clamp_min(1e-30)
    return float(ratio.nan_to_num(nan=torch.inf))  # the largest of several distances would pass over a NaN
