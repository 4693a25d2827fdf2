"""Bad Nerfies, LLFF, NR-NeRF and COLMAP trees end at once, with one sentence: file, field, expected and found."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.spoil import Spoil, bounds_edit, check, cut, drop, json_edit, resized, set_at, text_edit

ZERO = [[0.0] * 4] * 3 + [[0.0, 0.0, 0.0, 1.0]]
MIRROR = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, -1.0, 0], [0, 0, 0, 1.0]]
SHEAR = [[1.0, 0.2, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
PROJECTIVE = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 1.0, 1.0]]
FRAME = ("frames", 4)
POSE = (*FRAME, "transform_matrix")


def nerfies(file: str, change: Callable[[dict], object]) -> tuple[str, Spoil]:
    return "nerfies", json_edit(file, change)


CAMERA = "camera/shot_005.json"
CASES: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    # Nerfies
    "nerfies: cut short": ("nerfies", cut("scene.json"), ("scene.json", "line 1", "valid JSON", "found")),
    "nerfies: no scene.json": ("nerfies", drop("scene.json"), ("scene.json", "expected a JSON file", "found none")),
    "nerfies: NaN near": (*nerfies("scene.json", set_at("near", to=math.nan)), ("near", "a finite number", "nan")),
    "nerfies: no scale": (*nerfies("scene.json", lambda d: d.pop("scale")), ("scale", "a number", "found nothing")),
    "nerfies: negative scale": (*nerfies("scene.json", set_at("scale", to=-1)), ("scale", "positive", "found -1.0")),
    "nerfies: far before near": (
        *nerfies("scene.json", set_at("far", to=0.1)),
        ("scene.json", "near, far", "0 < near < far", "found 0.2, 0.1"),
    ),
    "nerfies: short centre": (*nerfies("scene.json", set_at("center", to=[0, 0])), ("center", "expected 3", "found 2")),
    "nerfies: empty split": (
        *nerfies("dataset.json", lambda d: d.update(ids=[], train_ids=[])),
        ("dataset.json", "train_ids", "at least one name", "found an empty split"),
    ),
    "nerfies: ids aren't names": (
        *nerfies("dataset.json", set_at("val_ids", to=[1])),
        ("val_ids", "a list of names", "found [1]"),
    ),
    "nerfies: all held out": (
        *nerfies("dataset.json", lambda d: d.update(val_ids=d["ids"])),
        ("dataset.json", "training split", "at least one photo", "found none of 12"),
    ),
    "nerfies: no metadata of a photo": (
        *nerfies("metadata.json", lambda d: d.pop("shot_004")),
        ("metadata.json", "shot_004", "an object with warp_id", "found None"),
    ),
    "nerfies: no warp id": (
        *nerfies("metadata.json", set_at("shot_004", to={})),
        ("shot_004.warp_id", "a whole number", "found None"),
    ),
    "nerfies: missing photo": (
        "nerfies",
        drop("rgb/1x/shot_004.png"),
        ("shot_004.png", "image", "expected a file", "found none"),
    ),
    "nerfies: missing camera": ("nerfies", drop(CAMERA), ("shot_005.json", "expected a JSON file", "found none")),
    "nerfies: camera cut short": ("nerfies", cut(CAMERA), ("shot_005.json", "line 1", "valid JSON", "found")),
    "nerfies: singular pose": (
        *nerfies(CAMERA, set_at("orientation", to=[[0, 0, 0]] * 3)),
        ("shot_005.json", "orientation", "a rotation", "singular"),
    ),
    "nerfies: NaN position": (
        *nerfies(CAMERA, set_at("position", to=[0, math.nan, 0])),
        ("shot_005.json", "position", "finite numbers", "nan at [1]"),
    ),
    "nerfies: bad focal length": (
        *nerfies(CAMERA, set_at("focal_length", to=0)),
        ("shot_005.json", "fx", "a positive number", "found 0.0"),
    ),
    "nerfies: bad distortion": (
        *nerfies(CAMERA, set_at("radial_distortion", to=[1, 2])),
        ("radial_distortion", "expected 3 numbers", "found 2"),
    ),
    "nerfies: photos of another size": (
        "nerfies",
        resized("rgb/1x/shot_002.png", (40, 31)),
        ("shot_002.png", "expected 40x30", "found 40x31"),
    ),
    "nerfies: name leads out": (
        *nerfies("dataset.json", set_at("train_ids", 0, to="../../x")),
        ("dataset.json", "ids", "a file inside", "found ../../x"),
    ),
    "nerfies: broken points": (
        "nerfies",
        lambda p: (p / "points.npy").write_bytes(b"none"),
        ("points.npy", "a NumPy array of nx3", "found"),
    ),
    "nerfies: no photos": (
        "nerfies",
        lambda p: (p / "rgb").rename(p / "gone"),
        ("rgb", "photos in 1x, 2x, 4x", "found none"),
    ),
    # LLFF and NR-NeRF
    "llff: truncated": ("llff", cut("poses_bounds.npy"), ("poses_bounds.npy", "a NumPy array of nx17", "found")),
    "llff: broken header": (
        "llff",
        lambda p: (p / "poses_bounds.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((  \n"),
        ("poses_bounds.npy", "a NumPy array of nx17", "found"),
    ),
    "llff: wrong width": (
        "llff",
        bounds_edit(lambda r: r[:, :16]),
        ("poses_bounds.npy", "expected nx17 numbers", "found 12x16"),
    ),
    "llff: fewer poses than photos": (
        "llff",
        bounds_edit(lambda r: r[:9]),
        ("images", "photos", "expected 9, one a pose", "found 12"),
    ),
    "llff: NaN": ("llff", bounds_edit(lambda r: r.__setitem__((3, 2), math.nan)), ("finite", "nan at [3, 2]")),
    "llff: singular": (
        "llff",
        bounds_edit(lambda r: r.__setitem__((3, slice(0, 15)), 0.0)),
        ("poses_bounds.npy", "poses[3]", "expected", "found"),
    ),
    "llff: bounds swapped": (
        "llff",
        bounds_edit(lambda r: r.__setitem__((5, slice(15, 17)), (4.0, 2.0))),
        ("poses_bounds.npy", "bounds of photo 5", "0 < near < far", "found [4.0, 2.0]"),
    ),
    "llff: missing photo": ("llff", drop("images/shot_001.png"), ("images", "expected 12", "found 11")),
    "llff: photos of another size": (
        "llff",
        resized("images/shot_001.png", (60, 45)),
        ("shot_001.png", "expected 40x30 as poses_bounds.npy says", "found 60x45"),
    ),
    "llff: pickled": (
        "llff",
        lambda p: np.save(p / "poses_bounds.npy", np.array([{}], dtype=object), allow_pickle=True),
        ("poses_bounds.npy", "a NumPy array", "found"),
    ),
    "nr-nerf: cut short": ("nr-nerf", cut("precomputed.json"), ("precomputed.json", "line 1", "valid JSON")),
    "nr-nerf: no poses": (
        "nr-nerf",
        json_edit("precomputed.json", lambda d: d.pop("poses")),
        ("precomputed.json", "poses", "nx3x5 numbers", "found None"),
    ),
    "nr-nerf: fewer bounds": (
        "nr-nerf",
        json_edit("precomputed.json", lambda d: d["bds"].pop()),
        ("precomputed.json", "bds", "12 rows as in poses", "found 11"),
    ),
    "nr-nerf: ragged poses": (
        "nr-nerf",
        json_edit("precomputed.json", lambda d: d["poses"][2].pop()),
        ("precomputed.json", "poses", "nx3x5 numbers", "found"),
    ),
    # COLMAP
    "colmap: cameras cut short": (
        "colmap-binary",
        cut("sparse/0/cameras.bin"),
        ("cameras.bin", "byte", "more bytes", "(cut short)"),
    ),
    "colmap: images cut short": (
        "colmap-binary",
        cut("sparse/0/images.bin"),
        ("images.bin", "byte", "more bytes", "(cut short)"),
    ),
    "colmap: points cut short": (
        "colmap-binary",
        cut("sparse/0/points3D.bin", 0.9),
        ("points3D.bin", "byte", "more bytes", "(cut short)"),
    ),
    "colmap: no images file": (
        "colmap-binary",
        drop("sparse/0/images.bin"),
        ("images.bin", "expected a COLMAP model's"),
    ),
    "colmap: missing photo": (
        "colmap-binary",
        drop("images/left/shot_003.png"),
        ("shot_003.png", "image", "expected a file (named in images.bin)", "found none"),
    ),
    "colmap: unknown lens": (
        "colmap-text",
        text_edit("sparse/0/cameras.txt", "SIMPLE_PINHOLE", "FOV"),
        ("cameras.txt", "camera 7 model", "one of SIMPLE_PINHOLE, PINHOLE", "FULL_OPENCV", "found FOV"),
    ),
    "colmap: unheard-of lens": (
        "colmap-text",
        text_edit("sparse/0/cameras.txt", "SIMPLE_PINHOLE", "GLASS_BALL"),
        ("cameras.txt", "camera 7 model", "one of SIMPLE_PINHOLE", "found GLASS_BALL"),
    ),
    "colmap: too few parameters": (
        "colmap-text",
        text_edit("sparse/0/cameras.txt", "SIMPLE_PINHOLE", "OPENCV"),
        ("cameras.txt", "camera 7 (OPENCV)", "expected 8 parameters", "found 3"),
    ),
    "colmap: text cut short": (
        "colmap-text",
        lambda p: (p / "sparse/0/images.txt").write_text("1 0.5 0.5\n"),
        ("images.txt", "line 1", "expected", "found 1 0.5 0.5"),
    ),
    "colmap: not numbers": (
        "colmap-text",
        text_edit("sparse/0/points3D.txt", "9 9 9 0.5 1 0", "\n5 a b c"),
        ("points3D.txt", "line 3", "expected 4 numbers", "found 5 a b c"),
    ),
    "colmap: NaN pose": (
        "colmap-text",
        lambda p: (p / "sparse/0/images.txt").write_text("1 1 0 0 0 nan 0 0 7 left/shot_000.png\n\n"),
        ("images.txt", "pose of left/shot_000.png", "finite numbers", "nan at [4]"),
    ),
    "colmap: singular pose": (
        "colmap-text",
        lambda p: (p / "sparse/0/images.txt").write_text("1 0 0 0 0 1 0 0 7 left/shot_000.png\n\n"),
        ("images.txt", "quaternion of left/shot_000.png", "a length above 0", "singular"),
    ),
    "colmap: camera that isn't there": (
        "colmap-text",
        lambda p: (p / "sparse/0/images.txt").write_text("1 1 0 0 0 1 0 0 8 left/shot_000.png\n\n"),
        ("images.txt", "camera of left/shot_000.png", "one of [7]", "found 8"),
    ),
    "colmap: no poses": (
        "colmap-text",
        lambda p: (p / "sparse/0/images.txt").write_text("# nothing\n"),
        ("images.txt", "images", "at least one posed photo", "found none"),
    ),
    "colmap: name leads out": (
        "colmap-text",
        text_edit("sparse/0/images.txt", "left/shot_000.png", "../left/shot_000.png"),
        ("images.txt", "name", "a file inside", "found ../left/shot_000.png"),
    ),
    "colmap: no photos": (
        "colmap-text",
        lambda p: (p / "images").rename(p / "gone"),
        ("images", "folder", "photos", "found none"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_in_one_sentence(case: str, tmp_path: Path) -> None:
    check(*CASES[case], tmp_path)
