"""Image files to uint8 arrays: every PNG and JPEG flavour, area-averaged, composited on a background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.errors import SceneError, mismatch

EXTENSIONS = (".png", ".jpg", ".jpeg")
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF orientations that swap width and height
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def image_size(path: Path) -> tuple[int, int]:
    """Stored width and height in pixels, from the header alone. Raises SceneError as `read_pixels` does."""
    return _guarded(path, lambda image: image.size)


def has_opacity(path: Path) -> bool:
    """Whether a photo has an alpha channel, or a transparent colour, from the header alone. Raises as `read_pixels` does."""
    return _guarded(path, _see_through)


def read_pixels(path: Path, lens_size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours "h w 3" and opacity "h w" (None: the file has none), both uint8.

    Reads 1, 8 and 16 bits, gray, gray with alpha, palette, RGB, RGBA and CMYK. Rows and columns are as stored: poses
    and intrinsics are measured there, and most tools that write them ignore the EXIF orientation. It is applied
    only where it swaps the sides and `lens_size` (width, height, of the camera model) says that it was.

    Raises SceneError for a file that is missing, cut short, not an image, of an unreadable kind, or too large for
    Pillow's limit on decompression.
    """

    def decode(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
        turn = image.getexif().get(_ORIENTATION, 1)
        image.load()
        if turn in _TURNED and lens_size is not None and _wide(image.size) * _wide(lens_size) < 0:
            image = image.transpose(_TURNS[turn])
        return _to_uint8(image, path)

    return _guarded(path, decode)


def read_mask(path: Path) -> np.ndarray:
    """A mask file, "h w" uint8: its alpha where it has one, else its brightness. Raises as `read_pixels` does."""
    rgb, opacity = read_pixels(path)
    return rgb.max(-1) if opacity is None else opacity


def area_average(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize float or uint8 "h w c" to "height width c" float32: each output pixel is the mean over the area that
    it covers, with exact weights at fractional edges. Enlarging repeats pixels."""
    rows, columns = pixels.shape[:2]
    if rows == height and columns == width:
        return pixels.astype(np.float32)
    if rows % height == 0 and columns % width == 0:
        blocks = pixels.reshape(height, rows // height, width, columns // width, -1)
        if pixels.dtype == np.uint8:  # integer sums are exact and faster
            total = blocks.sum(axis=1, dtype=np.uint32).sum(axis=2, dtype=np.uint32)
            return (total / np.float32(rows // height * (columns // width))).astype(np.float32)
        return blocks.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)
    return _average_rows(_average_rows(pixels, height).swapaxes(0, 1), width).swapaxes(0, 1).astype(np.float32)


PLAIN = 2  # gray levels by which a plain background's pixels may differ from its colour


def border(photo: np.ndarray) -> np.ndarray:
    """The colours along the edges of "h w 3", "n 3"."""
    return np.concatenate([photo[0], photo[-1], photo[1:-1, 0], photo[1:-1, -1]])


def plain_background(borders: Sequence[np.ndarray]) -> tuple[int, int, int] | None:
    """The one colour behind an object that no photo's edge cuts, or None.

    Args:
        borders: each photo's colours along its edges, "n 3" uint8.

    Returns:
        the median of the photos' border pixels, where it is the colour of 95 % of them, and of half of every photo's.
    """
    edges = [b.astype(np.int16) for b in borders]
    pixels = np.concatenate(edges)
    colour = np.median(pixels, axis=0)
    shares = [float((np.abs(edge - colour) <= PLAIN).all(-1).mean()) for edge in (pixels, *edges)]
    if shares[0] < 0.95 or min(shares[1:]) < 0.5:
        return None
    red, green, blue = colour.round().astype(int).tolist()
    return red, green, blue


def composite(rgb: np.ndarray, opacity: np.ndarray | None, background: float) -> np.ndarray:
    """Straight-alpha colours over a gray level in [0, 1], "h w 3", in [0, 255]. Mixing is linear, so averaging the
    composite is averaging premultiplied colours: what is behind a transparent pixel never leaks into an edge."""
    if opacity is None:
        return rgb
    a = opacity[..., None].astype(np.float32) / 255
    return rgb * a + (1 - a) * (255 * background)


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Round and clip to [0, 255]."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _average_rows(pixels: np.ndarray, count: int) -> np.ndarray:
    """Mean over `count` equal spans of the first axis, from differences of its running sum."""
    rows = pixels.shape[0]
    total = np.zeros((rows + 1, *pixels.shape[1:]))
    np.cumsum(pixels, axis=0, dtype=np.float64, out=total[1:])
    edges = np.linspace(0, rows, count + 1)
    whole = np.minimum(edges.astype(int), rows - 1)
    part = (edges - whole).reshape(-1, *[1] * (pixels.ndim - 1))
    at_edges = total[whole] * (1 - part) + total[whole + 1] * part
    return np.diff(at_edges, axis=0) * (count / rows)


def _wide(size: tuple[int, int]) -> int:
    return (size[0] > size[1]) - (size[0] < size[1])


def _see_through(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _to_uint8(image: Image.Image, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode.startswith("I"):  # 16-bit gray; Pillow would clip it to 255, not scale it
        gray = np.asarray(image).astype(np.float64)
        if gray.min() < 0 or gray.max() > 65535:
            raise mismatch(path, "pixels", "8 or 16 bits a channel", f"values from {gray.min()} to {gray.max()}")
        return np.repeat(to_uint8(gray / 257)[..., None], 3, -1), None
    if _see_through(image):
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3].copy(), rgba[..., 3].copy()
    return np.asarray(image.convert("RGB")).copy(), None


def _guarded(path: Path, use: Callable):
    try:
        # Pillow would open any other kind by a photo's name too, PostScript with another program's help.
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return use(image)
    except FileNotFoundError:
        raise mismatch(path, "image", "a file", "none") from None
    except SceneError:
        raise
    except Image.DecompressionBombError as error:
        raise mismatch(path, "image size", f"at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels", str(error)) from None
    except UnidentifiedImageError:
        raise mismatch(path, "image", "a PNG or JPEG", f"{path.stat().st_size} bytes of something else") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise mismatch(path, "image", "a whole PNG or JPEG", f"a broken one ({error})") from None
    except MemoryError:
        raise mismatch(path, "image", "one that fits in memory", "a larger one") from None
