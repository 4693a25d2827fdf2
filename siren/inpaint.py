"""Fill in what is missing of an image: `python -m siren.inpaint photo.png --mask hole.png`.

A SIREN is fitted to the known pixels, and held smooth elsewhere by a prior on its derivatives (Sitzmann et al. 2020, supplement,
"Image inpainting"): total variation, the mean length of the gradient, or the mean size of the Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float
from torch import Tensor

from data.images import read_mask
from siren import command
from siren.figures import picture, sheet
from siren.image import Grid, default_budget, read_image, sample, save_picture, to_signal
from siren.loop import FitError, Schedule, fit
from siren.network import Siren, SirenConfig
from siren.tiles import Window, save_tile

HESSIAN = torch.tensor([[[1.0, 0], [0, 0]], [[0, 0.5], [0.5, 0]], [[0, 0], [0, 1]]])  # u_xx, u_xy, u_yy
WEIGHTS = {"none": 0.0, "tv": 3e-4, "hessian": 1e-6}


@dataclass(frozen=True)
class Options:
    """Fill in the missing pixels of an image with a SIREN.

    Example: python -m siren.inpaint photo.png --keep 0.1 --prior tv
    """

    image: Annotated[str, tyro.conf.Positional]
    """PNG or JPEG, or a picture of scikit-image by name."""
    mask: Path | None = None
    """White where pixels are missing, of the image's size."""
    keep: float | None = None
    """Instead of a mask: the share of pixels that is known, at random. The rest is then measured."""
    prior: Literal["tv", "hessian", "none"] = "tv"
    """What holds the gaps smooth."""
    weight: float | None = None
    """Of the prior. Default: 3e-4 for tv, 1e-6 for hessian."""
    size: int | None = None
    """Resize the longer side to this many pixels first (not with a mask)."""
    steps: int | None = None
    """Steps. Default: a time."""
    budget: str | None = None
    """A time such as 30s. Default: 30s for 256 x 256 pixels, more for larger ones, at most 5m."""
    width: int = 256
    """Of the hidden layers."""
    first_omega: float = 30.0
    """Frequency of the first layer's sines; lower is smoother in the gaps."""
    out: Path | None = None
    """The folder of the result. Default: runs/inpaint-<image>."""
    resume: bool = False
    """Go on with the fit in that folder."""
    backend: str = "auto"
    """Kernels: auto, reference or cpu."""
    seed: int = 0
    """Of everything random."""


class InpaintObjective:
    """Squared error of known pixels, and a prior on the derivatives at points anywhere.

    Args:
        values, known: an image in [-1, 1], and where it is known.
        prior, weight: "tv": mean |grad u|; "hessian": mean Frobenius norm of the Hessian; "none".
        batch: known pixels, and points of the prior, a step.
    """

    def __init__(
        self,
        siren: Siren,
        values: Float[Tensor, "h w c"],
        known: Bool[Tensor, "h w"],
        prior: str,
        weight: float,
        batch: int = 4096,
    ) -> None:
        self.siren, self.prior, self.weight, self.batch = siren, prior, weight, batch
        self.grid, self.known = Grid(*values.shape[:2]), known.flatten().nonzero()[:, 0]
        self.values = values.flatten(0, 1)[self.known]

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        drawn = torch.randint(len(self.known), (min(self.batch, len(self.known)),), generator=generator)
        data = self.siren.squared_error(self.grid.points(self.known[drawn]), self.values[drawn])
        figures = {"psnr": command.decibels(data.detach())}
        if self.weight == 0 or self.prior == "none":
            return data, figures
        # Anywhere, not at pixel centres: between them a network could still do as it likes.
        x = (torch.rand(self.batch, 2, generator=generator) * 2 - 1) * self.grid.extent
        return data + self.weight * self.roughness(x), figures

    def roughness(self, x: Float[Tensor, "p 2"]) -> Float[Tensor, ""]:
        """The prior's mean over points and channels."""
        tiny = 1e-12  # a norm has no slope at zero
        if self.prior == "tv":
            return (self.siren.gradient(x).square().sum(-1) + tiny).sqrt().mean()
        second = self.siren.jet(x, HESSIAN).second
        return (second.square() @ second.new_tensor([1.0, 2.0, 1.0]) + tiny).sqrt().mean()


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    command.run(Options, inpaint, "siren.inpaint", arguments)


def inpaint(options: Options) -> None:
    """Fill in the file and write the result."""
    ops = command.backend(options.backend)
    pixels = read_image(options.image, options.size)
    values, known = to_signal(pixels), _known(options, *pixels.shape[:2])
    height, width, channels = values.shape
    out = options.out or Path("runs") / f"inpaint-{Path(options.image).stem}"
    config = SirenConfig(2, channels, options.width, first_omega=options.first_omega)
    siren = Siren(config, ops, torch.Generator().manual_seed(options.seed))
    weight = WEIGHTS[options.prior] if options.weight is None else options.weight
    default = Schedule(None, default_budget(30.0, Grid(height, width)))
    schedule = Schedule(*command.length(options.steps, options.budget, default), 5e-4, 0.01, 20, options.seed)
    progress = fit(siren, InpaintObjective(siren, values, known, options.prior, weight), schedule, out, options.resume)
    last = command.follow(progress, "inpaint", f"Go on with the same command, --out {out} and --resume")
    found = sample(siren, Grid(height, width))
    whole = torch.where(known[..., None], values, found)
    save_picture(out / "inpainted.png", whole)
    save_tile(out, siren, Window(0, 0, height, width), height, width, "float32")
    shown = [
        (picture(torch.where(known[..., None], values, -torch.ones_like(values))), f"{known.float().mean():.0%} known")
    ]
    shown.append((picture(whole), "filled in"))
    metrics = {"known": float(known.float().mean()), "steps": last.step, "seconds": last.seconds}
    metrics |= {"psnr_known": command.decibels((found - values)[known].square().mean())}
    said = ""
    if options.mask is None:  # what was taken away is there to compare with
        metrics |= {
            "psnr": command.decibels((whole - values).square().mean()),
            "psnr_missing": command.decibels((found - values)[~known].square().mean()),
        }
        shown.append((picture(values), "truth"))
        said = f"{metrics['psnr_missing']:.2f} dB where pixels were missing; "
    sheet([shown], out / "figure.png")
    command.write_metrics(out, metrics | {"prior": options.prior, "weight": weight})
    print(f"{said}{last.step} steps in {last.seconds:.0f} s; {out}: inpainted.png, figure.png, network.safetensors")


def _known(options: Options, height: int, width: int) -> Tensor:
    """Which pixels are known, "h w"."""
    if (options.mask is None) == (options.keep is None):
        raise FitError("--mask, --keep: expected one of them, found both or none")
    if options.keep is not None:
        if not 0 < options.keep < 1:
            raise FitError(f"--keep: expected a share between 0 and 1, found {options.keep}")
        drawn = np.random.default_rng(options.seed).random((height, width)) < options.keep
        if not drawn.any():
            raise FitError(f"--keep: expected at least one known pixel, found none of {height * width}")
        return torch.from_numpy(drawn)
    assert options.mask is not None
    missing = read_mask(options.mask) >= 128
    if missing.shape != (height, width):
        found = f"{missing.shape[1]} x {missing.shape[0]}"
        raise FitError(f"{options.mask}: size: expected {width} x {height}, as {options.image}, found {found}")
    if missing.all():
        raise FitError(f"{options.mask}: expected known pixels (black), found none")
    return torch.from_numpy(~missing)


if __name__ == "__main__":
    main()
