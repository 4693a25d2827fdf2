"""Films read back: as many frames, of the size, in the colours that went in."""

from __future__ import annotations

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from data.films import VideoError, write_png, write_video


def frames(count=9, h=48, w=64):
    """Smooth pictures whose colours change from frame to frame."""
    y, x = np.mgrid[:h, :w]
    for k in range(count):
        yield (
            np.stack([30 + 190 * x / w, 30 + 190 * y / h, np.full_like(x, 20 + 20 * k, float)], -1)
            .round()
            .astype(np.uint8)
        )


@pytest.mark.parametrize(("h", "w"), [(48, 64), (47, 63)])
def test_a_film_read_back(tmp_path, h, w):
    path = tmp_path / "new" / "film.mp4"
    assert write_video(path, frames(9, h, w), fps=12) == 9
    found = [*imageio.get_reader(path, "ffmpeg").iter_data()]
    assert len(found) == 9 and found[0].shape == (h + h % 2, w + w % 2, 3)
    for a, b in zip(frames(9, h, w), found):
        # Colours are halved in resolution and compressed; a wrong matrix (BT.601 for BT.709) is off by 10 and more.
        assert np.abs(a.astype(int) - b[:h, :w]).mean() < 3
    assert [p.name for p in path.parent.iterdir()] == ["film.mp4"]


def test_a_film_is_made_for_browsers(tmp_path):
    write_video(tmp_path / "a.mp4", frames(), fps=12)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    about = next(reader)
    reader.close()
    assert about["codec"] == "h264" and about["pix_fmt"].startswith("yuv420p") and "bt709" in about["pix_fmt"]
    assert about["fps"] == pytest.approx(12) and about["duration"] == pytest.approx(0.75, abs=0.02)
    raw = (tmp_path / "a.mp4").read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")  # plays before it is all there


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (250, 180, 40)])
def test_flat_colours_stay(tmp_path, colour):
    write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), colour, np.uint8)] * 3)
    found = imageio.get_reader(tmp_path / "a.mp4", "ffmpeg").get_data(1)
    assert np.abs(found.astype(int) - colour).max() <= 4


def test_gif_and_png_frames(tmp_path):
    assert write_video(tmp_path / "a.gif", frames(), fps=10) == 9
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 9 and gif.size == (64, 48) and gif.info["duration"] == 100
    assert write_video(tmp_path / "folder", frames()) == 9
    names = sorted(p.name for p in (tmp_path / "folder").iterdir())
    assert names == [f"{k:04d}.png" for k in range(9)]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "folder" / "0004.png")), list(frames())[4])
    with pytest.raises(VideoError, match="new or empty folder"):
        write_video(tmp_path / "folder", frames())


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "folder"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_film_leaves_what_was_there(tmp_path, name, stop):
    def broken():
        yield from frames(4)
        raise stop

    if name != "folder":
        (tmp_path / name).write_bytes(b"the old one")
    with pytest.raises(stop):
        write_video(tmp_path / name, broken())
    assert [p.name for p in tmp_path.iterdir()] == ([] if name == "folder" else [name])
    assert name == "folder" or (tmp_path / name).read_bytes() == b"the old one"


def test_bad_films_are_named(tmp_path):
    with pytest.raises(VideoError, match=r"expected FILE.mp4, FILE.gif or a folder"):
        write_video(tmp_path / "a.avi", frames())
    with pytest.raises(VideoError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(VideoError, match="frame 1: expected bytes of shape"):
        write_video(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)])
    with pytest.raises(VideoError, match="fps: expected"):
        write_video(tmp_path / "a.mp4", frames(), fps=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoError, match="expected a folder that can be made"):
        write_video(tmp_path / "file" / "a.mp4", frames())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_picture_is_written_whole(tmp_path):
    picture = next(frames(1))
    write_png(tmp_path / "a" / "b.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "b.png")), picture)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.png"]
