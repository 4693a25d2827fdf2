"""Photos as cameras write them: orientations, focal lengths, sizes, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.capturing.photos import take_photos
from data.errors import SceneError
from tests.clips import blur, pan

# What a camera does to a scene before it stores it, by the EXIF orientation that undoes it (EXIF 2.3, 4.6.4).
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p, -1),
}


def write(file: Path, pixels: np.ndarray, orientation: int = 1, focal: float | None = None, model: str = "") -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if model:
        exif[0x0110] = model
    if focal is not None:
        exif.get_ifd(0x8769)[0xA405] = focal
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, exif=exif, quality=95)


def test_every_orientation_comes_out_upright(tmp_path: Path):
    scene = np.zeros((48, 64, 3), np.uint8)
    scene[:24, :32], scene[:24, 32:], scene[24:, :32] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for orientation, store in STORED.items():
        write(tmp_path / "in" / f"{orientation}.jpg", store(scene), orientation)
    for photo in take_photos(tmp_path / "in", tmp_path / "out", 640):
        with Image.open(photo.file) as image:
            assert (photo.width, photo.height) == image.size == (64, 48) and image.getexif().get(0x0112, 1) == 1
            assert np.abs(np.asarray(image).astype(int) - scene).mean() < 6, photo.name


def test_focal_lengths_and_shared_lenses(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    picture = pan(1, 1)[0]
    write(tmp_path / "in" / "a.jpg", picture, focal=26, model="phone")
    write(tmp_path / "in" / "b.jpg", picture, focal=26, model="phone")
    write(tmp_path / "in" / "c.jpg", picture, focal=52, model="phone")
    write(tmp_path / "in" / "d.jpg", picture)
    a, b, c, d = take_photos(tmp_path / "in", tmp_path / "out", 640)
    # A diagonal of 43.27 mm and 26 mm: 79.5 degrees across the 120 pixels of this one.
    assert a.focal == pytest.approx(60 / np.tan(np.radians(79.52 / 2)), rel=1e-3)
    assert c.focal == pytest.approx(2 * a.focal) and d.focal is None
    assert (a.lens, b.lens, c.lens, d.lens) == (0, 0, 1, 2) and [p.place for p in (a, b, c, d)] == [0, 1, 2, 3]


def test_large_photos_are_reduced_and_plain_ones_copied(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    large, small = pan(1, 1, size=(400, 300))[0], pan(2, 1)[0]
    write(tmp_path / "in" / "large.jpg", large, focal=26)
    Image.fromarray(small).save(tmp_path / "in" / "small.png")
    a, b = take_photos(tmp_path / "in", tmp_path / "out", 200)
    assert (a.width, a.height) == (200, 150) == Image.open(a.file).size
    assert a.focal == pytest.approx(26 / 43.2666 * 250, rel=1e-4)
    assert (tmp_path / "in" / "small.png").read_bytes() == b.file.read_bytes()


def test_a_blurred_photo_is_told(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for i, picture in enumerate(pan(3, 9, step=12)):
        write(
            tmp_path / "in" / f"{i}.jpg",
            blur(blur(picture, 25).swapaxes(0, 1), 25).swapaxes(0, 1) if i == 4 else picture,
        )
    photos = take_photos(tmp_path / "in", tmp_path / "out", 640)
    assert [p.source for p in photos if p.blurred] == ["4.jpg"]


def test_names_stay_apart(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write(tmp_path / "in" / "a.jpg", pan(1, 1)[0])
    Image.fromarray(pan(2, 1)[0]).save(tmp_path / "in" / "a.png")
    assert [p.name for p in take_photos(tmp_path / "in", tmp_path / "out", 640)] == ["a_jpg", "a_png"]


def test_bad_folders_are_said(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    with pytest.raises(SceneError, match=r"in: photos: expected JPEG or PNG files, found none"):
        take_photos(tmp_path / "in", tmp_path / "out", 640)
    (tmp_path / "in" / "a.heic").write_bytes(b"heic")
    with pytest.raises(SceneError, match=r"found 1 as \.heic: save them as JPEG first"):
        take_photos(tmp_path / "in", tmp_path / "out", 640)
    write(tmp_path / "in" / "b.jpg", pan(1, 1)[0])
    data = (tmp_path / "in" / "b.jpg").read_bytes()
    (tmp_path / "in" / "b.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(SceneError, match=r"b\.jpg: image: expected a whole PNG or JPEG, found a broken one"):
        take_photos(tmp_path / "in", tmp_path / "out", 640)


def test_photos_of_other_kinds_by_a_photos_name_start_no_program(tmp_path: Path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, whatever the file's name."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n"
    )
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(SceneError, match="expected a PNG or JPEG, found 70 bytes of something else"):
        take_photos(tmp_path / "in", tmp_path / "out", 64)
