"""Films to bytes in memory, by way of imageio and its ffmpeg, and the folder that results go to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data.films import FRAMES, PIXELS, READING
from data.images import area_average, to_uint8
from siren.loop import FitError

MEMORY = 2 << 30  # bytes of frames that are held at most
SHRINK = "--frames takes fewer of them and --downscale makes them smaller"


@dataclass(frozen=True)
class Film:
    """Frames in memory, and how many of them make a second."""

    frames: UInt8[np.ndarray, "f h w 3"]
    fps: float


def read_film(path: Path, frames: int | None = None, downscale: int = 1, memory: int = MEMORY) -> Film:
    """Read a film, all of it or its first `frames`, each reduced by the whole factor `downscale` (by area).

    Raises:
        FitError: a file that is missing, broken, cut short, without frames, or larger in memory than `memory` bytes.
    """
    _check_limits(frames, downscale)
    if not path.is_file():
        raise FitError(f"{path}: expected a film, found {'a folder' if path.is_dir() else 'none'}")
    try:
        import imageio.v2 as imageio
    except ImportError:
        raise FitError(f"{path}: reading films takes imageio: pip install 'imageio[ffmpeg]'") from None
    try:
        with imageio.get_reader(path, "ffmpeg", input_params=READING) as reader:
            return _read(reader, path, frames, downscale, memory)
    except FitError:
        raise
    except (OSError, RuntimeError, ValueError, IndexError, KeyError, StopIteration) as error:
        raise FitError(f"{path}: expected a film that ffmpeg can read, found: {_last_line(error)}") from None


def _check_limits(frames: int | None, downscale: int) -> None:
    for name, value in (("frames", frames), ("downscale", downscale)):
        if value is not None and value < 1:
            raise FitError(f"--{name}: expected at least 1, found {value}")


def _read(reader: Any, path: Path, frames: int | None, downscale: int, memory: int) -> Film:
    header = reader.get_meta_data()
    fps, said = float(header["fps"]), header["fps"] * header.get("duration", math.inf)
    if not 0 < fps < math.inf:
        raise FitError(f"{path}: expected a positive number of frames a second, found {fps}")
    expected = round(said) if math.isfinite(said) else None
    kept: list[np.ndarray] = []
    width, height = header["size"]
    if width * height > PIXELS:  # before there is a place for the first
        raise FitError(f"{path}: expected frames of at most {PIXELS // 1_000_000} megapixels, found {width} x {height}")
    for frame in reader.iter_data():
        height, width = frame.shape[0] // downscale, frame.shape[1] // downscale
        if not height or not width:
            size = f"{frame.shape[1]} x {frame.shape[0]}"
            raise FitError(f"--downscale: expected at most the sides of {path}, {size}, found {downscale}")
        if len(kept) == FRAMES:
            raise FitError(f"{path}: expected at most {FRAMES} frames, found more; {SHRINK}")
        # At the first frame, refuse what the header says will be too much; after it, believe what comes.
        total = expected if expected and not kept else len(kept) + 1
        check_memory(path, total if frames is None else min(total, frames), height, width, memory)
        part = np.asarray(frame)[: height * downscale, : width * downscale, :3]
        kept.append(to_uint8(area_average(part, width, height)))
        if len(kept) == frames:
            break
    if not kept:
        raise FitError(f"{path}: expected frames, found none")
    wanted = min(expected or 0, frames or 1 << 62)
    if len(kept) < 0.9 * wanted - 1:
        told = f"about {wanted} frames, as its header says, found {len(kept)}"
        raise FitError(f"{path}: expected {told}; the file is cut short, and --frames {len(kept)} takes what there is")
    return Film(np.stack(kept), fps)


def check_memory(name: object, frames: int, height: int, width: int, memory: int = MEMORY) -> int:
    """The bytes that a film takes in memory. Raises FitError for more than `memory`, saying what makes it smaller."""
    needed = frames * height * width * 3
    if needed > memory:
        found = f"{frames} frames of {width} x {height}, {needed / 1e9:.2f} GB"
        raise FitError(f"{name}: expected at most {memory / 1e9:.2f} GB of frames, found {found}; {SHRINK}")
    return needed


def make_folder(path: Path) -> None:
    """Make a folder for results, where there is none. Raises FitError where that can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FitError(f"{path}: expected a folder that can be made, found: {error.strerror or error}") from None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else repr(error)
    return text if len(text) <= 120 else text[:117] + "..."
