"""Exports of phone apps that know where each photo was taken: Polycam's raw data, and Record3D's recordings.

Polycam (developer mode, "raw data"; PolyCam/polyform says what is in it):
    keyframes/corrected_cameras/<time>.json   fx fy cx cy width height, t_00 ... t_23: camera-to-world, row by row
    keyframes/corrected_images/<time>.jpg     undistorted; without these two, keyframes/cameras and keyframes/images

Record3D (an .r3d file, unzipped; or "EXR + JPG sequence"):
    metadata or metadata.json   w, h, K (3x3, column by column), poses n x 7: qx qy qz qw x y z, camera-to-world
    rgbd/<n>.jpg or rgb/<n>.jpg

Both are ARKit's: metres, y up, camera axes as ours, for photos as the sensor has them. Photos that Polycam found no camera
for are left out. Every `split_every`-th photo is held out, from the first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.errors import SceneError, mismatch
from data.shots import (
    Capture,
    Shot,
    array,
    check_pose,
    find_image,
    hold_out,
    list_images,
    number,
    plain_lens,
    read_json,
)

_POLYCAM = (("corrected_cameras", "corrected_images"), ("cameras", "images"))
_RECORD3D = ("metadata", "metadata.json")


def recognises_polycam(path: Path) -> bool:
    """Whether the folder holds Polycam's raw data."""
    return any((path / "keyframes" / cameras).is_dir() for cameras, _ in _POLYCAM)


def read_polycam(path: Path, downscale: int = 1, split_every: int = 8) -> Capture:
    """Read Polycam's raw data, the corrected photos where there are some. Raises SceneError on a value that can't be
    used."""
    choices = [(path / "keyframes" / c, path / "keyframes" / i) for c, i in _POLYCAM]
    cameras, images = next((pair for pair in choices if all(p.is_dir() for p in pair)), choices[0])
    if not images.is_dir():
        raise mismatch(images, "folder", "the photos of its cameras", "none")
    shots = []
    for file in sorted(cameras.glob("*.json"), key=lambda f: (len(f.stem), f.stem)):  # the time, in microseconds
        image = find_image(images / file.stem)
        if image is None:
            continue
        record = read_json(file)
        pose = [[number(record, f"t_{row}{column}", file) for column in range(4)] for row in range(3)]
        values = {name: number(record, name, file) for name in ("width", "height", "fx", "fy", "cx", "cy")}
        shots.append(Shot(file.stem, image, _lens(file, **values), check_pose(pose, file, "t_00 to t_23")))
    if not shots:
        raise mismatch(cameras, "cameras", f"some with a photo in {images.name}", "none")
    hold_out(shots, split_every)
    return Capture(path=path, format="Polycam", shots=shots, source=cameras)


def recognises_record3d(path: Path) -> bool:
    """Whether the folder holds a recording of Record3D."""
    return _metadata(path) is not None and _pictures(path) is not None


def read_record3d(path: Path, downscale: int = 1, split_every: int = 8) -> Capture:
    """Read a recording of Record3D. Raises SceneError on a value that can't be used, and for recordings by the front
    camera, which have no poses."""
    file, folder = _metadata(path), _pictures(path)
    if file is None or folder is None:
        raise mismatch(path, "recording", "metadata beside rgbd/ or rgb/", "none")
    record = read_json(file)
    width, height = number(record, "w", file), number(record, "h", file)
    inside = array(record.get("K"), (9,), file, "K").reshape(3, 3).T
    poses = array(record.get("poses"), (None, 7), file, "poses")
    if len(poses) and np.ptp(poses, axis=0).max() == 0:
        raise mismatch(
            file, "poses", "some that differ", "one and the same, as of the front camera: use python -m data.capture"
        )
    images = sorted(list_images(folder), key=lambda f: (len(f.stem), f.stem))  # 2.jpg before 10.jpg
    if not images or len(images) != len(poses):
        raise mismatch(folder, "photos", f"{len(poses)}, one a pose of {file.name}", f"{len(images)}")
    lens = _lens(file, width, height, inside[0, 0], inside[1, 1], inside[0, 2], inside[1, 2])
    shots = [
        Shot(f"{i:06d}", image, lens, check_pose(_pose(row, file, i), file, f"poses[{i}]"))
        for i, (image, row) in enumerate(zip(images, poses))
    ]
    hold_out(shots, split_every)
    return Capture(path=path, format="Record3D", shots=shots, source=file)


def _metadata(path: Path) -> Path | None:
    return next((path / name for name in _RECORD3D if (path / name).is_file()), None)


def _pictures(path: Path) -> Path | None:
    return next((path / name for name in ("rgbd", "rgb") if list_images(path / name)), None)


def _lens(file: Path, width: float, height: float, fx: float, fy: float, cx: float, cy: float):
    try:
        return plain_lens(round(width), round(height), fx, fy, cx, cy)
    except SceneError as error:
        raise SceneError(f"{file}: {str(error).removeprefix('camera: ')}") from None


def _pose(row: np.ndarray, file: Path, index: int) -> np.ndarray:
    """Camera-to-world "3 4" of a quaternion, its real part last, and a position."""
    size = np.linalg.norm(row[:4])
    if size < 1e-6:
        raise mismatch(file, f"poses[{index}]", "a quaternion of a length above 0", f"{size:g}")
    axis, w = row[:3] / size, row[3] / size
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return np.concatenate((turn, row[4:, None]), 1)
