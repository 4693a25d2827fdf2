"""A film as a network (Sitzmann et al. 2020, section 4.3): `python -m siren.video CLIP.mp4 --out DIR`.

The network maps (x, y, t) to a colour, all in [-1, 1]: x and y at the centres of pixels, the longer side of the picture
from -1 to 1, and t at the middles of frames. It learns from random pixels of random frames, which stay in memory as
bytes. PSNR is 10 log10(4 / mean squared error) of a frame in [-1, 1], which for [0, 1] is 10 log10(1 / mse).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from data.errors import shown
from data.films import write_video
from nerf.kernels import Ops
from siren.command import backend, decibels, follow, length, run, write_metrics
from siren.loop import FitError, Objective, Progress, Schedule, fit
from siren.made import make_film
from siren.network import Siren, SirenConfig
from siren.signal_io import Film, check_memory, make_folder, read_film
from siren.store import NETWORK, load_network, save_network
from siren.video_plot import plot_film

RATE, BATCH = 3e-4, 2048
FIRST_OMEGA = 30.0
DEFAULT = Schedule(None, 120.0, RATE, final=0.05)
CHUNK = 1 << 16  # pixels evaluated at once
MOST = 10**13  # pixels of a film in a file: hours of 8K


@dataclass(frozen=True)
class Options:
    """Fit a SIREN to a film.

    Example: python -m siren.video example --budget 2m --out runs/shapes
    """

    film: tyro.conf.Positional[str]
    """A film's file, or `example`: 64 frames of 128 x 128 that this project makes."""
    out: Path | None = None
    """Folder of the results. Default: runs/<the film's name>."""
    steps: int | None = None
    """Fit for this many steps."""
    budget: str | None = None
    """Fit for this long instead: 90s, 5m. Default: 2m."""
    frames: int | None = None
    """Take the first so many frames."""
    downscale: int = 1
    """Reduce both sides by this whole factor."""
    fps: float | None = None
    """Also write sampled.mp4, the fit at this many frames a second."""
    scale: float | None = None
    """Also write sampled.mp4, the fit with both sides this many times as long."""
    first_omega: float = FIRST_OMEGA
    """Frequency of the first layer: the higher, the finer the details that come first."""
    width: int = 256
    """Of the layers."""
    layers: int = 4
    """Layers that end in a sine."""
    batch: int = BATCH
    """Pixels in a step."""
    rate: float = RATE
    """Learning rate."""
    store: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the network's file."""
    resume: bool = False
    """Go on with the fit in that folder."""
    backend: str = "auto"
    """Kernels: auto, reference or cpu."""
    seed: int = 0
    """Of everything random."""


def coordinates(index: Int[Tensor, " n"], frames: int, height: int, width: int) -> Float[Tensor, "n 3"]:
    """(x, y, t) of pixels counted row by row, frame after frame."""
    longer = max(height, width)
    x = (2 * (index % width) + 1 - width).float() / longer
    y = (2 * (index // width % height) + 1 - height).float() / longer
    t = (2 * (index // (width * height)) + 1 - frames).float() / frames
    return torch.stack((x, y, t), -1)


def objective(siren: Siren, frames: UInt8[np.ndarray, "f h w 3"], batch: int) -> Objective:
    """Mean squared error in [-1, 1] (section 4.3) at `batch` random pixels of random frames."""
    if batch < 1:
        raise FitError(f"--batch: expected at least 1, found {batch}")
    count, height, width, _ = frames.shape
    colours = torch.from_numpy(np.ascontiguousarray(frames)).view(-1, 3)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        picked = torch.randint(len(colours), (batch,), generator=generator)
        target = colours[picked].float() / 127.5 - 1
        error = siren.squared_error(coordinates(picked, count, height, width), target)
        return error, {"psnr": decibels(error.detach())}

    return loss


def fit_film(
    frames: UInt8[np.ndarray, "f h w 3"],
    config: SirenConfig | None = None,
    schedule: Schedule | None = None,
    ops: Ops | None = None,
    batch: int = BATCH,
    out: Path | None = None,
    resume: bool = False,
) -> tuple[Siren, Generator[Progress, None, None]]:
    """A network for a film, and the fit, which runs as it is iterated.

    Args:
        config: its shape, 3 inputs and 3 outputs; None: 4 layers of 256, first omega 30.
        schedule: None: two minutes.
        out, resume: as `siren.loop.fit` takes them.

    Example:
        >>> siren, steps = fit_film(read_film(Path("clip.mp4")).frames)  # doctest: +SKIP
        >>> for progress in steps: ...  # doctest: +SKIP
        >>> slow = sample_film(siren, 240, 128, 128)  # doctest: +SKIP
    """
    if not frames.size:
        raise FitError(f"film: expected at least one pixel, found frames of shape {frames.shape}")
    config = config or SirenConfig(3, 3, first_omega=FIRST_OMEGA)
    if (config.inputs, config.outputs) != (3, 3):
        raise FitError(f"network: expected 3 inputs and 3 outputs, found {config.inputs} and {config.outputs}")
    schedule = schedule or DEFAULT
    siren = Siren(config, ops, torch.Generator().manual_seed(schedule.seed))
    return siren, fit(siren, objective(siren, frames, batch), schedule, out, resume)


def sample_film(siren: Siren, frames: int, height: int, width: int) -> Iterator[Float[np.ndarray, "h w 3"]]:
    """A network as frames in [0, 1], evenly over the film's time, of any number and size."""
    if min(frames, height, width) < 1:
        raise FitError(f"film: expected at least 1 frame of 1 x 1, found {frames} of {width} x {height}")
    return (sample_frame(siren, frame, frames, height, width) for frame in range(frames))


@torch.no_grad()
def sample_frame(siren: Siren, frame: int, frames: int, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    """Frame number `frame` of `sample_film`."""
    start, stop = frame * height * width, (frame + 1) * height * width
    colours = [
        siren(coordinates(torch.arange(a, min(a + CHUNK, stop)), frames, height, width))
        for a in range(start, stop, CHUNK)
    ]
    return (torch.cat(colours).clamp(-1, 1) / 2 + 0.5).view(height, width, 3).numpy()


def to_bytes(picture: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours in [0, 1] as bytes, rounded to the nearest."""
    return np.rint(picture * 255).astype(np.uint8)


def load_film(path: Path, ops: Ops | None = None) -> tuple[Siren, dict[str, Any]]:
    """A network that this command saved, for `sample_film`, and what it stands for: its frames, height, width and fps.
    Raises FitError for a file that holds no film."""
    siren, about = load_network(path, ops)
    for name in ("frames", "height", "width", "fps"):
        value = about.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float) if name == "fps" else int) or not value > 0:
            raise FitError(f"{path}: about: {name}: expected a positive number of a film, found {shown(value)}")
    if about["frames"] * about["height"] * about["width"] > MOST:
        size = " x ".join(shown(about[name], 20) for name in ("frames", "height", "width"))
        raise FitError(f"{path}: about: frames, height, width: expected at most {MOST:.0e} pixels, found {size}")
    if about.get("kind") != "film" or (siren.config.inputs, siren.config.outputs) != (3, 3):
        raise FitError(f"{path}: about: kind: expected a 'film' with 3 inputs and outputs, found {about.get('kind')!r}")
    return siren, about


def measure(truth: UInt8[np.ndarray, "h w 3"], fitted: Float[np.ndarray, "h w 3"]) -> float:
    """A frame's PSNR in dB."""
    return decibels(float(np.mean((truth / 255.0 - fitted) ** 2)), peak=1.0)


def read(options: Options) -> Film:
    """The film that the command line names, with what it takes in memory said on screen."""
    if options.film == "example":
        frames, side = options.frames or 64, 128 // max(options.downscale, 1)
        check_memory("example", frames, side, side)
        film = Film(make_film(frames, side, side, options.seed), 24.0)
    else:
        film = read_film(Path(options.film), options.frames, options.downscale)
    count, height, width, _ = film.frames.shape
    size = f"{count} frames of {width} x {height}, {film.fps:g} a second"
    print(f"{options.film}: {size}: {film.frames.nbytes / 1e6:.1f} MB in memory")
    return film


def command(options: Options) -> None:
    """Fit, measure, write."""
    ops = backend(options.backend)
    for name, value in (("fps", options.fps), ("scale", options.scale)):
        if value is not None and not 0 < value <= 1000:
            raise FitError(f"--{name}: expected a number above 0, up to 1000, found {value}")
    film = read(options)
    out = options.out or Path("runs") / Path(options.film).stem
    config = SirenConfig(3, 3, options.width, options.layers, first_omega=options.first_omega)
    steps, budget = length(options.steps, options.budget, DEFAULT)
    schedule = Schedule(steps, budget, options.rate, DEFAULT.final, seed=options.seed)
    make_folder(out)
    siren, progress = fit_film(film.frames, config, schedule, ops, options.batch, out, options.resume)
    again = f"Go on with: python -m siren.video {options.film} --out {out} --resume, and the same options"
    report(siren, film, follow(progress, "film", again), out, options)


def report(siren: Siren, film: Film, final: Progress, out: Path, options: Options) -> None:
    """Write the folder's files and say what is in them."""
    count, height, width, _ = film.frames.shape
    psnrs: list[float] = []
    fitted = np.empty_like(film.frames)
    for index, picture in enumerate(sample_film(siren, count, height, width)):
        psnrs.append(measure(film.frames[index], picture))
        fitted[index] = to_bytes(picture)
    gap = np.full((height, 4, 3), 255, np.uint8)
    write_video(out / "reconstruction.mp4", (np.hstack((a, gap, b)) for a, b in zip(film.frames, fitted)), film.fps)
    plot_film(film.frames, fitted, psnrs, out / "frame.png")
    files = ["reconstruction.mp4 (truth left, fit right)", "frame.png", NETWORK, "metrics.json"]
    if options.fps or options.scale:
        fps, scale = options.fps or film.fps, options.scale or 1.0
        size = [max(1, round(side * scale)) for side in (height, width)]
        frames = sample_film(siren, max(1, round(count * fps / film.fps)), *size)
        write_video(out / "sampled.mp4", map(to_bytes, frames), fps)
        files.insert(1, "sampled.mp4")
    about = {"kind": "film", "frames": count, "height": height, "width": width, "fps": film.fps}
    stored = save_network(out / NETWORK, siren, about, options.store)
    mean, parameters = float(np.mean(psnrs)), sum(value.numel() for value in siren.parameters())
    counted = {"steps": final.step, "steps_per_second": final.rate, "seconds": final.seconds, "parameters": parameters}
    write_metrics(out, {"psnr": mean, **counted, "network_bytes": stored, "psnr_frames": psnrs})
    worst = f"worst frame {min(psnrs):.2f}"
    print(
        f"PSNR {mean:.2f} dB, mean of {count} frames ({worst}), after {final.step} steps in {final.seconds:.0f} s; "
        f"{out}: {', '.join(files)}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    run(Options, command, "siren.video", arguments)


if __name__ == "__main__":
    main()
