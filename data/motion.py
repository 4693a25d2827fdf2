"""How a capture's surfaces really moved, where its maker knows: `motion.npz` beside a Nerfies tree.

    photos "p"          names of photos, all that are trained on among them
    middle "n 3"        float: each point's mean place, metres
    offset "i n 3"      float: how far it is from there at each instant, by warp_id
    seen "p ceil(n/8)"  uint8, bits with the most significant first: whether a photo sees a point
    part "n"            integer: what each point lies on, an index into
    parts "k"           names

The world is that of the cameras' files, in metres. `data/selfie` has such a file. It is for measuring (nerf/point_error.py);
nothing is trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.errors import mismatch
from data.shots import Shot, array

FILE = "motion.npz"
FIELDS = ("photos", "middle", "offset", "seen", "part", "parts")


@dataclass
class SurfaceMotion:
    """Surface points, followed through the training photos in the order of `Scene.train`.

    points  where they are when each photo is taken
    seen    which photos show them
    part    what each lies on, an index into `parts`
    parts   names
    metre   a metre's length in scene units, as points are
    """

    points: Float[Tensor, "f n 3"]
    seen: Bool[Tensor, "f n"]
    part: Int[Tensor, "n"]
    parts: tuple[str, ...]
    metre: float


def read_motion(folder: Path, shots: Sequence[Shot], transform: np.ndarray) -> SurfaceMotion | None:
    """The motion of a scene's surfaces at its training photos `shots`; None: the folder says nothing of it.

    `transform` "4 4", a similarity, takes the file's world to the scene's.

    Raises SceneError, naming file, field, expected and found, for a file that can't be used.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    found = _arrays(file)
    middle = array(found["middle"], (None, 3), file, "middle")
    offset = array(found["offset"], (None, len(middle), 3), file, "offset")
    photos, parts = (_names(found[name], file, name) for name in ("photos", "parts"))
    seen = _whole(found["seen"], (len(photos), -(-len(middle) // 8)), file, "seen", 256)
    part = _whole(found["part"], (len(middle),), file, "part", len(parts))
    rows = []
    for shot in shots:
        if shot.name not in photos:
            raise mismatch(file, "photos", f"all training photos, {shot.name} too", f"{len(photos)} others")
        if shot.warp_id is None or shot.warp_id >= len(offset):
            raise mismatch(
                file, "offset", f"the instant of {shot.name}, its warp_id {shot.warp_id}", f"0 to {len(offset) - 1}"
            )
        rows.append((photos.index(shot.name), shot.warp_id))
    bits = np.unpackbits(seen.astype(np.uint8), axis=1, count=len(middle)).astype(bool)
    places = np.stack([middle + offset[instant] for _, instant in rows]) @ transform[:3, :3].T + transform[:3, 3]
    return SurfaceMotion(
        points=torch.from_numpy(places).float(),
        seen=torch.from_numpy(np.stack([bits[photo] for photo, _ in rows])),
        part=torch.from_numpy(part),
        parts=tuple(parts),
        metre=float(np.cbrt(np.linalg.det(transform[:3, :3]))),
    )


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """The file's fields; pickles are refused."""
    try:
        with np.load(file, allow_pickle=False) as found:
            fields = {name: found[name] for name in FIELDS if name in found.files}
    except Exception as error:  # NumPy's reader ends in anything from EOFError to zipfile.BadZipFile
        raise mismatch(file, "file", f"NumPy arrays {', '.join(FIELDS)}", f"none ({error})") from None
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise mismatch(file, missing[0], "an array", "nothing")
    return fields


def _names(value: np.ndarray, file: Path, name: str) -> list[str]:
    if value.ndim != 1 or value.dtype.kind != "U" or not len(value):
        raise mismatch(file, name, "a list of names", f"{value.dtype} of {'x'.join(map(str, value.shape)) or 'one'}")
    return [str(text) for text in value]


def _whole(value: np.ndarray, shape: tuple[int, ...], file: Path, name: str, end: int) -> np.ndarray:
    """Whole numbers from 0 to before `end`, int64."""
    numbers = array(value, shape, file, name)
    bad = numbers[(numbers != np.floor(numbers)) | (numbers < 0) | (numbers >= end)]
    if len(bad):
        raise mismatch(file, name, f"whole numbers from 0 to {end - 1}", f"{bad[0]:g}")
    return numbers.astype(np.int64)
