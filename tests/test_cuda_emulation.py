"""The emulated device: what threads tell one another, and what it refuses."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from tests import emulator

pytestmark = pytest.mark.skipif(bool(emulator.why_not()), reason=emulator.why_not())


class Exchange(ctypes.Structure):
    """`ExchangeArgs` in cuda/gpu/check/exchange.cu."""

    _pointers = ("x", "left", "right", "reversed", "sums", "scans", "product", "positive", "total", "highest")
    _fields_ = (*((name, ctypes.c_void_p) for name in _pointers), ("blocks", ctypes.c_int32), ("brain", ctypes.c_int32))


def exchanged(dtype: torch.dtype, blocks: int = 3) -> tuple[Exchange, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "x": torch.randn(blocks, 64, generator=generator),
        "left": torch.randn(16, 16, generator=generator).to(dtype),
        "right": torch.randn(16, 8, generator=generator).to(dtype),
        "reversed": torch.empty(blocks, 64),
        "sums": torch.empty(blocks * 2),
        "scans": torch.empty(blocks, 64),
        "product": torch.empty(16, 8),
        "positive": torch.empty(blocks * 2, dtype=torch.int32),
        "total": torch.zeros(4),
        "highest": torch.zeros(1),
    }
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    return Exchange(**pointers, blocks=blocks, brain=dtype == torch.bfloat16), tensors


@pytest.fixture(scope="module")
def kernels():
    return emulator.Kernels(emulator.compile_image("gpu/check/exchange.cu"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
def test_threads_exchange_what_a_gpus_would(kernels, schedule, dtype):
    argument, t = exchanged(dtype)
    with emulator.schedule(schedule):
        kernels.launch("exchange", argument, 3, 64, shared=1024)
    halves = t["x"].double().view(6, 32)
    assert torch.equal(t["reversed"], t["x"].flip(1))
    assert torch.equal(t["positive"].long(), (halves > 0).sum(1))
    assert t["highest"].item() == t["x"].max().item()
    torch.testing.assert_close(t["sums"].double(), halves.sum(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(t["scans"].double().view(6, 32), halves.cumsum(1), rtol=1e-5, atol=1e-5)
    total = halves.sum() * torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    torch.testing.assert_close(t["total"].double(), total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(t["product"].double(), t["left"].double() @ t["right"].double(), rtol=1e-5, atol=1e-5)


ROUND = """#include "gpu/device.h"
struct Args { const float* x; uint16_t* out; int64_t count; int32_t brain; };
KERNEL(round_numbers, Args, 32) {
    for (int64_t i = global_thread(); i < args.count; i += all_threads()) {
        const uint32_t both = args.brain ? pack<Bfloat16>(args.x[i], 0.f) : pack<Float16>(0.f, args.x[i]);
        args.out[i] = args.brain ? both : both >> 16;
    }
}
"""


class Round(ctypes.Structure):
    """`Args` in ROUND."""

    _fields_ = (("x", ctypes.c_void_p), ("out", ctypes.c_void_p), ("count", ctypes.c_int64), ("brain", ctypes.c_int32))


def program(tmp_path: Path, text: str) -> emulator.Kernels:
    """The kernels of a program that a test wrote."""
    (tmp_path / "program.cu").write_text(text)
    (tmp_path / "gpu").symlink_to(emulator.CUDA / "gpu")
    return emulator.Kernels(emulator.compile_image("program.cu", root=tmp_path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_round_as_torch_rounds_them(tmp_path, dtype):
    bits = torch.arange(-(2**31), 2**31, 99_991, dtype=torch.int64).to(torch.int32)
    edges = torch.tensor([0.0, -0.0, 65519.99, 65520.0, 2.0**-14, 2.0**-24, 2.0**-25, 3 * 2.0**-26, 1e30, torch.inf])
    steps = torch.arange(-40000, 40000, dtype=torch.int16).view(dtype).float()  # representable ones, and between them
    x = torch.cat([bits.view(torch.float32), edges, steps, steps * (1 + 2.0**-11), steps * (1 + 2.0**-8)])
    out = torch.empty(len(x), dtype=dtype)
    argument = Round(x.data_ptr(), out.data_ptr(), len(x), dtype == torch.bfloat16)
    program(tmp_path, ROUND).launch("round_numbers", argument, 4, 32)
    torch.testing.assert_close(out, x.to(dtype), rtol=0, atol=0, equal_nan=True)


FAULTS = {
    "if (thread_index() < 32) barrier();": "wait for them at a barrier or collective",
    "if (lane_index() < 31) warp_barrier();": "wait for them at a barrier or collective",
    "if (thread_index() < 32) barrier(); else if (lane_index() < 5) warp_barrier(); else barrier();": "all threads wait",
    "if (lane_index() < 9) ballot(true); else warp_barrier();": "while others of its warp are at",
    "uint32_t to[4]; load_matrices<false>(to, shared_memory<uint16_t>() + thread_index());": "16-byte boundary",
    "add_to(args.x + 1, 1.f, 2.f);": "isn't on a boundary",
    "shared_memory<float>()[16] = 1;": "wrote beyond the launch's shared memory",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    kernel = "KERNEL(faulty_%d, Args, 64) { (void)args; %s }\n"
    bodies = [kernel % (index, statement) for index, statement in enumerate(FAULTS)]
    text = '#include "gpu/device.h"\nstruct Args { float* x; };\n' + "".join(bodies)
    return program(tmp_path_factory.mktemp("faulty"), text)


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("statement", FAULTS)
def test_faults_are_named(faulty, statement, schedule):
    name, x = f"faulty_{list(FAULTS).index(statement)}", torch.zeros(8)
    with emulator.schedule(schedule), pytest.raises(RuntimeError, match=FAULTS[statement]) as found:
        faulty.launch(name, ctypes.c_void_p(x.data_ptr()), 1, 64, shared=64)
    assert name in str(found.value)


def test_launches_that_a_gpu_would_refuse(kernels):
    argument, _ = exchanged(torch.float16)
    for message, launch in {
        "blocks of 64 threads": lambda: kernels.launch("exchange", argument, 3, 96, 1024),
        "a grid of no block": lambda: kernels.launch("exchange", argument, 0, 64, 1024),
        "or of too many": lambda: kernels.launch("exchange", argument, 1, 64, 1024, blocks_y=65536),
        "over 99 KB": lambda: kernels.launch("exchange", argument, 3, 64, 99 * 1024 + 1),
        "takes 88 bytes, not 8": lambda: kernels.launch("exchange", ctypes.c_void_p(0), 3, 64, 1024),
        "no kernel missing": lambda: kernels.launch("missing", argument, 3, 64),
        "isn't the emulated compiler's": lambda: emulator.Kernels(b"\x7fELF and more"),
    }.items():
        with pytest.raises(RuntimeError, match=message):
            launch()
