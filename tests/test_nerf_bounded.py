"""A run's files that ask for too much, or whose numbers are beyond measure: refused before memory is taken."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nerf import cli
from nerf.bounded import Bounded, TooMany
from nerf.checkpoint import CONFIG, load_model, read_config, save
from nerf.config import ConfigError, TrainConfig
from nerf.field import HashFieldConfig
from nerf.keyframes import load_path
from nerf.model import MarchConfig, ModelConfig
from nerf.occupancy import OccupancyConfig
from nerf.paths import PathError, Rig
from nerf.train import Progress
from nerf.trainer import Trainer
from nerf.warp import WarpConfig
from tests.tiny import scene


def test_makers_of_tensors_are_counted_before_they_make():
    with Bounded(100) as bounded:
        torch.zeros(5, 10)
        torch.empty((7, 7))
        assert bounded.made == 99
        for make in (lambda: torch.rand(2), lambda: torch.empty(1 << 20, 1 << 20), lambda: torch.full((9, 9), 1.0)):
            with pytest.raises(TooMany, match="expected at most 100 numbers"):
                make()
    assert torch.zeros(1000).shape == (1000,)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    field = HashFieldConfig(levels=2, features=2, log2_rows=6, base_resolution=4, finest_resolution=12, width=16)
    march = MarchConfig(steps=32, occupancy=OccupancyConfig(resolution=8))
    model = ModelConfig(field, march, WarpConfig(width=8, depth=2, skip=2, bands=2, code=3), appearance=2)
    world = scene(3, moving=True)
    save(folder, Trainer(TrainConfig("tiny", steps=1, model=model), world))
    Rig.of(world).save(folder)
    return folder


def edited(file: Path, path: str, value: Any) -> bytes:
    tree = json.loads(file.read_text())
    *way, last = (int(step) if step.isdecimal() else step for step in path.split("."))
    at = tree
    for step in way:
        at = at[step]
    at[last] = value
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("train.model.field.width", 1 << 20, "a model of the checkpoint's size, found one that can't be made"),
        ("train.model.field.features", 1 << 40, "a model of the checkpoint's size"),
        ("train.model.field.width", 0, "a model of the checkpoint's size"),
        ("train.model.sampling.occupancy.resolution", 1 << 20, "a model of the checkpoint's size"),
        ("train.model.warp.code", 1 << 40, "a model of the checkpoint's size"),
        ("train.model.field.log2_rows", 255, "a model of the checkpoint's size"),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused(run, path, value, words):
    whole = (run / CONFIG).read_bytes()
    try:
        (run / CONFIG).write_bytes(edited(run / CONFIG, path, value))
        with pytest.raises(ConfigError, match=words) as caught:
            load_model(run, "reference")
    finally:
        (run / CONFIG).write_bytes(whole)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    load_model(run, "reference")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("train.model.warp.depth", 1 << 40, "depth: expected a whole number from 0 to 1024, found 1099511627776"),
        ("train.model.field.levels", 1025, "levels: expected a whole number from 0 to 1024"),
        ("train.rays", -1, "rays: expected a whole number from 0"),
        ("train.optimizer.rate", math.nan, "rate: expected a finite number, found nan"),
        ("train.loss.anneal", 10**400, "anneal: expected a finite number"),
        ("geometry.near", -1.0, "geometry: expected 0 < near < far"),
        ("geometry.space.half", 0.0, "geometry: expected 0 < near < far, sizes above 0"),
    ],
)
def test_a_configuration_without_measure_is_passed_over_for_the_one_kept(run, path, value, words):
    whole, expected = (run / CONFIG).read_bytes(), read_config(run)
    try:
        (run / CONFIG).write_bytes(edited(run / CONFIG, path, value))
        with pytest.warns(UserWarning, match=words):
            assert read_config(run) == expected
    finally:
        (run / CONFIG).write_bytes(whole)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("near", math.nan), ("near", 10**400), ("far", 0.0), ("focus.1", math.inf), ("photos.0.width", 10**400),
        ("photos.0.width", 8.5), ("photos.1.pose.0.3", math.nan), ("photos.1.time", 2.0), ("photos", {"x" * 5000: 1}),
    ],
)  # fmt: skip
def test_cameras_beyond_measure_are_refused_in_a_sentence(run, tmp_path, path, value):
    (tmp_path / "cameras.json").write_bytes(edited(run / "cameras.json", path, value))
    with pytest.raises(PathError, match=r"cameras.json: expected") as caught:
        Rig.load(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "whole",
    [
        [{"pose": [[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0]]}],
        [{"pose": [[1, 0, 0, 10**400], [0, 1, 0, 0], [0, 0, 1, 0]]}],
        [{"photo": [list(range(3000))]}],
        {"keyframes": [{"photo": "0"}], "units": ["x" * 3000]},
        {"keyframes": [{"photo": "0"}], "x\n" * 900: 1},
    ],
    ids=["far", "400 digits", "long photo", "long units", "long field"],
)
def test_odd_paths_are_refused_in_a_sentence(run, tmp_path, whole):
    (tmp_path / "path.json").write_text(json.dumps(whole))
    with pytest.raises(PathError) as caught:
        load_path(tmp_path / "path.json", Rig.load(run))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    (tmp_path / "path.json").write_text("[" * 100_000)
    with pytest.raises(PathError, match="expected JSON"):
        load_path(tmp_path / "path.json", Rig.load(run))


def test_views_that_are_exact_have_no_mean(capsys, tmp_path):
    metrics = {"psnr": None, "ssim": 1.0, "flip": 0.0, "views": [{}, {}]}
    cli._report(Progress(3, 1.0, 1.0, 0.0, 9.0, 1.0, 1.0, 0.0, metrics=metrics), tmp_path)
    assert "PSNR infinite dB, SSIM 1.0000, FLIP 0.0000" in capsys.readouterr().out
