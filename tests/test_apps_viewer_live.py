"""Training in front of an audience: the weights that nobody watching would have got, paused, stopped, prolonged."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import torch

from apps.viewer.engine import FRAME, Engine, Task
from apps.viewer.live import Live
from apps.viewer.scenes import Scenes
from apps.viewer.stage import Stage, View
from data.scene import load_scene
from nerf import checkpoint
from nerf.cli import Options
from nerf.config import ConfigError
from nerf.train import train
from nerf.trainer import Trainer
from tests.ball import write_ball
from tests.test_nerf_render import tiny

STEPS = 12


@pytest.fixture
def ball(tmp_path, monkeypatch):
    """A moving scene, and a configuration that learns it in a second."""
    (tmp_path / "ball").mkdir()
    scene = write_ball(tmp_path / "ball", True)
    monkeypatch.setattr("nerf.cli.configure", lambda options, scene, backend: replace(
        tiny(str(options.scene), True), steps=options.steps, budget=None if options.steps else 60.0,
    ))  # fmt: skip
    return scene


@pytest.fixture
def live():
    engine = Engine()
    yield Live(engine, Stage())
    engine.stop()


def wait(live: Live, *states: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while live.state not in states:
        assert time.monotonic() < until, f"{live.state}: {live.error}"
        time.sleep(0.01)


def test_looking_does_not_change_what_is_learnt(ball, live, tmp_path):
    live.begin(Options(ball, steps=STEPS, out=tmp_path / "seen", backend="reference"))
    wait(live, "training", "measuring", "done")
    pictures = 0
    while live.state == "training":
        time.sleep(0.03)  # pictures go first, and the training is to end
        if live.stage.model is None:
            continue
        told = live.stage.describe()
        view = View(pose=told["home"], fov=told["fov"], width=20, height=20, time=0.4, mode="depth")
        live.engine.start(live.stage.picture(view), "somebody", FRAME).future.result(30)
        pictures += 1
    wait(live, "done")
    assert pictures > 2
    config = replace(tiny(str(ball), True), steps=STEPS)
    *_, last = train(config, load_scene(ball), tmp_path / "alone")
    seen, alone = (checkpoint.read_state(tmp_path / name)[0] for name in ("seen", "alone"))
    assert seen.keys() == alone.keys() and all(torch.equal(seen[name], alone[name]) for name in seen)
    assert live.progress.metrics["psnr"] == last.metrics["psnr"]
    assert live.stage.model is live.progress.model and live.stage.run == tmp_path / "seen"
    assert [point.loss for point in live.curve][-1] == pytest.approx(last.loss)


def test_pausing_takes_no_step_and_resuming_goes_on(ball, live, tmp_path):
    live.begin(Options(ball, out=tmp_path / "run", backend="reference"))
    wait(live, "training")
    while live.progress is None or live.progress.step < 3:
        time.sleep(0.01)
    live.pause()
    time.sleep(0.5)
    step = live.progress.step
    time.sleep(0.5)
    assert live.state == "paused" and live.progress.step == step and live.busy
    live.resume()
    while live.progress.step < step + 3:
        time.sleep(0.01)
    live.stop()
    wait(live, "stopped")
    stopped = live.progress.step
    assert checkpoint.read_state(tmp_path / "run")[1]["step"] == stopped
    spent = live.progress.seconds
    live.more("1s")
    wait(live, "done", seconds=90)
    assert live.progress.step > stopped and live.progress.seconds == pytest.approx(spent + 1, abs=0.5)


def test_paused_is_said_once_the_step_under_way_has_ended(ball, live, tmp_path, monkeypatch):
    begun, go, advance = threading.Event(), threading.Event(), Trainer.advance

    def slow(trainer: Trainer) -> dict[str, float]:
        if trainer.step == 3:
            begun.set()
            go.wait(30)
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", slow)
    live.begin(Options(ball, out=tmp_path / "run", backend="reference"))
    assert begun.wait(60)
    live.pause()
    assert live.state == "training"
    go.set()
    wait(live, "paused")
    assert live.progress.step == 4
    time.sleep(0.2)
    assert live.progress.step == 4
    live.stop()
    wait(live, "stopped")


def test_who_pauses_what_goes_on_just_then_holds_it_and_not_what_was_before(ball, live, tmp_path, monkeypatch):
    live.begin(Options(ball, steps=3, out=tmp_path / "run", backend="reference"))
    wait(live, "done")
    start = live.engine.start

    def pressed(*work: object) -> Task[None]:
        threading.Thread(target=live.pause).start()
        time.sleep(0.2)
        return start(*work)

    monkeypatch.setattr(live.engine, "start", pressed)
    live.more("30s")
    wait(live, "paused")
    step = live.progress.step
    time.sleep(0.3)
    assert live.state == "paused" and live.progress.step == step
    live.stop()
    wait(live, "stopped")


def test_a_paused_training_can_be_stopped(ball, live, tmp_path):
    live.begin(Options(ball, out=tmp_path / "run", backend="reference"))
    until = time.monotonic() + 60
    while live.progress is None or not live.progress.step:  # before its first step there is nothing to save
        assert time.monotonic() < until, live.state
        time.sleep(0.01)
    live.pause()
    live.stop()
    wait(live, "stopped")
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()


def test_what_cannot_be_trained_is_a_sentence(live, tmp_path):
    live.begin(Options(tmp_path / "nowhere", out=tmp_path / "run", backend="reference"))
    wait(live, "failed")
    assert "expected a folder, found nothing" in live.error and live.stage.rig is None
    with pytest.raises(ConfigError, match="expected a training that has ended, found none"):
        live.more("5m")
    with pytest.raises(ConfigError, match="--budget: expected a time"):
        live.begin(Options(tmp_path, budget="soon"))


def test_what_nobody_foresaw_is_said_too(ball, live, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room for the photos")

    monkeypatch.setattr("nerf.cli.load_scene", full)
    live.begin(Options(ball, out=tmp_path / "run", backend="reference"))
    wait(live, "failed")
    assert live.error == "MemoryError: no room for the photos" and not live.busy


def test_one_training_at_a_time(ball, live, tmp_path):
    live.begin(Options(ball, out=tmp_path / "run", backend="reference"))
    with pytest.raises(ConfigError, match="run is being trained; stop it first"):
        live.begin(Options(ball, out=tmp_path / "other", backend="reference"))


def test_an_older_run_is_moved_aside_and_resume_goes_on_with_it(ball, live, tmp_path):
    options = Options(ball, steps=6, out=tmp_path / "run", backend="reference")
    live.begin(options)
    wait(live, "done")
    live.begin(options)
    wait(live, "done")
    assert (tmp_path / "run.old1" / "checkpoint.safetensors").is_file()
    live.begin(replace(options, steps=9, resume=True))
    wait(live, "done")
    assert live.progress.step == 9 and not (tmp_path / "run.old2").exists()


def test_pages_name_scenes_and_the_server_knows_where_they_are(ball, live, tmp_path):
    kept: list[str] = []
    scenes = Scenes(live, tmp_path / "runs", "reference", kept.append)
    assert scenes.add(ball) == "ball" and scenes.names() == ["ball"]
    for name in ("../ball", str(ball), ""):
        with pytest.raises(ConfigError, match="scene: expected one of ball"):
            scenes.train(name, "1s", 1)
    with pytest.raises(ConfigError, match="upload: expected a scene that was checked"):
        scenes.of_upload("f" * 32)
    scenes.dropped("f" * 32, ball)
    scenes.dropped("f" * 32, ball)  # checked again with another size
    assert scenes.of_upload("f" * 32) == "ball-ffffff" and scenes.names() == ["ball-ffffff", "ball"]
    scenes.dropped("a" * 32, ball)
    assert scenes.names() == ["ball-aaaaaa", "ball-ffffff", "ball"]
    scenes.gone("a" * 32)
    scenes.gone("b" * 32)  # which nobody could read
    assert scenes.names() == ["ball-ffffff", "ball"] and kept == []
    with pytest.raises(ConfigError, match="drop it again"):
        scenes.of_upload("a" * 32)
    scenes.train("ball-ffffff", "1s", 1)
    assert kept == ["f" * 32]  # trained on, so it stays
    wait(live, "training")
    assert live.out == tmp_path / "runs" / "ball-ffffff"
    live.stop()
    wait(live, "stopped")
