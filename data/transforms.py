"""Cameras out: transforms.json, as nerfstudio and our own reader (data/blender.py) take it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.camera import Camera
from data.errors import SceneError
from data.files import write_atomically

_OPENCV = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE = ("k1", "k2", "k3", "k4")


@dataclass(frozen=True)
class Posed:
    """A photo to be listed.

    Attributes:
        image, mask: files; None: no mask.
        camera: at the image file's own size, its pose in the coordinates that the file is to have.
        time: None: the scene stands still.
    """

    image: Path
    camera: Camera
    held_out: bool
    time: float | None = None
    mask: Path | None = None


def write_transforms(path: Path, photos: Sequence[Posed]) -> int:
    """Write `path`, and beside it copies of photos and masks that lie elsewhere; returns how many were copied.

    Readers take no photo from outside of the file's own folder. Poses are camera-to-world, OpenGL axes. What the format
    can't say, it leaves out: skew.
    """
    folder = path.parent
    places = _places(folder, [photo.image for photo in photos], "images")
    masks = _places(folder, [photo.mask for photo in photos if photo.mask is not None], "masks")
    frames: list[dict[str, Any]] = []
    names: dict[bool, list[str]] = {False: [], True: []}
    for photo in photos:
        frame: dict[str, Any] = {"file_path": places[photo.image], **_lens(photo.camera)}
        if photo.mask is not None:
            frame["mask_path"] = masks[photo.mask]
        if photo.time is not None:
            frame["time"] = photo.time
        frame["transform_matrix"] = [*photo.camera.pose.double().tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append(frame)
        names[photo.held_out].append(places[photo.image])
    split = {"train_filenames": names[False], "val_filenames": names[True], "test_filenames": names[True]}
    # nerfstudio reads the camera's model from the top of the file alone.
    whole = {"camera_model": frames[0]["camera_model"], **split, "frames": frames}
    copied = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, place in {**places, **masks}.items():
            if (folder / place).resolve() != source.resolve():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / place)
                copied += 1
        write_atomically(path, json.dumps(whole, indent=1).encode())
    except OSError as error:
        raise SceneError(f"{path}: expected a place that can be written, found: {error}") from None
    return copied


def _places(folder: Path, files: Sequence[Path], name: str) -> dict[Path, str]:
    """Where each file lies below `folder`, or is to lie: as it is, or in the subfolder `name` under a name of its own."""
    found: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        if file.resolve().is_relative_to(folder.resolve()):
            found[file] = file.resolve().relative_to(folder.resolve()).as_posix()
            continue
        place, number = f"{name}/{file.name}", 1
        while place in taken:  # r_0.png of train/ and of test/
            place, number = f"{name}/{file.parent.name}_{number}_{file.name}", number + 1
        taken.add(place)
        found[file] = place
    return found


def _lens(camera: Camera) -> dict[str, Any]:
    """The lens in the format's words."""
    size = {
        "w": camera.width,
        "h": camera.height,
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
    }
    if camera.model == "fisheye":
        return {"camera_model": "OPENCV_FISHEYE", **size, **dict(zip(_FISHEYE, camera.distortion))}
    if not any(camera.distortion):
        return {"camera_model": "PINHOLE", **size}
    # nerfstudio has another polynomial for OPENCV's k4, and no FULL_OPENCV: it then says so instead of misreading it.
    full = any(camera.distortion[5:])
    named = dict(zip(_OPENCV if full else _OPENCV[:5], camera.distortion))
    return {"camera_model": "FULL_OPENCV" if full else "OPENCV", **size, **named}
