"""Images as signals: reading, coordinates, sampling a network at any size, and the network as the image's file.

Coordinates are (x, y) with the longer side from -1 to 1, pixel centres inside it, y down; values are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from data.errors import shown
from data.images import composite, read_pixels, to_uint8
from siren.loop import FitError

BLOCK = 1 << 16  # points at once: what sampling needs of memory doesn't grow with the picture
LARGEST = 1 << 22  # pixels of a picture whose derivatives are fitted
NAMED = ("cameraman", "astronaut", "cat", "coffee", "coins", "moon", "page", "rocket", "text")


@dataclass(frozen=True)
class Grid:
    """The pixel centres of a picture of `height` x `width`."""

    height: int
    width: int

    @property
    def pitch(self) -> float:
        """Distance between pixel centres, in coordinate units."""
        return 2 / max(self.height, self.width)

    @property
    def extent(self) -> Float[Tensor, "2"]:
        """The coordinates x and y of its right and lower edge."""
        return torch.tensor([self.width, self.height]) * (self.pitch / 2)

    def __len__(self) -> int:
        return self.height * self.width

    def points(self, indices: Tensor) -> Float[Tensor, "p 2"]:
        """Coordinates of pixels, counted along rows."""
        rows, columns = indices // self.width, indices % self.width
        x = (columns + 0.5 - self.width / 2) * self.pitch
        y = (rows + 0.5 - self.height / 2) * self.pitch
        return torch.stack([x, y], -1).float()

    def all_points(self) -> Float[Tensor, "p 2"]:
        """Coordinates of every pixel, along rows."""
        return self.points(torch.arange(len(self)))

    def within(self, window: tuple[float, float, float, float], shown: Grid) -> Float[Tensor, "p 2"]:
        """Coordinates of the pixels of another picture, along its rows, that covers a part of this one.

        Args:
            window: the part's left, top, right and bottom, as shares of this picture's width and height.
        """
        left, top, right, bottom = window
        x = left + (torch.arange(shown.width, dtype=torch.float64) + 0.5) * ((right - left) / shown.width)
        y = top + (torch.arange(shown.height, dtype=torch.float64) + 0.5) * ((bottom - top) / shown.height)
        x, y = (x - 0.5) * (self.width * self.pitch), (y - 0.5) * (self.height * self.pitch)
        return torch.stack([x.expand(shown.height, -1), y[:, None].expand(-1, shown.width)], -1).reshape(-1, 2).float()

    def scaled(self, factor: float) -> Grid:
        """The grid of the same picture at `factor` times the resolution."""
        return Grid(max(1, round(self.height * factor)), max(1, round(self.width * factor)))


def check_size(source: Path | str, height: int, width: int) -> None:
    """Raise FitError for a picture whose derivatives, several float64 arrays of four times its size, would not fit in memory."""
    if height * width > LARGEST:
        raise FitError(
            f"{source}: size: expected at most {LARGEST} pixels for derivatives, found {width} x {height}; see --size"
        )


def default_budget(seconds: float, grid: Grid) -> float:
    """How long a fit takes by default: `seconds` for up to 256 x 256 pixels, more for larger ones, at most five minutes."""
    return min(seconds * max(1.0, len(grid) / 65536), 300.0)


def first_frequency(side: int) -> float:
    """The first layer's omega for a picture of that many pixels: 30 for 128, as the finest detail has it.

    Measured on cameraman at 256, after 15 s: 41 dB with 30, 48.5 with 60, 52 with 90, which is no longer smooth in between.
    """
    return min(max(30.0, 30 * side / 128), 240.0)


def read_image(source: Path | str, size: int | None = None, gray: bool = False) -> UInt8[np.ndarray, "h w c"]:
    """An image file's pixels, or one of scikit-image's pictures by its name (`NAMED`); one channel where it is gray.

    Args:
        source: PNG, JPEG, a memory-mapped .npy of uint8 ("h w" or "h w c"), or a name. Transparent images are put on white.
        size: longer side to resize to (antialiased); None keeps it.
        gray: reduce colours to their luma.

    Raises:
        FitError, SceneError: a source that can't be read, with the sentence that says why.
    """
    path = Path(source)
    if not path.exists() and str(source) in NAMED:
        pixels = _named(str(source))
    elif path.suffix == ".npy":
        pixels = _mapped(path)
    else:
        pixels = to_uint8(composite(*read_pixels(path), 1.0))
    return prepared(pixels, size, gray)


def prepared(
    pixels: UInt8[np.ndarray, "h w c"], size: int | None = None, gray: bool = False
) -> UInt8[np.ndarray, "H W C"]:
    """Pixels resized, and of one channel where they are gray or shall be; arguments as `read_image`."""
    if size is not None and size != max(pixels.shape[:2]):
        pixels = _resized(pixels, size)
    if pixels.shape[2] == 3 and (gray or (pixels.size < 1 << 28 and (np.ptp(pixels, axis=2) == 0).all())):
        pixels = to_uint8(pixels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    return pixels


def _named(name: str) -> np.ndarray:
    try:
        import skimage.data
    except ImportError:
        raise FitError(f"{name}: expected a file, or scikit-image for its pictures: pip install scikit-image") from None
    pixels = np.asarray(getattr(skimage.data, "camera" if name == "cameraman" else name)())
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _mapped(path: Path) -> np.ndarray:
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's reader ends in anything from EOFError to tokenize.TokenError
        found = shown(str(error))
        raise FitError(f"{path}: expected an array of pixels (.npy), found a broken one: {found}") from None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise FitError(f"{path}: expected uint8 of shape h w, h w 1 or h w 3, found {pixels.dtype} {pixels.shape}")
    return pixels


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    if not 1 <= size <= 1 << 15:
        raise FitError(f"--size: expected 1 to {1 << 15} pixels, found {size}")
    scale = size / max(pixels.shape[:2])
    return stretched(pixels, *(max(1, round(n * scale)) for n in pixels.shape[:2]))


def stretched(pixels: UInt8[np.ndarray, "h w c"], height: int, width: int) -> UInt8[np.ndarray, "H W c"]:
    """Pixels at another size, antialiased."""
    if pixels.shape[:2] == (height, width):
        return pixels
    resized = np.asarray(as_image(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return resized[..., None] if resized.ndim == 2 else resized


def as_image(pixels: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    """Pixels of one or three channels as Pillow has them."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def to_signal(pixels: UInt8[np.ndarray, "h w c"]) -> Float[Tensor, "h w c"]:
    """Pixels as values in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).float() / 127.5 - 1


def to_pixels(values: Float[Tensor, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    """Values in [-1, 1] as pixels, clipped."""
    return to_uint8((values.numpy() + 1) * 127.5)


@torch.no_grad()
def sample(network: Callable[[Tensor], Tensor], grid: Grid) -> Float[Tensor, "h w c"]:
    """A network's values at every pixel of `grid`, in blocks."""
    blocks = torch.arange(len(grid)).split(BLOCK)
    return torch.cat([network(grid.points(block)) for block in blocks]).reshape(grid.height, grid.width, -1)


def save_picture(path: Path, values: Float[Tensor, "h w c"]) -> None:
    """Write values in [-1, 1] as an image whose format is the file's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    as_image(to_pixels(values)).save(path)
