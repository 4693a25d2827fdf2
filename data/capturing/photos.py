"""A folder of photos: turned upright by their EXIF orientation, with the focal length that they name."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data.capturing.choose import sharpness
from data.capturing.progress import bar
from data.errors import SceneError, mismatch
from data.images import read_pixels
from data.shots import list_images

_ORIENTATION, _MAKE, _MODEL, _EXIF = 0x0112, 0x010F, 0x0110, 0x8769
_FOCAL_35MM = 0xA405
_FILM_DIAGONAL = float(np.hypot(36, 24))  # mm: equivalent focal lengths are equal angles of view across the diagonal
_OTHERS = (".heic", ".heif", ".dng", ".webp", ".tif", ".tiff")
WATCHED = 640  # pixels of the longer side that sharpness is measured at: the same for all of a capture


@dataclass(frozen=True)
class Photo:
    """One photo as it goes into a reconstruction, upright.

    Attributes:
        name: unique, and in the order of the capture; the scene's id of it.
        source: how a person knows it: a file's name, or a frame's number and time.
        file: pixels, a PNG or JPEG without an orientation of its own.
        width, height: pixels.
        focal: focal length in pixels, where the file names one.
        lens: photos that share it share their intrinsics.
        place: its place along the capture: a frame's number, or the order of names.
        blurred: clearly less sharp than those around it.
    """

    name: str
    source: str
    file: Path
    width: int
    height: int
    focal: float | None = None
    lens: int = 0
    place: int = 0
    blurred: bool = False


def take_photos(folder: Path, into: Path, longest: int) -> list[Photo]:
    """Copy the photos of `folder` to `into`, upright and at most `longest` pixels long, and say what they are.

    Photos of one size, focal length and camera share their intrinsics. Raises SceneError for a file that can't be read.
    """
    files = list_images(folder)
    if not files:
        others = sorted(p.suffix for p in folder.iterdir() if p.suffix.lower() in _OTHERS)
        found = f"{len(others)} as {others[0]}: save them as JPEG first" if others else "none"
        raise mismatch(folder, "photos", "JPEG or PNG files", found)
    names = _names(files)
    lenses: dict[tuple, int] = {}
    photos, sharp = [], []
    for place, (file, name) in enumerate(bar(zip(files, names), "photos", "photo", len(files))):
        copy, size, focal, camera = _take(file, into / name, longest)
        lens = lenses.setdefault((size, focal and round(focal), camera), len(lenses))
        photos.append(Photo(name, file.name, copy, *size, focal, lens, place))
        sharp.append(_sharpness(copy))
    # Photos show different things: only a photo far below all others is sure to be blurred.
    limit = 0.12 * float(np.median(sharp))
    return [p if s >= limit else Photo(**{**vars(p), "blurred": True}) for p, s in zip(photos, sharp)]


def _names(files: list[Path]) -> list[str]:
    """Stems, or whole names where two files have one stem."""
    stems = [f.stem for f in files]
    return [f.stem if stems.count(f.stem) == 1 else f.name.replace(".", "_") for f in files]


def _take(file: Path, to: Path, longest: int) -> tuple[Path, tuple[int, int], float | None, str]:
    """The copy, its size, its focal length in pixels and its camera."""
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:  # any other would start other programs, too
            exif = image.getexif()
            turn, width, height = exif.get(_ORIENTATION, 1), *image.size
            focal35 = _number(exif.get_ifd(_EXIF).get(_FOCAL_35MM))
            camera = f"{exif.get(_MAKE, '')} {exif.get(_MODEL, '')}"
            plain = image.mode in ("RGB", "RGBA") and image.format in ("PNG", "JPEG")
            upright = None
            if turn != 1 or max(width, height) > longest or not plain:
                deep = image.mode.startswith(("I", "F"))  # Pillow would clip 16 bits
                upright = _upright(Image.fromarray(read_pixels(file)[0]) if deep else image, longest)
    except SceneError:
        raise
    except Exception:  # Pillow ends in anything; our own reader says what is wrong
        read_pixels(file)
        raise
    copy = to.with_name(to.name + (file.suffix.lower() if upright is None else ".jpg"))
    if upright is None:
        read_pixels(file)  # so that a photo that was cut short ends here
        shutil.copyfile(file, copy)
        size = width, height
    else:
        upright.save(copy, quality=95, subsampling=0)
        size = upright.size
    focal = focal35 / _FILM_DIAGONAL * float(np.hypot(*size)) if focal35 else None
    return copy, size, focal, camera


def _upright(image: Image.Image, longest: int) -> Image.Image:
    turned = ImageOps.exif_transpose(image).convert("RGB")
    shrink = longest / max(turned.size)
    if shrink >= 1:
        return turned
    width, height = (max(1, round(side * shrink)) for side in turned.size)
    return turned.resize((width, height), Image.Resampling.BOX if shrink <= 0.5 else Image.Resampling.LANCZOS)


def _number(value: object) -> float | None:
    """A focal length above 0, from whatever a camera wrote."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return found if np.isfinite(found) and found > 0 else None


def _sharpness(file: Path) -> float:
    with Image.open(file, formats=("PNG", "JPEG")) as image:
        grey = image.convert("L")
        grey.thumbnail((WATCHED, WATCHED), Image.Resampling.BOX)
        return sharpness(np.asarray(grey))
