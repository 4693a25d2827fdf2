"""Small films of pans over textures, and what can be wrong with a film's file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from data.films import write_video
from tests.room import texture


def pan(seed: int, count: int, step: float = 3.0, size: tuple[int, int] = (96, 72)) -> list[np.ndarray]:
    """`count` windows "72 96 3" that move over one texture by `step` pixels a frame."""
    width, height = size
    wide = texture(seed).astype(np.uint8)
    left = [round(10 + step * i) for i in range(count)]
    return [wide[40 : 40 + height, x : x + width] for x in left]


def blur(frame: np.ndarray, length: int = 15) -> np.ndarray:
    """A frame smeared sideways, as a camera that turns quickly does it."""
    return np.mean([np.roll(frame, s, 1).astype(float) for s in range(length)], 0).astype(np.uint8)


def write(file: Path, frames: list[np.ndarray], fps: float = 10) -> Path:
    """The frames as an MP4 file."""
    write_video(file, frames, fps)
    return file


def turn(file: Path) -> None:
    """Say in an MP4 file that it is to be shown turned by 90 degrees clockwise, as a phone held upright does: the matrix
    of its track header (ISO 14496-12, 8.3.2)."""
    data = bytearray(file.read_bytes())
    at = data.index(b"tkhd") + 4
    assert data[at] == 0, "a version 0 header"
    matrix = at + 4 + 5 * 4 + 8 + 4 * 2
    assert struct.unpack_from(">i", data, matrix)[0] == 65536
    width = struct.unpack_from(">I", data, matrix + 36)[0]
    struct.pack_into(">9i", data, matrix, 0, 65536, 0, -65536, 0, 0, width, 0, 1 << 30)
    file.write_bytes(bytes(data))
