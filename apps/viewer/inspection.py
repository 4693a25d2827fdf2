"""What the project's own reader makes of a folder that a person has dropped, in words that can be shown to them."""

from __future__ import annotations

import math
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from apps.viewer.uploads import UploadError
from data.errors import SceneError, mismatch
from data.images import EXTENSIONS
from data.scene import load_scene

# A photo's side that trains well; one photo's most pixels; all photos' most bytes.
_SIDE, _PIXELS, _BYTES = 1000, 100_000_000, 4 << 30
# One at a time: two scenes of photos may be more than the memory holds, and Python's list of warnings is everybody's.
_READING = threading.Lock()
_DRAWING = ThreadPoolExecutor(1, "drawing")  # matplotlib opens its fonts anew for every thread, and keeps them open
_POSES = (
    "transforms*.json",
    "dataset.json",
    "precomputed.json",
    "poses_bounds.npy",
    "cameras.bin",
    "cameras.txt",
    "keyframes",
    "metadata",
)


@dataclass(frozen=True)
class Report:
    """A scene that can be trained on: `summary` of it at `downscale`, what the reader warned of, how many photos, the
    `suggested` downscale, and its picture (None: none was asked for)."""

    summary: str
    warnings: list[str]
    photos: int
    downscale: int
    suggested: int
    plot: Path | None


def inspect(root: Path, downscale: int | None = None, plot: Path | None = None) -> Report:
    """Read the scene at `downscale` (None: the suggested one), and draw it into `plot`, a .png.

    Raises UploadError with the reader's sentence, in which files are named from the dropped folder on.
    """
    with _READING:
        try:
            suggested = _suggest(root)
            used = suggested if downscale is None else downscale
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                scene = load_scene(root, used)
            said = [str(w.message) for w in caught if str(root) in str(w.message)]  # other threads may warn meanwhile
            if plot is not None:
                from data.plot import plot_scene  # matplotlib takes a second to import

                draft = plot.with_name(f"draft-{plot.name}")
                _DRAWING.submit(plot_scene, scene, draft).result()
                os.replace(draft, plot)
        except SceneError as error:
            raise UploadError(_no_poses(root) or _public(str(error), root)) from None
        except MemoryError:
            raise UploadError(f"{root.name}: expected photos that fit in memory, found more: downscale them") from None
    shown = [_public(line, root) for line in said]
    return Report(scene.summary(), shown, len(scene.train) + len(scene.test), used, suggested, plot)


def _suggest(root: Path) -> int:
    """A whole factor after which the largest photo's sides are about a thousand pixels, and all fit in memory. Raises
    SceneError for a photo that isn't one: Pillow would open any kind of file that goes by a photo's name."""
    side, total = 0, 0
    for file in _photos(root):
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                width, height = image.size
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            raise mismatch(file, "image", "a PNG or JPEG", f"{file.stat().st_size} bytes of something else") from None
        except Image.DecompressionBombError:
            width = height = _PIXELS
        if width * height > _PIXELS:
            raise mismatch(file, "image size", f"at most {_PIXELS / 1e6:.0f} megapixels", "more")
        side, total = max(side, width, height), total + 3 * width * height
    return max(1, round(side / _SIDE), math.ceil(math.sqrt(total / _BYTES)))


def _photos(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())


def _no_poses(root: Path) -> str | None:
    """What to say of photos that nothing poses; None: there are no photos, or something does."""
    count = len(_photos(root))
    if not count or any(next(root.rglob(name), None) for name in _POSES):
        return None
    return (
        f"{root.name}: poses: expected a file that says where each photo was taken (transforms.json, poses_bounds.npy, "
        f"precomputed.json, dataset.json with camera/, or COLMAP's sparse/0), found {count} photos alone: find their "
        "poses first with python -m data.capture PHOTOS OUT"
    )


def _public(sentence: str, root: Path) -> str:
    """The sentence without the server's folders."""
    private = str(root.parent) + os.sep
    sentence = sentence.replace(private, "")
    if sentence.endswith("..."):  # the value found was cut, perhaps in the middle of a path
        cut = next((n for n in range(len(private), 3, -1) if sentence[:-3].endswith(private[:n])), 0)
        sentence = sentence[: len(sentence) - 3 - cut] + "..."
    return sentence
