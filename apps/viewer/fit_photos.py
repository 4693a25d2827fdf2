"""A photo that somebody drops on the page, from bytes that may be anything, and the one that ships with the project."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

import data
from data.images import composite, to_uint8
from siren.image import prepared
from siren.loop import FitError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # what cameras and screens make; the others' readers stay shut
LARGEST = 64_000_000  # pixels, as the header tells before anything is unpacked
SMALLEST = 8  # pixels of the shorter side as it is fitted
_ONE = threading.BoundedSemaphore(2)  # unpacked photos at once


class Photo(NamedTuple):
    """Pixels as they are fitted, and the width and height that the file had."""

    pixels: UInt8[np.ndarray, "h w c"]
    original: tuple[int, int]


def read_photo(content: bytes, longest: int, name: str = "the image") -> Photo:
    """An image file's pixels as a person sees them: turned as EXIF says, on white where transparent, of one channel where
    gray, and the longer side of at most `longest` pixels.

    Raises:
        FitError: anything else than an image of reasonable size, with the sentence that says why.
    """
    try:
        with _ONE, Image.open(io.BytesIO(content), formats=FORMATS) as image:
            original, pixels = _unpacked(image, longest, name)
    except FitError:
        raise
    except UnidentifiedImageError:
        kinds = "expected a PNG, JPEG, WebP, GIF or BMP file"
        raise FitError(f"{name}: {kinds}, found {len(content)} bytes of something else") from None
    except Image.DecompressionBombError:
        raise FitError(f"{name}: expected at most {LARGEST // 1_000_000} megapixels, found many more") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError) as error:
        # Pillow's readers raise all of these for broken files.
        raise FitError(f"{name}: expected a whole image file, found a broken one ({str(error)[:80]})") from None
    pixels = prepared(pixels, min(longest, max(pixels.shape[:2])))
    if min(pixels.shape[:2]) < SMALLEST:
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise FitError(f"{name}: expected at least {SMALLEST} pixels along each side, found {found}")
    return Photo(pixels, original)


def _unpacked(image: Image.Image, longest: int, name: str) -> tuple[tuple[int, int], np.ndarray]:
    """The file's size, and its first frame's pixels, perhaps smaller than in the file but still `longest` or more."""
    width, height = image.size
    if width * height > LARGEST:
        found = f"{width} x {height}"
        raise FitError(f"{name}: expected at most {LARGEST // 1_000_000} megapixels, found {found} pixels")
    image.draft(None, (longest, longest))  # JPEGs unpack at a fraction of their size, at a fraction of the cost
    turned = ImageOps.exif_transpose(image)
    original = (width, height) if (turned.width > turned.height) == (width > height) else (height, width)
    if turned.mode.startswith("I"):  # 16 bits: Pillow would clip, not scale
        gray = np.asarray(turned).astype(np.float64) / 257
        return original, np.repeat(to_uint8(gray)[..., None], 3, -1)
    if turned.mode == "F":
        raise FitError(f"{name}: expected 8 or 16 bits a channel, found floating point")
    if turned.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in turned.info:
        rgba = np.asarray(turned.convert("RGBA"))
        return original, to_uint8(composite(rgba[..., :3], rgba[..., 3], 1.0))
    return original, np.asarray(turned.convert("RGB"))


def example() -> Path | None:
    """A photo of the scene that ships, where its folder is at hand."""
    for root in (Path("data"), *(Path(place) for place in data.__path__)):
        photos = sorted((root / "selfie" / "rgb" / "1x").glob("*.jpg"))
        if photos:
            return photos[len(photos) // 2]
    return None
