"""Camera paths through keyframes, and their file.

A path is a JSON file:

    {
      "units": "scene",
      "loop": false,
      "keyframes": [
        {"pose": [[1, 0, 0, 0.0], [0, 1, 0, 0.1], [0, 0, 1, 0.8], [0, 0, 0, 1]], "fov": 50, "time": 0},
        {"photo": "000012.png", "fov": 40},
        ...
      ]
    }

pose    camera-to-world, 4x4 or 3x4, row by row; camera axes as in OpenGL (x right, y up, looks along -z)
photo   instead of a pose: a training photo's, by its name; its fov and time too, where they aren't given
fov     vertical field of view in degrees; default: the photos'
time    instant of a moving scene, 0 (first photo) to 1 (last); default: even from 0 to 1
units   "scene" (default), or "file": poses are in the units of the photos' own pose file
loop    true: the path returns to the first keyframe

A bare list of keyframes is a path too. The camera passes through every keyframe, on smooth curves between them.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from data.camera import Camera
from data.errors import shown
from data.files import write_atomically
from nerf.rig import PathError, Rig

FARTHEST = 1e6  # scene units from the origin along an axis


@dataclass(frozen=True, eq=False)
class Keyframe:
    """Camera-to-world pose "3 4" (OpenGL axes, scene units), vertical field of view (degrees), instant in [0, 1]."""

    pose: Float[ndarray, "3 4"]
    fov: float
    time: float


def field_of_view(camera: Camera) -> float:
    """A camera's vertical field of view in degrees."""
    return float(np.degrees(2 * np.arctan(0.5 * camera.height / camera.fy)))


def view(rig: Rig, pose: Float[ndarray, "3 4"], fov: float | None = None) -> Camera:
    """The rig's lens at `pose`, zoomed to a vertical field of view of `fov` degrees."""
    lens = rig.lens.with_pose(torch.from_numpy(np.asarray(pose)).float())
    if fov is None:
        return lens
    focal = 0.5 * lens.height / np.tan(np.radians(fov) / 2)
    return replace(lens, fx=focal, fy=focal)


def load_path(file: Path | str, rig: Rig) -> tuple[list[Keyframe], bool]:
    """Keyframes of a path's file, in scene units, and whether it loops. Raises PathError for a file that isn't one."""
    file = Path(file)
    try:
        whole = json.loads(file.read_text())
    except FileNotFoundError:
        raise PathError(f"--path: expected orbit, spiral or a JSON file of keyframes, found no file {file}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PathError(f"{file}: expected JSON, found a file that can't be read: {error}") from None
    return read_path(whole, rig, str(file))


def read_path(whole: Any, rig: Rig, where: str) -> tuple[list[Keyframe], bool]:
    """`load_path` of a file's content; `where` it came from stands in errors."""
    whole = {"keyframes": whole} if isinstance(whole, list) else whole
    if not isinstance(whole, dict) or not isinstance(whole.get("keyframes"), list) or not whole["keyframes"]:
        raise PathError(f"{where}: keyframes: expected a list of at least one keyframe, found none")
    units, odd = whole.get("units", "scene"), set(whole) - {"units", "loop", "keyframes"}
    if units not in ("scene", "file"):
        raise PathError(f"{where}: units: expected scene or file, found {shown(repr(units))}")
    if odd:
        raise PathError(f"{where}: expected units, loop and keyframes, found also {shown(', '.join(sorted(odd)))}")
    count, loop = len(whole["keyframes"]), whole.get("loop", False)
    if not isinstance(loop, bool):
        raise PathError(f"{where}: loop: expected true or false, found {shown(repr(loop))}")
    even = np.arange(count) / max(count - (0 if loop else 1), 1)
    rows = enumerate(zip(whole["keyframes"], even.tolist()))
    return [_read(entry, time, rig, units == "file", f"{where}: keyframe {i}") for i, (entry, time) in rows], loop


def save_path(file: Path | str, keyframes: list[Keyframe], loop: bool = False) -> None:
    """Write keyframes as a path's file, in scene units."""
    rows = [{"pose": [*k.pose.tolist(), [0.0, 0.0, 0.0, 1.0]], "fov": k.fov, "time": k.time} for k in keyframes]
    whole = {"units": "scene", "loop": loop, "keyframes": rows}
    write_atomically(Path(file), json.dumps(whole, indent=1).encode())


def _read(entry: Any, time: float, rig: Rig, file_units: bool, where: str) -> Keyframe:
    keys = set(entry) if isinstance(entry, dict) else set()
    if len(keys & {"pose", "photo"}) != 1 or keys - {"pose", "photo", "fov", "time"}:
        found = shown(", ".join(sorted(keys)) if keys else entry)
        raise PathError(f"{where}: expected pose or photo, and perhaps fov and time, found {found}")
    fov = field_of_view(rig.lens)
    if "photo" in entry:
        photo = rig.photo(str(entry["photo"]))
        pose, fov, time = photo.camera.pose.double().numpy(), field_of_view(photo.camera), photo.time
    else:
        pose = _read_pose(entry["pose"], where)
        if file_units:
            linear, shift = rig.transform[:3, :3], rig.transform[:3, 3]
            pose = np.c_[linear @ pose[:, :3] / np.cbrt(np.linalg.det(linear)), linear @ pose[:, 3] + shift]
    if np.abs(pose[:, 3]).max() > FARTHEST:
        raise PathError(
            f"{where}: pose: expected a place within {FARTHEST:g} scene units, found {shown(pose[:, 3].tolist())}"
        )
    fov = _number(entry.get("fov", fov), 1, 170, f"{where}: fov", "degrees")
    return Keyframe(pose, fov, _number(entry.get("time", time), 0, 1, f"{where}: time", ""))


def _number(value: Any, low: float, high: float, where: str, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise PathError(
            f"{where}: expected a number from {low} to {high} {unit}".rstrip() + f", found {shown(repr(value))}"
        )
    return float(value)


def _read_pose(value: Any, where: str) -> ndarray:
    """A pose with an orthonormal rotation; digits lost in a file are made up for."""
    try:
        pose = np.array(value, dtype=float)
    except (ValueError, TypeError, OverflowError):
        pose = np.zeros(0)
    if pose.shape == (16,):
        pose = pose.reshape(4, 4)
    if pose.shape not in ((3, 4), (4, 4)) or not np.isfinite(pose).all():
        raise PathError(f"{where}: pose: expected 4x4 finite numbers, found {shown(repr(value))}")
    left, size, right = np.linalg.svd(pose[:3, :3])
    if np.abs(size - 1).max() > 0.02 or np.linalg.det(left @ right) < 0:
        found = f"one of scales {size.round(3).tolist()} and determinant {np.linalg.det(pose[:3, :3]):.3f}"
        raise PathError(f"{where}: pose: expected a rotation (orthonormal, right-handed), found {found}")
    return np.c_[left @ right, pose[:3, 3]]


def along(keyframes: list[Keyframe], frames: int, loop: bool = False) -> list[Keyframe]:
    """`frames` stops on the curve through the keyframes, the first and (unless it loops) the last included.

    Speed follows the square root of the keyframes' distances, as centripetal Catmull-Rom curves do: without jumps.
    """
    knot = knots(keyframes, loop)
    stops = np.linspace(0, knot[-1], frames, endpoint=not loop) if frames > 1 else np.zeros(1)
    return [interpolate(keyframes, float(stop), loop, knot) for stop in stops]


def knots(keyframes: list[Keyframe], loop: bool = False) -> Float[ndarray, "n"]:
    """The parameter at each keyframe, from 0; with `loop` one more for the return to the first.

    Between neighbours it grows by the square root of how far they lie apart (Yuksel et al. 2011: such curves neither
    loop nor cusp): distance, turn, zoom and time, each as a share of its mean.
    """
    ring = [*keyframes, keyframes[0]] if loop else keyframes
    pairs = list(itertools.pairwise(ring))
    parts = np.zeros((4, len(pairs)))
    for i, (a, b) in enumerate(pairs):
        apart, turn = np.linalg.norm(a.pose[:, 3] - b.pose[:, 3]), np.linalg.norm(a.pose[:, :3] - b.pose[:, :3])
        parts[:, i] = apart, turn, abs(np.log(b.fov / a.fov)), abs(b.time - a.time)
    mean = parts.mean(1, keepdims=True) if pairs else np.ones((4, 1))
    shares = np.divide(parts, mean, out=np.zeros_like(parts), where=mean > 1e-9)
    return np.concatenate([[0.0], np.cumsum(np.sqrt(np.maximum(shares.sum(0), 0.05)))])


def interpolate(
    keyframes: list[Keyframe], stop: float, loop: bool = False, knot: Float[ndarray, "n"] | None = None
) -> Keyframe:
    """The camera where the parameter is `stop`: the keyframe itself at its knot.

    Positions, rotations and log focal lengths go through Barry and Goldman's pyramid of a Catmull-Rom curve, with
    slerp in the place of lerp for rotations (Schlag 1991). Beyond the ends of an open path it is continued straight.
    Time is piecewise linear, so that it never runs past a keyframe and back.
    """
    knot = knots(keyframes, loop) if knot is None else knot
    count, last = len(keyframes), len(knot) - 2
    if last < 0:
        return keyframes[0]
    i = int(np.clip(np.searchsorted(knot, stop, side="right") - 1, 0, last))
    at = [_knot(knot, j, loop) for j in range(i - 1, i + 3)]
    share = (stop - at[1]) / (at[2] - at[1])
    if share <= 0 or share >= 1:
        return keyframes[(i + (share >= 1)) % count]
    values = [_values(keyframes, j, loop) for j in range(i - 1, i + 3)]
    place, turn, zoom = (_pyramid([v[k] for v in values], at, stop, mix) for k, mix in enumerate((_lerp, slerp, _lerp)))
    start, end = keyframes[i], keyframes[(i + 1) % count]
    fov = np.degrees(2 * np.arctan(np.exp(-zoom)))
    return Keyframe(np.c_[rotation(turn), place], float(fov), float(_lerp(start.time, end.time, share)))


def _knot(knot: ndarray, j: int, loop: bool) -> float:
    last = len(knot) - 1
    if loop:
        return float(knot[j % last] + (j // last) * knot[-1])
    return float(2 * knot[0] - knot[1] if j < 0 else 2 * knot[-1] - knot[-2] if j > last else knot[j])


def _values(keyframes: list[Keyframe], j: int, loop: bool) -> tuple[Any, Any, Any]:
    """Place, quaternion and log focal length (of half the height) of keyframe j, made up beyond an open path's ends."""
    count = len(keyframes)
    if loop or 0 <= j < count:
        key = keyframes[j % count]
        return key.pose[:, 3], quaternion(key.pose), -np.log(np.tan(np.radians(key.fov) / 2))
    first, second = (_values(keyframes, k, False) for k in ((1, 0) if j < 0 else (count - 2, count - 1)))
    return _lerp(first[0], second[0], 2.0), slerp(first[1], second[1], 2.0), _lerp(first[2], second[2], 2.0)


def _pyramid(p: list[Any], t: list[float], stop: float, mix: Any) -> Any:
    rows, width = p, 1
    while len(rows) > 1:
        left = range(len(rows) - 1)
        if width == 3:  # the tip mixes over the middle interval
            return mix(rows[0], rows[1], (stop - t[1]) / (t[2] - t[1]))
        rows = [mix(rows[i], rows[i + 1], (stop - t[i]) / (t[i + width] - t[i])) for i in left]
        width += 1
    return rows[0]


def _lerp(a: Any, b: Any, share: float) -> Any:
    return a + (b - a) * share


def slerp(a: Float[ndarray, "4"], b: Float[ndarray, "4"], share: float) -> Float[ndarray, "4"]:
    """From rotation a towards b, the shorter way, at a constant rate; a share beyond [0, 1] goes on turning."""
    b = b if a @ b >= 0 else -b
    angle = 2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    if angle < 1e-8:
        return a
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def quaternion(pose: Float[ndarray, "3 4"]) -> Float[ndarray, "4"]:
    """Unit quaternion w, x, y, z of a pose's rotation: the main eigenvector of Bar-Itzhack's matrix, for any angle."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = pose[:, :3]
    matrix = np.array([
        [xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, xx - yy - zz, xy + yx, xz + zx],
        [xz - zx, xy + yx, yy - xx - zz, yz + zy],
        [yx - xy, xz + zx, yz + zy, zz - xx - yy],
    ])  # fmt: skip
    return np.linalg.eigh(matrix)[1][:, -1]


def rotation(q: Float[ndarray, "4"]) -> Float[ndarray, "3 3"]:
    """The rotation of a quaternion w, x, y, z of any length."""
    w, x, y, z = q / np.linalg.norm(q)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
