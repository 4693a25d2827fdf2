"""Every kind of image file, area averages against slow loops, and files that are broken."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.errors import SceneError
from data.images import area_average, composite, image_size, read_mask, read_pixels, to_uint8

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
RGBA = RANDOM.integers(0, 256, (5, 7, 4), dtype=np.uint8)


def png16(path: Path, pixels: np.ndarray, kind: int) -> None:
    """A 16-bit PNG, chunk by chunk: kind 0 gray, 2 RGB, 4 gray with alpha, 6 RGBA."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(out)


def average_slowly(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    rows, columns = pixels.shape[:2]
    out = np.zeros((height, width, pixels.shape[2]))
    for i in range(height):
        for j in range(width):
            top, bottom = i * rows / height, (i + 1) * rows / height
            left, right = j * columns / width, (j + 1) * columns / width
            total = 0.0
            for r in range(math.floor(top), min(math.ceil(bottom - 1e-9), rows)):
                for c in range(math.floor(left), min(math.ceil(right - 1e-9), columns)):
                    area = (min(bottom, r + 1) - max(top, r)) * (min(right, c + 1) - max(left, c))
                    out[i, j] += area * pixels[r, c].astype(float)
                    total += area
            out[i, j] /= total
    return out


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(1, 13), st.integers(1, 13), st.booleans())
def test_area_average_is_the_mean_over_areas(h: int, w: int, height: int, width: int, whole: bool) -> None:
    pixels = np.random.default_rng(h * w).integers(0, 256, (h, w, 3)).astype(np.uint8 if whole else np.float32)
    height, width = min(height, h), min(width, w)
    assert np.abs(area_average(pixels, width, height) - average_slowly(pixels, width, height)).max() < 1e-3


def test_averaging_a_composite_leaks_nothing() -> None:
    """Red hides behind transparency; half-covered pixels mix the visible green with white only."""
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[:, 0], rgb[:, 1] = (0, 200, 0), (255, 0, 0)
    opacity = np.array([[255, 0], [255, 0]], np.uint8)
    mixed = to_uint8(area_average(composite(rgb, opacity, 1.0), 1, 1))
    assert mixed[0, 0].tolist() == [128, 228, 128]  # 127.5 rounds to even


def test_composite_is_premultiplied_averaging() -> None:
    rgb, a = COLOUR[:4, :6].astype(float), RGBA[:4, :6, 3:] / 255.0
    mean_a = average_slowly(a, 3, 2)
    expected = average_slowly(rgb * a, 3, 2) + (1 - mean_a) * 255
    found = area_average(composite(COLOUR[:4, :6], RGBA[:4, :6, 3], 1.0), 3, 2)
    assert np.abs(found - expected).max() < 1e-3


def test_kinds_of_png(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    gray = np.repeat(GRAY[..., None], 3, -1)
    Image.fromarray(GRAY).save(file)
    rgb, opacity = read_pixels(file)
    assert np.array_equal(rgb, gray) and opacity is None and rgb.dtype == np.uint8
    Image.fromarray(np.stack((GRAY, RGBA[..., 3]), -1), "LA").save(file)
    rgb, opacity = read_pixels(file)
    assert np.array_equal(rgb, gray) and opacity is not None and np.array_equal(opacity, RGBA[..., 3])
    Image.fromarray(RGBA).save(file)
    rgb, opacity = read_pixels(file)
    assert np.array_equal(rgb, RGBA[..., :3]) and opacity is not None and np.array_equal(opacity, RGBA[..., 3])
    Image.fromarray(GRAY > 99).save(file)
    assert np.array_equal(read_pixels(file)[0], np.where(GRAY > 99, 255, 0)[..., None].repeat(3, -1))
    assert image_size(file) == (7, 5)


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    image = Image.fromarray((GRAY % 3).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(file)
    rgb, opacity = read_pixels(file)
    assert np.array_equal(rgb, np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[GRAY % 3])
    assert opacity is None
    image.save(file, transparency=1)
    assert np.array_equal(read_pixels(file)[1], np.where(GRAY % 3 == 1, 0, 255))


@pytest.mark.parametrize("kind", [0, 2, 4, 6])
def test_sixteen_bits(tmp_path: Path, kind: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    pixels = RANDOM.integers(0, 65536, (5, 7, channels))
    png16(tmp_path / "a.png", pixels, kind)
    rgb, opacity = read_pixels(tmp_path / "a.png")
    colour = pixels[..., : 1 if kind in (0, 4) else 3]
    assert np.abs(rgb - colour / 257).max() <= 1
    assert (opacity is None) == (kind in (0, 2))
    if opacity is not None:
        assert np.abs(opacity - pixels[..., -1] / 257).max() <= 1


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    rgb = read_pixels(tmp_path / "a.jpg")[0]
    assert np.abs(rgb.astype(int) - (255, 0, 0)).max() < 12


def test_orientation_only_where_the_lens_says_so(tmp_path: Path) -> None:
    """Poses are measured in stored pixels, unless the lens's size shows that its maker turned the photo."""
    file = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    Image.fromarray(COLOUR).save(file, exif=exif)
    assert np.array_equal(read_pixels(file)[0], COLOUR)
    assert np.array_equal(read_pixels(file, (14, 10))[0], COLOUR)
    assert np.array_equal(read_pixels(file, (5, 7))[0], np.rot90(COLOUR, -1))


def test_masks(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    Image.fromarray(RGBA).save(tmp_path / "b.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), GRAY)
    assert np.array_equal(read_mask(tmp_path / "b.png"), RGBA[..., 3])


def test_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.png"
    with pytest.raises(SceneError, match=r"a\.png: image: expected a file, found none"):
        read_pixels(file)
    Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SceneError, match=r"a\.png: image: expected a whole PNG or JPEG, found a broken one"):
        read_pixels(file)
    file.write_bytes(whole[:20])
    with pytest.raises(SceneError, match=r"a\.png: image: expected a"):
        image_size(file)
    file.write_bytes(b"once upon a time")
    with pytest.raises(SceneError, match=r"a\.png: image: expected a PNG or JPEG, found 16 bytes of something else"):
        read_pixels(file)
    file.write_bytes(b"")
    with pytest.raises(SceneError, match=r"expected a PNG or JPEG, found 0 bytes"):
        read_pixels(file)
    file.write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SceneError, match=r"a\.png: image size: expected at most 2000 pixels, found .*4096"):
        read_pixels(file)


def test_a_folder_named_as_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(SceneError, match=r"a\.png: image: expected"):
        read_pixels(tmp_path / "a.png")
