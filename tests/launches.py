"""Records kernels' launches on the emulated device, with the memory that they were given, for a program that repeats them.

A kernel's argument is a structure with pointers into tensors. While a kernel is launched its tensors are alive, so the
collector of garbage knows them, and how large they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nerf.kernels.cuda_driver import Driver, Kernel

Program = tuple[str, tuple[tuple[str, object], ...]]  # its source and options


@dataclass
class Launch:
    """One launch: what was run and how, its argument, the bytes of each piece of memory, and where pointers are.

    Attributes:
        pointers: for each its place in the argument, which piece it points into, and how far.
    """

    program: Program
    name: str
    grid: tuple[int, int]
    block: int
    shared: int
    argument: bytes
    pieces: list[bytes]
    pointers: list[tuple[int, int, int]]


def pointers_of(kind: type, start: int = 0) -> Iterator[int]:
    """Where the pointers are in a structure, an array or a pointer, in bytes from its beginning."""
    if kind is ctypes.c_void_p:
        yield start
    elif issubclass(kind, ctypes.Structure):
        for name, field, *_ in kind._fields_:
            yield from pointers_of(field, start + getattr(kind, name).offset)
    elif issubclass(kind, ctypes.Array):
        for index in range(kind._length_):
            yield from pointers_of(kind._type_, start + index * ctypes.sizeof(kind._type_))


def storages() -> dict[int, int]:
    """Where the numbers of every living tensor begin, and how many bytes there are."""
    found = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.layout == torch.strided and thing.device.type == "cpu":
            with contextlib.suppress(RuntimeError, NotImplementedError):
                storage = thing.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return found


def recorded(program: Program, kernel: Kernel, grid: tuple[int, int], block: int, shared: int, argument) -> Launch:
    """A launch that is about to happen."""
    memory, pieces, pointers = storages(), dict[int, int](), []
    content = bytes(argument)
    for place in pointers_of(type(argument)):
        (pointer,) = struct.unpack_from("<Q", content, place)
        if pointer:
            start = next(begin for begin, size in memory.items() if begin <= pointer < begin + max(size, 1))
            pointers.append((place, pieces.setdefault(start, len(pieces)), pointer - start))
    copies = [ctypes.string_at(start, memory[start]) for start in pieces]
    return Launch(program, kernel.name, grid, block, shared, content, copies, pointers)


@contextlib.contextmanager
def recording(driver: Driver) -> Iterator[list[Launch]]:
    """The list that launches go into, while they are made."""
    made: list[Launch] = []
    run: Callable = driver.launch

    def launch(kernel, grid, block, shared, arguments, stream):
        source, options = next((key[0], key[3]) for key, value in driver._kernels.items() if value is kernel)
        made.append(recorded((source, options), kernel, grid, block, shared, arguments))
        run(kernel, grid, block, shared, arguments, stream)

    driver.launch = launch  # type: ignore[method-assign]
    try:
        yield made
    finally:
        del driver.launch


def write(launches: Sequence[Launch], images: dict[Program, bytes], path: Path) -> None:
    """The file that cuda/gpu/check/replay.cpp reads."""

    def text(content: bytes) -> bytes:
        return struct.pack("<q", len(content)) + content

    with path.open("wb") as file:
        for launch in launches:
            file.write(text(images[launch.program].rstrip(b"\0")) + text(launch.name.encode()))
            file.write(struct.pack("<4q", *launch.grid, launch.block, launch.shared) + text(launch.argument))
            file.write(struct.pack("<q", len(launch.pieces)) + b"".join(map(text, launch.pieces)))
            file.write(struct.pack("<q", len(launch.pointers)))
            file.write(b"".join(struct.pack("<3q", *pointer) for pointer in launch.pointers))
