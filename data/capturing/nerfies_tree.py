"""A Nerfies tree written: what data/nerfies.py reads, number for number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.camera import Camera
from data.capturing.photos import Photo
from data.capturing.placing import Placed

HELD_OUT, FIRST = 8, 3  # every 8th photo, from the 4th: the first and last instants of a film stay with training


def write_tree(folder: Path, placed: Placed, photos: Sequence[Photo], lenses: dict[int, Camera], moving: bool) -> None:
    """Write the posed photos that aren't blurred, their cameras, the split and the background points into a new folder.

    Args:
        photos: all that were to be posed, in order; those in `placed.names` were.
        lenses: by the photos' lens, at the photos' size.
        moving: every photo is an instant of its own; else all show the same.
    """
    (folder / "rgb" / "1x").mkdir(parents=True)
    (folder / "camera").mkdir()
    by_name = {p.name: p for p in photos}
    written = [n for n in placed.names if not by_name[n].blurred]
    poses = dict(zip(placed.names, placed.poses))
    for name in written:
        photo = by_name[name]
        shutil.copyfile(photo.file, folder / "rgb" / "1x" / (name + photo.file.suffix))
        _json(folder / "camera" / f"{name}.json", camera_record(lenses[photo.lens], poses[name]))
    test = written[FIRST:-1:HELD_OUT]
    train = [n for n in written if n not in set(test)]
    _json(
        folder / "dataset.json",
        {"count": len(written), "num_exemplars": len(train), "ids": written, "train_ids": train, "val_ids": test},
    )
    _json(
        folder / "metadata.json",
        {
            n: {"warp_id": i if moving else 0, "appearance_id": i, "camera_id": by_name[n].lens}
            for i, n in enumerate(written)
        },
    )
    _json(
        folder / "scene.json",
        {"scale": placed.scale, "center": placed.center.tolist(), "near": placed.near, "far": placed.far},
    )
    np.save(folder / "points.npy", placed.points.astype(np.float32))


def camera_record(lens: Camera, pose: np.ndarray) -> dict:
    """One camera as Nerfies writes it: rotation from world to camera in OpenCV axes, OpenCV's first five coefficients.

    Args:
        lens: of model opencv, with nothing but k1 k2 p1 p2 k3.
        pose: camera-to-world "3 4" in our axes.
    """
    k1, k2, p1, p2, k3, *rest = lens.distortion
    if lens.model != "opencv" or any(rest):
        raise ValueError(f"lens: expected opencv with k1 k2 p1 p2 k3, found {lens.model} with {lens.distortion}")
    right, up, back, position = pose.T
    return {
        "orientation": np.stack((right, -up, -back)).tolist(),
        "position": position.tolist(),
        "focal_length": lens.fx,
        "principal_point": [lens.cx, lens.cy],
        "skew": lens.skew,
        "pixel_aspect_ratio": lens.fy / lens.fx,
        "radial_distortion": [k1, k2, k3],
        "tangential_distortion": [p1, p2],
        "image_size": [lens.width, lens.height],
    }


def _json(file: Path, record: dict) -> None:
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
