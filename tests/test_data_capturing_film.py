"""Films as they come from phones: turned, damaged, cut, too short, plain; and webcams that aren't there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.capturing.film import open_film, read_frames, record
from data.capturing.gather import gather, take_masks
from data.errors import CaptureError, SceneError
from tests.clips import pan, turn, write


def test_frames_come_as_they_were_written(tmp_path: Path):
    frames = pan(1, 12)
    film = open_film(write(tmp_path / "a.mp4", frames))
    assert (film.width, film.height, film.fps) == (96, 72, 10) and film.seconds == pytest.approx(1.2)
    found = list(read_frames(film))
    assert len(found) == 12 and found[0].shape == (72, 96, 3)
    assert np.abs(np.stack(found).astype(float) - np.stack(frames)).mean() < 16  # H.264 halves colours' resolution
    small = list(read_frames(film, longest=48, channels=1))
    assert len(small) == 12 and small[0].shape == (36, 48)


def test_a_portrait_clip_stands_upright(tmp_path: Path):
    upright = np.zeros((96, 72, 3), np.uint8)
    upright[:48], upright[48:] = (220, 30, 30), (30, 30, 220)
    upright[:, :36, 1] = 120  # and left is not right
    file = write(tmp_path / "phone.mp4", [np.rot90(upright)] * 10)
    turn(file)
    film = open_film(file)
    assert (film.width, film.height) == (72, 96)
    for frame in (next(read_frames(film)), next(read_frames(film, longest=48))):
        small = np.asarray(Image.fromarray(frame).resize((2, 2), Image.Resampling.BOX)).astype(int)
        assert small[0, 0, 0] > 180 > 60 > small[1, 0, 0] and small[1, 0, 2] > 180
        assert small[0, 0, 1] > small[0, 1, 1] + 50


def test_a_film_cut_short_is_read_as_far_as_it_goes(tmp_path: Path):
    file = write(tmp_path / "a.mp4", pan(1, 60))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])  # its index stands first
    count = sum(1 for _ in read_frames(open_film(file)))
    assert 10 < count < 60


@pytest.mark.parametrize("content", [b"", b"not a film at all\n" * 500, b"\0\0\0\x18ftypmp42" + bytes(4000)])
def test_a_corrupt_file_is_said(tmp_path: Path, content: bytes):
    file = tmp_path / "broken.mp4"
    file.write_bytes(content)
    with pytest.raises(SceneError, match=r"broken\.mp4: film: expected one that ffmpeg can decode .*, found \w"):
        open_film(file)
    with pytest.raises(
        SceneError, match=r"none\.mp4: film or folder of photos: expected one that is there, found none"
    ):
        gather(str(tmp_path / "none.mp4"), tmp_path / "work", 90, 640, 1)


def test_five_frames_are_too_few(tmp_path: Path):
    write(tmp_path / "a.mp4", pan(1, 5))
    with pytest.raises(CaptureError, match=r"a\.mp4: frames: expected 8 or more, found 5: film for about ten seconds"):
        gather(str(tmp_path / "a.mp4"), tmp_path / "work", 90, 640, 1)


def test_a_film_of_one_picture_is_said(tmp_path: Path):
    write(tmp_path / "still.mp4", [pan(1, 1)[0]] * 100)
    with pytest.raises(
        CaptureError, match=r"still\.mp4: frames: expected 8 or more that differ, found \d: move the camera"
    ):
        gather(str(tmp_path / "still.mp4"), tmp_path / "work", 90, 640, 1)


def test_one_plain_shade_is_said(tmp_path: Path):
    random = np.random.default_rng(0)
    write(tmp_path / "wall.mp4", [random.normal(180, 2, (72, 96, 3)).astype(np.uint8) for _ in range(12)])
    with pytest.raises(CaptureError, match=r"wall\.mp4: .* found one plain shade: is there light, and texture"):
        gather(str(tmp_path / "wall.mp4"), tmp_path / "work", 90, 640, 1)


def test_of_a_film_with_a_cut_the_longest_part_is_used(tmp_path: Path):
    write(tmp_path / "a.mp4", [*pan(1, 15), *pan(2, 25)])
    gathered = gather(str(tmp_path / "a.mp4"), tmp_path / "work", 90, 640, 1)
    assert [p.place for p in gathered.photos] == list(range(15, 40)) and gathered.ordered
    assert "it was cut at 1.5 s: only the longest part, 1.5 to 4.0 s, is used" in gathered.said
    assert gathered.photos[0].source == "frame 15 at 1.5 s" and gathered.photos[0].file.is_file()


def test_masks_of_all_frames_become_those_of_the_chosen(tmp_path: Path):
    write(tmp_path / "a.mp4", pan(1, 20))
    gathered = gather(str(tmp_path / "a.mp4"), tmp_path / "work", 10, 640, 1)
    (tmp_path / "masks").mkdir()
    for i in range(20):
        mask = np.zeros((36, 48), np.uint8)
        mask[:, : 2 * i] = 255  # half the size of the frame
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i + 1:05d}.png")
    folder = take_masks(tmp_path / "masks", gathered, tmp_path / "fitted")
    for photo in gathered.photos:
        found = np.asarray(Image.open(folder / f"{photo.file.name}.png"))
        assert found.shape == (72, 96) and (found == 0).sum() == 72 * 4 * photo.place
    (tmp_path / "masks" / "00020.png").unlink()
    with pytest.raises(SceneError, match="expected 20 pictures, one a frame of the film, found 19"):
        take_masks(tmp_path / "masks", gathered, tmp_path / "again")


def test_a_webcam_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(SceneError, match=r"webcam:97: webcam: expected a camera that this machine can open, found \w"):
        record("<video97>", tmp_path / "a.mp4", 1, 640)


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n",
    "film.mp4": "ffconcat version 1.0\nfile good.mp4\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_is_no_film(name: str, tmp_path: Path):
    good = write(tmp_path / "good.mp4", pan(1, 8))
    (tmp_path / name).write_text(PLAYLISTS[name].format(good))
    with pytest.raises(SceneError, match=f"{name}: film: expected one that ffmpeg can decode") as caught:
        open_film(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_films_beyond_measure_are_refused(tmp_path: Path, monkeypatch):
    file = write(tmp_path / "a.mp4", pan(1, 12))
    film = open_film(file)
    monkeypatch.setattr("data.capturing.film.FRAMES", 11)
    with pytest.raises(SceneError, match=r"a.mp4: film: expected at most 11 frames, found more"):
        list(read_frames(film))
    monkeypatch.setattr("data.capturing.film.PIXELS", 96 * 72 - 1)
    with pytest.raises(SceneError, match=r"a.mp4: frames: expected at most .*, found 96x72"):
        open_film(file)
