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

from data.photos import Photo
from data.scene import load_scene
from nerf import checkpoint
from nerf.config import ConfigError
from nerf.evaluate import differing, evaluate, instant, main, open_scene, table, update
from nerf.model import Geometry
from nerf.picture import Picture, render_image
from tests.ball import write_ball
from tests.test_nerf_metrics_masked import slow_masked_ssim, slow_ms_ssim
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
    spoiled = replace(frame, photo=Photo(image, mask))
    assert evaluate(model, scene, [spoiled])["psnr"] > 50  # only the rounding to bytes is left
    assert evaluate(model, replace(scene, masks_are_alpha=True), [spoiled])["psnr"] < 30
    nothing = replace(frame, photo=Photo(frame.image, torch.zeros_like(mask)))
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


def covisible_of(frame, rows):
    mask = torch.zeros_like(frame.image[..., 0])
    mask[rows] = 255
    return replace(frame, photo=Photo(frame.image, frame.mask, mask))


def test_figures_of_covisible_pixels_are_means_over_the_views_that_have_a_mask(made):
    _, run, trainer = made
    model, _ = checkpoint.load_model(run, "reference")
    scene, frame = trainer.scene, trainer.scene.test[0]
    frames = [
        covisible_of(frame, slice(0, 9)), frame, covisible_of(frame, slice(20, 24)), covisible_of(frame, slice(0, 0)),
    ]  # fmt: skip
    found = evaluate(model, scene, frames)
    assert [("mpsnr" in row, "mssim" in row) for row in found["views"]] == [(True, True), (False,) * 2] * 2
    picture = render_image(model, frame.camera, instant(model, scene, frame)).rgb.double().numpy()
    photo = frame.image.numpy() / 255.0
    expected = [-10 * np.log10(np.mean((picture[rows] - photo[rows]) ** 2)) for rows in (slice(0, 9), slice(20, 24))]
    assert [row["mpsnr"] for row in found["views"] if "mpsnr" in row] == pytest.approx(expected, abs=1e-4)
    assert found["mpsnr"] == pytest.approx(np.mean(expected), abs=1e-4)
    similar = [slow_masked_ssim(picture, photo, f.covisible.numpy() > 127) for f in (frames[0], frames[2])]
    assert found["mssim"] == pytest.approx(np.mean(similar), abs=1e-5) and "mlpips" not in found
    assert found["psnr"] == pytest.approx(evaluate(model, scene, [frame])["psnr"])  # of whole views, as ever


def test_covisible_pixels_that_a_mask_excludes_do_not_count(made):
    _, run, trainer = made
    model, _ = checkpoint.load_model(run, "reference")
    scene = replace(trainer.scene, masks_are_alpha=False)
    mask = torch.zeros_like(scene.test[0].image[..., 0])
    mask[5:] = 255
    both, one = (covisible_of(scene.test[0], slice(start, 9)) for start in (0, 5))
    both.photo.mask, one.photo.mask = mask, None
    assert evaluate(model, scene, [both])["mpsnr"] == pytest.approx(evaluate(model, scene, [one])["mpsnr"])


def test_ms_ssim_stands_where_photos_are_large_enough(made, monkeypatch):
    _, run, trainer = made
    model, _ = checkpoint.load_model(run, "reference")
    draw = torch.Generator().manual_seed(0)
    photo, noise = (torch.rand(161, 170, 3, generator=draw) for _ in range(2))
    rgb = 0.9 * photo + 0.1 * noise
    picture = Picture(rgb, torch.ones(161, 170), torch.ones(161, 170))
    monkeypatch.setattr("nerf.evaluate.render_image", lambda *_, **__: picture)
    large = replace(trainer.scene.test[0], photo=Photo((photo * 255).round().to(torch.uint8)))
    found = evaluate(model, trainer.scene, [large])
    expected = slow_ms_ssim(rgb.double().numpy(), large.image.numpy() / 255.0)
    assert found["msssim"] == found["views"][0]["msssim"] == pytest.approx(expected, abs=1e-6)
    assert "MS-SSIM" in table(found) and f"{expected:.4f}" in table(found)
    monkeypatch.undo()
    assert "msssim" not in evaluate(model, trainer.scene)  # 24 pixels a side


def test_the_table_names_each_figure_and_leaves_a_dash_where_a_view_has_none():
    one = {"name": "a", "psnr": 20.123, "ssim": 0.5, "msssim": 0.75, "flip": 0.1, "mpsnr": 21.456, "mssim": 0.625}
    two = {"name": "b", "psnr": 22.0, "ssim": 0.5, "flip": 0.1}
    lines = table({**{k: v for k, v in one.items() if k != "name"}, "views": [one, two]}).splitlines()
    assert lines[0].split() == ["view", "PSNR", "SSIM", "MS-SSIM", "FLIP", "mPSNR", "mSSIM"]
    assert lines[2].split() == ["a", "20.12", "0.5000", "0.7500", "0.1000", "21.46", "0.6250"]
    assert lines[3].split() == ["b", "22.00", "0.5000", "-", "0.1000", "-", "-"]
    assert lines[-1].split()[0] == "mean" and len({len(line) for line in lines}) == 1


def test_a_tree_with_covisible_masks_from_the_command_line(made, tmp_path, capsys):
    folder, run, trainer = made
    if not trainer.scene.moving:
        pytest.skip("the static ball isn't in Nerfies' format")
    shutil.copytree(folder / "scene", tmp_path / "scene")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "scene/covisible/1x/val").mkdir(parents=True)
    mask = Image.fromarray(np.repeat(np.uint8([255] * 8 + [0] * 16), 24).reshape(24, 24))
    mask.save(tmp_path / f"scene/covisible/1x/val/{trainer.scene.test[1].name}.png")
    assert main(["--run", str(tmp_path / "run"), "--scene", str(tmp_path / "scene")]) == 0
    found = json.loads((tmp_path / "run/metrics.json").read_text())
    assert [sorted({"mpsnr", "mssim"} & set(row)) for row in found["views"]] == [[], ["mpsnr", "mssim"]]
    assert found["mpsnr"] == found["views"][1]["mpsnr"] and found["mssim"] == found["views"][1]["mssim"]
    said = capsys.readouterr().out
    assert "mPSNR" in said and f"{found['mpsnr']:.2f}" in said


def test_metrics_of_older_runs_are_kept_but_for_means_of_other_views(tmp_path):
    old = {"psnr": 30.0, "ssim": 0.9, "flip": 0.1, "views": [], "steps": 7, "mpsnr": 12.0}
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    new = {"psnr": 31.0, "ssim": 0.8, "msssim": 0.95, "flip": 0.2, "views": [], "render_seconds": 1.0}
    update(tmp_path, new)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {**new, "steps": 7}


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
