"""WAV files to arrays and back: PCM of 8 to 32 bits and floating point, any plain, extensible or streamed header.

The standard library's `wave` reads neither floating point nor, before Python 3.12, extensible headers; a RIFF file is
a list of chunks, each a name, a size and so many bytes, so this reads it itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data.files import write_atomically
from siren.loop import FitError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags
BITS = {PCM: (8, 16, 24, 32), FLOAT: (32, 64)}
CHANNELS, RATE = 8, 1_000_000  # the most that are read
_GUID = bytes.fromhex("000000001000800000aa00389b71")  # of an extensible header, after the format's tag
_STREAMED = 0xFFFFFFFF  # the size that a program writes where it can't go back to the header


@dataclass(frozen=True)
class Sound:
    """A sound in memory.

    Attributes:
        samples: one row an instant, one column a channel; full scale is [-1, 1].
        rate: rows a second.
    """

    samples: Float[np.ndarray, "n c"]
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


def read_wav(path: Path) -> Sound:
    """Read a WAV file; integers of b bits become multiples of 2 to the power 1 - b, rounded to float32.

    Raises:
        FitError: a file that is missing, empty, cut short, of another format, or that holds numbers that aren't finite;
            the sentence names the field.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FitError(f"{path}: expected a WAV file, found: {error.strerror or error}") from None
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        found = f"{len(data)} bytes that begin with {data[:12]!r}" if data else "an empty file"
        raise FitError(f"{path}: header: expected RIFF....WAVE, found {found}")
    chunks = _chunks(data, path)
    for name in (b"fmt ", b"data"):
        if name not in chunks:
            others = ", ".join(repr(other.decode("latin-1")) for other in chunks) or "none"
            raise FitError(f"{path}: expected a chunk {name.decode()!r}, found {others}")
    tag, channels, rate, bits = _format(chunks[b"fmt "], path)
    raw, frame = chunks[b"data"], channels * bits // 8
    if not len(raw) or len(raw) % frame:
        raise FitError(f"{path}: data: expected samples of {frame} bytes, found {len(raw)} bytes")
    samples = _decode(raw, tag, bits).reshape(-1, channels)
    if not np.isfinite(samples).all():
        row = int(np.argmin(np.isfinite(samples).all(1)))
        raise FitError(f"{path}: data: sample {row}: expected finite numbers, found {samples[row].tolist()}")
    return Sound(samples, rate)


def write_wav(path: Path, sound: Sound, bits: int = 16, floating: bool = False) -> None:
    """Write a WAV file of integers of 8, 16, 24 or 32 bits, or of 32-bit floats. Integers are clipped to full scale."""
    tag, step = (FLOAT, 1.0) if floating else (PCM, 2.0 ** (bits - 1))
    if bits not in BITS[tag] or (floating and bits != 32):
        raise FitError(f"{path}: bits: expected {'32' if floating else '8, 16, 24 or 32'}, found {bits}")
    values = np.asarray(sound.samples, np.float64)
    if floating:
        raw = values.astype("<f4").tobytes()
    else:
        whole = np.clip(np.rint(values * step), -step, step - 1).astype(np.int64)
        if bits == 8:
            whole += 128  # 8 bits alone are unsigned
        raw = whole.astype("<i8").reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()
    channels, frame = values.shape[1], values.shape[1] * bits // 8
    header = struct.pack("<HHIIHH", tag, channels, sound.rate, sound.rate * frame, frame, bits)
    padded = raw + b"\0" * (len(raw) % 2)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(header)) + header
    if floating:  # every format but PCM has to say how many samples there are
        body += b"fact" + struct.pack("<II", 4, len(values))
    body += b"data" + struct.pack("<I", len(raw)) + padded
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"RIFF" + struct.pack("<I", len(body)) + body)
    except OSError as error:
        raise FitError(f"{path}: expected a place that can be written, found: {error}") from None


def _chunks(data: bytes, path: Path) -> dict[bytes, bytes]:
    """The file's chunks by name; the first of a name counts."""
    chunks: dict[bytes, bytes] = {}
    start = 12
    while len(data) - start >= 8:
        name, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        there = len(data) - start - 8
        if size == _STREAMED and name == b"data":
            size = there
        if size > there and not (b"fmt " in chunks and b"data" in chunks):  # what comes after the sound doesn't matter
            shown = name.decode("latin-1")
            raise FitError(f"{path}: chunk {shown!r}: expected {size} bytes, found {there}; the file is cut short")
        chunks.setdefault(name, data[start + 8 : start + 8 + size])
        start += 8 + size + size % 2
    return chunks


def _format(header: bytes, path: Path) -> tuple[int, int, int, int]:
    """Tag, channels, rate and bits of a "fmt " chunk, all of them checked."""
    if len(header) < 16:
        raise FitError(f"{path}: fmt: expected at least 16 bytes, found {len(header)}")
    tag, channels, rate, _, frame, bits = struct.unpack("<HHIIHH", header[:16])
    if tag == EXTENSIBLE:
        if len(header) < 40 or header[26:40] != _GUID:
            raise FitError(f"{path}: fmt: expected a known extensible format, found {header[24:40].hex() or 'none'}")
        tag = int.from_bytes(header[24:26], "little")
    if tag not in BITS:
        raise FitError(f"{path}: fmt: format: expected 1 (PCM) or 3 (floating point), found {tag}")
    if bits not in BITS[tag]:
        raise FitError(f"{path}: fmt: bits a sample: expected {', '.join(map(str, BITS[tag]))}, found {bits}")
    if not 1 <= channels <= CHANNELS:
        raise FitError(f"{path}: fmt: channels: expected 1 to {CHANNELS}, found {channels}")
    if not 1 <= rate <= RATE:
        raise FitError(f"{path}: fmt: sample rate: expected 1 to {RATE}, found {rate}")
    if frame != channels * bits // 8:
        raise FitError(f"{path}: fmt: block align: expected {channels * bits // 8} bytes, found {frame}")
    return tag, channels, rate, bits


def _decode(raw: bytes, tag: int, bits: int) -> Float[np.ndarray, " m"]:
    if tag == FLOAT:
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and is refused as such
            return np.frombuffer(raw, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    width = bits // 8
    wide = np.zeros((len(raw) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)  # into the high bytes: the sign comes along
    return (wide.view("<i4")[:, 0].astype(np.float64) / 2.0**31).astype(np.float32)
