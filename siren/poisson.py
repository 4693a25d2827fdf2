"""Blend two images in the gradient domain: `python -m siren.poisson a.jpg b.jpg`.

A SIREN is fitted to gradients that no image has: a weighted sum of two images' (Sitzmann et al. 2020, section 4.1), or, with a
mask, the second image's inside it and the first one's outside (seamless cloning, Perez et al. 2003), where the first
image's values hold as well.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float
from torch import Tensor

from data.images import read_mask
from nerf.kernels import Ops
from siren import command
from siren.differences import image_gradient
from siren.figures import gradient_colors, gradient_scale, picture, sheet
from siren.image import (
    Grid,
    check_size,
    default_budget,
    first_frequency,
    read_image,
    sample,
    save_picture,
    stretched,
    to_signal,
)
from siren.loop import FitError, Progress, Schedule, fit
from siren.network import Siren, SirenConfig
from siren.objectives import GradientObjective
from siren.tiles import Window, save_tile

FINER = 2  # gradients are followed at so many times as many points along each axis as there are pixels


@dataclass(frozen=True)
class Options:
    """Blend two images by their gradients, with a SIREN.

    Example: python -m siren.poisson wall.jpg bird.png --mask bird-mask.png --out runs/blend
    """

    first: Annotated[str, tyro.conf.Positional]
    """The image whose size the result has (and whose values, outside a mask)."""
    second: Annotated[str, tyro.conf.Positional]
    """The other one; resized to the first one's size, or with --at put somewhere in it as it is."""
    mask: Path | None = None
    """White where the second image goes in, of the second image's size: seamless cloning. Without: a weighted sum."""
    at: tuple[int, int] | None = None
    """Column and row of the second image's left upper corner in the first one. Default: resized to cover it."""
    weight: float = 0.5
    """Of the second image's gradients in a sum, in (0, 1)."""
    mixed: bool = False
    """Take, at every pixel (inside the mask), the stronger of the two gradients: for see-through or textured seams."""
    size: int | None = None
    """Resize the first image's longer side to this many pixels."""
    steps: int | None = None
    """Steps. Default: a time."""
    budget: str | None = None
    """A time such as 30s. Default: 30s for 256 x 256 pixels, more for larger ones, at most 5m."""
    width: int = 256
    """Of the hidden layers."""
    batch: int = 4096
    """Points a step."""
    out: Path | None = None
    """The folder of the result. Default: runs/blend-<first>-<second>."""
    resume: bool = False
    """Go on with the fit in that folder."""
    backend: str = "auto"
    """Kernels: auto, reference or cpu."""
    seed: int = 0
    """Of everything random."""


class BlendObjective:
    """Squared error of gradients, as a share of their mean square, and of values where they are known.

    Args:
        gradient: the field to follow, d value / d (x, y); may be finer than the image.
        values, known: an image in [-1, 1], and where its values hold (nowhere for a sum).
        integrable: whether the field is some image's gradient: what it adds up to over distances then counts too.
        batch: points a step.
    """

    def __init__(
        self,
        siren: Siren,
        gradient: Float[Tensor, "H W c 2"],
        values: Float[Tensor, "h w c"],
        known: Bool[Tensor, "h w"],
        integrable: bool = False,
        batch: int = 4096,
    ) -> None:
        self.siren, self.batch = siren, batch
        self.slopes = GradientObjective(siren, gradient, batch, float(integrable), not integrable)
        self.grid, self.known = Grid(*values.shape[:2]), known.flatten().nonzero()[:, 0]
        self.values = values.flatten(0, 1)[self.known]

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        loss, figures = self.slopes(generator)
        if not len(self.known):
            return loss, figures
        drawn = torch.randint(len(self.known), (self.batch,), generator=generator)
        value = self.siren.squared_error(self.grid.points(self.known[drawn]), self.values[drawn])
        # Values lead: where both are known they agree, and the seam must not move what lies outside of it.
        return loss + 10 * value, figures | {"value": float(value.detach())}


def compose(
    first: Float[Tensor, "h w c 2"],
    second: Float[Tensor, "h w c 2"],
    inside: Bool[Tensor, "h w"] | None,
    weight: float = 0.5,
    mixed: bool = False,
) -> Float[Tensor, "h w c 2"]:
    """The gradient field of a blend.

    Args:
        inside: where the second one's are taken; None: a weighted sum everywhere.
        weight: of the second one's in a sum.
        mixed: the longer of the two at every pixel instead (Perez et al. 2003, equation (12)).
    """
    both = (1 - weight) * first + weight * second if inside is None else second
    if mixed:
        longer = second.square().sum((-1, -2)) > first.square().sum((-1, -2))
        both = torch.where(longer[..., None, None], second, first)
    return both if inside is None else torch.where(inside[..., None, None], both, first)


def field_of(
    first: Float[Tensor, "h w c"],
    second: Float[Tensor, "h w c"],
    inside: Bool[Tensor, "h w"] | None,
    weight: float = 0.5,
    mixed: bool = False,
) -> Float[Tensor, "H W c 2"]:
    """The field that two images' blend follows, at FINER times as many points; arguments as `compose`."""
    pitch = Grid(*first.shape[:2]).pitch
    slopes = image_gradient(first, pitch, FINER), image_gradient(second, pitch, FINER)
    within = None if inside is None else inside.repeat_interleave(FINER, 0).repeat_interleave(FINER, 1)
    return compose(*slopes, within, weight, mixed)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    command.run(Options, blend_images, "siren.poisson", arguments)


def blend_images(options: Options) -> None:
    """Blend the two files and write the result."""
    ops = command.backend(options.backend)
    if not 0 < options.weight < 1:
        raise FitError(f"--weight: expected a number between 0 and 1, found {options.weight}")
    first, second, inside = _read(options)
    check_size(options.first, *first.shape[:2])
    out = options.out or Path("runs") / f"blend-{Path(options.first).stem}-{Path(options.second).stem}"
    field = field_of(first, second, inside, options.weight, options.mixed)
    known = torch.zeros(first.shape[:2], dtype=torch.bool) if inside is None else ~inside
    siren, progress = start(options, ops, field, first, known, out)
    last = command.follow(progress, "blend", f"Go on with the same command, --out {out} and --resume")
    found = sample(siren, Grid(*first.shape[:2]))
    error = float(last.figures["gradient"])
    if inside is None:  # gradients leave the brightness open
        found = found + ((1 - options.weight) * first + options.weight * second - found).mean((0, 1))
    save_picture(out / "blend.png", found)
    save_tile(out, siren, Window(0, 0, *first.shape[:2]), first.shape[0], first.shape[1], "float32")
    metrics = {"gradient_error": error, "steps": last.step, "seconds": last.seconds, "steps_per_second": last.rate}
    if inside is not None:
        metrics["psnr_outside"] = command.decibels((found - first)[~inside].square().mean())
    field = field[FINER // 2 :: FINER, FINER // 2 :: FINER]
    length = gradient_scale(field)
    pasted = second if inside is None else torch.where(inside[..., None], second, first)
    shown = [(picture(first), "first"), (picture(pasted), "second" if inside is None else "pasted")]
    shown += [(gradient_colors(field, length), "gradients"), (picture(found), "blended")]
    sheet([shown], out / "figure.png")
    command.write_metrics(out, metrics)
    print(f"gradients off by {100 * error**0.5:.0f} % after {last.seconds:.0f} s; {out}: blend.png, figure.png")


def start(
    options: Options,
    ops: Ops,
    field: Float[Tensor, "H W c 2"],
    values: Float[Tensor, "h w c"],
    known: Bool[Tensor, "h w"],
    out: Path | None = None,
) -> tuple[Siren, Generator[Progress, None, None]]:
    """A network for a blend, and its fit, which takes a step whenever it is asked to; arguments as `BlendObjective`."""
    height, width, channels = values.shape
    config = SirenConfig(2, channels, options.width, first_omega=first_frequency(max(height, width)))
    default = Schedule(None, default_budget(30.0, Grid(height, width)))
    schedule = Schedule(*command.length(options.steps, options.budget, default), 3e-4, 0.01, 20, options.seed)
    siren = Siren(config, ops, torch.Generator().manual_seed(options.seed))
    # A sum's field is an image's gradient. One that is put together isn't: at a seam the result has to give way inside it.
    integrable = not options.mixed and not bool(known.any())
    target = BlendObjective(siren, field, values, known, integrable, options.batch)
    return siren, fit(siren, target, schedule, out, options.resume)


def _read(options: Options) -> tuple[Tensor, Tensor, Tensor | None]:
    """Both images at the first one's size, and where the second one goes (None: everywhere, as a sum)."""
    a, b = read_image(options.first, options.size), read_image(options.second)
    if a.shape[2] != b.shape[2]:  # gray beside colours
        a, b = (np.repeat(p, 3, -1) if p.shape[2] == 1 else p for p in (a, b))
    height, width = a.shape[:2]
    mask = None if options.mask is None else read_mask(options.mask) >= 128
    if mask is not None and mask.shape != b.shape[:2]:
        want = f"{b.shape[1]} x {b.shape[0]}"
        raise FitError(
            f"{options.mask}: size: expected {want}, as {options.second}, found {mask.shape[1]} x {mask.shape[0]}"
        )
    if options.at is None:
        b = stretched(b, height, width)
        mask = None if mask is None else stretched(mask[..., None].astype(np.uint8) * 255, height, width)[..., 0] >= 128
    else:
        b, mask = _placed(a, b, mask, options.at)
    if mask is not None and (not mask.any() or mask.all()):
        found = "nothing" if not mask.any() else "all of it"
        raise FitError(f"{options.mask or '--at'}: expected a part of {options.first}, found {found}")
    return to_signal(a), to_signal(b), None if mask is None else torch.from_numpy(mask.copy())


def _placed(
    a: np.ndarray, b: np.ndarray, mask: np.ndarray | None, at: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The second image in a frame of the first one's size, and where it is."""
    left, top = at
    rows = slice(max(0, top), min(a.shape[0], top + b.shape[0]))
    columns = slice(max(0, left), min(a.shape[1], left + b.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise FitError(f"--at: expected a place within {a.shape[1]} x {a.shape[0]} pixels, found {left} {top}")
    source = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    framed, inside = a.copy(), np.zeros(a.shape[:2], bool)
    framed[rows, columns] = b[source]
    inside[rows, columns] = True if mask is None else mask[source]
    return framed, inside


if __name__ == "__main__":
    main()
