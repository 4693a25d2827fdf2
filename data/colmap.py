"""COLMAP models, binary and text: `sparse/0` (or `sparse`, `colmap/sparse/0`, or the folder itself) with `images/`.

Where mapping broke apart into several models, `sparse/0`, `sparse/1` ..., the one with the most photos is read.

COLMAP's poses are rotations (as quaternions w x y z) and translations from world to camera in OpenCV axes; its pixel
centres are at +0.5, as ours. Photos may lie in folders below `images/` or `images_<k>/` (reduced by k), masks in
`masks/` under the photo's name with .png added or instead. Every `split_every`-th of the sorted names, from the first,
is held out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.camera import Camera
from data.errors import SceneError, mismatch
from data.images import EXTENSIONS
from data.shots import (
    Capture,
    Shot,
    array,
    check_pose,
    find_image,
    hold_out,
    inside,
    is_file,
    pick_folder,
    plain_lens,
    scaled_folders,
)

# By COLMAP's number: name, number of parameters, number of focal lengths, and our lens model (None: we have none).
# Focal lengths come first (f, or fx fy), then the principal point, then the coefficients, in our own order.
_MODELS: dict[int, tuple[str, int, int, str | None]] = {
    0: ("SIMPLE_PINHOLE", 3, 1, "opencv"),
    1: ("PINHOLE", 4, 2, "opencv"),
    2: ("SIMPLE_RADIAL", 4, 1, "opencv"),
    3: ("RADIAL", 5, 1, "opencv"),
    4: ("OPENCV", 8, 2, "opencv"),
    5: ("OPENCV_FISHEYE", 8, 2, "fisheye"),
    6: ("FULL_OPENCV", 12, 2, "opencv"),
    7: ("FOV", 5, 2, None),
    8: ("SIMPLE_RADIAL_FISHEYE", 4, 1, "fisheye"),
    9: ("RADIAL_FISHEYE", 5, 1, "fisheye"),
    10: ("THIN_PRISM_FISHEYE", 12, 2, None),
}
_BY_NAME = {name: number for number, (name, *_) in _MODELS.items()}
_SUPPORTED = ", ".join(name for name, *_, ours in _MODELS.values() if ours)


def find_model(path: Path) -> Path | None:
    """The folder below `path` that holds a model, the one with the most photos of several; None if there is none."""
    for sparse in (path / "sparse", path / "colmap" / "sparse"):
        numbered = [f for f in (sparse.iterdir() if sparse.is_dir() else ()) if f.name.isdecimal() and _is_model(f)]
        if numbered:
            return max(numbered, key=lambda f: (_count(f), -int(f.name)))
        if _is_model(sparse):
            return sparse
    return path if _is_model(path) else None


def _is_model(folder: Path) -> bool:
    return any((folder / f"cameras.{e}").is_file() for e in ("bin", "txt"))


def _count(model: Path) -> int:
    """How many photos a model poses; 0 where its file can't be read, which reading it will say."""
    try:
        if (model / "cameras.bin").is_file():
            with open(model / "images.bin", "rb") as file:
                return int.from_bytes(file.read(8), "little")
        return sum(bool(t) and not t.startswith("#") for t in (model / "images.txt").read_text().split("\n")[:-1]) // 2
    except (OSError, UnicodeDecodeError):
        return 0


def read(path: Path, downscale: int = 1, split_every: int = 8) -> Capture:
    """Read a folder with a COLMAP model and its photos. Raises SceneError on a value that can't be used, a photo that
    is missing, or a camera model other than the pinhole, radial, OpenCV and fisheye ones."""
    model = find_model(path)
    if model is None:
        raise mismatch(path, "model", "sparse/0 with cameras, images and points3D", "none")
    binary = (model / "cameras.bin").is_file()
    end = "bin" if binary else "txt"
    cameras = dict((_binary_cameras if binary else _text_cameras)(model / "cameras"))
    source = model / f"images.{end}"
    folder = pick_folder(scaled_folders(path, "images"), downscale)
    if folder is None:
        raise mismatch(path / "images", "folder", "photos", "none")
    shots = []
    for name, camera_id, quaternion, shift in (_binary_images if binary else _text_images)(source):
        if camera_id not in cameras:
            raise mismatch(source, f"camera of {name}", f"one of {sorted(cameras)}", camera_id)
        image = _find(folder[1], name, source)
        if image is None:
            raise mismatch(folder[1] / name, "image", f"a file (named in {source.name})", "none")
        pose = _pose(quaternion, shift, source, name)
        mask = _mask(path / "masks", name, source)
        shots.append(Shot(name, image, cameras[camera_id], pose, mask=mask, reduced=folder[0], camera_id=camera_id))
    if not shots:
        raise mismatch(source, "images", "at least one posed photo", "none")
    shots.sort(key=lambda s: s.name)
    hold_out(shots, split_every)
    points = (_binary_points if binary else _text_points)(model / f"points3D.{end}")
    return Capture(path=path, format="COLMAP", shots=shots, source=source, points=points)


def _find(folder: Path, name: str, source: Path) -> Path | None:
    """The photo; folders of reduced photos often hold them with another extension."""
    file = inside(folder, name, source, "name")
    return file if is_file(file) else find_image(file) or find_image(file.with_suffix(""))


def _mask(folder: Path, name: str, source: Path) -> Path | None:
    if not folder.is_dir():
        return None
    file = inside(folder, name, source, "name")
    choices = (file.with_name(file.name + ".png"), *(file.with_suffix(e) for e in EXTENSIONS))
    return next((m for m in choices if is_file(m)), None)


def _pose(quaternion: np.ndarray, shift: np.ndarray, source: Path, name: str) -> np.ndarray:
    """Camera-to-world in our axes, from world-to-camera in COLMAP's."""
    values = array([*quaternion, *shift], (7,), source, f"pose of {name}")
    size = np.linalg.norm(values[:4])
    if size < 1e-6:
        raise mismatch(source, f"quaternion of {name}", "a length above 0", f"{size:g} (singular)")
    w, x, y, z = values[:4] / size
    to_camera = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    centre = -to_camera.T @ values[4:]
    axes = to_camera.T * np.array([1.0, -1.0, -1.0])
    return check_pose(np.concatenate((axes, centre[:, None]), 1), source, f"pose of {name}")


def _lens(number: int, width: int, height: int, values: np.ndarray, file: Path, key: int) -> Camera:
    name, count, focals, ours = _MODELS.get(number, (f"number {number}", 0, 0, None))
    field = f"camera {key}"
    if ours is None:
        raise mismatch(file, f"{field} model", f"one of {_SUPPORTED}", name)
    if len(values) != count:
        raise mismatch(file, f"{field} ({name})", f"{count} parameters", f"{len(values)}")
    fx, fy = values[0], values[focals - 1]
    cx, cy, *lens = values[focals:]
    try:
        return plain_lens(width, height, fx, fy, cx, cy, model=ours, distortion=tuple(lens))
    except SceneError as error:
        raise SceneError(f"{file}: {field}: {str(error).removeprefix('camera: ')}") from None


class _Bytes:
    """A binary file read field by field; ends with a SceneError where the file is too short."""

    def __init__(self, path: Path) -> None:
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise mismatch(path, "file", "a COLMAP model's", str(error.strerror)) from None
        self.path, self.at = path, 0

    def take(self, layout: str) -> tuple:
        size = struct.calcsize("<" + layout)
        self.need(size)
        self.at += size
        return struct.unpack_from("<" + layout, self.data, self.at - size)

    def need(self, size: int) -> None:
        if size < 0 or self.at + size > len(self.data):
            left = len(self.data) - self.at
            raise mismatch(self.path, f"byte {self.at}", f"{size} more bytes", f"{left} (cut short)")

    def skip(self, size: int) -> None:
        self.need(size)
        self.at += size

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise mismatch(self.path, f"byte {self.at}", "a name that ends", "the file's end (cut short)")
        raw, self.at = self.data[self.at : end], end + 1
        return raw.decode("utf-8", errors="replace")


def _binary_cameras(stem: Path) -> Iterator[tuple[int, Camera]]:
    file = _Bytes(stem.with_suffix(".bin"))
    for _ in range(file.take("Q")[0]):
        key, number, width, height = file.take("IiQQ")
        count = _MODELS.get(number, ("", 0))[1]
        values = np.array(file.take(f"{count}d"))
        yield key, _lens(number, width, height, values, file.path, key)


def _binary_images(source: Path) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    file = _Bytes(source)
    for _ in range(file.take("Q")[0]):
        _, *pose, camera_id = file.take("I7dI")
        name = file.text()
        file.skip(24 * file.take("Q")[0])
        yield name, camera_id, np.array(pose[:4]), np.array(pose[4:])


def _binary_points(source: Path) -> np.ndarray | None:
    if not source.is_file():
        return None
    file = _Bytes(source)
    points = []
    for _ in range(file.take("Q")[0]):
        _, x, y, z, _, _, _, _, track = file.take("Q3d3BdQ")
        file.skip(8 * track)
        points.append((x, y, z))
    return array(points, (None, 3), source, "points") if points else None


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines with their numbers, without comments; empty ones stay, since an image's second line may be empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise mismatch(path, "file", "a COLMAP model's text", str(error)) from None
    return [(i, line) for i, line in enumerate(text.split("\n"), 1) if not line.startswith("#")]


def _numbers(words: list[str], count: int, path: Path, line: int) -> np.ndarray:
    try:
        values = np.array([float(w) for w in words])
    except ValueError:
        raise mismatch(path, f"line {line}", f"{count} numbers", " ".join(words)) from None
    if len(values) < count:
        raise mismatch(path, f"line {line}", f"{count} numbers", f"{len(values)} (cut short)")
    return values


def _whole(values: np.ndarray, path: Path, line: int) -> list[int]:
    """Ids and sizes."""
    if not np.isfinite(values).all():
        raise mismatch(path, f"line {line}", "whole numbers for ids and sizes", " ".join(map(str, values)))
    return [int(v) for v in values]


def _text_cameras(stem: Path) -> Iterator[tuple[int, Camera]]:
    path = stem.with_suffix(".txt")
    for line, text in _lines(path):
        words = text.split()
        if not words:
            continue
        if len(words) < 5:
            raise mismatch(path, f"line {line}", "id, model, width, height, parameters", text)
        key, width, height = _whole(_numbers([words[0], *words[2:4]], 3, path, line), path, line)
        values = _numbers(words[4:], 1, path, line)
        if words[1] not in _BY_NAME:
            raise mismatch(path, f"camera {key} model", f"one of {_SUPPORTED}", words[1])
        yield key, _lens(_BY_NAME[words[1]], width, height, values, path, key)


def _text_images(source: Path) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    lines = _lines(source)
    while lines and not lines[-1][1].strip():
        lines.pop()
    for line, text in lines[::2]:
        words = text.split(maxsplit=9)
        if len(words) < 10:
            raise mismatch(source, f"line {line}", "id, 4 + 3 numbers, camera, name", text)
        values = _numbers(words[:9], 9, source, line)
        yield words[9].strip(), _whole(values[8:], source, line)[0], values[1:5], values[5:8]


def _text_points(source: Path) -> np.ndarray | None:
    if not source.is_file():
        return None
    rows = [_numbers(t.split()[:4], 4, source, i)[1:] for i, t in _lines(source) if t.strip()]
    return array(rows, (None, 3), source, "points") if rows else None
