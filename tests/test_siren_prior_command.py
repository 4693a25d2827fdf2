"""The prior's images, and its command line from images to pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import SceneError
from siren.loop import FitError
from siren.prior import Complete, Train, again, choice, main
from siren.prior_data import HELD_OUT_FACES, TRAINING_FACES, glyphs, made, read_folder, signals

ROOT = Path(__file__).parent.parent


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def test_made_images_are_the_same_again_and_no_face_is_on_both_sides():
    a, b, other = made(16, 30, 20), made(16, 30, 20), made(16, 30, 20, seed=1)
    assert torch.equal(a.train, b.train) and torch.equal(a.held_out, b.held_out)
    assert not torch.equal(a.train, other.train)
    assert not set(TRAINING_FACES) & set(HELD_OUT_FACES)
    rows = {image.numpy().tobytes() for image in a.train}
    assert len(rows) == 30 and not rows & {image.numpy().tobytes() for image in a.held_out}
    everything = signals(torch.cat([a.train, a.held_out])).std(dim=1)
    assert (everything > 0.05).all()  # each has something on it


def test_made_images_are_bright_on_dark_and_away_from_the_border():
    images = glyphs(TRAINING_FACES, 200, 32, seed=3)[..., 0].float()
    border = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], dim=1)
    assert images.amax((1, 2)).mean() > 180 and border.mean() < 70


def test_a_folder_is_cut_square_averaged_and_split(tmp_path):
    images = noise(30, 40, 60, 3)
    for index, pixels in enumerate(images):
        write(tmp_path / ("deeper" if index % 2 else ".") / f"{index:02}.png", pixels)
    write(tmp_path / "double.png", images[0])
    found = read_folder(tmp_path, 8)
    assert found.train.shape == (27, 8, 8, 3) and found.held_out.shape == (3, 8, 8, 3)
    expected = images[:, :, 10:50].reshape(30, 8, 5, 8, 5, 3).mean((2, 4))
    have = torch.cat([found.train, found.held_out]).numpy().astype(float)
    distances = np.abs(have[:, None] - expected[None]).max((2, 3, 4))
    assert sorted(distances.argmin(1)) == list(range(30)) and distances.min(1).max() <= 0.5
    assert torch.equal(read_folder(tmp_path, 8).train, found.train)
    assert not torch.equal(read_folder(tmp_path, 8, seed=1).held_out, found.held_out)


def test_a_grey_folder_has_one_channel(tmp_path):
    for index, pixels in enumerate(noise(25, 9, 9)):
        write(tmp_path / f"{index}.png", pixels)
    assert read_folder(tmp_path, 9).train.shape == (23, 9, 9, 1)  # and two held out


def test_folders_that_cannot_be_learned_from_are_sentences(tmp_path):
    with pytest.raises(FitError, match="expected a folder of images, found none"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(FitError, match="files, found none"):
        read_folder(tmp_path)
    for index in range(30):
        write(tmp_path / f"{index}.png", noise(1, 8, 8)[0])
    with pytest.raises(FitError, match="20 different images, found 1 in 30 files"):
        read_folder(tmp_path)
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:50])
    with pytest.raises(SceneError, match=r"broken\.png"):
        read_folder(tmp_path)


def test_a_mask_says_what_is_observed(tmp_path):
    write(tmp_path / "image.png", noise(1, 20, 30)[0])
    mask = np.zeros((20, 30), np.uint8)
    mask[:10, 5:25] = 255
    write(tmp_path / "mask.png", mask)
    seen = choice(Complete(tmp_path / "image.png", mask=tmp_path / "mask.png"), 10)
    assert seen[0].tolist() == list(range(50))
    write(tmp_path / "other.png", mask[:, :20])
    with pytest.raises(FitError, match=r"expected 30x20 pixels .* found 20x20"):
        choice(Complete(tmp_path / "image.png", mask=tmp_path / "other.png"), 10)
    write(tmp_path / "black.png", 0 * mask)
    with pytest.raises(FitError, match="found none"):
        choice(Complete(tmp_path / "image.png", mask=tmp_path / "black.png"), 10)
    assert len(set(choice(Complete(tmp_path / "image.png", pixels=17), 10)[0].tolist())) == 17


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "siren.prior", *map(str, arguments), "--backend", "reference"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_line(tmp_path):
    for index, pixels in enumerate(noise(40, 12, 12, 3)):
        write(tmp_path / "mine" / f"{index}.png", pixels)
    out, mine = tmp_path / "run", tmp_path / "mine"
    done = run("train", "--data", mine, "--out", out, "--size", 8, "--steps", 3)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 3 and metrics["held_out"] == 4 and set(metrics["psnr"]) == {"10", "32", "upper half"}
    assert {"prior", "encoder alone", "mean image", "nearest", "linear"} == set(metrics["psnr"]["10"])
    for name in ("completions.png", "interpolation.png"):
        assert np.asarray(Image.open(out / name)).std() > 10
    filled = tmp_path / "filled"
    asked = ["--run", out, "--image", mine / "0.png", "--pixels", 9, "--out", filled, "--refine", 2, "--width", 40]
    main(["complete", *map(str, asked), "--backend", "reference"])  # here, where torch has been imported
    assert json.loads((filled / "metrics.json").read_text())["observed"] == 9
    assert Image.open(filled / "completion.png").size == (40, 40)


def test_a_run_goes_on_only_with_its_own_images(tmp_path, capsys):
    for index, pixels in enumerate(noise(25, 8, 8)):
        write(tmp_path / "mine" / f"{index}.png", pixels)
    common = ["--out", str(tmp_path / "run"), "--size", "8", "--backend", "reference", "--data", str(tmp_path / "mine")]
    main(["train", *common, "--steps", "2"])
    main(["train", *common, "--steps", "3", "--resume"])
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 3
    with pytest.raises(SystemExit) as end:
        main(["train", *common, "--steps", "4", "--resume", "--seed", "5"])
    assert end.value.code == 2 and "--seed with --resume: expected 0" in capsys.readouterr().err


def test_how_to_go_on_names_what_was_asked_for():
    assert again(Train()).endswith("siren.prior train --resume")
    assert again(Train(Path("a"), Path("b"), budget="8m", seed=3)).endswith(
        "--out a --data b --budget 8m --seed 3 --resume"
    )
