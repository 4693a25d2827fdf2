"""How times are taken, and what this machine can do at most: what every figure of the benchmark stands beside."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor


def best(task: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of some runs, after one that isn't timed; what a GPU was given is waited for."""
    task()
    times = []
    for _ in range(repeats):
        _finish()
        began = time.perf_counter()
        task()
        _finish()
        times.append(time.perf_counter() - began)
    return min(times)


def busy(task: Callable[[], Any], repeats: int) -> float:
    """Seconds that a GPU's kernels take of a run, the mean of some: without the host's share of launching them."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    task()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(repeats):
            task()
        _finish()
    on_device = [event for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(event.self_device_time_total for event in on_device) / repeats / 1e6


def _finish() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def relative(found: Tensor, expected: Tensor) -> float:
    """Difference as a share of the size."""
    return float((found - expected).detach().norm() / expected.detach().norm())


@dataclass(frozen=True)
class Limits:
    """What torch reaches on a device, a CPU with all threads, in units a second.

    Attributes:
        float32, bfloat16: floating-point operations of products of 4096 x 1024 by 1024 x 1024.
        small_float32, small_bfloat16: of 16384 x 64 by 64 x 64, the size of a field's layers.
        gathers: rows of 4 float32 drawn at random from 2^17.
        copied: bytes read and written by a copy that no cache holds.
    """

    float32: float
    bfloat16: float
    small_float32: float
    small_bfloat16: float
    gathers: float
    copied: float


def product_rate(rows: int, width: int, dtype: torch.dtype, repeats: int) -> float:
    """Floating-point operations a second of `rows` x `width` by `width` x `width`."""
    a, b = torch.rand(rows, width).to(dtype), torch.rand(width, width).to(dtype)
    out = torch.empty(rows, width, dtype=dtype)
    return 2 * rows * width**2 / best(partial(torch.matmul, a, b, out=out), repeats)


def limits(repeats: int = 5) -> Limits:
    """Measure them, on torch's default device."""
    products = {
        f"{prefix}{str(dtype).removeprefix('torch.')}": product_rate(
            rows, width, dtype, repeats * (1 + 3 * (width < 100))
        )
        for prefix, rows, width in (("", 4096, 1024), ("small_", 16384, 64))
        for dtype in (torch.float32, torch.bfloat16)
    }
    table, index = torch.rand(1 << 17, 4), torch.randint(1 << 17, (1 << 20,))
    rows = torch.empty(len(index), 4)
    gathers = len(index) / best(partial(torch.index_select, table, 0, index, out=rows), repeats)
    source = torch.rand(1 << 26)
    target = torch.empty_like(source)
    copied = 2 * 4 * len(source) / best(partial(target.copy_, source), repeats)
    return Limits(**products, gathers=gathers, copied=copied)
