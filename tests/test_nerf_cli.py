"""The command that trains: what it writes and says, how it goes on, what it refuses, and Ctrl-C."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest

from data.scene import load_scene
from tests.ball import write_ball


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A textured ball seen by a ring of cameras."""
    return write_ball(tmp_path_factory.mktemp("ball"), moving=False)


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """The same ball going up and down between photos."""
    return write_ball(tmp_path_factory.mktemp("moving"), moving=True)


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs `python -m module ...` in this process, which has imported torch already: exit code, output, errors."""

    def call(module: str, *arguments: str) -> subprocess.CompletedProcess:
        there = importlib.import_module("nerf.cli" if module == "nerf.train" else module)
        monkeypatch.setattr(there, "keep_memory", lambda: False)  # it would stay so for the tests that follow
        with pytest.raises(SystemExit) as end:
            sys.exit(there.main([*arguments]))
        said = capsys.readouterr()
        return subprocess.CompletedProcess([module, *arguments], end.value.code or 0, said.out, said.err)

    return call


def run(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=timeout, env=environment
    )


def test_the_whole_command_line(moving, tmp_path, command):
    out = tmp_path / "run"
    done = run("nerf.train", "--scene", str(moving), "--steps", "12", "--out", str(out))
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert {
        "psnr",
        "ssim",
        "flip",
        "views",
        "train_seconds",
        "steps",
        "samples_per_second",
        "backend",
    } <= metrics.keys()
    assert metrics["steps"] == 12 and len(metrics["views"]) == len(load_scene(moving).test)
    assert list((out / "previews").glob("*.png")) and list(out.glob("events.out.tfevents.*"))
    assert len(iio.imread(out / "orbit.mp4")) == 60

    before = dict(metrics)
    assert command("nerf.evaluate", "--run", str(out)).returncode == 0
    after = json.loads((out / "metrics.json").read_text())
    assert after["psnr"] == pytest.approx(before["psnr"], abs=1e-4)

    still = tmp_path / "still.png"
    assert (
        command("nerf.render", "--run", str(out), "--path", "orbit", "--frames", "1", "--out", str(still)).returncode
        == 0
    )
    assert iio.imread(still).std() > 0

    more = command("nerf.train", "--scene", str(moving), "--steps", "15", "--out", str(out), "--resume", "--no-video")
    assert more.returncode == 0, more.stderr
    assert json.loads((out / "metrics.json").read_text())["steps"] == 15

    other = command("nerf.train", "--scene", str(moving), "--out", str(out), "--resume", "--seed", "3")
    assert other.returncode == 2 and "--seed with --resume: expected 0" in other.stderr
    other = command("nerf.train", "--scene", str(moving), "--out", str(out), "--resume", "--no-warp")
    assert other.returncode == 2 and "has a warp" in other.stderr

    told = command("nerf.train", "--scene", str(moving), "--out", str(out), "--resume", "--register")
    assert told.returncode == 2 and "--register with --resume" in told.stderr
    rigid = command("nerf.train", "--scene", str(moving), "--steps", "3", "--out", str(out), "--no-warp", "--no-video")
    assert rigid.returncode == 0 and "run.old1" in rigid.stdout
    assert (tmp_path / "run.old1" / "metrics.json").exists()
    assert json.loads((out / "metrics.json").read_text())["warp"] is False


def test_too_few_photos_to_register_end_with_one_sentence(moving, tmp_path, command):
    done = command("nerf.train", "--scene", str(moving), "--steps", "3", "--out", str(tmp_path / "run"), "--register")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: --register: expected 200 points that can be followed" in done.stderr


def test_interrupt_saves_and_says_how_to_go_on(moving, tmp_path):
    out = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-u", "-m", "nerf.train", "--scene", str(moving), "--steps", "100000", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for piece in iter(lambda: process.stderr.read(200), ""):  # the bar is redrawn in place, without new lines
        if "M samples/s" in piece or "step" in piece:
            break
    process.send_signal(2)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in output
    assert (out / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scene", "no/such/folder"], "no/such/folder"),
        (["--budget", "soon"], "--budget: expected a time"),
        (["--budget", "1m", "--steps", "5"], "expected one of them"),
        (["--steps", "0"], "--steps: expected at least 1"),
        (["--backend", "cuda"], "--backend cuda"),
        (["--register"], "--register: expected the instant preset and photos of something that moves"),
        (["--resume", "--out", "no/such/run"], "--resume: expected a checkpoint"),
    ],
)
def test_bad_options_end_with_one_sentence(arguments, sentence, still, command):
    scene = [] if "--scene" in arguments else ["--scene", str(still)]
    done = command("nerf.train", *scene, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert sentence in done.stderr and done.stderr.strip().count("\n") == 0
