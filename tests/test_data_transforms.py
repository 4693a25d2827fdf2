"""Cameras written as transforms.json come back through our own reader, and say what nerfstudio asks for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.camera import Camera
from data.errors import SceneError
from data.scene import read_capture
from data.transforms import Posed, write_transforms
from tests.tiny import look_at

LENSES = {
    "PINHOLE": ("opencv", (0.0,)),
    "OPENCV": ("opencv", (0.1, -0.02, 0.001, 0.002, 0.003)),
    "FULL_OPENCV": ("opencv", (0.1, -0.02, 0.001, 0.002, 0.003, 0.01, 0.02, 0.03)),
    "OPENCV_FISHEYE": ("fisheye", (0.05, 0.01, -0.002, 0.001)),
}


def photos(folder: Path, model: str = "opencv", lens: tuple[float, ...] = (0.0,)) -> list[Posed]:
    found = []
    for k, split in enumerate(("train", "train", "test")):
        image = folder / split / f"r_{k % 2}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 40 * k, np.uint8)).save(image)
        pose = look_at((3.0, 0.5 * k, 1.0)).double()
        pose[:, 3] += torch.tensor([1e4, 0.0, 0.125]).double()  # far from the origin, where float32 has few digits
        found.append(
            Posed(image, Camera(pose, 30, 20, 31.5 + k, 32.5, 15.25, 9.75, model, lens), split == "test", k / 2)
        )
    return found


@pytest.mark.parametrize("name", LENSES)
def test_what_is_written_is_read_back(tmp_path, name):
    given = photos(tmp_path / "photos", *LENSES[name])
    assert write_transforms(tmp_path / "out" / "transforms.json", given) == 3
    capture = read_capture(tmp_path / "out")
    assert len(capture.shots) == 3 and capture.moving
    by_picture = {int(np.asarray(Image.open(shot.image))[0, 0, 0]): shot for shot in capture.shots}
    for k, posed in enumerate(given):
        shot = by_picture[40 * k]
        np.testing.assert_allclose(shot.pose, posed.camera.pose.numpy(), atol=1e-6)
        for field in ("width", "height", "fx", "fy", "cx", "cy", "model"):
            assert getattr(shot.lens, field) == getattr(posed.camera, field), field
        np.testing.assert_allclose(shot.lens.distortion, posed.camera.distortion)
        assert shot.test == posed.held_out and shot.time == posed.time


def test_nerfstudio_finds_its_fields(tmp_path):
    write_transforms(tmp_path / "transforms.json", photos(tmp_path / "photos", *LENSES["OPENCV"]))
    whole = json.loads((tmp_path / "transforms.json").read_text())
    assert whole["camera_model"] == "OPENCV"
    named = {frame["file_path"] for frame in whole["frames"]}
    assert set(whole["train_filenames"]) | set(whole["val_filenames"]) == named
    assert whole["val_filenames"] == whole["test_filenames"] and len(whole["val_filenames"]) == 1
    for frame in whole["frames"]:
        assert (tmp_path / frame["file_path"]).is_file()
        assert {"fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "p1", "p2"} <= set(frame)
        assert "k4" not in frame  # another polynomial's there
        assert np.shape(frame["transform_matrix"]) == (4, 4)


def test_photos_below_the_file_stay_where_they_are_and_others_are_copied_under_names_of_their_own(tmp_path):
    given = photos(tmp_path / "photos")
    assert write_transforms(tmp_path / "photos" / "new.json", given) == 0
    assert not (tmp_path / "photos" / "images").exists()
    write_transforms(tmp_path / "out" / "transforms.json", given)
    images = sorted((tmp_path / "out" / "images").iterdir())
    assert len(images) == 3  # train/r_0.png is not test/r_0.png
    assert {p.read_bytes() for p in images} == {p.image.read_bytes() for p in given}


def test_masks_come_along(tmp_path):
    given = photos(tmp_path / "photos")[:2]
    mask = tmp_path / "m.png"
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(mask)
    given[1] = Posed(given[1].image, given[1].camera, False, None, mask)
    assert write_transforms(tmp_path / "out" / "transforms.json", given) == 3
    shots = read_capture(tmp_path / "out", split_every=0).shots
    assert [shot.mask is None for shot in shots] == [True, False]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match=r"transforms\.json: expected a place that can be written, found"):
        write_transforms(tmp_path / "file" / "transforms.json", photos(tmp_path / "photos"))
