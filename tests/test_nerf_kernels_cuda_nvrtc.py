"""What NVRTC makes of the kernels for every architecture: nothing spills, and registers and shared memory are in bounds.

No GPU is needed. Where NVRTC can't be had there is nothing to compile with, and these tests are skipped.
"""

from __future__ import annotations

from itertools import product

import pytest

from nerf.kernels import cuda_compile, cuda_driver, cuda_frame, cuda_sources
from nerf.kernels.cuda_compile import CompileError, Options
from nerf.kernels.cuda_mlp_shape import FORMATS, Shape, shape_of

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

FIELD = ((32, 64, 16), (32, 64, 64, 3))  # widths of its networks

# The field's larger network as it comes (nerf.field.HashFieldConfig), a SIREN, the widest with a skip.
COLOR = (32, (64, 64, 3), ("relu", "sigmoid"), ())
SIREN = (2, (64, 64, 64, 3), ("sine", "none"), ())
WIDE = (39, (128, 128, 128, 128, 128, 128, 6), ("relu", "none"), (4,))
ALL = (COLOR, SIREN, WIDE)

# Registers a thread may take. A multiprocessor has 65536: at 128 it runs 512 threads at once, at 255 it runs 256.
MOST = {
    "adam.cu": 40, "composite.cu": 48, "harmonics.cu": 40, "march.cu": 48, "shade.cu": 40, "hash_encode.cu": 128, "frame.cu": 128,
    "mlp_forward.cu": 168, "mlp_backward.cu": 255, "mlp_rows.cu": 224, "mlp_weights.cu": 128, "mlp_epilogue.cu": 40,
    "mlp_largest.cu": 40,
}  # fmt: skip


def shape(format: str, network: tuple) -> Shape:
    inputs, rows, activations, skips = network
    found = shape_of(inputs, rows, activations, format, skips)
    assert found is not None
    return found


def networks(architecture: int, format: str) -> tuple:
    """Which networks are compiled: on sm_86 all, elsewhere those whose kernels have most registers. Formats differ by one
    instruction, so the second one isn't compiled everywhere either: both spare time."""
    if format == "bfloat16":
        return (COLOR,) if architecture == 80 else ()
    return ALL if architecture == 86 else (COLOR, SIREN)


def programs(architecture: int) -> list[tuple[str, Options]]:
    """Each source with options that launch code gives it; bfloat16 where the GPU has it."""
    found: list[tuple[str, Options]] = [
        (f"{name}.cu", ())
        for name in ("adam", "composite", "harmonics", "hash_encode", "march", "mlp_largest", "shade")
    ]
    for format in FORMATS if architecture >= 80 else ("float16",):
        own = (("MLP_FORMAT", FORMATS[format]),)
        found += [("mlp_weights.cu", own), ("mlp_epilogue.cu", own)]
        if format == "float16" or architecture == 86:
            made_for = cuda_frame.plan(FIELD, cuda_driver.SHARED if architecture > 75 else 64 * 1024)
            assert made_for is not None
            features = 4 if format == "float16" else 2
            given = (("FRAME_FORMAT", FORMATS[format]), ("FRAME_FEATURES", features), ("FRAME_BLOCK", made_for.block))
            found.append(("frame.cu", given))
        for network in networks(architecture, format):
            made = shape(format, network)
            found.append(("mlp_backward.cu" if made.backward_at_once() else "mlp_rows.cu", made.options()))
            if network is COLOR or architecture == 86:
                found.append(("mlp_forward.cu", made.options()))
    return found


@pytest.fixture(scope="module")
def compiler():
    try:
        return cuda_compile.nvrtc()
    except CompileError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_and_nothing_spills(compiler, architecture):
    wrong = []
    for source, options in programs(architecture):
        text, headers = cuda_sources.gather(source)
        program = compiler.compile(source, text, headers, options, f"sm_{architecture}")
        assert program.image.startswith(b"\x7fELF") and program.resources()
        for name, taken in program.resources().items():
            # A 64-bit remainder is a call on sm_100, with its 8 bytes of stack; an array of ours would be more.
            if taken.spills or taken.stack > 8 or taken.shared or taken.registers > MOST[source]:
                wrong.append((source, name, taken, options))
    assert wrong == []


def test_every_source_is_compiled_and_has_a_bound():
    assert {source for source, _ in programs(86)} == set(cuda_sources.names()) == set(MOST)


def test_a_kernel_that_spills_would_be_noticed(compiler):
    text = """extern "C" __global__ void __launch_bounds__(1024) greedy(float* x, int rounds) {
        float kept[96];
        _Pragma("unroll") for (int i = 0; i < 96; ++i) kept[i] = x[i * 1024 + threadIdx.x];
        for (int k = 0; k < rounds; ++k)
            _Pragma("unroll") for (int i = 0; i < 96; ++i) kept[i] = kept[i] * kept[(i + 37) % 96] + x[k];
        _Pragma("unroll") for (int i = 0; i < 96; ++i) x[i * 1024 + threadIdx.x] = kept[i];
    }"""
    taken = compiler.compile("greedy.cu", text, {}, (), "sm_86").resources()["greedy"]
    assert taken.spills > 0 and taken.registers <= 64


def test_no_network_asks_for_more_shared_memory_than_every_gpu_has():
    kinds = product((2, 16, 32, 64, 128), (16, 32, 64, 128), (1, 2, 3, 4, 8, 16), (3, 16, 128), ("relu", "sine"))
    seen = 0
    for inputs, width, depth, last, activation in kinds:
        made = shape_of(inputs, (*[width] * (depth - 1), last), (activation, "none"), "float16", ())
        if made is not None:
            assert made.forward_bytes() <= cuda_driver.SHARED
            assert not made.backward_at_once() or made.backward_bytes() <= cuda_driver.SHARED
            seen += 1
    assert seen > 500


def test_a_fields_picture_fits_into_the_shared_memory_of_every_gpu():
    for limit, block in ((64 * 1024, 128), (cuda_driver.SHARED, 256)):  # sm_75 has less than the others
        made = cuda_frame.plan(FIELD, limit)
        assert made is not None and made.shared <= limit and made.block == block
