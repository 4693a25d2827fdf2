"""Bad transforms*.json and photos end at once, with one sentence: file, field, expected and found."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data.errors import mismatch
from tests import trees
from tests.spoil import Spoil, check, cut, json_edit, resized, set_at
from tests.test_data_errors_models import CASES as OTHERS
from tests.trees import WRITERS

ZERO = [[0.0] * 4] * 3 + [[0.0, 0.0, 0.0, 1.0]]
MIRROR = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, -1.0, 0], [0, 0, 0, 1.0]]
SHEAR = [[1.0, 0.2, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
PROJECTIVE = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 1.0, 1.0]]
FRAME = ("frames", 4)
POSE = (*FRAME, "transform_matrix")


def ngp(change: Callable[[dict], object]) -> tuple[str, Spoil]:
    return "instant-ngp", json_edit("transforms.json", change)


CASES: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    # transforms.json
    "ngp: cut short": (
        "instant-ngp",
        cut("transforms.json"),
        ("transforms.json", "line 1", "expected valid JSON", "found"),
    ),
    "ngp: not an object": (
        "instant-ngp",
        lambda p: (p / "transforms.json").write_text("[]"),
        ("top level", "expected a JSON object", "found a list"),
    ),
    "ngp: not text": (
        "instant-ngp",
        lambda p: (p / "transforms.json").write_bytes(b"\xff\xfe\x00{"),
        ("transforms.json", "expected JSON text", "found"),
    ),
    "ngp: no frames": (*ngp(set_at("frames", to=[])), ("frames", "at least one frame", "found []")),
    "ngp: frame isn't one": (*ngp(set_at(*FRAME, to=3)), ("frames[4]", "expected an object", "found 3")),
    "ngp: nameless": (*ngp(set_at(*FRAME, "file_path", to=None)), ("frames[4].file_path", "a file name", "found None")),
    "ngp: singular pose": (*ngp(set_at(*POSE, to=ZERO)), ("frames[4].transform_matrix", "a rotation", "singular")),
    "ngp: mirrored pose": (*ngp(set_at(*POSE, to=MIRROR)), ("transform_matrix", "determinant above 0", "mirrored")),
    "ngp: sheared pose": (*ngp(set_at(*POSE, to=SHEAR)), ("transform_matrix", "orthogonal columns", "off by 0.2")),
    "ngp: projective pose": (*ngp(set_at(*POSE, to=PROJECTIVE)), ("a last row of 0 0 0 1", "found 0 0 1 1")),
    "ngp: NaN in a pose": (
        *ngp(set_at(*POSE, 1, 3, to=math.nan)),
        ("transforms.json", "frames[4].transform_matrix", "expected finite numbers", "found nan at [1, 3]"),
    ),
    "ngp: pose of a wrong shape": (
        *ngp(set_at(*POSE, to=[[1, 2], [3, 4]])),
        ("transform_matrix", "expected 3x4 numbers", "found 2x2"),
    ),
    "ngp: pose is text": (*ngp(set_at(*POSE, to="here")), ("transform_matrix", "3x4 numbers", "found here")),
    "ngp: no pose": (*ngp(lambda d: d["frames"][4].pop("transform_matrix")), ("transform_matrix", "numbers", "None")),
    "ngp: no focal length": (*ngp(lambda d: d.pop("fl_x")), ("fl_x", "fl_x or camera_angle_x", "found neither")),
    "ngp: negative focal length": (*ngp(set_at("fl_x", to=-3)), ("transforms.json", "fx", "positive", "found -3.0")),
    "ngp: NaN focal length": (*ngp(set_at("fl_y", to=math.nan)), ("fl_y", "a finite number", "found nan")),
    "ngp: a number of 400 digits": (*ngp(set_at("cx", to=10**400)), ("frames[0].cx", "a finite number", "found 1000")),
    "ngp: a pose of 400 digits": (*ngp(set_at(*POSE, 1, 3, to=10**400)), ("transform_matrix", "4x4 numbers", "found")),
    "ngp: text for a number": (*ngp(set_at("k1", to="0.1")), (".k1", "a finite number", "found '0.1'")),
    "ngp: impossible angle": (
        *ngp(lambda d: (d.pop("fl_x"), d.update(camera_angle_x=4.0))),
        ("camera_angle_x", "between 0 and pi", "found 4.0"),
    ),
    "ngp: unknown lens": (
        *ngp(set_at("camera_model", to="EQUIRECTANGULAR")),
        ("camera_model", "one of PINHOLE", "OPENCV_FISHEYE", "found EQUIRECTANGULAR"),
    ),
    "ngp: no box": (*ngp(set_at("aabb_scale", to=0)), ("aabb_scale", "positive", "found 0")),
    "ngp: photos of another size": (
        "instant-ngp",
        resized("images/shot_002.png", (39, 30)),
        ("shot_002.png", "size", "expected 40x30 as transforms.json says", "found 39x30"),
    ),
    "ngp: truncated photo": (
        "instant-ngp",
        cut("images/shot_002.png"),
        ("shot_002.png", "image", "expected a whole PNG or JPEG", "found a broken one"),
    ),
    "ngp: no photo at all": (
        "instant-ngp",
        lambda p: [f.unlink() for f in (p / "images").iterdir()],
        ("transforms.json", "frames", "photos in the scene's folder", "found none of 12"),
    ),
    "ngp: outside, absolute": (
        *ngp(set_at(*FRAME, "file_path", to="/etc/hostname")),
        ("frames[4].file_path", "expected a file inside", "found /etc/hostname"),
    ),
    "ngp: outside, upwards": (
        *ngp(set_at(*FRAME, "file_path", to="images/../../x.png")),
        ("file_path", "expected a file inside", "found images/../../x.png"),
    ),
    "ngp: outside, Windows": (*ngp(set_at(*FRAME, "file_path", to="C:\\x.png")), ("a file inside", "C:\\x.png")),
    "ngp: masks of another size": (
        "instant-ngp",
        lambda p: (
            trees.edit_json(p / "transforms.json", set_at(*FRAME, "mask_path", to="m.png")),
            Image.new("L", (20, 30)).save(p / "m.png"),
        ),
        ("m.png", "size", "expected 40x30 as the photo", "found 20x30"),
    ),
    "ngp: missing mask": (*ngp(set_at(*FRAME, "mask_path", to="m.png")), ("m.png", "expected a file", "found none")),
    "nerfstudio: empty split": (
        "nerfstudio",
        json_edit("transforms.json", set_at("train_filenames", to=[])),
        ("transforms.json", "training split", "at least one photo", "found none of 2"),
    ),
    "nerfstudio: split isn't a list": (
        "nerfstudio",
        json_edit("transforms.json", set_at("train_filenames", to="all")),
        ("train_filenames", "a list of file names", "found all"),
    ),
    # Blender
    "blender: truncated photo": ("blender", cut("photos/shot_002.png"), ("shot_002.png", "image", "expected", "found")),
    "blender: broken test file": (
        "blender",
        cut("transforms_test.json"),
        ("transforms_test.json", "line 1", "expected valid JSON", "found"),
    ),
    "blender: NaN time": (
        "blender",
        json_edit("transforms_train.json", set_at("frames", 2, "time", to=math.nan)),
        ("transforms_train.json", "frames[2].time", "a finite number", "found nan"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_in_one_sentence(case: str, tmp_path: Path) -> None:
    check(*CASES[case], tmp_path)


def test_every_format_has_cases() -> None:
    assert {name for name, _, _ in (CASES | OTHERS).values()} >= set(WRITERS)


def test_long_values_are_cut() -> None:
    text = str(mismatch("a.json", "field", "a number", "x\n" * 500))
    assert "\n" not in text and len(text) < 140 and text.endswith("...")
    assert isinstance(mismatch("a", "b", "c", 1), ValueError)
