"""Figures repeated from a checkpoint, means of their rows, and runs whose photos are gone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.scene import load_scene
from nerf import checkpoint
from nerf.config import ConfigError
from nerf.evaluate import differing, evaluate, instant, main, open_scene, table, update
from nerf.model import Geometry
from nerf.picture import render_image
from tests.ball import write_ball
from tests.test_nerf_render import make_run

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", params=[False, True], ids=["static", "moving"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    run, trainer = make_run(folder, request.param)
    return folder, run, trainer


def same(a, b):
    return all(a[name] == b[name] for name in ("psnr", "ssim", "flip", "views"))


def test_a_checkpoint_repeats_training_s_own_figures(made, capsys):
    _, run, trainer = made
    first = evaluate(trainer.model.eval(), trainer.scene)
    (run / "metrics.json").write_text(
        json.dumps({"train_seconds": 7.5, "steps": 10, "psnr": 0, "backend": "reference"})
    )
    assert main(["--run", str(run)]) == 0
    found = json.loads((run / "metrics.json").read_text())
    assert same(first, found) and (found["train_seconds"], found["steps"], found["backend"]) == (7.5, 10, "reference")
    said = capsys.readouterr().out
    assert "backend reference" in said and f"{found['psnr']:.2f}" in said and "PSNR" in said
    assert len(found["views"]) == len(trainer.scene.test) and found["render_seconds"] > 0


def test_figures_are_those_of_the_renders(made):
    _, run, trainer = made
    model, _ = checkpoint.load_model(run, "reference")
    scene = trainer.scene
    found = evaluate(model, scene)
    worst = []
    for row, frame in zip(found["views"], scene.test):
        photo = frame.image.numpy() / 255.0
        picture = render_image(model, frame.camera, instant(model, scene, frame)).rgb.double().numpy()
        keep = np.ones(photo.shape[:2], bool)
        if frame.mask is not None and not scene.masks_are_alpha:
            keep = frame.mask.numpy() > 127
        square = np.mean([(picture[y, x] - photo[y, x]) ** 2 for y, x in zip(*np.nonzero(keep))])
        assert row["psnr"] == pytest.approx(-10 * np.log10(square), abs=1e-5)
        assert row["name"] == frame.name and -1 <= row["ssim"] <= 1 and 0 <= row["flip"] <= 1
        worst.append(row["psnr"])
    assert found["psnr"] == pytest.approx(np.mean(worst))
    assert found["flip"] == pytest.approx(np.mean([row["flip"] for row in found["views"]]))


def test_masks_exclude_unless_they_are_a_cut_outs_alpha(made):
    _, run, trainer = made
    model, _ = checkpoint.load_model(run, "reference")
    scene = replace(trainer.scene, masks_are_alpha=False)
    frame = scene.test[0]
    picture = render_image(model, frame.camera, instant(model, scene, frame)).rgb
    image = (picture * 255).round().to(torch.uint8)
    image[12:] = 255 - image[12:]
    mask = torch.full((24, 24), 255, dtype=torch.uint8)
    mask[12:] = 0
    spoiled = replace(frame, image=image, mask=mask)
    assert evaluate(model, scene, [spoiled])["psnr"] > 50  # only the rounding to bytes is left
    assert evaluate(model, replace(scene, masks_are_alpha=True), [spoiled])["psnr"] < 30
    nothing = replace(frame, mask=torch.zeros_like(mask))
    assert evaluate(model, scene, [nothing])["views"] == []


def test_views_are_evenly_spread_and_none_is_no_crash(made):
    _, run, trainer = made
    model, _ = checkpoint.load_model(run, "reference")
    wrapped = []

    def progress(frames):
        wrapped.extend(frames)
        return frames

    frames = [replace(trainer.scene.test[0], name=f"{i}") for i in range(7)]
    found = evaluate(model, trainer.scene, frames, progress, views=3)
    assert [row["name"] for row in found["views"]] == ["0", "3", "6"] and len(wrapped) == 3
    empty = evaluate(model, trainer.scene, [])
    assert (empty["psnr"], empty["ssim"], empty["flip"], empty["views"]) == (None, None, None, [])
    assert "-" in table(empty)


def test_comparison_pictures_show_photo_render_depth_and_error(made, tmp_path):
    _, run, trainer = made
    model, _ = checkpoint.load_model(run, "reference")
    evaluate(model, trainer.scene, out=tmp_path / "sheets", views=2)
    files = sorted((tmp_path / "sheets").iterdir())
    assert len(files) == 2 and all(file.suffix == ".png" for file in files)
    sheet = np.asarray(Image.open(files[0]))
    assert sheet.shape == (24, 96, 3) and np.array_equal(sheet[:, :24], trainer.scene.test[0].image.numpy())


def test_some_views_leave_metrics_alone(made, capsys):
    _, run, _ = made
    (run / "metrics.json").write_text('{"psnr": 1}')
    assert main(["--run", str(run), "--views", "1", "--backend", "reference"]) == 0
    assert json.loads((run / "metrics.json").read_text()) == {"psnr": 1} and "1 of" in capsys.readouterr().out


def test_held_out_views_are_shown_at_their_own_instant_or_their_stand_ins(made):
    _, run, trainer = made
    model, _ = checkpoint.load_model(run, "reference")
    frame = trainer.scene.test[0]
    moving = replace(trainer.scene, moving=True, interpolate_test=True)
    assert instant(model, moving, frame) == frame.time
    assert instant(model, replace(moving, interpolate_test=False), frame) == model.geometry.times[frame.warp_id]


def test_photos_that_are_gone_or_others_are_named(made, tmp_path, capsys):
    folder, run, _ = made
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["train"]["scene"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    assert main(["--run", str(copy)]) == 2
    said = capsys.readouterr().err
    assert "expected its photos at" in said and "--scene" in said and said.count("\n") == 1
    assert main(["--run", str(copy), "--scene", str(folder / "scene"), "--views", "1"]) == 0
    config["geometry"]["near"] += 0.1
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"near, far and reach: expected .* other photos"):
        open_scene(copy, folder / "scene")


def test_what_differs_is_said(tmp_path):
    geometry = Geometry.of(load_scene(write_ball(tmp_path, moving=False)))
    assert differing(geometry, geometry) == ""
    for change, word in (
        ({"times": (0.0,)}, "times: expected 1 instants, found 12"),
        ({"near": geometry.near + 0.1}, "near, far and reach"),
        ({"background": None}, "kind of scene"),
        ({"background": (0.0, 0.0, 0.0)}, "background"),
        ({"times": tuple(t * 0.9 for t in geometry.times)}, "times"),
        ({"space": geometry.space._replace(half=2 * geometry.space.half)}, "box"),
        ({"space": geometry.space._replace(contract=True)}, "kind of scene"),
    ):
        assert word in differing(geometry, replace(geometry, **change))
    assert differing(geometry, replace(geometry, far=geometry.far * (1 + 1e-6))) == ""


def test_bad_input_is_one_sentence_and_exit_code_2(made, tmp_path, capsys):
    _, run, _ = made
    for arguments, message in (
        (["--run", str(tmp_path)], "expected a run with config.json"),
        (["--run", str(run), "--views", "0"], "--views: expected at least 1, found 0"),
        (["--run", str(run), "--backend", "gpu"], "--backend: expected auto or one of"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ConfigError, match="expected JSON"):
        update(tmp_path, {})


def test_the_command(made):
    _, run, _ = made
    done = subprocess.run(
        [sys.executable, "-m", "nerf.evaluate", "--run", str(run)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mean" in done.stdout and "wrote" in done.stdout
