"""Nerfies, HyperNeRF and DyCheck trees.

    dataset.json   ids, train_ids, val_ids          metadata.json  per id: warp_id, appearance_id, camera_id
    scene.json     center, scale, near, far         camera/<id>.json  one camera, at 1x
    rgb/<k>x/<id>.png   photos reduced by k         points.npy     static background points (optional)
    mask/<k>x/<id>.png  masks (optional)
    covisible/<k>x/val/<id>.png   DyCheck's (optional): which pixels of a held-out photo enough training photos see

A camera file's `orientation` is the rotation from world to camera in OpenCV axes (y down, looking along +z), its
`position` the centre. Positions and points become (x - center) * scale, which are the units of near and far (along
the ray). Photos come from the largest folder that divides the wanted downscale, and so do co-visibility masks, which
are there at one scale alone: they are resized to the photos'.

Without val_ids every `split_every`-th photo is held out. Held-out photos whose warp_id has no training photo have
their codes interpolated in time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data.bounds import similarity
from data.camera import Camera
from data.errors import SceneError, mismatch
from data.shots import (
    Capture,
    Shot,
    array,
    check_pose,
    find_image,
    hold_out,
    inside,
    number,
    pick_folder,
    plain_lens,
    read_json,
    read_npy,
)


def recognises(path: Path) -> bool:
    """Whether the folder holds such a tree."""
    return (path / "dataset.json").is_file() and (path / "camera").is_dir()


def read(path: Path, downscale: int = 1, split_every: int = 8) -> Capture:
    """Read such a tree. Raises SceneError on a value that can't be used."""
    scene = path / "scene.json"
    record = read_json(scene)
    scale = number(record, "scale", scene)
    near, far = number(record, "near", scene), number(record, "far", scene)
    if scale <= 0:
        raise mismatch(scene, "scale", "a positive number", scale)
    if not 0 < near < far:
        raise mismatch(scene, "near, far", "0 < near < far", f"{near:g}, {far:g}")
    centre = array(record.get("center"), (3,), scene, "center")
    ids, test = _splits(path)
    shots = _shots(path, ids, test, downscale)
    if not test:
        hold_out(shots, split_every)
    return Capture(
        path=path,
        format="Nerfies",
        shots=shots,
        source=path / "dataset.json",
        moving=len({s.warp_id for s in shots if not s.test}) > 1,
        points=_points(path),
        transform=similarity(centre, scale),
        near_far=(near, far),
    )


def _splits(path: Path) -> tuple[list[str], set[str]]:
    """Ids in the file's order, without those in neither split, and the held-out ones."""
    file = path / "dataset.json"
    record = read_json(file)
    lists = {}
    for key in ("ids", "train_ids", "val_ids"):
        lists[key] = record.get(key) or []
        if not isinstance(lists[key], list) or not all(isinstance(i, str) for i in lists[key]):
            raise mismatch(file, key, "a list of names", lists[key])
    train, test = lists["train_ids"] or lists["ids"], set(lists["val_ids"])
    if not train:
        raise mismatch(file, "train_ids", "at least one name", "an empty split")
    train = [i for i in train if i not in test]
    return train + [i for i in lists["val_ids"] if i in test], test


def _shots(path: Path, ids: list[str], test: set[str], downscale: int) -> list[Shot]:
    folder = pick_folder(_scales(path / "rgb"), downscale)
    if folder is None:
        raise mismatch(path / "rgb", "folder", "photos in 1x, 2x, 4x ...", "none")
    masks = _scales(path / "mask").get(folder[0])
    seen = {k: p / "val" for k, p in _scales(path / "covisible").items()}
    covisible = pick_folder(seen, max(downscale, folder[0]))
    file = path / "metadata.json"
    metadata = read_json(file)
    shots = []
    for name in ids:
        inside(path, name, path / "dataset.json", "ids")
        meta = metadata.get(name)
        if not isinstance(meta, dict):
            raise mismatch(file, name, "an object with warp_id", meta)
        image = find_image(folder[1] / name)
        if image is None:
            raise mismatch(folder[1] / f"{name}.png", "image", "a file (named in dataset.json)", "none")
        lens, pose = _camera(path / "camera" / f"{name}.json")
        warp = _id(meta, "warp_id", file, name)
        shots.append(
            Shot(
                name=name,
                image=image,
                lens=lens,
                pose=pose,
                test=name in test,
                mask=None if masks is None else find_image(masks / name),
                reduced=folder[0],
                alpha_masks=True,  # DyCheck's photos are transparent where the depth sensor knew nothing
                covisible=find_image(covisible[1] / name) if covisible is not None and name in test else None,
                covisible_reduced=1 if covisible is None else covisible[0],
                warp_id=warp,
                appearance_id=_id(meta, "appearance_id", file, name, warp),
                camera_id=_id(meta, "camera_id", file, name, 0),
            )
        )
    return sorted(shots, key=lambda s: (s.test, s.warp_id, s.name)) if not test else shots


def _scales(root: Path) -> dict[int, Path]:
    if not root.is_dir():
        return {}
    names = {p.name[:-1]: p for p in root.iterdir() if p.name.endswith("x")}
    return {int(k): p for k, p in names.items() if k.isdecimal() and int(k) > 0}


def _id(meta: dict[str, Any], key: str, file: Path, name: str, default: int | None = None) -> int:
    value = meta.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise mismatch(file, f"{name}.{key}", "a whole number from 0", value)
    return value


def _camera(file: Path) -> tuple[Camera, np.ndarray]:
    """One camera file: its lens at 1x and its pose in our axes, in the file's units."""
    record = read_json(file)
    to_camera = array(record.get("orientation"), (3, 3), file, "orientation")
    position = array(record.get("position"), (3,), file, "position")
    # Rows of the world-to-camera rotation are the camera's axes in the world: right, down, ahead.
    axes = to_camera.T * np.array([1.0, -1.0, -1.0])
    pose = check_pose(np.concatenate((axes, position[:, None]), 1), file, "orientation")
    width, height = array(record.get("image_size"), (2,), file, "image_size")
    fx = number(record, "focal_length", file)
    cx, cy = array(record.get("principal_point", (width / 2, height / 2)), (2,), file, "principal_point")
    k1, k2, k3 = _three(record.get("radial_distortion"), file)
    p1, p2 = array(record.get("tangential_distortion") or (0, 0), (2,), file, "tangential_distortion")
    try:
        lens = plain_lens(
            round(width),
            round(height),
            fx,
            fx * number(record, "pixel_aspect_ratio", file, 1.0),
            cx,
            cy,
            distortion=(k1, k2, p1, p2, k3),
            skew=number(record, "skew", file, 0.0),
        )
    except SceneError as error:
        raise SceneError(f"{file}: {str(error).removeprefix('camera: ')}") from None
    return lens, pose


def _three(value: Any, file: Path) -> np.ndarray:
    return array(value or (0, 0, 0), (3,), file, "radial_distortion")


def _points(path: Path) -> np.ndarray | None:
    file = path / "points.npy"
    return read_npy(file, (None, 3)) if file.is_file() else None
