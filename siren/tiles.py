"""A picture as a mosaic of networks: one for each tile, so that neither its size nor its detail has a limit.

Tiles overlap by a few pixels, across which one network's values fade into the next one's. A picture of one tile is the
usual case. Pixels are read a tile at a time and written a strip at a time: a memory-mapped .npy is never whole in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerf.kernels import Ops
from siren.image import BLOCK, Grid
from siren.loop import FitError
from siren.network import Siren
from siren.store import NETWORK, load_network, save_network

OVERLAP = 8  # pixels that neighbouring tiles share


@dataclass(frozen=True)
class Window:
    """Rows top to bottom and columns left to right of a picture; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def grid(self) -> Grid:
        """Its own pixels."""
        return Grid(self.bottom - self.top, self.right - self.left)

    @property
    def name(self) -> str:
        """Of its folder in a run."""
        return f"{self.top:06d}_{self.left:06d}"


def windows(height: int, width: int, side: int | None) -> list[Window]:
    """Tiles of about `side` pixels, as equal as can be, that cover the picture; None: one for all of it."""
    if side is None:
        return [Window(0, 0, height, width)]
    if side < 4 * OVERLAP:
        raise FitError(f"--tile: expected at least {4 * OVERLAP} pixels, found {side}")
    rows, columns = _spans(height, side), _spans(width, side)
    return [Window(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    count = max(1, math.ceil((length - OVERLAP) / (side - OVERLAP)))
    edges = [round((length - OVERLAP) * i / count) for i in range(count + 1)]
    return [(edges[i], edges[i + 1] + OVERLAP) for i in range(count)]


def folder_of(out: Path, window: Window, alone: bool) -> Path:
    """Where a tile's state and network lie: in the run itself, if there is but one."""
    return out if alone else out / "tiles" / window.name


def save_tile(folder: Path, siren: Siren, window: Window, height: int, width: int, dtype: str) -> int:
    """Write a tile's network with its place in the picture; returns its size in bytes."""
    place = [window.top, window.left, window.bottom, window.right]
    return save_network(folder / NETWORK, siren, {"kind": "image", "picture": [height, width], "window": place}, dtype)


class Mosaic:
    """The picture that one network or several stand for.

    Args:
        height, width: of the photo that they were fitted to, in pixels.
        tiles: networks and their places.
    """

    def __init__(self, height: int, width: int, tiles: list[tuple[Window, Siren]]) -> None:
        self.height, self.width, self.tiles = height, width, tiles
        self.channels = tiles[0][1].config.outputs

    @staticmethod
    def load(source: Path, ops: Ops | None = None) -> Mosaic:
        """Open a network file, or the folder of a run. Raises FitError for one that isn't an image's, or lacks tiles."""
        source = Path(source)
        files = [source] if source.is_file() else sorted(source.glob(f"tiles/*/{NETWORK}")) or [source / NETWORK]
        tiles, size = [], None
        for file in files:
            siren, about = load_network(file, ops)
            window, picture = _placed(about, siren, file)
            if size not in (None, picture):
                raise FitError(f"{file}: picture: expected {size}, as the other tiles say, found {picture}")
            size = picture
            tiles.append((window, siren))
        assert size is not None
        mosaic = Mosaic(*size, tiles)
        mosaic._check(source)
        return mosaic

    def _check(self, source: Path) -> None:
        """Every pixel belongs to a tile (tiles lie on a grid, so their areas and places tell)."""
        rows = sorted({(w.top, w.bottom) for w, _ in self.tiles})
        columns = sorted({(w.left, w.right) for w, _ in self.tiles})
        gap = len(self.tiles) != len(rows) * len(columns)
        for spans, length in ((rows, self.height), (columns, self.width)):
            ends = [0, *(end for _, end in spans)]
            gap |= any(start > end for (start, _), end in zip(spans, ends)) or ends[-1] != length
        if gap:
            raise FitError(f"{source}: expected tiles that cover {self.width} x {self.height} pixels, found a gap")

    def size(self, scale: float) -> Grid:
        """Pixels at `scale` times the photo's resolution."""
        return Grid(self.height, self.width).scaled(scale)

    @torch.no_grad()
    def rows(self, first: int, last: int, scale: float = 1.0) -> Float[Tensor, "h w c"]:
        """Values of rows `first` to `last` (exclusive) at `scale` times the photo's resolution, in [-1, 1] as fitted."""
        grid = self.size(scale)
        y = (torch.arange(first, last) + 0.5) * (self.height / grid.height)
        x = (torch.arange(grid.width) + 0.5) * (self.width / grid.width)
        total = torch.zeros(last - first, grid.width, self.channels)
        weights = torch.zeros(last - first, grid.width, 1)
        for window, siren in self.tiles:
            down = _fade(y, window.top, window.bottom, self.height)
            across = _fade(x, window.left, window.right, self.width)
            r, c = down.nonzero()[:, 0], across.nonzero()[:, 0]
            if not len(r) or not len(c):
                continue
            share = (down[r][:, None] * across[c])[..., None]
            values = _values(siren, window, y[r], x[c])
            total[r[0] : r[-1] + 1, c[0] : c[-1] + 1] += values * share
            weights[r[0] : r[-1] + 1, c[0] : c[-1] + 1] += share
        return total / weights

    def strip(self, scale: float = 1.0) -> int:
        """Rows that are computed at once without much memory."""
        return max(1, 4 * BLOCK // self.size(scale).width)

    def all(self, scale: float = 1.0) -> Float[Tensor, "h w c"]:
        """The whole picture."""
        height, strip = self.size(scale).height, self.strip(scale)
        return torch.cat([self.rows(i, min(i + strip, height), scale) for i in range(0, height, strip)])

    def squared_error(self, pixels: np.ndarray) -> float:
        """Mean squared difference from a photo of "h w c" uint8, on the scale of [-1, 1]."""
        total, strip = 0.0, self.strip()
        for row in range(0, self.height, strip):
            truth = torch.from_numpy(np.array(pixels[row : row + strip])).float() / 127.5 - 1
            total += float((self.rows(row, min(row + strip, self.height)) - truth).double().square().sum())
        return total / (self.height * self.width * self.channels)


def _values(siren: Siren, window: Window, y: Tensor, x: Tensor) -> Tensor:
    """A tile's network at rows y and columns x, which are in the picture's pixels."""
    pitch = window.grid.pitch
    x = (x - (window.left + window.right) / 2) * pitch
    y = (y - (window.top + window.bottom) / 2) * pitch
    points = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1).reshape(-1, 2)
    return torch.cat([siren(block) for block in points.split(BLOCK)]).reshape(len(y), len(x), -1)


def _fade(at: Tensor, start: int, end: int, length: int) -> Tensor:
    """A tile's weight along an axis: 1 inside, falling to 0 across the overlap at edges that another tile shares."""
    inside = (at > start) & (at < end)
    rise = torch.ones_like(at) if start == 0 else ((at - start) / OVERLAP).clamp(0, 1)
    fall = torch.ones_like(at) if end == length else ((end - at) / OVERLAP).clamp(0, 1)
    return rise * fall * inside


def _placed(about: dict[str, Any], siren: Siren, file: Path) -> tuple[Window, tuple[int, int]]:
    picture, place = about.get("picture"), about.get("window")
    numbers = [*(picture if isinstance(picture, list) else []), *(place if isinstance(place, list) else [])]
    if about.get("kind") != "image" or len(numbers) != 6 or not all(isinstance(n, int) for n in numbers):
        raise FitError(f"{file}: about: expected an image's size and window, found {str(about)[:80]}")
    height, width, top, left, bottom, right = numbers
    if not (0 <= top < bottom <= height <= 1 << 24 and 0 <= left < right <= width <= 1 << 24):
        raise FitError(f"{file}: window: expected a part of {width} x {height} pixels, found {place}")
    if siren.config.inputs != 2 or siren.config.outputs not in (1, 3):
        found = f"{siren.config.inputs} and {siren.config.outputs}"
        raise FitError(f"{file}: config: expected 2 inputs and 1 or 3 outputs, found {found}")
    return Window(top, left, bottom, right), (height, width)
