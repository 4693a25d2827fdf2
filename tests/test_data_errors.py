"""Bad input ends at once, with one sentence that names the file, the field, what was expected and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image
from trees import WRITERS

from data.errors import SceneError, mismatch
from data.scene import load_scene

Spoil = Callable[[Path], None]


def json_edit(file: str, change: Callable[[dict], object]) -> Spoil:
    return lambda path: trees.edit_json(path / file, change)


def set_at(*keys: str | int, to: object) -> Callable[[dict], None]:
    def change(value: dict) -> None:
        inner = value
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to

    return change


def cut(file: str, part: float = 0.5) -> Spoil:
    def spoil(path: Path) -> None:
        raw = (path / file).read_bytes()
        (path / file).write_bytes(raw[: int(len(raw) * part)])

    return spoil


def drop(file: str) -> Spoil:
    return lambda path: (path / file).unlink()


def resized(file: str, size: tuple[int, int]) -> Spoil:
    return lambda path: Image.new("RGB", size).save(path / file)


def bounds_edit(change: Callable[[np.ndarray], np.ndarray | None]) -> Spoil:
    def spoil(path: Path) -> None:
        rows = np.load(path / "poses_bounds.npy")
        result = change(rows)
        np.save(path / "poses_bounds.npy", rows if result is None else result)

    return spoil


def text_edit(file: str, old: str, new: str) -> Spoil:
    def spoil(path: Path) -> None:
        text = (path / file).read_text()
        assert old in text
        (path / file).write_text(text.replace(old, new, 1))

    return spoil


ZERO = [[0.0] * 4] * 3 + [[0.0, 0.0, 0.0, 1.0]]
MIRROR = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, -1.0, 0], [0, 0, 0, 1.0]]
SHEAR = [[1.0, 0.2, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
PROJECTIVE = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 1.0, 1.0]]
FRAME = ("frames", 4)
POSE = (*FRAME, "transform_matrix")


def ngp(change: Callable[[dict], object]) -> tuple[str, Spoil]:
    return "instant-ngp", json_edit("transforms.json", change)


def nerfies(file: str, change: Callable[[dict], object]) -> tuple[str, Spoil]:
    return "nerfies", json_edit(file, change)


CAMERA = "camera/shot_005.json"
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
    name, spoil, words = CASES[case]
    WRITERS[name](tmp_path)
    spoil(tmp_path)
    with pytest.raises(SceneError) as error:
        load_scene(tmp_path)
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 400
    assert "expected" in sentence and "found" in sentence and str(tmp_path) in sentence
    for part in words:
        assert part in sentence


def test_every_format_has_cases() -> None:
    assert {name for name, _, _ in CASES.values()} >= set(WRITERS)


def test_long_values_are_cut() -> None:
    text = str(mismatch("a.json", "field", "a number", "x\n" * 500))
    assert "\n" not in text and len(text) < 140 and text.endswith("...")
    assert isinstance(mismatch("a", "b", "c", 1), ValueError)
