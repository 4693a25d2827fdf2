"""Mistakes planted in the kernels of grids, rays and pictures: what their tests would say of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nerf.kernels import cuda_driver, cuda_frame, cuda_grid, cuda_rays
from nerf.kernels.composite import composite
from nerf.kernels.hash_encode import hash_encode
from nerf.kernels.march import march
from tests import emulator, test_cuda_composite, test_cuda_frame, test_cuda_hash_encode, test_cuda_march
from tests.cuda_emulated import NEEDS, distance, emulated  # noqa: F401 (a fixture)
from tests.launches import recording
from tests.test_cuda_mutations import mutated
from tests.test_cuda_sanitizers import watch

pytestmark = [NEEDS, pytest.mark.usefixtures("seed")]


def grid_error() -> float:
    geometry = test_cuda_hash_encode.grid()
    x, table = test_cuda_hash_encode.points(200), torch.randn(geometry.offsets[-1], 4)
    leaves = [value.double().requires_grad_() for value in (x, table)]
    wanted, found = hash_encode(*leaves, geometry), cuda_grid.encode(x, table, geometry)
    grad = torch.randn_like(found)
    slopes = torch.autograd.grad(wanted, leaves, grad.double())
    gradients = cuda_grid.encode_x(x, table, grad, geometry), cuda_grid.encode_table(x, grad, geometry)
    return max(distance(a, b) for a, b in zip((found, *gradients), (wanted, *slopes)))


def composite_error() -> float:
    density, rgb, t, dt, offsets = test_cuda_composite.pack()
    leaves = [value.double().requires_grad_() for value in (density, rgb)]
    wanted = composite(*leaves, t.double(), dt.double(), offsets)
    found = cuda_rays.composite(density, rgb, t, dt, offsets, None)
    grads = [torch.randn_like(value) for value in found]
    slopes = torch.autograd.grad(wanted, leaves, [value.double() for value in grads])
    gradients = cuda_rays.composite_backward(density, rgb, t, dt, offsets, None, found[3], *grads, 0.0)
    return max(distance(a, b) for a, b in zip((*found, *gradients), (*wanted, *slopes)))


def march_error() -> float:
    ends, occupied = test_cuda_march.rays(60, 6.0), torch.rand(test_cuda_march.N**3) < 0.3
    wanted = march(*ends, occupied, test_cuda_march.N, test_cuda_march.BOUNDED, 0.02)
    found = test_cuda_march.found(ends, occupied, test_cuda_march.BOUNDED, 0.02, 0.0)
    return 0.0 if all(torch.equal(a, b) for a, b in zip(found, wanted)) else 1.0


def frame_error() -> float:
    rays, field, view = test_cuda_frame.make_rays(40), test_cuda_frame.make_field(), torch.randn(40, 5)
    course = test_cuda_frame.make_course(True, None)
    found = cuda_frame.frame(rays, course, field, view, test_cuda_frame.STOP, test_cuda_frame.FAINT, "float16")
    wanted = test_cuda_frame.expected_frame(rays, course, field, view, torch.float16)
    return distance(test_cuda_frame.columns_of(found), wanted)


MISTAKES: dict[str, tuple[Callable[[], float], str, str, str]] = {
    "a corner's y": (grid_error, "hash_cell.h", "side[1][k >> 1 & 1]", "side[1][k & 1]"),
    "the slope along z": (grid_error, "hash_cell.h", "- fma_(m1, high[1], m0 * low[1])", "- fma_(m1, high[2], m0 * low[2])"),
    "light behind 32 samples": (composite_error, "composite.cu", "        light *= shuffle(passed, 31);\n", ""),
    "what lies behind, with the sample": (
        composite_error, "composite.cu", "float beyond = carried + (lane_index() == 31 ? 0.f : next)",
        "float beyond = carried + gathered",
    ),
    "a sum beyond the warp's end": (
        composite_error, "scan.h", "if (lane_index() + step < 32) value += behind", "value += behind",
    ),
    "all lanes in one block of steps": (
        march_error, "march.cu", "            for (int k = 0; k < lane_index() / block; ++k) mine &= mine - 1;\n", "",
    ),
    "no barrier between layers": (frame_error, "network.h", "            warp_barrier();\n", ""),
    "a fragment's index": (
        frame_error, "network.h", "(lane & 15) * stride + (lane >> 4) * 8", "(lane & 15) * stride + (lane >> 3 & 1) * 8",
    ),
    "light of the ray beside": (
        frame_error, "scan.h", "if ((lane_index() & (lanes - 1)) >= step)", "if (lane_index() >= step)",
    ),
    "light that isn't carried on": (frame_error, "frame.cu", "going.light *= shuffle(passed, leader() + 7);", ""),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_change_results_under_some_schedule(mistake, tmp_path):
    error_of, *edit = MISTAKES[mistake]
    root, errors = mutated(tmp_path, *edit), []

    def image(source: str, options: tuple[tuple[str, object], ...]) -> bytes:
        defined = tuple(f"-D{name}={value}" for name, value in options)
        return emulator.compile_image(f"gpu/{source}", defined, root)

    with cuda_driver.emulated(str(emulator.driver()), image):
        for schedule in emulator.SCHEDULES:
            with emulator.schedule(schedule):
                errors.append(error_of())
    assert not max(errors) < 1e-2, errors  # a NaN is noticed too


BOUNDS = {
    "rays beyond the last": ("march.cu", "    if (r >= args.course.rays) return;\n    const Ray", "    const Ray"),
    "samples beyond the room": ("frame.cu", "    if (to >= args.count) return;\n", ""),
    "numbers beyond the last": ("adam.cu", "end = first + 4 < args.count ? first + 4 : args.count", "end = first + 4"),
}


@pytest.mark.parametrize("mistake", BOUNDS)
def test_the_address_sanitizer_sees_a_missing_bound(mistake, emulated, tmp_path):  # noqa: F811 (the fixture)
    with recording(emulated) as made:
        test_cuda_march.found(
            test_cuda_march.rays(5, 2.0), torch.ones(16**3, dtype=torch.bool), test_cuda_march.BOUNDED, 0.1, 0.0
        )
        rays, course = test_cuda_frame.make_rays(9), test_cuda_frame.make_course(False, None)
        field = test_cuda_frame.make_field(width=16)
        cuda_frame.look(rays, course, field, 1e-2, 0.0, None, 1.0, "float16", 4)
        state = [torch.ones(13) for _ in range(4)]
        cuda_rays.adam(state[0], state[1], state[2], state[3], 1, 1e-2, 0.9, 0.99, 1e-8)
    launches = [launch for launch in made if launch.program[0] == BOUNDS[mistake][0]]
    words = watch("address,undefined", launches, tmp_path / "launches", mutated(tmp_path, *BOUNDS[mistake]))
    assert "AddressSanitizer: heap-buffer-overflow" in words
