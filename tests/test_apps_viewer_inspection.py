"""A dropped folder is read by the project's own reader, and what it says names no folder of the server."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from apps.viewer import inspection
from apps.viewer.inspection import inspect
from apps.viewer.uploads import UploadError
from tests import trees


@pytest.mark.parametrize("name", list(trees.WRITERS))
def test_every_format(name: str, tmp_path: Path) -> None:
    trees.WRITERS[name](tmp_path / "spheres")
    report = inspect(tmp_path / "spheres")
    assert report.photos == (11 if name == "nerfstudio" else 12)  # whose splits leave one out
    assert report.summary.startswith("spheres (") and report.warnings == [] and report.plot is None


def test_large_photos_suggest_a_downscale(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path / "big", count=4, w=4000, h=3000, fl_x=3600.0, fl_y=3600.0, cx=2000.0, cy=1500.0)
    for file in (tmp_path / "big/images").iterdir():
        Image.new("RGB", (4000, 3000)).save(file)
    report = inspect(tmp_path / "big")
    assert report.suggested == report.downscale == 4 and "1000x750" in report.summary and report.plot is None


def test_photos_that_the_memory_cannot_hold_suggest_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.write_ngp(tmp_path / "many")
    monkeypatch.setattr(inspection, "_BYTES", 12 * 40 * 30 * 3 // 8)
    assert inspect(tmp_path / "many").suggested == 3


def test_a_huge_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.write_ngp(tmp_path / "huge")
    monkeypatch.setattr(inspection, "_PIXELS", 1_000_000)
    Image.new("1", (2000, 1000)).save(tmp_path / "huge/images/shot_004.png")
    with pytest.raises(UploadError, match=r"^huge/images/shot_004\.png: image size: expected at most 1 megapixels"):
        inspect(tmp_path / "huge")


def test_the_picture_replaces_the_one_before(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path / "spheres")
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"old")
    assert inspect(tmp_path / "spheres", 2, plot).plot == plot
    assert Image.open(plot).width > 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plot.png", "spheres"]


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files as Linux does")
def test_drawing_for_many_threads_opens_fonts_once(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path / "spheres")

    found: list[int] = []
    turn, over = threading.Lock(), threading.Barrier(3)

    def draw() -> None:
        with turn:
            inspect(tmp_path / "spheres", 2, tmp_path / "plot.png")
            found.append(sum(os.path.realpath(file).endswith(".ttf") for file in Path("/proc/self/fd").iterdir()))
        over.wait()  # a thread that has ended would leave its number to the next

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] > 0 and len(set(found)) == 1, found


def test_a_path_that_a_cut_value_ends_in_is_hidden_too() -> None:
    root = Path("/home/somebody/uploads/0123/upload/spheres")
    assert (
        inspection._public(f"{root}/a.npy: file: none ('/home/somebody/upl...", root)
        == "spheres/a.npy: file: none ('..."
    )
    assert inspection._public(f"{root}: format: found a, b...", root) == "spheres: format: found a, b..."
