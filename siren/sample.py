"""Open an image's network again and draw it at any size: `python -m siren.sample runs/siren-photo --scale 4`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from tqdm import tqdm

from siren import command
from siren.image import save_picture, to_pixels
from siren.loop import FitError
from siren.tiles import Mosaic

LARGEST = 1 << 28  # numbers of a picture that is made in memory


@dataclass(frozen=True)
class Options:
    """Draw the picture that a network stands for, at any resolution.

    Example: python -m siren.sample runs/siren-cameraman --scale 4 --out large.png
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A network.safetensors, or the folder of a fit."""
    scale: float = 1.0
    """Times the photo's resolution."""
    crop: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom of the part to draw, as shares of the picture in [0, 1]."""
    out: Path = Path("sample.png")
    """Image file to write; .npy is written strip by strip and may be larger than memory."""
    backend: str = "auto"
    """Kernels: auto, reference or cpu."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    command.run(Options, draw, "siren.sample", arguments)


def draw(options: Options) -> None:
    """Draw the picture into a file."""
    if not 0 < options.scale <= 1024:
        raise FitError(f"--scale: expected a number above 0 and up to 1024, found {options.scale}")
    crop = options.crop or (0.0, 0.0, 1.0, 1.0)
    if not (0 <= crop[0] < crop[2] <= 1 and 0 <= crop[1] < crop[3] <= 1):
        raise FitError(f"--crop: expected left < right and top < bottom in [0, 1], found {crop}")
    mosaic = Mosaic.load(options.source, command.backend(options.backend))
    grid = mosaic.size(options.scale)
    left, right = round(crop[0] * grid.width), max(round(crop[2] * grid.width), round(crop[0] * grid.width) + 1)
    top, bottom = round(crop[1] * grid.height), max(round(crop[3] * grid.height), round(crop[1] * grid.height) + 1)
    shape = (bottom - top, right - left, mosaic.channels)
    mapped = options.out.suffix == ".npy"
    if not mapped and np.prod(shape) > LARGEST:
        raise FitError(
            f"--out {options.out}: expected .npy for {shape[1]} x {shape[0]} pixels, found {options.out.suffix}"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if mapped:
        target = np.lib.format.open_memmap(options.out, "w+", np.uint8, shape)
    strip, rows = mosaic.strip(options.scale), []
    for row in tqdm(range(top, bottom, strip), desc="draw", unit="strip", dynamic_ncols=True, leave=False):
        values = mosaic.rows(row, min(row + strip, bottom), options.scale)[:, left:right]
        if mapped:
            target[row - top : row - top + len(values)] = to_pixels(values)
        else:
            rows.append(values)
    if not mapped:
        save_picture(options.out, torch.cat(rows))
    print(f"{options.out}: {shape[1]} x {shape[0]} pixels")


if __name__ == "__main__":
    main()
