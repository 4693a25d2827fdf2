"""`transforms*.json` of Blender (NeRF-synthetic, D-NeRF), instant-ngp and nerfstudio.

    {"camera_angle_x": 0.69, "frames": [{"file_path": "./train/r_0", "transform_matrix": [[...], ...]}, ...]}

- Intrinsics stand at the top or in each frame (the frame's win): `fl_x fl_y cx cy w h`, else `camera_angle_x` and
  `camera_angle_y`; sizes that aren't given are the image's. Distortion: `k1..k6 p1 p2` in OpenCV's order, or `k1..k4`
  of a fisheye (`is_fisheye`, or `camera_model` of OPENCV_FISHEYE).
- `transform_matrix` is camera-to-world in OpenGL axes, as ours. (instant-ngp turns the axes only to show them.)
- `aabb_scale`: instant-ngp scales positions by `scale` (0.33) and moves them by `offset` (0.5), and models the cube of
  side `aabb_scale` around 0.5, in which it takes all that the photos show to lie. So does the scene's box.
- Splits: transforms_train / _test (_val only if there is no _test) .json; else `train_filenames` with
  `test_filenames` or `val_filenames`; else every `split_every`-th of the sorted file names, from the first.
- `time` in frames (D-NeRF) makes a moving scene; held-out instants are interpolated.
- Files that are named but missing are skipped with one warning: instant-ngp's own examples do so.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from data.camera import Camera
from data.errors import SceneError, mismatch
from data.images import image_size
from data.shots import Capture, Shot, array, check_pose, find_image, hold_out, inside, number, plain_lens, read_json

_LENSES = {  # every name that tools write, by our lens model
    "PINHOLE": "opencv",
    "SIMPLE_PINHOLE": "opencv",
    "SIMPLE_RADIAL": "opencv",
    "RADIAL": "opencv",
    "OPENCV": "opencv",
    "FULL_OPENCV": "opencv",
    "PERSPECTIVE": "opencv",
    "OPENCV_FISHEYE": "fisheye",
    "RADIAL_FISHEYE": "fisheye",
    "SIMPLE_RADIAL_FISHEYE": "fisheye",
    "FISHEYE": "fisheye",
}
_SYNTHETIC_BOX = np.array([[-1.5] * 3, [1.5] * 3])


def recognises(path: Path) -> bool:
    """Whether the folder holds transforms*.json."""
    return any((path / f"transforms{s}.json").is_file() for s in ("", "_train", "_test", "_val"))


def read(path: Path, downscale: int = 1, split_every: int = 8) -> Capture:
    """Read a folder with transforms*.json. Raises SceneError on a value that can't be used, or if every photo of a
    file is missing."""
    files = _split_files(path)
    shots: list[Shot] = []
    box = None
    for file, test in files:
        record = read_json(file)
        some = _shots(path, file, record)
        for shot in some:
            shot.test = test
        shots += some
        box = _box(record, file) if box is None else box
        if file.name == "transforms.json":
            shots = _split(shots, record, file, split_every)
        elif len(files) == 1:
            hold_out(shots, split_every)
    times = {s.time for s in shots}
    return Capture(
        path=path,
        format="Blender" if files[0][0].name != "transforms.json" else "transforms.json",
        shots=shots,
        source=files[0][0],
        moving=None not in times and len(times) > 1,
        box=box,
        synthetic_box=_SYNTHETIC_BOX,
    )


def _split_files(path: Path) -> list[tuple[Path, bool]]:
    train = path / "transforms_train.json"
    if not train.is_file():
        return [(path / "transforms.json", False)]
    held_out = [path / f"transforms_{s}.json" for s in ("test", "val")]
    return [(train, False), *[(p, True) for p in held_out if p.is_file()][:1]]


def _shots(path: Path, file: Path, record: dict[str, Any]) -> list[Shot]:
    frames = record.get("frames")
    if not isinstance(frames, list) or not frames:
        raise mismatch(file, "frames", "a list of at least one frame", frames)
    shots, missing = [], []
    for i, frame in enumerate(frames):
        where = f"frames[{i}]"
        if not isinstance(frame, dict):
            raise mismatch(file, where, "an object", frame)
        name = frame.get("file_path")
        image = find_image(inside(path, name, file, f"{where}.file_path"))
        if image is None:
            missing.append(str(name))
            continue
        pose = check_pose(frame.get("transform_matrix"), file, f"{where}.transform_matrix ({name})")
        shot = Shot(str(name), image, _lens({**record, **frame}, image, file, where), pose)
        if frame.get("mask_path"):
            shot.mask = inside(path, frame["mask_path"], file, f"{where}.mask_path")
        if "time" in frame:
            shot.time = number(frame, "time", file, where=f"{where}.")
        shots.append(shot)
    if missing:
        count = f"{len(missing)} of {len(frames)} photos"
        if not shots:
            raise mismatch(file, "frames", "photos in the scene's folder", f"none of {len(frames)} ({missing[0]} ...)")
        warnings.warn(f"{file}: {count} are missing and skipped ({missing[0]} ...)", stacklevel=4)
    return sorted(shots, key=lambda s: _natural(s.name)) if file.name != "transforms.json" else _by_name(shots)


def _by_name(shots: list[Shot]) -> list[Shot]:
    return sorted(shots, key=lambda s: s.name)


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders r_2 before r_10: NeRF-synthetic's names have no leading zeros, and their order is the order of time."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for c in name + "/":
        if c.isdecimal():
            digits += c
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, c))
    return parts


def _lens(record: dict[str, Any], image: Path, file: Path, where: str) -> Camera:
    """The lens of one frame, from the frame's fields over the file's."""
    where += "."
    if "w" in record and "h" in record:
        w, h = round(number(record, "w", file, where=where)), round(number(record, "h", file, where=where))
    else:
        w, h = image_size(image)
    fx = _focal(record, "fl_x", "camera_angle_x", w, file, where)
    if fx is None:
        raise mismatch(file, where + "fl_x", "fl_x or camera_angle_x", "neither")
    fy = _focal(record, "fl_y", "camera_angle_y", h, file, where) or fx
    named = record.get("camera_model", "FISHEYE" if record.get("is_fisheye") else "OPENCV")
    model = _LENSES.get(named) if isinstance(named, str) else None
    if model is None:
        raise mismatch(file, where + "camera_model", "one of " + ", ".join(_LENSES), named)
    order = ("k1", "k2", "k3", "k4") if model == "fisheye" else ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    lens = tuple(number(record, k, file, 0.0, where) for k in order)
    if "PINHOLE" in str(named):
        lens = ()
    cx, cy = number(record, "cx", file, w / 2, where), number(record, "cy", file, h / 2, where)
    try:
        return plain_lens(w, h, fx, fy, cx, cy, model=model, distortion=lens)
    except SceneError as error:
        raise SceneError(f"{file}: {where}{str(error).removeprefix('camera: ')}") from None


def _focal(record: dict[str, Any], name: str, angle: str, size: int, file: Path, where: str) -> float | None:
    if name in record:
        return number(record, name, file, where=where)
    if angle not in record:
        return None
    wide = number(record, angle, file, where=where)
    if not 0 < wide < math.pi:
        raise mismatch(file, where + angle, "an angle between 0 and pi", wide)
    return 0.5 * size / math.tan(0.5 * wide)


def _box(record: dict[str, Any], file: Path) -> np.ndarray | None:
    """instant-ngp's box in the file's units."""
    if "aabb_scale" not in record:
        return None
    side = number(record, "aabb_scale", file)
    scale = number(record, "scale", file, 0.33)
    if side <= 0 or scale <= 0:
        raise mismatch(file, "aabb_scale and scale", "positive numbers", f"{side:g} and {scale:g}")
    offset = array(record.get("offset", [0.5] * 3), (3,), file, "offset")
    centre = (0.5 - offset) / scale
    return np.stack((centre - 0.5 * side / scale, centre + 0.5 * side / scale))


def _split(shots: list[Shot], record: dict[str, Any], file: Path, every: int) -> list[Shot]:
    """Splits that the file names; photos that it leaves out of both are left out."""
    if "train_filenames" not in record:
        hold_out(shots, every)
        return shots
    names = {}
    for key in ("train_filenames", "test_filenames", "val_filenames"):
        value = record.get(key, [])
        if not isinstance(value, list):
            raise mismatch(file, key, "a list of file names", value)
        names[key] = {str(v) for v in value}
    held_out = names["test_filenames"] or names["val_filenames"]
    for shot in shots:
        shot.test = shot.name in held_out
    return [s for s in shots if s.test or s.name in names["train_filenames"]]
