"""What the readers share: a photo before it is loaded, checked JSON, checked poses, safe file names."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

from data.camera import Camera
from data.errors import mismatch
from data.images import EXTENSIONS, read_mask

_ROTATION_TOLERANCE = 5e-3  # of a column's length; files with 3 decimals pass, sheared ones don't


@dataclass
class Shot:
    """One posed photo as its file states it: nothing decoded, nothing rescaled.

    `pose` is camera-to-world, 3x4 float64, OpenGL axes, in the file's units. `lens` holds intrinsics at the
    size that the poses' file states; its own pose is unused. `reduced`: the image file is from a folder of photos
    already this many times smaller; `covisible_reduced`: so is the mask `covisible`. `alpha_masks`: the file's alpha says
    which pixels count, as a mask file does, and not what is cut out. Ids are raw (any integers);
    None means that the format has none.
    """

    name: str
    image: Path
    lens: Camera
    pose: np.ndarray
    test: bool = False
    mask: Path | None = None
    reduced: int = 1
    warp_id: int | None = None
    appearance_id: int | None = None
    camera_id: int = 0
    time: float | None = None
    covisible: Path | None = None
    covisible_reduced: int = 1
    alpha_masks: bool = False


@dataclass
class Capture:
    """All that a reader found. What is None is worked out from the rest (data/bounds.py)."""

    path: Path
    format: str
    shots: list[Shot]
    source: Path  # the file that posed the photos, for messages
    moving: bool = False
    points: np.ndarray | None = None  # "n 3", file units
    depths: np.ndarray | None = None  # "n 2": nearest and farthest depth along each shot's axis, file units
    box: np.ndarray | None = None  # "2 3", file units: everything visible lies inside
    synthetic_box: np.ndarray | None = None  # "2 3", file units: kept, with its units, where the cameras agree with it
    transform: np.ndarray | None = None  # "4 4": the file says how it is to be normalised
    near_far: tuple[float, float] | None = None  # scene units, distances along rays
    notes: list[str] = field(default_factory=list)


def plain_lens(width: int, height: int, fx: float, fy: float, cx: float, cy: float, **more: Any) -> Camera:
    """A camera at the origin: a lens that waits for its pose."""
    return Camera(torch.eye(3, 4), int(width), int(height), fx, fy, cx, cy, **more)


def hold_out(shots: Sequence[Shot], every: int, first: int = 0) -> None:
    """Mark every `every`-th shot as a test shot, from the `first`; 0 marks none."""
    for i, shot in enumerate(shots):
        shot.test = every > 0 and i % every == first


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises SceneError naming the file and the line where it breaks."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise mismatch(path, "file", "a JSON file", "none") from None
    except json.JSONDecodeError as error:
        raise mismatch(path, f"line {error.lineno}", "valid JSON", f"{error.msg} at column {error.colno}") from None
    except (OSError, ValueError, RecursionError) as error:  # a folder; bytes that are no text; a number of 5000 digits
        raise mismatch(path, "file", "JSON text", str(error)) from None
    if not isinstance(value, dict):
        raise mismatch(path, "top level", "a JSON object", f"a {type(value).__name__}")
    return value


def number(record: dict[str, Any], name: str, path: Path | str, default: float | None = None, where: str = "") -> float:
    """A finite number of a JSON object. Raises SceneError if it isn't one, or is missing and has no default."""
    value = record.get(name, default)
    if name not in record and default is None:
        raise mismatch(path, where + name, "a number", "nothing")
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer of 400 digits
        pass
    raise mismatch(path, where + name, "a finite number", repr(value))


def array(value: Any, shape: tuple[int | None, ...], path: Path | str, name: str) -> np.ndarray:
    """A finite float64 array of `shape` (None: any length). Raises SceneError otherwise."""
    expected = f"{_text(shape)} numbers"
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        raise mismatch(path, name, expected, f"values of type {value.dtype}")
    try:
        result = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise mismatch(path, name, expected, value) from None
    if result.ndim != len(shape) or any(s not in (None, d) for s, d in zip(shape, result.shape)):
        raise mismatch(path, name, expected, "x".join(map(str, result.shape)) or value)
    if not np.isfinite(result).all():
        bad = result[~np.isfinite(result)].flat[0]
        raise mismatch(path, name, "finite numbers", f"{bad} at {np.argwhere(~np.isfinite(result))[0].tolist()}")
    return result


def read_npy(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """A finite float64 array of `shape` from a .npy file. Raises SceneError otherwise; pickles are refused."""
    try:
        value = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's reader ends in anything from EOFError to tokenize.TokenError
        raise mismatch(path, "file", f"a NumPy array of {_text(shape)}", f"none ({error})") from None
    return array(value, shape, path, "array")


def _text(shape: tuple[int | None, ...]) -> str:
    return "x".join("n" if s is None else str(s) for s in shape)


def check_pose(value: Any, path: Path | str, name: str) -> np.ndarray:
    """A 3x4 pose with an orthonormal rotation, from 3x4 or 4x4 numbers.

    A uniform scale of the rotation is dropped, rounding is repaired. Raises SceneError for anything that isn't a
    finite rotation and position: wrong shape, NaN, a last row other than 0 0 0 1, singular, mirrored, sheared.
    """
    rows = len(value) if isinstance(value, (list, np.ndarray)) else 0
    matrix = array(value, (4 if rows == 4 else 3, 4), path, name)
    if rows == 4 and not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6):
        raise mismatch(path, name, "a last row of 0 0 0 1", " ".join(f"{v:g}" for v in matrix[3]))
    rotation = matrix[:3, :3]
    size = np.abs(rotation).max()
    det = np.linalg.det(rotation / size) if size > 0 else 0.0
    if abs(det) < 1e-9:
        raise mismatch(path, name, "a rotation", "a singular matrix (determinant 0)")
    if det < 0:
        raise mismatch(path, name, "a rotation with determinant above 0", f"a mirrored one ({det * size**3:.3g})")
    rotation = rotation / (size * np.cbrt(det))
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > _ROTATION_TOLERANCE:
        raise mismatch(path, name, "orthogonal columns of one length", f"columns off by {error:.2g}")
    u, _, v = np.linalg.svd(rotation)
    return np.concatenate((u @ v, matrix[:3, 3:]), 1)


def inside(root: Path, name: Any, path: Path, field_name: str) -> Path:
    """The file `name` below `root`. Raises SceneError for names that lead out of it: a scene that somebody else
    made mustn't read other files. (Links that its owner has placed are followed.)"""
    if not isinstance(name, str) or not name:
        raise mismatch(path, field_name, "a file name", name)
    text = name.replace("\\", "/")
    depth = 0
    for part in PurePosixPath(text).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            break
    # A name that ends at the root itself isn't a file's, and with an extension added it would be the root's neighbour.
    if depth < 1 or text.startswith("/") or PureWindowsPath(name).drive or "\0" in name:
        raise mismatch(path, field_name, f"a file inside {root}", name)
    return root / text


def find_image(path: Path) -> Path | None:
    """`path`, or with one of the usual extensions added; None if there is no such file."""
    if path.suffix and is_file(path):
        return path
    found = (path.with_name(path.name + e) for e in (*EXTENSIONS, *(e.upper() for e in EXTENSIONS)))
    return next((p for p in found if is_file(p)), None)


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have, such as one of 300 letters."""
    try:
        return path.is_file()
    except OSError:
        return False


def list_images(folder: Path) -> list[Path]:
    """The folder's photos, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        return []
    files = (p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))
    return sorted(p for p in files if p.is_file())


def pick_folder(choices: dict[int, Path], downscale: int) -> tuple[int, Path] | None:
    """Of folders with photos already reduced by a factor, the one with the least left to do: the largest factor
    that divides `downscale`, else the largest below it, else the smallest there is. None if there are none."""
    have = sorted(k for k, folder in choices.items() if folder.is_dir())
    below = [k for k in have if k <= downscale]
    divides = [k for k in below if downscale % k == 0]
    best = (divides or below or have[:1])[-1:]
    return (best[0], choices[best[0]]) if best else None


def scaled_folders(root: Path, name: str) -> dict[int, Path]:
    """`name` and `name_2`, `name_4` ... below `root`, by factor."""
    found = {1: root / name}
    for folder in root.glob(f"{name}_*"):
        tail = folder.name[len(name) + 1 :]
        if tail.isdecimal() and int(tail) > 0:
            found[int(tail)] = folder
    return found


def fit_lens(lens: Camera, size: tuple[int, int], image: Path, source: Path) -> Camera:
    """The lens at the image file's own `size` (width, height). A whole-number resize (rounded either way) is
    followed; anything else raises SceneError naming both sizes."""
    if size == (lens.width, lens.height):
        return lens
    for factor in range(2, 33):
        smaller = all(abs(s * factor - l) < factor for s, l in zip(size, (lens.width, lens.height)))
        larger = all(s == l * factor for s, l in zip(size, (lens.width, lens.height)))
        if smaller or larger:
            return lens.scaled(size[0] / lens.width, *size)
    expected = f"{lens.width}x{lens.height} as {source.name} says, or a whole-number resize of it"
    raise mismatch(image, "size", expected, f"{size[0]}x{size[1]}")


def read_covisible(shot: Shot, size: tuple[int, int]) -> np.ndarray | None:
    """The shot's co-visibility mask as stored, "h w" uint8; None: it has none. `size` is the photo file's (width,
    height). Raises SceneError for a mask of another size than the photo's, at the mask's own scale."""
    if shot.covisible is None:
        return None
    mask = read_mask(shot.covisible)
    k, found = shot.covisible_reduced, mask.shape[::-1]
    if any(abs(m * k - p * shot.reduced) >= max(k, shot.reduced) for m, p in zip(found, size)):
        width, height = (round(p * shot.reduced / k) for p in size)
        expected = f"{width}x{height} as the photo" + ("" if k == shot.reduced else f" reduced to {k}x")
        raise mismatch(shot.covisible, "size", expected, f"{found[0]}x{found[1]}")
    return mask
