"""WAV files against the standard library's `wave`, and every way that a header can lie."""

from __future__ import annotations

import struct
import wave

import numpy as np
import pytest

from siren.loop import FitError
from siren.wav import Sound, read_wav, write_wav


def noise(rows: int = 101, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (rows, channels)).astype(np.float32)


def integers(raw: bytes, width: int, channels: int) -> np.ndarray:
    """PCM by the book, one sample at a time: unsigned for one byte, signed little-endian for more."""
    values = [
        raw[i] - 128 if width == 1 else int.from_bytes(raw[i : i + width], "little", signed=True)
        for i in range(0, len(raw), width)
    ]
    return np.array(values).reshape(-1, channels)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_standard_library_reads_what_is_written(tmp_path, bits, channels):
    path = tmp_path / "new" / "a.wav"
    samples = noise(101, channels)
    samples[3:6, 0] = [1.0, -1.0, 7.0]  # full scale, and beyond
    write_wav(path, Sound(samples, 11025), bits)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (channels, bits // 8, 11025)
        assert file.getnframes() == 101
        found = integers(file.readframes(101), bits // 8, channels)
    step = 2 ** (bits - 1)
    expected = np.clip(samples.astype(np.float64) * step, -step, step - 1)
    assert np.abs(found - expected).max() <= 0.5
    assert found[3:6, 0].tolist() == [step - 1, -step, step - 1]


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_the_standard_library_writes_is_read(tmp_path, width, channels):
    raw = np.random.default_rng(width).integers(0, 256, 51 * width * channels, np.uint8).tobytes()
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(raw)
    sound = read_wav(tmp_path / "a.wav")
    assert sound.rate == 8000 and sound.seconds == 51 / 8000
    expected = integers(raw, width, channels) / 2.0 ** (8 * width - 1)
    np.testing.assert_allclose(sound.samples, expected, rtol=2**-24, atol=0)


def test_floats_come_back_as_they_were(tmp_path):
    sound = Sound(noise(40, 2) * 3, 44100)  # beyond full scale, too
    write_wav(tmp_path / "a.wav", sound, 32, floating=True)
    found = read_wav(tmp_path / "a.wav")
    assert np.array_equal(found.samples, sound.samples) and found.rate == 44100


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def form(tag=1, channels=1, rate=8000, bits=16, frame=None, extra=b"") -> bytes:
    frame = channels * bits // 8 if frame is None else frame
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + extra)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


SAMPLES = struct.pack("<4h", 0, 16384, -32768, 1)
EXPECTED = [0, 0.5, -1, 2**-15]
GUID = bytes.fromhex("000000001000800000aa00389b71")
EXTENSION = struct.pack("<HHIH", 22, 16, 4, 1) + GUID


@pytest.mark.parametrize(
    "data",
    [
        riff(form(), chunk(b"data", SAMPLES)),
        riff(chunk(b"LIST", b"odd"), form(), chunk(b"fact", b"four"), chunk(b"data", SAMPLES), chunk(b"id3 ", b"x")),
        riff(form(tag=0xFFFE, extra=EXTENSION), chunk(b"data", SAMPLES)),
        riff(form(), chunk(b"data", SAMPLES, 0xFFFFFFFF)),  # streamed
        riff(form(), chunk(b"data", SAMPLES), chunk(b"id3 ", b"cut", 1000)),
        riff(form(), chunk(b"data", SAMPLES)) + b"end",
        b"RIFF" + b"\xff" * 4 + riff(form(), chunk(b"data", SAMPLES))[8:],
    ],
    ids=["plain", "more chunks", "extensible", "streamed", "cut after the sound", "crumbs", "streamed header"],
)
def test_headers_of_all_kinds(tmp_path, data):
    (tmp_path / "a.wav").write_bytes(data)
    assert read_wav(tmp_path / "a.wav").samples[:, 0].tolist() == EXPECTED


def test_doubles_are_read(tmp_path):
    (tmp_path / "a.wav").write_bytes(riff(form(tag=3, bits=64), chunk(b"data", struct.pack("<2d", 0.25, -1.5))))
    assert read_wav(tmp_path / "a.wav").samples[:, 0].tolist() == [0.25, -1.5]


DATA = chunk(b"data", SAMPLES)
BROKEN = {
    "empty": (b"", "empty"),
    "short": (b"RIFF\0\0", "header"),
    "another file": (b"\x89PNG" + b"\0" * 40, "header"),
    "big-endian": (b"RIFX" + riff(form(), DATA)[4:], "RIFX"),
    "not sound": (b"RIFF\x10\0\0\0AVI " + b"\0" * 20, "header"),
    "no chunks": (riff(), "'fmt '"),
    "no format": (riff(DATA), "'fmt '"),
    "no data": (riff(form()), "'data'"),
    "no samples": (riff(form(), chunk(b"data", b"")), "data"),
    "half a sample": (riff(form(), chunk(b"data", b"abc")), "3 bytes"),
    "half a frame": (riff(form(channels=2), chunk(b"data", b"abcdef")), "samples of 4 bytes"),
    "cut in the data": (riff(form(), DATA)[:-2], "cut short"),
    "cut in the format": (riff(form())[:30], "'fmt '"),
    "short format": (riff(chunk(b"fmt ", b"\1\0\1\0"), DATA), "fmt: expected at least 16"),
    "compressed": (riff(form(tag=2), DATA), "format"),
    "extensible, short": (riff(form(tag=0xFFFE), DATA), "extensible"),
    "extensible, other": (riff(form(tag=0xFFFE, extra=EXTENSION[:-1] + b"?"), DATA), "extensible"),
    "12 bits": (riff(form(bits=12), DATA), "bits"),
    "0 bits": (riff(form(bits=0), DATA), "bits"),
    "float of 16": (riff(form(tag=3), DATA), "bits"),
    "no channels": (riff(form(channels=0), DATA), "channels"),
    "many channels": (riff(form(channels=9), DATA), "channels"),
    "no rate": (riff(form(rate=0), DATA), "sample rate"),
    "high rate": (riff(form(rate=2_000_000), DATA), "sample rate"),
    "block align": (riff(form(frame=3), DATA), "block align"),
    "NaN": (riff(form(tag=3, bits=32), chunk(b"data", struct.pack("<2f", 0, np.nan))), "sample 1"),
    "infinite": (riff(form(tag=3, bits=64), chunk(b"data", struct.pack("<d", 1e300))), "sample 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_a_sentence(tmp_path, name):
    data, word = BROKEN[name]
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(FitError) as error:
        read_wav(path)
    sentence = str(error.value)
    assert sentence.startswith(f"{path}: ") and word in sentence and "expected" in sentence and "\n" not in sentence


def test_every_cut_and_every_spoiled_byte_is_a_sentence_or_a_sound(tmp_path):
    whole, path = riff(form(), DATA), tmp_path / "a.wav"
    random = np.random.default_rng(0)
    spoiled = [whole[:n] for n in range(len(whole))]
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] = random.integers(256)
        spoiled.append(bytes(broken))
    for data in spoiled:
        path.write_bytes(data)
        try:
            assert np.isfinite(read_wav(path).samples).all()
        except FitError as error:
            assert str(path) in str(error)


def test_places_and_sizes_that_can_not_be(tmp_path):
    with pytest.raises(FitError, match="expected a WAV file"):
        read_wav(tmp_path / "none.wav")
    with pytest.raises(FitError, match="expected a WAV file"):
        read_wav(tmp_path)
    with pytest.raises(FitError, match="can be written"):
        write_wav(tmp_path, Sound(noise(), 8000))
    for bits, floating in ((12, False), (64, True), (16, True)):
        with pytest.raises(FitError, match="bits"):
            write_wav(tmp_path / "a.wav", Sound(noise(), 8000), bits, floating)
    assert not [*tmp_path.glob("*.wav")]
