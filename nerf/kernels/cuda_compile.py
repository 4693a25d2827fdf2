"""Compiles the `cuda` backend's kernels with NVRTC, NVIDIA's compiler in a library, and keeps what came out.

NVRTC needs neither a GPU, nor a driver, nor a toolkit: PyTorch's CUDA wheels bring it, and so does the package
`nvidia-cuda-nvrtc`. A program's image is kept in a folder of the user's, under a name made from the texts, the options,
the architecture and the compiler's version, so that whatever changes compiles anew and nothing ever has to be cleared.
The environment variable NERF_KERNEL_CACHE names another folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nerf.kernels.cuda_sources import STANDARD, gather

Options = tuple[tuple[str, object], ...]  # macros and their values
FLAGS = ("--std=c++17", "--device-as-default-execution-space", "--ptxas-options=-v")
_MAGIC = b"nerf kernels 1\n"


class CompileError(RuntimeError):
    """NVRTC isn't there, or refused a program. The message has its words."""


@dataclass(frozen=True)
class Resources:
    """What one kernel takes of a multiprocessor: registers a thread, bytes of spilled registers, of stack and of static
    shared memory."""

    registers: int
    spills: int
    stack: int
    shared: int


@dataclass(frozen=True)
class Program:
    """A compiled source: a cubin, or PTX where the GPU is newer than the compiler; and what the compiler said."""

    image: bytes
    log: str

    def resources(self) -> dict[str, Resources]:
        """By kernel, as ptxas tells it. Empty for PTX, which the driver compiles."""
        found = {}
        for part in re.split(r"Compiling entry function ", self.log)[1:]:
            name = re.match(r"'(\w+)'", part)
            registers = re.search(r"Used (\d+) registers", part)
            if name and registers:
                spills = sum(int(count) for count in re.findall(r"(\d+) bytes spill (?:stores|loads)", part))
                stack = re.search(r"(\d+) bytes stack frame", part)
                shared = re.search(r"(\d+) bytes smem", part)
                numbers = (int(match[1]) if match else 0 for match in (stack, shared))
                found[name[1]] = Resources(int(registers[1]), spills, *numbers)
        return found


def libraries() -> list[Path]:
    """NVRTC libraries in Python's packages, newest first."""
    patterns = ("nvidia/*/lib/libnvrtc.so.*", "nvidia/*/bin/nvrtc64_*_0.dll", "nvidia/*/bin/x86_64/nvrtc64_*_0.dll")
    found = {path.resolve() for entry in sys.path for pattern in patterns for path in Path(entry or ".").glob(pattern)}
    found = {path for path in found if ".alt." not in path.name}
    return sorted(
        found, key=lambda path: (int(re.findall(r"\d+", path.name.replace("nvrtc64", ""))[0]), path), reverse=True
    )


class Nvrtc:
    """One NVRTC library, opened.

    Attributes:
        version: such as (12, 9).
        architectures: what it makes cubins for, such as (75, 80, 86, 87, 89, 90, 100, 120).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        try:
            self._library = ctypes.CDLL(self.path)
            self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise CompileError(f"NVRTC does not load: {error}") from error
        numbers = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(*map(ctypes.byref, numbers)))
        self.version = numbers[0].value, numbers[1].value
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        every = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(every))
        self.architectures = tuple(sorted(every))

    def _check(self, status: int) -> None:
        if status:
            raise CompileError(f"NVRTC: {self._library.nvrtcGetErrorString(status).decode()}")

    def target(self, architecture: int) -> str:
        """What to compile for: the GPU's own instructions, or PTX for the newest architecture before it that is known."""
        if architecture in self.architectures:
            return f"sm_{architecture}"
        before = [known for known in self.architectures if known < architecture]
        if not before:
            raise CompileError(
                f"NVRTC {self.version[0]}.{self.version[1]} compiles for sm_{self.architectures[0]} and up; this GPU is"
                f" sm_{architecture}"
            )
        return f"compute_{before[-1]}"

    def _text(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    def compile(self, name: str, text: str, headers: Mapping[str, str], options: Options, target: str) -> Program:
        """One program from its text and its headers' texts.

        Args:
            target: "sm_86" for a cubin, "compute_86" for PTX.
        """
        headers = {**STANDARD, **headers}
        flags = [*FLAGS, f"--gpu-architecture={target}", *(f"-D{macro}={value}" for macro, value in options)]
        texts = (ctypes.c_char_p * len(headers))(*(value.encode() for value in headers.values()))
        included = (ctypes.c_char_p * len(headers))(*(key.encode() for key in headers))
        program = ctypes.c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program), text.encode(), name.encode(), len(headers), texts, included
            )
        )
        try:
            arguments = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
            status = self._library.nvrtcCompileProgram(program, len(flags), arguments)
            log = self._text("ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            if status:
                raise CompileError(f"{name} for {target}: {log.strip() or self._library.nvrtcGetErrorString(status)}")
            return Program(self._text("CUBIN" if target.startswith("sm_") else "PTX", program), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def nvrtc(driver_version: int = sys.maxsize) -> Nvrtc:
    """The newest NVRTC here that the driver understands.

    Args:
        driver_version: CUDA version of the driver, such as 12080: it takes what compilers up to its own major version make.
    """
    reasons = []
    places: list[Path | str] = [*libraries(), "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
    for place in places:
        try:
            found = Nvrtc(place)
        except CompileError as error:
            reasons.append(str(error))
            continue
        if found.version[0] <= driver_version // 1000:
            return found
        reasons.append(
            f"NVRTC {found.version[0]}.{found.version[1]} is newer than the driver ({driver_version // 1000})"
        )
    if libraries():
        raise CompileError("; ".join(dict.fromkeys(reasons[: len(libraries())])))
    raise CompileError("NVRTC is not installed (pip install nvidia-cuda-nvrtc brings it, and so does PyTorch for CUDA)")


def cache_folder() -> Path:
    """Where images are kept."""
    if named := os.environ.get("NERF_KERNEL_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "nerf-siren" / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nerf-siren" / "kernels"


def key(
    name: str, text: str, headers: Mapping[str, str], options: Options, target: str, version: tuple[int, int]
) -> str:
    """What tells one image from every other: all that goes into it."""
    parts = (name, text, *(part for item in sorted(headers.items()) for part in item), options, target, version, FLAGS)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _read(path: Path) -> Program | None:
    """The program that was kept; None where there is none, or its bytes aren't what was written."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, rest = stored[len(_MAGIC) : len(_MAGIC) + 32], stored[len(_MAGIC) + 32 :]
    if not stored.startswith(_MAGIC) or hashlib.sha256(rest).digest() != digest:
        return None
    log, _, image = rest.partition(b"\0")
    return Program(image, log.decode())


def _write(path: Path, program: Program) -> None:
    """Keep a program, whole or not at all. A folder that can't be written to or is full costs a compilation each time."""
    rest = program.log.replace("\0", "").encode() + b"\0" + program.image
    handle = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = tempfile.NamedTemporaryFile(dir=path.parent, delete=False)  # noqa: SIM115 (closed below, then renamed)
        with handle:
            handle.write(_MAGIC + hashlib.sha256(rest).digest() + rest)
        os.replace(handle.name, path)
    except OSError:
        if handle is not None:
            Path(handle.name).unlink(missing_ok=True)


def build(source: str, options: Options, architecture: int, compiler: Nvrtc | None = None) -> Program:
    """The image of a program for a GPU, from the cache or compiled now.

    Args:
        source: file name in cuda/gpu.
        options: macros, as pairs of name and value.
        architecture: the GPU's compute capability as one number, such as 86.
    """
    compiler = compiler or nvrtc()
    text, headers = gather(source)
    target = compiler.target(architecture)
    stem = Path(source).stem
    name = f"{stem}-{target}-{key(source, text, headers, options, target, compiler.version)[:32]}.bin"
    path = cache_folder() / name
    program = _read(path)
    if program is None:
        program = compiler.compile(source, text, headers, options, target)
        _write(path, program)
    return program
