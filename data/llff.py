"""Photos with depth bounds: LLFF's `poses_bounds.npy` and NR-NeRF's `precomputed.json`.

LLFF: an array n x 17, per photo 3x5 numbers (rotation, position, and a column of height, width, focal length) and the
nearest and farthest depth. Its camera axes are down, right, back. Every `split_every`-th photo, from the first, is
held out.

NR-NeRF: `poses` n x 3 x 5 of the same make but in OpenGL axes, `bds` n x 2, photos in order of time. Every 4th photo
from the 3rd is held out; its latent codes are interpolated in time.

Photos lie in `images/` or `images_<k>/` (reduced by k), and are matched with poses in the order of their names.
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
    hold_out,
    list_images,
    pick_folder,
    plain_lens,
    read_json,
    read_npy,
    scaled_folders,
)


def read(path: Path, downscale: int = 1, split_every: int = 8) -> Capture:
    """Read a folder with poses_bounds.npy. Raises SceneError on a value that can't be used."""
    file = path / "poses_bounds.npy"
    rows = read_npy(file, (None, 17))
    matrices = rows[:, :15].reshape(-1, 3, 5)
    down, right, back = (matrices[:, :, i] for i in range(3))
    matrices = np.stack((right, -down, back, matrices[:, :, 3], matrices[:, :, 4]), 2)
    capture = _capture(path, file, "LLFF", matrices, rows[:, 15:], downscale)
    hold_out(capture.shots, split_every)
    return capture


def read_nrnerf(path: Path, downscale: int = 1, split_every: int = 8) -> Capture:
    """Read a folder with precomputed.json. `split_every` isn't used: the protocol fixes the split."""
    file = path / "precomputed.json"
    record = read_json(file)
    matrices = array(record.get("poses"), (None, 3, 5), file, "poses")
    bounds = array(record.get("bds"), (None, 2), file, "bds")
    capture = _capture(path, file, "NR-NeRF", matrices, bounds, downscale)
    capture.moving = True
    hold_out(capture.shots, 4, first=2)
    return capture


def _capture(path: Path, file: Path, format: str, matrices: np.ndarray, bounds: np.ndarray, downscale: int) -> Capture:
    """`matrices` "n 3 5" in OpenGL axes; `bounds` "n 2"."""
    if len(matrices) != len(bounds):
        raise mismatch(file, "bds", f"{len(matrices)} rows as in poses", f"{len(bounds)}")
    if not len(matrices):
        raise mismatch(file, "poses", "at least one pose", "none")
    if (bounds[:, 0] <= 0).any() or (bounds[:, 1] <= bounds[:, 0]).any():
        bad = int(np.argmax((bounds[:, 0] <= 0) | (bounds[:, 1] <= bounds[:, 0])))
        raise mismatch(file, f"bounds of photo {bad}", "0 < near < far", f"{bounds[bad].tolist()}")
    folder = pick_folder(scaled_folders(path, "images"), downscale)
    if folder is None:
        raise mismatch(path / "images", "folder", "photos", "none")
    images = list_images(folder[1])
    if len(images) != len(matrices):
        raise mismatch(folder[1], "photos", f"{len(matrices)}, one a pose of {file.name}", f"{len(images)}")
    shots = []
    for i, (image, matrix) in enumerate(zip(images, matrices)):
        height, width, focal = matrix[:, 4]
        try:
            lens = plain_lens(round(width), round(height), focal, focal, width / 2, height / 2)
        except SceneError as error:
            raise SceneError(f"{file}: poses[{i}]: {str(error).removeprefix('camera: ')}") from None
        pose = check_pose(matrix[:, :4], file, f"poses[{i}] ({image.name})")
        shots.append(Shot(image.name, image, lens, pose, reduced=folder[0]))
    return Capture(path=path, format=format, shots=shots, source=file, depths=bounds)
