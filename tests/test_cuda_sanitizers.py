"""Every kernel under the thread, address and undefined-behaviour sanitizers, as real launches of the ops call it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from nerf.kernels import cuda_driver, cuda_frame, cuda_grid, cuda_mlp, cuda_rays
from nerf.kernels.hash_encode import GridGeometry
from tests import emulator, test_cuda_frame, test_cuda_march, test_cuda_shade
from tests.cpu_levels import packed_samples
from tests.cuda_emulated import NEEDS, image
from tests.launches import Launch, Program, recording, write
from tests.test_cuda_mlp import errors

pytestmark = NEEDS
SANITIZERS = ("thread", "address,undefined")


def every_kernel() -> set[str]:
    """The names in all programs, as the compiler sees them."""
    found: set[str] = set()
    for path in (emulator.CUDA / "gpu").glob("*.cu"):
        text = emulator.run(["g++", *emulator.FLAGS, "-x", "c++", "-E", path])
        found |= set(re.findall(r"Registered (\w+)_registered\(", text))
    return found


def run_all() -> None:
    """Ops of sizes that are no multiple of anything."""
    for widths in ([3, 16, 16, 5], [35, 130, 3], [35, 80, 80, 3]):
        errors(67, widths, skips=(1,) if widths[1] == 80 else ())
    with pytest.MonkeyPatch.context() as patch:  # its networks' kernels have run
        patch.setattr(cuda_mlp, "forward", test_cuda_shade.exact_forward)
        patch.setattr(cuda_mlp, "backward", test_cuda_shade.exact_backward)
        test_cuda_shade.compare(9, True, "a ray", 2.0)
    for features in (1, 2, 4, 8):
        geometry = GridGeometry(levels=3, features=features, log2_rows=7, base_resolution=2, finest_resolution=9)
        x, table = torch.rand(50, 3), torch.randn(geometry.offsets[-1], features)
        grad = cuda_grid.encode(x, table, geometry)
        cuda_grid.encode_table(x, grad, geometry)
        with pytest.MonkeyPatch.context() as patch:  # what adds a row at once
            patch.setattr(cuda_driver, "capability", lambda device: 90)
            cuda_grid.encode_table(x, grad, geometry)
        cuda_grid.encode_x(x, table, grad, geometry)
    rays, course = test_cuda_march.rays(9, 6.0), test_cuda_frame.make_course(True, torch.rand(9))
    test_cuda_march.found(rays, course.occupied, course.space, 0.1, 0.01, course.jitter)
    density, _, _, dt, offsets = (value.detach() for value in packed_samples(19))
    light = cuda_rays.transmittance(density, dt, offsets)
    cuda_rays.transmittance_backward(density, dt, offsets, light, torch.randn_like(light))
    rays, field = test_cuda_frame.make_rays(9), test_cuda_frame.make_field(width=16)
    cuda_frame.frame(rays, course, field, torch.randn(9, 5), 1e-2, 1e-3, "float16")
    cuda_frame.look(rays, course, field, 1e-2, 0.01, torch.zeros(course.resolution**3), 0.5, "float16")
    cuda_frame.look(rays, course, field, 1e-2, 0.01, None, 1.0, "float16", 40)
    cuda_rays.harmonics(torch.randn(9, 3))
    parameter = torch.randn(1021)
    cuda_rays.adam(parameter, torch.randn(1021), parameter * 0, parameter * 0, 1, 1e-2, 0.9, 0.99, 1e-8)


@pytest.fixture(scope="module")
def launches() -> list[Launch]:
    torch.manual_seed(0)
    with cuda_driver.emulated(str(emulator.driver()), image) as driver, recording(driver) as made:
        run_all()
    return made


def watch(sanitizer: str, launches: list[Launch], path: Path, root: Path = emulator.CUDA) -> str:
    """What a sanitizer has to say of launches; "" where all is well."""
    images: dict[Program, bytes] = {}
    for source, options in {launch.program for launch in launches}:
        defined = tuple(f"-D{name}={value}" for name, value in options)
        flags = ("-O0",)  # what builds and runs in the least time together
        images[source, options] = emulator.compile_image(f"gpu/{source}", defined, root, flags, sanitizer)
    write(launches, images, path)
    command = [emulator.replay(sanitizer), path, str(emulator.SCHEDULES.index("warp first"))]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    return "" if done.returncode == 0 and "all well" in done.stdout else done.stdout + done.stderr


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_sanitizers_find_nothing_in_any_kernel(launches, sanitizer, tmp_path):
    assert {launch.name for launch in launches} == every_kernel()
    assert watch(sanitizer, launches, tmp_path / "launches") == ""
