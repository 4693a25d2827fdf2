"""Fit an image with a SIREN: `python -m siren.fit photo.jpg`.

From its values, from its gradient alone, or from its Laplacian alone (Sitzmann et al. 2020, section 4.1).
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nerf.kernels import Ops
from nerf.kernels.cpu_library import multiplies_bfloat16
from siren import command
from siren.baselines import derivatives
from siren.compare import compare
from siren.differences import image_gradient, image_laplacian, without_constant, without_plane
from siren.figures import gradient_colors, gradient_scale, laplacian_grays, laplacian_scale, picture, sheet
from siren.image import (
    BLOCK,
    Grid,
    as_image,
    check_size,
    default_budget,
    first_frequency,
    read_image,
    sample,
    save_picture,
    to_signal,
)
from siren.loop import STATE, FitError, Progress, Schedule, fit
from siren.network import Siren, SirenConfig
from siren.objectives import objective
from siren.tiles import Mosaic, Window, folder_of, save_tile, windows

SHOWN = 1024  # pixels of the longer side up to which the figure shows derivatives


@dataclass(frozen=True)
class Options:
    """Fit an image with a sinusoidal network, from its values, its gradient or its Laplacian.

    Example: python -m siren.fit photo.jpg --out runs/photo
    """

    image: Annotated[str, tyro.conf.Positional]
    """PNG, JPEG, .npy of uint8 (memory-mapped), or a picture of scikit-image by name: cameraman, astronaut, cat, ..."""
    target: Literal["image", "gradient", "laplacian"] = "image"
    """What of the image is known: everything else follows from it."""
    preset: Literal["fast", "paper"] = "fast"
    """fast: random pixels, high rates that fall, bfloat16 where the processor multiplies it, and derivatives also by what they
    add up to over distances. paper: all pixels, Adam 1e-4, the paper's losses."""
    steps: int | None = None
    """Steps. Default for paper: 500."""
    budget: str | None = None
    """Or a time such as 15s or 5m. Default for fast: 15s for 256 x 256 pixels (60s for derivatives), more for larger ones, at most
    5m a tile."""
    size: int | None = None
    """Resize the longer side to this many pixels first."""
    gray: bool = False
    """Drop the colours."""
    tile: int | None = None
    """One network for each tile of about this many pixels: for pictures larger than memory or than one network's detail."""
    width: int = 256
    """Of the hidden layers."""
    layers: int = 4
    """Layers that end in a sine."""
    omega: float = 30.0
    """Frequency of the sines."""
    first_omega: float | None = None
    """Of the first layer's. Default: 30 for paper; for fast it grows with the image, from 60 at 256 pixels."""
    rate: float | None = None
    """Adam's learning rate. Default: 1e-4 for paper, 1e-3 for fast, 3e-4 for derivatives."""
    batch: int | None = None
    """Pixels a step. Default: all for paper, 8192 for fast, 4096 for derivatives."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products; sums are float32. auto: bfloat16 for fast where the processor has it and values are fitted."""
    store: Literal["float16", "bfloat16", "float32"] = "float16"
    """Of the network's file."""
    compare: bool = False
    """Fit ReLU networks with and without encodings and a hash grid too, for the same time, and make the paper's figure."""
    out: Path | None = None
    """The fit's folder. Default: runs/siren-<image>."""
    resume: bool = False
    """Go on with the fit in that folder."""
    backend: str = "auto"
    """Kernels: auto, reference or cpu."""
    seed: int = 0
    """Of everything random."""


def plan(options: Options, grid: Grid) -> tuple[SirenConfig, Schedule, int | None]:
    """The network without its outputs, the schedule and the batch for a picture (or tile) of that size."""
    fast, longest = options.preset == "fast", max(grid.height, grid.width)
    first = options.first_omega or (first_frequency(longest) if fast else options.omega)
    config = SirenConfig(2, 1, options.width, options.layers, options.omega, first)
    image = options.target == "image"
    default = Schedule(None, default_budget(15.0 if image else 60.0, grid)) if fast else Schedule(500)
    steps, budget = command.length(options.steps, options.budget, default)
    rate = options.rate or (1e-4 if not fast else 1e-3 if image else 3e-4)
    if options.batch is not None and options.batch < 1:
        raise FitError(f"--batch: expected at least 1 pixel, found {options.batch}")
    schedule = Schedule(steps, budget, rate, *((0.01, 20) if fast else (1.0, 0)), options.seed)
    return config, schedule, options.batch or (None if not fast else 8192 if image else 4096)


def precision(options: Options, ops: Ops) -> str:
    """What the products are of. Raises FitError for bfloat16 on a machine without it."""
    can = ops.name == "cpu" and multiplies_bfloat16()
    if options.precision == "bfloat16" and not can:
        raise FitError("--precision bfloat16: expected backend cpu on a processor that multiplies it, found another")
    if options.precision == "auto":
        return "bfloat16" if can and options.preset == "fast" and options.target == "image" else "float32"
    return options.precision


def start(
    options: Options, ops: Ops, values: Float[Tensor, "h w c"], out: Path | None = None, resume: bool = False
) -> tuple[Siren, Generator[Progress, None, None]]:
    """A network for a picture (or tile) with values in [-1, 1], and its fit, which takes a step whenever it is asked to.

    Args:
        out, resume: as `siren.loop.fit` has them.
    """
    config, schedule, batch = plan(options, Grid(*values.shape[:2]))
    config = dataclasses.replace(config, outputs=values.shape[2])
    siren = Siren(config, ops, torch.Generator().manual_seed(options.seed), precision(options, ops))
    finer, spans = (2, 1.0) if options.preset == "fast" else (1, 0.0)
    target = objective(siren, values, options.target, batch, finer, spans)
    return siren, fit(siren, target, schedule, out, resume)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    command.run(Options, fit_image, "siren.fit", arguments)


def fit_image(options: Options) -> None:
    """Fit the picture, tile by tile, and write what came of it."""
    ops = command.backend(options.backend)
    pixels = read_image(options.image, options.size, options.gray)
    height, width, channels = pixels.shape
    if options.tile is not None and options.target != "image":
        raise FitError(f"--tile: expected --target image, found {options.target}: tiles' brightness would not fit")
    if options.tile is not None and options.compare:
        raise FitError("--compare, --tile: expected one of them, found both: what is compared is one network a picture")
    if options.target != "image":
        check_size(options.image, height, width)
    out = options.out or Path("runs") / f"siren-{Path(options.image).stem}"
    parts = windows(height, width, options.tile)
    alone = len(parts) == 1
    print(f"{options.image}: {width} x {height}, {channels} channel(s), {len(parts)} network(s) -> {out}")
    fitted = []
    for number, window in enumerate(parts, 1):
        name = options.target if alone else f"tile {number} of {len(parts)}"
        fitted.append(_fit_tile(options, ops, pixels, window, out, name))
    tiles = [(window, tile.siren) for window, tile in zip(parts, fitted)]
    steps, seconds = sum(tile.last.step for tile in fitted), sum(tile.last.seconds for tile in fitted)
    for _, siren in tiles:
        siren.precision = "float32"
    mosaic = Mosaic(height, width, tiles)
    metrics = _measure(options, mosaic, pixels, out) | {
        "preset": options.preset, "target": options.target, "height": height, "width": width, "channels": channels,
        "steps": steps, "seconds": seconds, "backend": ops.name, "tiles": len(parts),
        "steps_per_second": steps / max(seconds, 1e-9),
        "parameters": sum(p.numel() for _, siren in tiles for p in siren.parameters()),
    }  # fmt: skip
    metrics |= _sizes(pixels, sum(tile.size for tile in fitted))
    if alone and fitted[0].curve:
        metrics["curve"] = fitted[0].curve  # step, seconds, PSNR of that step's pixels
    _figure(mosaic, pixels, options.target, out / "figure.png")
    if options.compare:
        config, _, _ = plan(options, parts[0].grid)
        metrics["compare"] = compare(to_signal(pixels), config, ops, seconds, options.seed, out)
    command.write_metrics(out, metrics)
    print(_summary(metrics, out))


class Fitted(NamedTuple):
    """A tile's network, where its fit ended, the curve until then, and the bytes of its file."""

    siren: Siren
    last: Progress
    curve: list[list[float]]
    size: int


def _fit_tile(options: Options, ops: Ops, pixels: np.ndarray, window: Window, out: Path, name: str) -> Fitted:
    height, width = pixels.shape[:2]
    alone = len(window.grid) == height * width
    folder = folder_of(out, window, alone)
    values = to_signal(pixels[window.top : window.bottom, window.left : window.right])
    resume = options.resume and (alone or (folder / STATE).is_file())
    siren, progress = start(options, ops, values, folder, resume)
    curve: list[list[float]] = []
    last = command.follow(progress, name, f"Go on with the same command, --out {out} and --resume", curve)
    return Fitted(siren, last, curve, save_tile(folder, siren, window, height, width, options.store))


def _measure(options: Options, mosaic: Mosaic, pixels: np.ndarray, out: Path) -> dict[str, Any]:
    """PSNR of the fit, what derivatives leave open taken from the photo, and of the file as it is opened again."""
    if options.target == "image":
        stored = Mosaic.load(out, mosaic.tiles[0][1].ops)
        if mosaic.height * mosaic.width <= 1 << 26:
            save_picture(out / "fitted.png", mosaic.all())
        return {
            "psnr": command.decibels(mosaic.squared_error(pixels)),
            "psnr_file": command.decibels(stored.squared_error(pixels)),
        }
    values = to_signal(pixels)
    found = sample(mosaic.tiles[0][1], Grid(mosaic.height, mosaic.width))
    free = without_constant if options.target == "gradient" else without_plane
    fitted = free(found, values)
    save_picture(out / "fitted.png", fitted)
    return {"psnr": command.decibels((fitted - values).square().mean())}


def _sizes(pixels: np.ndarray, network: int) -> dict[str, Any]:
    """Bytes of the network's file and of the picture as PNG and as JPEG (quality 90), where that is quickly made."""
    sizes: dict[str, Any] = {"bytes": {"network": network}}
    if pixels.size <= 1 << 26:
        image = as_image(pixels)
        for kind, more in (("png", {"optimize": True}), ("jpeg", {"quality": 90})):
            data = io.BytesIO()
            image.save(data, kind, **more)
            sizes["bytes"][kind] = len(data.getvalue())
            if kind == "jpeg":
                again = np.asarray(Image.open(data)).reshape(pixels.shape).astype(np.float32)
                square = float(np.mean((again - pixels) ** 2)) / 127.5**2
                sizes["psnr_jpeg"] = command.decibels(square)
    return sizes


def _figure(mosaic: Mosaic, pixels: np.ndarray, target: str, file: Path) -> None:
    """Photo, gradient and Laplacian above those of the network (the paper's figures 1 and 2)."""
    if max(pixels.shape[:2]) > SHOWN or len(mosaic.tiles) > 1:
        return
    values, grid = to_signal(pixels), Grid(*pixels.shape[:2])
    siren = mosaic.tiles[0][1]
    found = sample(siren, grid)
    if target != "image":
        found = (without_constant if target == "gradient" else without_plane)(found, values)
    parts = [derivatives(siren, points) for points in grid.all_points().split(BLOCK)]
    gradient = torch.cat([part[0] for part in parts]).reshape(*values.shape, 2)
    laplacian = torch.cat([part[1] for part in parts]).reshape(values.shape)
    true_gradient, true_laplacian = image_gradient(values, grid.pitch), image_laplacian(values, grid.pitch)
    length, bend = gradient_scale(true_gradient), laplacian_scale(true_laplacian)
    quality = command.decibels((found - values).square().mean())
    above = [
        (picture(values), "photo"),
        (gradient_colors(true_gradient, length), "its gradient"),
        (laplacian_grays(true_laplacian, bend), "its Laplacian"),
    ]
    below = [
        (picture(found), f"SIREN, {quality:.2f} dB"),
        (gradient_colors(gradient, length), "its gradient"),
        (laplacian_grays(laplacian, bend), "its Laplacian"),
    ]
    sheet([above, below], file, f"fitted to the {'values' if target == 'image' else target}")


def _summary(metrics: dict[str, Any], out: Path) -> str:
    sizes = ", ".join(f"{name} {size / 1024:.0f} KiB" for name, size in metrics["bytes"].items())
    stored = f" ({metrics['psnr_file']:.2f} dB as stored)" if "psnr_file" in metrics else ""
    names = ("fitted.png", "figure.png", "compare.png", "network.safetensors", "tiles", "metrics.json")
    written = [name for name in names if (out / name).exists()]
    return (
        f"{metrics['psnr']:.2f} dB{stored} after {metrics['steps']} steps in {metrics['seconds']:.1f} s; {sizes};"
        f" {out}: {', '.join(written)}"
    )


if __name__ == "__main__":
    main()
