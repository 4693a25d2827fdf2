"""The whole of it: a clip of a room whose poses are known, filmed, captured and held to them; and clips that are no scene."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.capture import main
from data.scene import Scene, load_scene
from tests import room
from tests.clips import pan, write

ROOT = Path(__file__).parent.parent
COUNT = 16


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A clip of the room with a ball that flies before it, captured as a user would; the scene, and what was printed."""
    folder = tmp_path_factory.mktemp("capture")
    room.film(folder / "clip.mp4", room.arc(COUNT), moving=True)
    command = ["-m", "data.capture", str(folder / "clip.mp4"), str(folder / "scene"), "--threads", "1"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "scene", done.stdout


def aligned(found: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Positions "n 3" moved by the similarity that brings them nearest to the true ones (Umeyama 1991), with its rotation and
    scale."""
    a, b = found - found.mean(0), true - true.mean(0)
    u, s, v = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ v))])
    turn, scale = u @ sign @ v, float((s * np.diag(sign)).sum() / (a * a).sum())
    return scale * a @ turn.T + true.mean(0), turn, scale


def by_frame(scene: Scene) -> tuple[list[int], np.ndarray]:
    frames = sorted(scene.train + scene.test, key=lambda f: f.name)
    return [int(f.name) for f in frames], np.stack([f.camera.pose.double().numpy() for f in frames])


def test_poses_lens_and_points_are_the_rooms(captured: tuple[Path, str]):
    scene = load_scene(captured[0])
    numbers, poses = by_frame(scene)
    true = room.arc(COUNT)[numbers]
    assert len(numbers) == COUNT
    centres, turn, scale = aligned(poses[:, :, 3], true[:, :, 3])
    extent = np.linalg.norm(np.ptp(true[:, :, 3], axis=0))
    away = np.linalg.norm(centres - true[:, :, 3], axis=1) / extent
    assert np.median(away) < 0.003 and away.max() < 0.01  # found: 0.0005 and 0.0010
    cosines = (np.trace(np.swapaxes(turn @ poses[:, :, :3], 1, 2) @ true[:, :, :3], axis1=1, axis2=2) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 0.5
    camera = scene.train[0].camera
    assert camera.fx == pytest.approx(room.FOCAL, rel=0.01) and abs(camera.distortion[0]) < 0.02
    # Points lie on the walls or the table; none of them on the ball, which never stood still.
    assert scene.points is not None and len(scene.points) > 200
    points = scale * (scene.points.double().numpy() - poses[:, :, 3].mean(0)) @ turn.T + true[:, :, 3].mean(0)
    wall = np.abs(room.HALF - np.abs(points)).min(1)
    low, high = room.TABLE
    table = np.linalg.norm(points - np.clip(points, low, high), axis=1)
    inside = np.minimum(points - low, high - points).min(1)
    off = np.minimum(wall, np.where(table > 0, table, np.abs(inside)))
    assert np.median(off) < 0.03 and (off < 0.15).mean() > 0.97


def test_up_is_up_and_the_room_is_between_near_and_far(captured: tuple[Path, str]):
    scene = load_scene(captured[0])
    numbers, poses = by_frame(scene)
    true = room.arc(COUNT)[numbers]
    _, turn, scale = aligned(poses[:, :, 3], true[:, :, 3])
    assert (turn @ [0.0, 1.0, 0.0])[1] > np.cos(np.radians(3))
    assert scene.near * scale < 1.0 and 2.0 < scene.far * scale < 9.0  # the ball is 1.1 away, the far corners 5


def test_the_scene_is_one_to_train_on(captured: tuple[Path, str]):
    scene = load_scene(captured[0])
    assert scene.moving and scene.format == "Nerfies"
    assert [int(f.name) for f in scene.test] == [3, 11] and len(scene.train) == COUNT - 2
    assert len({f.warp_id for f in scene.train}) == COUNT - 2


def test_the_report(captured: tuple[Path, str]):
    folder, said = captured
    record = json.loads((folder / "capture.json").read_text())
    assert (record["photos"], record["posed"], record["unposed"]) == (COUNT, COUNT, [])
    assert 0 < record["reprojection_px"] < 0.6 and record["moving"] and record["moving_features"] > 0.003
    assert f"posed {COUNT} of {COUNT} photos (100%" in said and "moves against the background: taken as moving" in said
    assert (folder / "report.txt").read_text().strip() in said
    with Image.open(folder / "capture.png") as plot:
        assert plot.width > 1000
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".")] == []  # nothing is left behind


def refused(capsys: pytest.CaptureFixture[str], source: Path | str, out: Path, *more: str) -> str:
    """The one sentence that a capture ends with, and no folder."""
    before = sorted(out.parent.iterdir())
    assert main([str(source), str(out), "--threads", "1", *more]) == 2
    assert sorted(out.parent.iterdir()) == before
    said = capsys.readouterr().err.split("\r")[-1].strip()
    assert said.startswith("error: ") and "\n" not in said
    return said


def test_a_wall_without_texture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shade = np.linspace(120, 200, 96 + 40)[None, :, None].repeat(72, 0).repeat(3, 2)
    write(tmp_path / "wall.mp4", [shade[:, 2 * i : 2 * i + 96].astype(np.uint8) for i in range(12)])
    said = refused(capsys, tmp_path / "wall.mp4", tmp_path / "out")
    assert "poses: expected those of 8 photos or more, found 0 of 12: there is too little texture behind you" in said


def test_a_camera_that_only_turned_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    room.film(tmp_path / "turn.mp4", room.arc(10, still=True), size=(160, 120), focal=130.0)
    said = refused(capsys, tmp_path / "turn.mp4", tmp_path / "out")
    assert "turn.mp4: " in said and "move the camera sideways, around the subject" in said


def test_other_folders_are_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "a.mp4", pan(1, 12))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    said = refused(capsys, tmp_path / "a.mp4", tmp_path / "mine")
    assert "OUT: expected a new folder, or an earlier capture's, found other files in it" in said
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--frames", "3"), "--frames: number: expected 8 or more, found 3"),
        (("--seconds", "0"), "--seconds: time: expected 1 to 600, found 0"),
        (("--threads", "0"), "--threads: number: expected 1 or more, or -1 for all, found 0"),
        (("--masks", "nowhere"), "nowhere: --masks: expected a folder or a film, found none"),
    ],
)
def test_bad_options_end_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple, sentence: str):
    assert sentence in refused(capsys, tmp_path / "a.mp4", tmp_path / "out", *more)


def test_without_pycolmap_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    write(tmp_path / "a.mp4", pan(1, 12))
    assert "pip install -e '.[capture]'" in refused(capsys, tmp_path / "a.mp4", tmp_path / "out")
