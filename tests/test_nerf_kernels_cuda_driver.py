"""The calls of the driver, on the emulated one."""

from __future__ import annotations

import ctypes
import threading

import pytest
import torch

from nerf.kernels import cuda_check, cuda_driver
from nerf.kernels.__main__ import report
from nerf.kernels.cuda_arguments import fields
from nerf.kernels.cuda_driver import Driver, DriverError
from tests import emulator
from tests.cuda_emulated import NEEDS, emulated, image  # noqa: F401 (a fixture)

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated")]

CPU = torch.device("cpu")


class Adam(ctypes.Structure):
    """AdamArgs."""

    _fields_ = fields(p="parameter gradient mean square", l="count", i="aligned", f="beta1 beta2 eps rate unbias")


def adam(count: int = 50) -> tuple[Adam, torch.Tensor]:
    tensors = torch.ones(4, count)
    places = [tensor.data_ptr() for tensor in tensors]
    arguments = Adam(*places, count, 0, 0.9, 0.99, 1e-8, 0.1, 1.0)
    arguments.keep = tensors
    return arguments, tensors


def test_a_kernel_is_loaded_once_and_runs():
    kernel = cuda_driver.kernel("adam.cu", "adam", CPU)
    assert cuda_driver.kernel("adam.cu", "adam", CPU) is kernel
    arguments, tensors = adam()
    cuda_driver.launch(kernel, 1, 256, 0, arguments)
    assert tensors[0].tolist() == pytest.approx([0.9] * 50)
    cuda_driver.launch(kernel, 0, 256, 0, arguments)  # a grid of no blocks runs nothing
    assert tensors[0].tolist() == pytest.approx([0.9] * 50)


def test_another_thread_enters_the_context_first():
    """Autograd's threads call kernels, and start without one."""
    kernel, (arguments, tensors), raised = cuda_driver.kernel("adam.cu", "adam", CPU), adam(), []

    def run():
        try:
            cuda_driver.launch(kernel, 1, 256, 0, arguments)
        except DriverError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert raised == [] and float(tensors[0].max()) < 1


@pytest.mark.parametrize(
    ("grid", "block", "shared", "said"),
    [
        (1, 128, 0, "is for blocks of 256 threads"),
        ((1, 70000), 256, 0, "too many"),
        (1, 256, 100 << 10, "over 99 KB of shared memory"),
    ],
)
def test_what_a_gpu_would_refuse_is_an_error_with_its_words(grid, block, shared, said):
    arguments, _ = adam()
    with pytest.raises(DriverError, match=rf"adam: .*{said}"):
        cuda_driver.launch(cuda_driver.kernel("adam.cu", "adam", CPU), grid, block, shared, arguments)


def test_arguments_of_another_layout_are_noticed():
    class Short(ctypes.Structure):
        _fields_ = Adam._fields_[:-2]

    with pytest.raises(DriverError, match=r"adam: cuLaunchKernel: adam: takes \d+ bytes, not \d+"):
        cuda_driver.launch(cuda_driver.kernel("adam.cu", "adam", CPU), 1, 256, 0, Short())


def test_shared_memory_over_48_kb_is_asked_for():
    arguments, tensors = adam()
    cuda_driver.launch(cuda_driver.kernel("adam.cu", "adam", CPU), 1, 256, 64 << 10, arguments)
    assert float(tensors[0].max()) < 1


def test_names_that_are_not_there():
    with pytest.raises(DriverError, match=r"adam.cu: cuModuleGetFunction eve: no kernel eve in this module"):
        cuda_driver.kernel("adam.cu", "eve", CPU)
    with pytest.raises(ValueError, match="takes tensors on a cpu device, found meta"):
        cuda_driver.kernel("adam.cu", "adam", torch.device("meta"))


def test_an_image_that_is_none_is_refused():
    wrong = cuda_driver.emulated(str(emulator.driver()), lambda source, options: b"\x7fELF")
    with wrong, pytest.raises(DriverError, match=r"adam.cu: cuModuleLoadData: an image that isn't"):
        cuda_driver.kernel("adam.cu", "adam", CPU)


def test_facts_of_the_device():
    assert cuda_driver.capability(CPU) == 86 and cuda_driver.multiprocessors(CPU) >= 1
    assert cuda_driver.shared_limit(CPU) == cuda_driver.SHARED and cuda_driver.why_not() == ""


def test_gpus_that_are_too_old_are_told():
    emulator.library().emulation_capability(6, 1)
    try:
        assert cuda_driver.why_not() == "this GPU is sm_61; the kernels need sm_75 or newer"
    finally:
        emulator.library().emulation_capability(8, 6)


def test_the_report_names_the_device_and_every_op():
    lines = report()
    assert lines[0] == "emulated device, sm_86, driver for CUDA 13.0"
    ops = [line.split()[0] for line in lines[1:]]
    assert {"mlp", "hash_encode", "composite", "march", "adam", "look", "frame", "mlp_jet"} <= set(ops)
    tried = [line for line in lines[1:] if not line.startswith("  mlp_jet")]
    assert all("verified, error" in line for line in tried), "\n".join(lines)
    assert all(verdict.trouble == "" for verdict in cuda_check.verdicts())


def test_a_machine_without_a_driver_says_so(monkeypatch):
    with pytest.raises(DriverError, match=r"no NVIDIA driver \(libnothing.so does not load\)"):
        Driver("libnothing.so")
    monkeypatch.setattr(cuda_driver, "_installed", [])
    if not torch.cuda.is_available():
        assert cuda_driver.why_not()
