"""Mistakes planted in the networks' kernels: what the tests of the kernels would say of each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from nerf.kernels import cuda_driver, cuda_mlp
from tests import emulator
from tests.cuda_emulated import NEEDS, distance, emulated  # noqa: F401 (a fixture)
from tests.launches import recording
from tests.rounded import rounded_mlp
from tests.test_cuda_mlp import BY_LAYERS, LIMIT, LIMIT_OF_SINES, ONE_PASS, errors, parameters
from tests.test_cuda_sanitizers import watch

pytestmark = NEEDS
SMALL, SINE = [20, 32, 32, 5], [3, 16, 16, 5]
STREAMED = [20, 128, 128, 128, 100]  # layers' matrices come to shared memory one by one

RACES = {
    "nobody waits until a layer's rows are read": (
        "mlp_backward.cu", "        barrier();  // all have read what this layer's gradient replaces\n", "", ONE_PASS,
    ),
    "nobody waits until a layer's gradients are written": (
        "mlp_backward.cu", "rows);\n        barrier();\n        if constexpr", "rows);\n        if constexpr", ONE_PASS,
    ),
    "nobody waits until a block's rows are read": (
        "mlp_backward.cu", "        barrier();  // all have read what the next rows replace\n", "", ONE_PASS,
    ),
    "a product's rows are read before they are there": (
        "mlp_weights.cu", "        barrier();\n        gradient.add", "        gradient.add", BY_LAYERS,
    ),
    "a layer's matrix replaces one that is in use": (
        "mlp_network.h", "        barrier();  // others may still read the one before\n", "", STREAMED,
    ),
    "slopes are replaced before all lanes have them": (
        "mlp_rows.cu", "            warp_barrier();  // all lanes have read the slopes that the gradients replace\n", "",
        BY_LAYERS,
    ),
}  # fmt: skip
INDICES = {
    "rows of fragments": ("mlp.h", "(lane_index() >> 2) + 8 * (i & 1)", "(lane_index() >> 2) + 8 * (i >> 1)", SMALL),
    "columns of fragments": ("mlp.h", "2 * (lane_index() & 3) + 8", "2 * (lane_index() & 3) + 4", SMALL),
    "a matrix that isn't transposed": ("mlp.h", "load_matrices<true>(b, place", "load_matrices<false>(b, place", SMALL),
    "halves of a matrix": ("mlp.h", "(lane >> 3 & 1) * 8", "(lane >> 4) * 8", SMALL),
    "rows of a weight's gradient": ("mlp_gradient.h", "16 * line(i) + (lane >> 3", "16 * line(i) + (lane >> 2", SMALL),
    "which warp sums which columns": ("mlp_gradient.h", "warp_index() / lines * own_pieces + j", "j", SMALL),
    "where a block's columns begin": ("mlp_weights.cu", "% across * side", "% across", BY_LAYERS),
    "which slopes a lane wrote": ("mlp_rows.cu", "+ 32 * k + lane_index()", "+ 32 * k + lane_index() / 2", BY_LAYERS),
    "the second half of a split number": ("mlp_network.h", "weight ? 2 : 1", "1", SINE),
}  # fmt: skip
READ = "if (row < count) pair = read_pair(x + row * columns, "  # and a column: 16 of rows, 8 of gradients
BOUNDS = {
    "rows beyond the last are read": ("mlp.h", READ + "16", READ.removeprefix("if (row < count) ") + "16", "mlp_forward"),
    "gradients beyond the last are read": ("mlp.h", READ + "8", READ.removeprefix("if (row < count) ") + "8", "mlp_backward"),
    "rows beyond the last are written": ("mlp.h", "        if (row >= count) continue;\n", "", "mlp_forward"),
    "a matrix is read beyond its rows": ("mlp.h", "row < rows && column < columns ?", "column < columns ?", "mlp_forward"),
    "gradients of rows that a matrix hasn't": ("mlp_gradient.h", "        if (row >= height) return;\n", "", "mlp_weights"),
    "shared memory for one row too few": ("mlp_weights.cu", "matrix_size(side, side)", "matrix_size(side + 1, side)", "mlp_weights"),
}  # fmt: skip


def mutated(tmp_path: Path, file: str, right: str, wrong: str) -> Path:
    """A copy of the kernels' sources with a mistake in it."""
    root = tmp_path / "cuda"
    for folder in ("gpu", "shared"):
        shutil.copytree(emulator.CUDA / folder, root / folder)
    path = root / "gpu" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    return root


def wrong_gradients(widths: list[int]) -> bool:
    """Whether a network's gradients aren't those of one in float64 that rounds where the kernels do."""
    kinds, omega, limit = ("relu", "none"), 1.0, LIMIT
    if widths == SINE:
        kinds, omega, limit = ("sine", "none"), 30.0, LIMIT_OF_SINES
    (weights, biases), x = parameters(widths, scale=0.3 if omega > 1 else 1.0), torch.randn(300, widths[0])
    grad = torch.randn(300, widths[-1])
    found = cuda_mlp.backward(grad, x, weights, biases, *kinds, omega, "float16", (), True)
    expected = rounded_mlp(x, weights, biases, kinds, omega, "float16", grad)
    pairs = zip(found, [expected.to_x, *expected.to_weights, *expected.to_biases])
    return max(distance(*pair) for pair in pairs) > limit


def noticed(root: Path, widths: list[int]) -> bool:
    """Whether gradients are wrong, or a launch fails, under some schedule."""

    def image(source: str, options: tuple[tuple[str, object], ...]) -> bytes:
        defined = tuple(f"-D{name}={value}" for name, value in options)
        return emulator.compile_image(f"gpu/{source}", defined, root)

    with cuda_driver.emulated(str(emulator.driver()), image):
        for name in reversed(emulator.SCHEDULES):
            torch.manual_seed(0)
            with emulator.schedule(name, seed=3):
                try:
                    if wrong_gradients(widths):
                        return True
                except cuda_driver.DriverError:
                    return True
    return False


@pytest.mark.parametrize("widths", [ONE_PASS, BY_LAYERS, STREAMED, SMALL, SINE])
def test_nothing_is_noticed_where_there_is_no_mistake(widths):
    assert not noticed(emulator.CUDA, widths)


@pytest.mark.parametrize("mistake", [*RACES, *INDICES])
def test_mistakes_change_results_under_some_schedule(mistake, tmp_path):
    *edit, widths = (RACES | INDICES)[mistake]
    assert noticed(mutated(tmp_path, *edit), widths)


@pytest.fixture(scope="module")
def launches(emulated):  # noqa: F811 (the fixture)
    """Of the shapes that test_cuda_sanitizers.py has compiled."""
    torch.manual_seed(0)
    with recording(emulated) as made:
        for widths in ([3, 16, 16, 5], [35, 80, 80, 3]):
            errors(67, widths, skips=(1,) if widths[1] == 80 else ())
    return made


@pytest.mark.parametrize("mistake", BOUNDS)
def test_the_address_sanitizer_sees_a_missing_bound(mistake, launches, tmp_path):
    *edit, kernel = BOUNDS[mistake]
    chosen = [launch for launch in launches if launch.name == kernel]
    words = watch("address,undefined", chosen, tmp_path / "launches", mutated(tmp_path, *edit))
    assert "AddressSanitizer: heap-" in words  # beyond a tensor's memory, or in another's that was freed


def test_the_thread_sanitizer_sees_a_missing_barrier(launches, tmp_path):
    *edit, _ = RACES["nobody waits until a layer's rows are read"]
    chosen = [launch for launch in launches if launch.name == "mlp_backward"]
    words = watch("thread", chosen, tmp_path / "launches", mutated(tmp_path, *edit))
    assert "ThreadSanitizer: data race" in words
