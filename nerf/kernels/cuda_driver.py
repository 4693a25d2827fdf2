"""NVIDIA's driver, called with ctypes: loads compiled kernels and launches them on torch's memory, context and stream.

A kernel takes one argument, a plain structure passed by value. Launch code keeps one ctypes.Structure that mirrors it,
fills in its fields and hands it to `launch`, which costs a few microseconds; the driver copies it before it returns.

    kernel = cuda_driver.kernel("composite.cu", "composite", density.device)
    arguments.density = density.data_ptr()
    cuda_driver.launch(kernel, rays // 4 + 1, 128, 0, arguments)
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch

from nerf.kernels import cuda_compile
from nerf.kernels.cuda_compile import Options, Program

LOWEST = 75  # compute capability: older GPUs have no instruction that multiplies matrices of this shape
SHARED = 99 * 1024  # bytes of shared memory that a block may have on every GPU from sm_86 up
_WITHOUT_ASKING = 48 * 1024
_MULTIPROCESSORS, _MAJOR, _MINOR, _MOST_SHARED = 16, 75, 76, 97  # CUdevice_attribute
_DYNAMIC_SHARED = 8  # CUfunction_attribute
_BUFFER, _BUFFER_SIZE = 1, 2  # CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE

Image = Callable[[str, Options], bytes]
F = TypeVar("F", bound=Callable)


class DriverError(RuntimeError):
    """The driver isn't there, or refused a call. The message says which and why."""


@dataclass(frozen=True)
class Kernel:
    """A loaded kernel: the driver's handle of it, and the device whose context holds it."""

    name: str
    handle: ctypes.c_void_p
    device: int


class Driver:
    """The driver's library, and what was loaded with it.

    Args:
        path: the library.
        image: makes a program's image from its source and options; None: NVRTC, for the GPU at hand. With one of its
            own, the library is an emulation that runs kernels on the CPU, on tensors that lie there.
    """

    def __init__(self, path: str, image: Image | None = None) -> None:
        try:
            self.library = ctypes.CDLL(path)
        except OSError as error:
            raise DriverError(f"no NVIDIA driver ({path} does not load)") from error
        self.image = image
        self.device_type = "cuda" if image is None else "cpu"
        self._launch = self.library.cuLaunchKernel
        self._launch.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3]
        self.check("cuInit", self.library.cuInit(0))
        self._kernels: dict[tuple[str, str, int, Options], Kernel] = {}
        self._modules: dict[tuple[str, int, Options], ctypes.c_void_p] = {}
        self.programs: dict[tuple[str, Options], Program] = {}  # those that NVRTC compiled for it
        self._contexts: dict[int, ctypes.c_void_p] = {}
        self._largest: dict[int, int] = {}

    def check(self, call: str, status: int) -> None:
        """Raise a `DriverError` with the driver's words unless a call went well."""
        if status:
            words = ctypes.c_char_p()
            self.library.cuGetErrorString(status, ctypes.byref(words))
            raise DriverError(f"{call}: {words.value.decode() if words.value else f'CUDA error {status}'}")

    def version(self) -> int:
        """CUDA version that the driver speaks, such as 12080."""
        number = ctypes.c_int()
        self.check("cuDriverGetVersion", self.library.cuDriverGetVersion(ctypes.byref(number)))
        return number.value

    def devices(self) -> int:
        """How many GPUs there are."""
        count = ctypes.c_int()
        self.check("cuDeviceGetCount", self.library.cuDeviceGetCount(ctypes.byref(count)))
        return count.value

    def name(self, device: int) -> str:
        """What a GPU is called."""
        handle, words = ctypes.c_int(), ctypes.create_string_buffer(256)
        self.check("cuDeviceGet", self.library.cuDeviceGet(ctypes.byref(handle), device))
        self.check("cuDeviceGetName", self.library.cuDeviceGetName(words, len(words), handle))
        return words.value.decode(errors="replace")

    def attribute(self, device: int, number: int) -> int:
        """A fact of a GPU, by the number that cuda.h gives it."""
        handle, value = ctypes.c_int(), ctypes.c_int()
        self.check("cuDeviceGet", self.library.cuDeviceGet(ctypes.byref(handle), device))
        status = self.library.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
        self.check("cuDeviceGetAttribute", status)
        return value.value

    def enter(self, device: int) -> None:
        """Make the context that torch uses on a GPU this thread's own: autograd's threads start without one."""
        context = self._contexts.get(device)
        if context is None:
            handle, context = ctypes.c_int(), ctypes.c_void_p()
            self.check("cuDeviceGet", self.library.cuDeviceGet(ctypes.byref(handle), device))
            status = self.library.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle)
            self.check("cuDevicePrimaryCtxRetain", status)
            self._contexts[device] = context
        self.check("cuCtxSetCurrent", self.library.cuCtxSetCurrent(context))

    def _module(self, source: str, device: int, options: Options) -> ctypes.c_void_p:
        if (source, device, options) not in self._modules:
            if self.image is not None:
                image = self.image(source, options)
            else:
                compiler = cuda_compile.nvrtc(self.version())
                program = cuda_compile.build(source, options, self.architecture(device), compiler)
                image, self.programs[source, options] = program.image, program
            module = ctypes.c_void_p()
            self.check(f"{source}: cuModuleLoadData", self.library.cuModuleLoadData(ctypes.byref(module), image))
            self._modules[source, device, options] = module
        return self._modules[source, device, options]

    def kernel(self, source: str, name: str, device: int, options: Options) -> Kernel:
        """A kernel of a program; compiled, or read from the cache, the first time."""
        found = self._kernels.get((source, name, device, options))
        if found is None:
            self.enter(device)
            module, handle = self._module(source, device, options), ctypes.c_void_p()
            status = self.library.cuModuleGetFunction(ctypes.byref(handle), module, name.encode())
            self.check(f"{source}: cuModuleGetFunction {name}", status)
            found = self._kernels[source, name, device, options] = Kernel(name, handle, device)
        return found

    def architecture(self, device: int) -> int:
        """Compute capability as one number: 86 for 8.6."""
        return 10 * self.attribute(device, _MAJOR) + self.attribute(device, _MINOR)

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], block: int, shared: int, arguments: ctypes.Structure, stream: int
    ) -> None:
        """Enqueue a kernel."""
        self.enter(kernel.device)
        handle = kernel.handle.value or 0
        if shared > max(_WITHOUT_ASKING, self._largest.get(handle, 0)):
            status = self.library.cuFuncSetAttribute(kernel.handle, _DYNAMIC_SHARED, shared)
            self.check(f"{kernel.name}: {shared} bytes of shared memory", status)
            self._largest[handle] = shared
        size = ctypes.c_size_t(ctypes.sizeof(arguments))  # so that the driver notices another layout
        packed = (_BUFFER, ctypes.addressof(arguments), _BUFFER_SIZE, ctypes.addressof(size), None)
        extra = (ctypes.c_void_p * 5)(*packed)
        status = self._launch(kernel.handle, grid[0], grid[1], 1, block, 1, 1, shared, stream, None, extra)
        self.check(f"{kernel.name}: cuLaunchKernel", status)


_installed: list[Driver] = []  # emulations in use, innermost last


@cache
def _real() -> Driver:
    return Driver("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def driver() -> Driver:
    """The driver in use."""
    return _installed[-1] if _installed else _real()


@contextlib.contextmanager
def emulated(path: str, image: Image) -> Iterator[Driver]:
    """Run kernels with another library than NVIDIA's, as `Driver` says: for tests, on a machine without a GPU."""
    _installed.append(Driver(path, image))
    try:
        yield _installed[-1]
    finally:
        _installed.pop()


def constant(function: F) -> F:
    """A function whose result torch.compile takes as it is, rather than look into it (torch.compiler.assume_constant_result,
    which would load the compiler)."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant
def device_type() -> str:
    """The type of the devices that the backend's tensors lie on: "cuda", or in an emulation "cpu"."""
    return driver().device_type


def _index(device: torch.device) -> int:
    if device.type != device_type():
        raise ValueError(f"the cuda backend takes tensors on a {device_type()} device, found {device}")
    return 0 if device.index is None else device.index


def _current(used: Driver, device: int) -> contextlib.AbstractContextManager:
    """Torch's current device is this one while it lasts: to enter its context would change it for good."""
    if used.device_type == "cpu" or torch.cuda.current_device() == device:
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def kernel(source: str, name: str, device: torch.device, options: Options = ()) -> Kernel:
    """A kernel for a device; compiled at first use.

    Args:
        source: file in cuda/gpu that holds it.
        name: its name there.
        device: where its tensors lie.
        options: macros that the source is compiled with, as pairs of name and value.
    """
    used, index = driver(), _index(device)
    with _current(used, index):
        return used.kernel(source, name, index, options)


def launch(kernel: Kernel, grid: int | tuple[int, int], block: int, shared: int, arguments: ctypes.Structure) -> None:
    """Run a kernel on torch's current stream of its device, after what is enqueued there. Returns at once.

    Args:
        grid: blocks, along one axis or two. None at all: nothing is run.
        block: threads a block.
        shared: bytes of shared memory a block, beside what the kernel declares itself.
        arguments: the kernel's one argument. It may be filled anew as soon as this returns.
    """
    blocks = (grid, 1) if isinstance(grid, int) else grid
    if 0 in blocks:
        return
    used = driver()
    if used.device_type == "cpu":
        used.launch(kernel, blocks, block, shared, arguments, 0)
        return
    with _current(used, kernel.device):
        stream = torch._C._cuda_getCurrentRawStream(kernel.device)
        used.launch(kernel, blocks, block, shared, arguments, stream)


def capability(device: torch.device) -> int:
    """Compute capability as one number: 86 for 8.6."""
    return _facts(driver(), _index(device))[0]


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors the device has."""
    return _facts(driver(), _index(device))[1]


def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that a block may ask for."""
    return _facts(driver(), _index(device))[2]


@cache
def _facts(used: Driver, device: int) -> tuple[int, int, int]:
    return (used.architecture(device), used.attribute(device, _MULTIPROCESSORS), used.attribute(device, _MOST_SHARED))


def why_not() -> str:
    """Why kernels can't run here, as a sentence; "" where they can."""
    try:
        used = driver()
        if used.device_type == "cuda" and not torch.cuda.is_available():
            made_for = torch.version.cuda
            return "PyTorch finds no NVIDIA GPU" if made_for else "this PyTorch is built without CUDA"
        if not used.devices():
            return "no NVIDIA GPU"
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
        architecture = used.architecture(device)
        if architecture < LOWEST:
            return f"this GPU is sm_{architecture}; the kernels need sm_{LOWEST} or newer"
        if used.image is None:
            cuda_compile.nvrtc(used.version()).target(architecture)
    except (DriverError, cuda_compile.CompileError) as error:
        return str(error)
    return ""
