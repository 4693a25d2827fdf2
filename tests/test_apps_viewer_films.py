"""Films that a page asks for: what nerf.render would make, in the run's folder under names of the server's, or a sentence."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import CancelledError

import imageio.v2 as imageio
import numpy as np
import pytest

from apps.viewer.engine import Engine
from apps.viewer.films import Films, Order
from apps.viewer.stage import Stage, StageError
from data.films import VideoError
from nerf.keyframes import load_path
from nerf.modes import Ranges, draw, sized
from nerf.paths import PathError, path
from nerf.render import shots
from tests.test_apps_viewer_stage import on_show
from tests.test_nerf_render import make_run

POSE = [[1, 0, 0, 0.1], [0, 1, 0, 0.2], [0, 0, 1, 0.8], [0, 0, 0, 1]]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    engine = Engine()
    yield Films(engine, on_show(make_run(tmp_path_factory.mktemp("films"), True)[0]))
    engine.stop()


def made(films: Films, order: Order):
    film = films.start(order, "somebody")
    assert film.task.future.result(60) == order.frames == film.done
    return film, np.stack([*imageio.get_reader(film.file, "ffmpeg").iter_data()])


def test_a_film_is_the_one_that_nerf_render_makes(films):
    rig, model = films.stage.rig, films.stage.model
    film, found = made(films, Order("orbit", frames=5, width=24))
    planned = shots(rig, "orbit", 5)
    expected = [draw(model, (sized(c, 24, even=True), t), "color", Ranges(), 0.5).numpy() * 255 for c, t in planned]
    assert found.shape == (5, 24, 24, 3) and np.abs(found - np.stack(expected)).mean() < 6
    assert film.file.parent == films.stage.run / "exports" and film.file.name == "film-001.mp4"


def test_what_holds_still_does(films):
    rig, model = films.stage.rig, films.stage.model
    for order in (
        Order("orbit", frames=3, width=16, freeze="person", time=0.2),
        Order("spiral", frames=3, width=16, freeze="camera"),
    ):
        planned = shots(rig, order.path, 3, order.freeze, 0.2 if order.freeze == "person" else None)
        expected = [draw(model, (sized(c, 16, even=True), t), "color", Ranges(), 0.5).numpy() * 255 for c, t in planned]
        assert np.abs(made(films, order)[1] - np.stack(expected)).mean() < 6


def test_keyframes_are_kept_as_nerf_render_takes_them(films):
    other = [[*row[:3], row[3] + 0.1] for row in POSE[:3]]
    keyframes = {"keyframes": [{"pose": POSE, "fov": 40, "time": 0}, {"pose": other, "fov": 50, "time": 1}]}
    film, found = made(films, Order("keyframes", json.dumps(keyframes), frames=4, width=20))
    read, loop = load_path(film.path, films.stage.rig)
    assert [(key.fov, key.time) for key in read] == [(40, 0), (50, 1)] and not loop
    assert np.allclose(read[1].pose, other, atol=1e-12) and len(found) == 4
    line = films.line(Order("keyframes", json.dumps(keyframes)))
    assert np.allclose(line["places"][0], [0.1, 0.2, 0.8]) and np.allclose(line["places"][-1], [0.2, 0.3, 0.9])
    assert np.allclose(line["ahead"], [0, 0, -1], atol=1e-9) and not line["loop"]


def test_an_orbits_line_and_its_keyframes_are_the_orbit(films):
    rig = films.stage.rig
    line = films.line(Order("orbit"))
    expected = [camera.pose[:, 3].tolist() for camera, _ in path(rig, "orbit", len(line["places"]))]
    assert line["loop"] and np.allclose(line["places"], expected, atol=1e-6)
    film, _ = made(films, Order("orbit", frames=1, width=8))
    kept, loop = load_path(film.path, rig)
    stops = path(rig, "orbit", len(kept))
    assert loop and all(np.allclose(key.pose, camera.pose, atol=1e-6) for key, (camera, _) in zip(kept, stops))


def test_a_film_outlives_a_training_that_starts_anew(films):
    """Which moves the run's folder aside while frames are still to come."""
    run = films.stage.run
    film = films.start(Order("orbit", frames=60, width=16), "somebody")
    while film.done < 3:
        time.sleep(0.01)
    run.rename(run.with_name("aside"))
    try:
        assert film.task.future.result(60) == 60
        assert len([*imageio.get_reader(film.file, "ffmpeg").iter_data()]) == 60
        assert load_path(film.path, films.stage.rig)[1] and not [*run.parent.glob(".film-*")]
    finally:
        shutil.rmtree(run, ignore_errors=True)
        run.with_name("aside").rename(run)


def test_a_stopped_film_leaves_nothing(films):
    folder = films.stage.run / "exports"
    before = set(folder.iterdir()) if folder.is_dir() else set()
    film = films.start(Order("orbit", frames=3000, width=24), "somebody")
    while film.done < 3:
        time.sleep(0.01)
    film.task.cancel()
    with pytest.raises(CancelledError):
        film.task.future.result(30)
    assert film.task.future.cancelled() and set(folder.iterdir()) == before


def test_a_film_whose_turn_never_came_leaves_nothing(films):
    folder = films.stage.run / "exports"
    before = set(folder.glob("*"))
    gate = threading.Event()
    films.engine.call(gate.wait, "gate", 1e9)
    film = films.start(Order("orbit", frames=3, width=8), "somebody")
    film.task.cancel()
    gate.set()
    with pytest.raises(CancelledError):
        film.task.future.result(30)
    assert set(folder.glob("*")) == before


def test_a_film_that_cannot_be_written_says_so_and_frees_the_engine(films, monkeypatch):
    def full(file, frames, fps):
        next(iter(frames))
        raise VideoError(f"{file}: expected room on the disk, found none")

    monkeypatch.setattr("apps.viewer.films.write_video", full)
    film = films.start(Order("orbit", frames=40, width=8), "somebody")
    assert "expected room on the disk" in str(film.task.future.exception(30))
    assert not film.path.exists() and films.engine.call(lambda: 5, "other").future.result(10) == 5


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"path": "../../etc/passwd"}, PathError, "path: expected orbit, spiral or keyframes"),
        ({"path": "keyframes", "keyframes": "{"}, PathError, "keyframes: expected JSON"),
        ({"path": "keyframes", "keyframes": '{"keyframes": []}'}, PathError, "at least one keyframe"),
        ({"path": "keyframes", "keyframes": '[{"pose": [[1]]}]'}, PathError, "keyframe 0: pose"),
        ({"frames": 0}, VideoError, "frames: expected a number from 1"),
        ({"frames": 10**9}, VideoError, "frames: expected a number from 1"),
        ({"fps": float("nan")}, VideoError, "fps: expected a number"),
        ({"width": 100_000}, VideoError, "width: expected a number"),
        ({"time": 2.0, "freeze": "person"}, VideoError, "time: expected a number"),
    ],
)
def test_orders_that_are_no_film_are_a_sentence(films, change, kind, message):
    before = set((films.stage.run / "exports").glob("*"))
    with pytest.raises(kind, match=message):
        films.start(Order(**{"path": "orbit", "frames": 2, **change}), "somebody")
    assert set((films.stage.run / "exports").glob("*")) == before


def test_a_scene_that_holds_still_has_no_motion_to_show(tmp_path):
    engine = Engine()
    try:
        still = Films(engine, on_show(make_run(tmp_path, False)[0]))
        for change in ({"freeze": "person"}, {"mode": "warp"}):
            with pytest.raises(StageError, match="expected a scene that moves"):
                still.start(Order("orbit", frames=2, **change), "somebody")
        with pytest.raises(StageError, match="no scene is on show"):
            Films(engine, Stage()).start(Order("orbit"), "somebody")
    finally:
        engine.stop()
