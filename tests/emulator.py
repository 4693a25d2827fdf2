"""CUDA without a GPU: a driver whose device is emulated, and a compiler whose code it runs; both g++'s.

`driver()` is the path of a shared library with the entry points of libcuda (cuda/gpu/emulation/driver.cpp). `compile_image`
stands where NVRTC does: it takes the same programs and options, and gives what that driver's cuModuleLoadData takes. So
a test calls an op of the `cuda` backend, and everything but the compiler and the device is what a GPU gets; tensors are
the CPU's. The results are kept in the system's folder for temporary files, under a name of what they were made from.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

CUDA = Path(__file__).parent.parent / "cuda"
SCHEDULES = ("round robin", "warp first", "random")  # `Schedule` in cuda/gpu/emulation/emulation.h
KEPT_SECONDS = 3 * 86400
MAGIC = b"EMULATED "  # what an image begins with, as the driver expects
FLAGS = ("-std=c++17", "-DEMULATED", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas")


def why_not() -> str:
    """Why nothing can be emulated here; "" where it can."""
    if platform.machine() not in ("x86_64", "AMD64") or os.name == "nt":
        return "the emulated threads are written for x86-64"
    return "" if shutil.which("g++") else "there is no g++"


def run(command: Sequence[str | Path]) -> str:
    """What a command prints; a RuntimeError with the compiler's words where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(str(part) for part in command)}\n{done.stderr}")
    return done.stdout


@cache
def folder() -> Path:
    """Where libraries are kept, and found again by other processes and later runs; those unused for days are removed."""
    kept = Path(tempfile.gettempdir()) / f"emulated-kernels-{os.getuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    for path in kept.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process came first
            if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                path.unlink()
    return kept


def build(
    sources: Sequence[Path],
    flags: Sequence[str],
    libraries: Sequence[Path] = (),
    kind: Sequence[str] = ("-shared", "-fPIC"),
) -> Path:
    """The shared library of some C++ sources, or what `kind` says, built once for all processes."""
    texts = [run(["g++", *FLAGS, *flags, "-x", "c++", "-E", "-P", source]) for source in sources]
    kept = [flag for flag in flags if not flag.startswith(("-I", "-D", "-W"))]  # the texts tell the others
    made_from = [*kind, *FLAGS, *kept, *texts, *(path.name for path in libraries)]
    name = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:24]
    path = folder() / f"{name}.so"
    with (folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second finds it made
        if not path.exists():
            draft = path.with_suffix(f".{os.getpid()}")
            given = ["-x", "c++", *sources, "-x", "none", *libraries, "-ldl", "-o", draft]
            run(["g++", *FLAGS, *flags, *kind, *given])
            draft.rename(path)
        path.touch()
    return path


def watched(sanitizer: str) -> list[str]:
    """g++'s flags of its sanitizers, such as "thread"; none for none."""
    if not sanitizer:
        return []
    # A shift of a negative number to the left is defined on every GPU, and in C++ from 2020 on.
    return ["-g1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-fno-sanitize=shift-base"]


@cache
def driver(sanitizer: str = "") -> Path:
    """The emulated driver, to be opened where libcuda would be; or one that a sanitizer watches."""
    flags = ["-O1", *watched(sanitizer)] if sanitizer else ["-O2"]
    return build(sorted((CUDA / "gpu/emulation").glob("*.cpp")), flags)


@cache
def replay(sanitizer: str) -> Path:
    """The program that launches recorded kernels again (tests/launches.py), which a sanitizer watches."""
    return build([CUDA / "gpu/check/replay.cpp"], ["-O1", *watched(sanitizer)], [driver(sanitizer)], ["-pthread"])


@cache
def compile_image(
    program: str,
    options: Sequence[str] = (),
    root: Path = CUDA,
    flags: Sequence[str] = ("-O1",),
    sanitizer: str = "",
) -> bytes:
    """A program's kernels, as `cuModuleLoadData` of the emulated driver takes them.

    Args:
        program: its file below `root`, such as "gpu/mlp_forward.cu".
        options: the compiler's, such as "-DMLP_WIDTH=64". What only NVRTC knows (--gpu-architecture ...) is left out.
        root: the kernels' sources, or a changed copy of them.
        flags: g++'s own.
        sanitizer: one of g++'s that watches the kernels, and with them the driver that takes them.
    """
    defined = [option for option in options if option.startswith("-D")]
    strict = ["-Werror"] if root == CUDA else []
    every = [*flags, *watched(sanitizer), *strict, f"-I{root}", *defined]
    return MAGIC + str(build([root / program], every, [driver(sanitizer)])).encode() + b"\0"


@cache
def library() -> ctypes.CDLL:
    """The emulated driver, opened."""
    opened = ctypes.CDLL(str(driver()))
    opened.emulation_error.restype = ctypes.c_char_p
    opened.emulation_launches.restype = ctypes.c_int64
    return opened


def error() -> str:
    """What the last launch or call that failed did wrong."""
    return library().emulation_error().decode()


@contextlib.contextmanager
def schedule(name: str, seed: int = 1) -> Iterator[None]:
    """Runs the emulated threads in the order of one of `SCHEDULES`."""
    library().emulation_schedule(SCHEDULES.index(name), seed)
    try:
        yield
    finally:
        library().emulation_schedule(0, 1)


class Kernels:
    """A program's kernels, launched without the backend: for tests of the emulation itself.

    A launch takes the kernel's name and its argument, a ctypes.Structure; a RuntimeError says what it did wrong.
    """

    def __init__(self, image: bytes) -> None:
        self._cuda, context, self._module = library(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self._call("cuCtxSetCurrent", context)
        self._call("cuModuleLoadData", ctypes.byref(self._module), image)

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._cuda, name)(*arguments):
            raise RuntimeError(f"{name}: {error()}")

    def launch(
        self, name: str, argument: ctypes.Structure, blocks: int, threads: int, shared: int = 0, blocks_y: int = 1
    ) -> None:
        """Run a kernel on a grid of `blocks` x `blocks_y` blocks, each with as many bytes of shared memory as asked for."""
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(function), self._module, name.encode())
        if shared > 48 * 1024:
            self._call("cuFuncSetAttribute", function, 8, shared)
        size = ctypes.c_size_t(ctypes.sizeof(argument))
        parts = [
            1,
            ctypes.addressof(argument),
            2,
            ctypes.addressof(size),
            0,
        ]  # CU_LAUNCH_PARAM_BUFFER_POINTER, _SIZE, END
        extra = (ctypes.c_void_p * len(parts))(*parts)
        self._call("cuLaunchKernel", function, blocks, blocks_y, 1, threads, 1, 1, shared, None, None, extra)
