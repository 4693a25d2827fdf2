"""What fuzzing found, each as small as it gets: files that are folders, names that no file can have, numbers beyond measure; and
captures that can be trained on but not learned from."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import SceneError, mismatch, shown
from data.images import read_pixels
from data.scene import load_scene
from tests import trees
from tests.spoil import Spoil, bounds_edit, check, json_edit, set_at
from tests.trees import WRITERS


def folder_instead(file: str) -> Spoil:
    def spoil(path: Path) -> None:
        (path / file).unlink()
        (path / file).mkdir()

    return spoil


def array(value: np.ndarray) -> Spoil:
    return lambda path: np.save(path / "poses_bounds.npy", value)


def far_points(path: Path) -> None:
    lines = (path / "sparse/0/points3D.txt").read_text().replace(" 9 9 9 ", "e60 9 9 9 ", 1)
    (path / "sparse/0/points3D.txt").write_text(lines)


def renamed(name: str) -> Spoil:
    def spoil(path: Path) -> None:
        file = path / "sparse/0/images.txt"
        file.write_text(file.read_text().replace("left/shot_003.png", name, 1))

    return spoil


def no_reach(path: Path) -> None:
    trees.edit_json(path / "precomputed.json", lambda d: d.update(bds=[[1e-300, 4.0]] * len(d["bds"])))


POSE = ("frames", 4, "transform_matrix")
CASES: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    "a camera is a folder": (
        "nerfies",
        folder_instead("camera/shot_003.json"),
        ("shot_003.json", "JSON text", "directory"),
    ),
    "a number of 5000 digits": (
        "instant-ngp",
        lambda p: (p / "transforms.json").write_text('{"w": ' + "9" * 5000 + "}"),
        ("transforms.json", "expected JSON text", "digits"),
    ),
    "a name of 300 letters": ("colmap-text", renamed("x" * 300), ("image", "expected a file", "found none")),
    "a camera's id is no number": (
        "colmap-text",
        lambda p: (p / "sparse/0/images.txt").write_text(
            (p / "sparse/0/images.txt").read_text().replace(" 7 left/shot_003.png", " nan left/shot_003.png")
        ),
        ("images.txt", "line", "whole numbers for ids and sizes", "found nan"),
    ),
    "a width without end": (
        "colmap-text",
        lambda p: (p / "sparse/0/cameras.txt").write_text("7 SIMPLE_PINHOLE 1e400 30 36 20 15\n"),
        ("cameras.txt", "whole numbers for ids and sizes", "inf"),
    ),
    "an instant of 400 digits": (
        "nerfies",
        json_edit("metadata.json", set_at("shot_004", "warp_id", to=10**400)),
        ("metadata.json", "shot_004.warp_id", "a whole number from 0", "found 1000"),
    ),
    "text for numbers": ("llff", array(np.zeros((12, 17), "<U3")), ("array", "nx17 numbers", "values of type <U3")),
    "times for numbers": (
        "llff",
        array(np.zeros((12, 17), "<M8[s]")),
        ("nx17 numbers", "values of type datetime64[s]"),
    ),
    "no number a row": (
        "llff",
        bounds_edit(lambda rows: rows[:, :0]),
        ("poses_bounds.npy", "nx17 numbers", "found 12x0"),
    ),
    "a focal length of next to nothing": (
        "instant-ngp",
        json_edit("transforms.json", set_at("fl_x", to=1e-300)),
        ("camera of", "a lens whose rays are numbers", "fx 1e-300"),
    ),
    "a camera beyond float32": (
        "instant-ngp",
        json_edit("transforms.json", set_at(*POSE, 1, 3, to=1e300)),
        ("transforms.json", "expected", "found"),
    ),
    "a photo of a million columns and more": (
        "instant-ngp",
        json_edit("transforms.json", set_at("w", to=1e7)),
        ("size", "at most 1000000 pixels a side"),
    ),
    "a point beyond float32": (
        "colmap-text",
        far_points,
        ("points", "coordinates that scene units can tell", "found 4.8"),
    ),
    "a near of nothing": ("nr-nerf", no_reach, ("cameras", "poses and depths that enclose a scene", "found near")),
}


@pytest.mark.parametrize("case", CASES)
def test_odd_input_ends_in_one_sentence(case, tmp_path):
    check(*CASES[case], tmp_path)


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "WEBP", "EPS"])
def test_a_photo_of_another_kind_stays_shut(form, tmp_path):
    out = io.BytesIO()
    Image.new("RGB", (8, 6)).save(out, form)
    (tmp_path / "a.png").write_bytes(out.getvalue())
    with pytest.raises(SceneError, match=r"a.png: image: expected a PNG or JPEG, found \d+ bytes of something else"):
        read_pixels(tmp_path / "a.png")


def test_what_cannot_be_shown_is_named():
    broken = np.frombuffer(b"\xff\xff\xff\xff" * 4, "<U2")
    assert "that can't be shown" in shown(broken) or len(shown(broken)) <= 80
    assert "\n" not in str(mismatch("a", "line\nbreak", "b", "c\nd")) and shown("x" * 90).endswith("...")


def warned(change: Callable[[Path], object], folder: Path) -> list[str]:
    WRITERS["instant-ngp"](folder)
    change(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_scene(folder)
    return [str(warning.message) for warning in caught if str(folder) in str(warning.message)]


def one_place(path: Path) -> None:
    def change(record: dict) -> None:
        for frame in record["frames"]:
            frame["transform_matrix"] = record["frames"][0]["transform_matrix"]

    trees.edit_json(path / "transforms.json", change)


def two_photos(path: Path) -> None:
    trees.edit_json(path / "transforms.json", lambda d: d.update(frames=d["frames"][:2]))


def blank(gray: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for file in (path / "images").iterdir():
            Image.new("RGB", Image.open(file).size, (gray, gray + 1, gray)).save(file)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: None, None),
        (one_place, "found 10 from one place: they show no depth"),
        (two_photos, "found one photo: they show no depth"),
        (blank(0), "found one colour, values from 0 to 1: too dark, too bright, or wholly transparent"),
        (blank(254), "found one colour, values from 254 to 255"),
    ],
    ids=["none", "one place", "one photo", "black", "white"],
)
def test_what_cannot_be_learned_from_is_said(change, words, tmp_path):
    said = warned(change, tmp_path)
    assert len(said) == (words is not None) and all(words in line for line in said)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_a_scenes_size_in_the_file_makes_no_difference(scale, tmp_path):
    for name, one in (("whole", 1.0), ("scaled", scale)):
        (tmp_path / name).mkdir()
        WRITERS["instant-ngp"](tmp_path / name, scale=one)
    whole, scaled = (load_scene(tmp_path / name) for name in ("whole", "scaled"))
    assert (scaled.near, scaled.far) == pytest.approx((whole.near, whole.far), rel=1e-6)
    for a, b in zip(whole.train + whole.test, scaled.train + scaled.test):
        assert torch.allclose(a.camera.pose, b.camera.pose, atol=1e-5) and torch.equal(a.image, b.image)
    assert json.dumps(scaled.summary()).endswith(f'far {whole.far:.3g}"')
