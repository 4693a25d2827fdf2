"""A prior over images: `python -m siren.prior train` learns one, `python -m siren.prior complete` fills in an image.

Sitzmann et al. 2020, section 4.4: a set encoder and a hypernetwork that writes a SIREN's weights. The library beneath:
`prior_model` (the networks), `prior_fit` (objective, completion, measures), `prior_data` (images), `prior_files`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from data.files import write_atomically
from data.images import area_average, image_size, read_mask, to_uint8
from nerf.kernels import Ops
from siren.command import backend, follow, length, run, write_metrics
from siren.loop import FitError, Schedule, fit
from siren.prior_data import Images, channels_as, made, middle_square, read_folder, read_image, signals
from siren.prior_files import MODEL, load_prior, save_prior
from siren.prior_fit import REFINE, Learning, at, complete, grid, linear, measure, objective, psnr
from siren.prior_model import ImagePrior, PriorConfig
from siren.prior_plot import colors, masked, plot_completions, plot_interpolation, write_rows

DEFAULT = Schedule(steps=None, budget=240.0, rate=1e-3, final=0.05, warmup=100)
SETTINGS = "prior.json"


@dataclass(frozen=True)
class Train:
    """Learn a prior over images, and measure on held-out ones how well it completes them.

    Example: python -m siren.prior train --out runs/prior --budget 4m
    """

    out: Path = Path("runs/prior")
    """The run's folder."""
    data: Path | None = None
    """A folder of PNG or JPEG images of any sizes. Default: letters and digits that the program draws itself."""
    size: int = 32
    """Width and height in pixels that images are reduced to."""
    steps: int | None = None
    """Learn for this many steps."""
    budget: str | None = None
    """Learn for this long instead: 90s, 5m, 1h. Default: 4m."""
    resume: bool = False
    """Go on with the run in that folder."""
    backend: str = "auto"
    """Kernels: auto, reference or cpu (python -m nerf.kernels lists them)."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True)
class Complete:
    """Fill in an image of which a trained prior sees some pixels only.

    Example: python -m siren.prior complete --run runs/prior --image letter.png --pixels 100
    """

    image: Path
    """A PNG or JPEG; its middle square is reduced to the prior's size."""
    run: Path = Path("runs/prior")
    """The folder of a trained prior."""
    pixels: int | None = None
    """How many pixels are observed, drawn at random. Default, without --mask: 100."""
    mask: Path | None = None
    """An image of the same size that is bright where pixels are observed, and black where they aren't."""
    out: Path = Path("runs/completion")
    """The folder for pictures and metrics.json."""
    width: int = 256
    """Of completion.png, in pixels: the SIREN is continuous."""
    refine: int = REFINE
    """Steps that fit the code to the observed pixels, after the encoder."""
    backend: str = "auto"
    """Kernels: auto, reference or cpu."""
    seed: int = 0
    """Of the choice of pixels."""


def train(options: Train) -> None:
    """What `python -m siren.prior train` does."""
    ops = backend(options.backend)
    steps, budget = length(options.steps, options.budget, DEFAULT)
    schedule = Schedule(steps, budget, DEFAULT.rate, DEFAULT.final, DEFAULT.warmup, options.seed)
    if not 8 <= options.size <= 256:
        raise FitError(f"--size: expected 8 to 256 pixels, found {options.size}")
    if options.resume:
        check_same(options)
    images = gather(options)
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / SETTINGS, json.dumps(sources(options)).encode())
    print(images.source)
    prior = start(images, options.seed, ops)
    learning = Learning()
    steps_of = fit(prior, objective(prior, images.train, learning), schedule, options.out, options.resume)
    final = follow(steps_of, "prior", again(options))
    save_prior(prior.requires_grad_(False), options.out)
    scores = measure(prior, images.train, images.held_out)
    plot_completions(prior, images.held_out[:10], options.out / "completions.png")
    plot_interpolation(prior, images.held_out[:10], options.out / "interpolation.png")
    metrics = {
        "psnr": scores,
        "held_out": len(images.held_out),
        "data": images.source,
        "steps": final.step,
        "steps_per_second": final.rate,
        "seconds": final.seconds,
        "parameters": sum(p.numel() for p in prior.parameters()),
        "siren_parameters": prior.hyper.start.numel(),
        "config": asdict(prior.config),
        "learning": asdict(learning),
    }
    write_metrics(options.out, metrics)
    report(scores, len(images.held_out))
    print(
        f"{final.step} steps in {final.seconds:.0f} s; {options.out}: completions.png, interpolation.png, metrics.json, {MODEL}"
    )


def again(options: Train) -> str:
    """The sentence that says how to go on after Ctrl-C."""
    names = ("out", "data", "size", "steps", "budget", "seed")
    asked = [f"--{name} {getattr(options, name)}" for name in names if getattr(options, name) != getattr(Train, name)]
    return f"Go on with: python -m siren.prior train {' '.join([*asked, '--resume'])}"


def start(images: Images, seed: int, ops: Ops | None = None, config: PriorConfig | None = None) -> ImagePrior:
    """A prior that has learned nothing, of a shape that fits the images."""
    _, size, _, channels = images.train.shape
    config = PriorConfig(size=size, channels=channels) if config is None else config
    return ImagePrior(config, ops, torch.Generator().manual_seed(seed))


def sources(options: Train) -> dict[str, Any]:
    """The options that decide what a run learns from."""
    data = None if options.data is None else str(options.data.resolve())
    return {"data": data, "size": options.size, "seed": options.seed}


def check_same(options: Train) -> None:
    """Raises FitError where a run would go on with other images than it began with."""
    path = options.out / SETTINGS
    try:
        written = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise FitError(f"--resume: expected {path} of a run that was begun, found none or a broken one") from None
    for name, value in sources(options).items():
        found = written.get(name) if isinstance(written, dict) else None
        if found != value:
            raise FitError(
                f"--{name} with --resume: expected {found}, as the run in {options.out} has it, found {value}"
            )


def gather(options: Train) -> Images:
    """The images to learn from."""
    if options.data is None:
        return made(options.size, seed=options.seed)
    return read_folder(
        options.data, options.size, options.seed, partial(tqdm, desc="reading", unit="image", dynamic_ncols=True)
    )


def report(scores: dict[str, dict[str, float]], count: int) -> None:
    """Print the table of measures."""
    methods = list(next(iter(scores.values())))
    print(f"held out, mean PSNR in dB of {count} images; observed".ljust(52) + "".join(f"{m:>15}" for m in methods))
    for case, by_method in scores.items():
        name = case + (" pixels" if case.isdecimal() else "")
        print(name.rjust(52) + "".join(f"{by_method[m]:15.2f}" for m in methods))


def fill(options: Complete) -> None:
    """What `python -m siren.prior complete` does."""
    if options.pixels is not None and options.mask is not None:
        raise FitError("--pixels, --mask: expected one of them, found both")
    if not 8 <= options.width <= 4096:
        raise FitError(f"--width: expected 8 to 4096 pixels, found {options.width}")
    if options.refine < 0:
        raise FitError(f"--refine: expected 0 or more steps, found {options.refine}")
    prior = load_prior(options.run, backend(options.backend))
    size = prior.config.size
    pixels = torch.from_numpy(channels_as(read_image(options.image, size), prior.config.channels))
    truth, places = signals(pixels[None]), grid(size)
    seen = choice(options, size)
    x, values = places[seen], at(truth, seen)
    began = time.perf_counter()
    whole = complete(prior, x, values, places, options.refine)
    seconds = time.perf_counter() - began
    plain = linear(x[0], values[0], places)[None]
    save_pictures(options, prior, truth, seen, whole, plain)
    hidden = torch.ones(size * size, dtype=torch.bool).index_fill(0, seen[0], False)
    metrics: dict[str, Any] = {"observed": seen.shape[1], "seconds": seconds}
    for name, image in (("prior", whole), ("linear", plain)):
        metrics[f"psnr_{name}"] = float(psnr(image, truth))
        metrics[f"psnr_{name}_hidden"] = float(psnr(image[:, hidden], truth[:, hidden])) if hidden.any() else None
    write_metrics(options.out, metrics)
    print(
        f"{options.image}: {metrics['psnr_prior']:.2f} dB from {seen.shape[1]} of {size * size} pixels (linear "
        f"interpolation: {metrics['psnr_linear']:.2f}); {options.out}: comparison.png, completion.png, metrics.json"
    )


def choice(options: Complete, size: int) -> Tensor:
    """Which pixels are observed, "1 n". Raises FitError for a count or a mask that can't be."""
    if options.mask is None:
        count = 100 if options.pixels is None else options.pixels
        if not 1 <= count <= size * size:
            raise FitError(f"--pixels: expected 1 to {size * size}, all that the prior has, found {count}")
        return torch.randperm(size * size, generator=torch.Generator().manual_seed(options.seed))[None, :count]
    mask = read_mask(options.mask)
    shape = read_shape(options.image)
    if mask.shape not in (shape, (size, size)):
        raise FitError(
            f"--mask {options.mask}: expected {shape[1]}x{shape[0]} pixels as the image has, or {size}x{size}, "
            f"found {mask.shape[1]}x{mask.shape[0]}"
        )
    share = area_average(middle_square(mask[..., None]), size, size).reshape(-1) / 255
    seen = torch.from_numpy(np.flatnonzero(share > 0.5))
    if len(seen) == 0:
        raise FitError(f"--mask {options.mask}: expected bright pixels in its middle square, found none")
    return seen[None]


def read_shape(path: Path) -> tuple[int, int]:
    """Rows and columns of an image file."""
    width, height = image_size(path)
    return height, width


def save_pictures(
    options: Complete, prior: ImagePrior, truth: Tensor, seen: Tensor, whole: Tensor, plain: Tensor
) -> None:
    """comparison.png (truth, observed, completion, linear interpolation) and completion.png, from the SIREN itself."""
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [colors(truth), masked(truth, seen), colors(whole), colors(plain)]
    names = ["truth", f"{seen.shape[1]} pixels", "completion", "linear"]
    write_rows(rows, names, options.out / "comparison.png", "")
    x, values = grid(prior.config.size)[seen], at(truth, seen)
    fine = complete(prior, x, values, grid(options.width), options.refine)
    Image.fromarray(to_uint8(colors(fine)[0])).save(options.out / "completion.png")


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """A prior over images: a network that has seen many images completes others from a few of their pixels."""

    what: Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Complete, tyro.conf.subcommand("complete")]
    """train or complete."""


def command(options: Options) -> None:
    """Either of the two commands."""
    if isinstance(options.what, Train):
        train(options.what)
    else:
        fill(options.what)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    run(Options, command, "siren.prior", arguments)


if __name__ == "__main__":
    main()
