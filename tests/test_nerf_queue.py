"""The command that trains a folder of scenes: which it finds, what it refuses, and a whole run of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nerf.claims import Claims
from nerf.config import ConfigError
from nerf.queue import agree, find_scenes, main, training
from nerf.worker import OWN
from tests.ball import write_ball


def a_scene(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "transforms.json").write_text("{nothing")


def test_scenes_are_found_at_any_depth_and_nothing_else(tmp_path):
    folder, out = tmp_path / "all", tmp_path / "all" / "runs"
    for name in ("zebra", "b/fox", "b/deep/er", "fox", ".hidden/x", "fox/inside", "runs/made", "old/run"):
        a_scene(folder / name)
    (folder / "old" / "checkpoint.safetensors").touch()  # somebody's run, with exported cameras
    (folder / "photos").mkdir()
    (folder / "notes.txt").touch()
    (folder / "b" / "round").symlink_to(folder, target_is_directory=True)
    assert find_scenes(folder, out) == ["b/deep/er", "b/fox", "fox", "zebra"]
    with pytest.raises(ConfigError, match=r"fox: expected a folder with scenes in it, found a scene; .* --scene"):
        find_scenes(folder / "fox", out)
    with pytest.raises(ConfigError, match="photos: expected at least one folder of posed photos, found none"):
        find_scenes(folder / "photos", out)
    with pytest.raises(ConfigError, match="nowhere: expected a folder"):
        find_scenes(folder / "nowhere", out)


def test_the_options_are_those_of_all_scenes(tmp_path, capsys):
    told = training(["--steps", "3", "--no-warp"], tmp_path)
    assert (told.steps, told.warp) == (3, False)
    for bad in (["--out", "x"], ["--resume"], ["--scene", "y"]):
        with pytest.raises(ConfigError, match=f"{bad[0]}: expected options that hold for all scenes"):
            training(bad, tmp_path)
    with pytest.raises(ConfigError, match="--budget: expected a time"):
        training(["--budget", "soon"], tmp_path)
    with pytest.raises(SystemExit):
        training(["--stepps", "3"], tmp_path)
    assert "--stepps" in capsys.readouterr().err


def test_one_folder_of_runs_is_of_one_set_of_options(tmp_path):
    out, folder = tmp_path / "out", tmp_path / "all"
    agree(out, folder, training(["--steps", "3"], folder))
    agree(out, folder, training(["--steps", "3", "--backend", "cpu"], folder))  # another machine's
    agree(out, tmp_path / "mounted" / "all", training(["--steps", "3"], folder))
    with pytest.raises(
        ConfigError, match=r"--steps: expected 3, with which .* were begun, found 4; take another --out"
    ):
        agree(out, folder, training(["--steps", "4"], folder))
    with pytest.raises(ConfigError, match=r"--scenes: expected all, .* found others"):
        agree(out, tmp_path / "others", training(["--steps", "3"], folder))


def test_a_folder_with_a_broken_scene_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    a_scene(tmp_path / "all" / "a-broken-one")
    (tmp_path / "all" / "ball").mkdir()
    write_ball(tmp_path / "all" / "ball", moving=False)
    command = ["--scenes", "all", "--", "--steps", "2", "--no-video"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "a-broken-one: failed: all/a-broken-one/transforms.json: line 1: expected valid JSON" in said.out
    assert "not trained: a-broken-one" in said.err
    metrics = json.loads(Path("runs/all/ball/metrics.json").read_text())
    assert metrics["steps"] == 2
    assert f"| ball | {metrics['psnr']:.2f} | {metrics['ssim']:.4f} | {metrics['flip']:.4f} |" in said.out
    assert "step 2" in Path("runs/all/ball/queue.log").read_text()
    states = {name: claim.state for name, claim in Claims(Path("runs/all") / OWN).newest().items()}
    assert states == {"a-broken-one": "failed", "ball": "done"}
    for odd, expected in ((["--workers", "0"], "--workers: expected at least 1"), ([], "--steps: expected 2")):
        assert main(["--scenes", "all", *odd, "--", "--steps", "5"]) == 2
        assert expected in capsys.readouterr().err
