"""How a prior learns from images, completes new ones from a few of their pixels, and is measured against plain methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from siren.image import Grid
from siren.loop import FitError, Objective
from siren.prior_data import signals
from siren.prior_model import ImagePrior, regularized

FEWEST_OBSERVED = 10  # pixels, in training
HALVES = 0.25  # share of the training batches whose observed pixels lie on one side of a line
UPPER_HALF = "upper half"
REFINE = 50  # steps: on images that it hasn't learned from, more of them don't help when few pixels are observed


@dataclass(frozen=True)
class Learning:
    """What a training step does.

    Attributes:
        batch: images a step.
        queries: pixels of each that the loss is taken at; all where the images have no more.
        latent_weight, theta_weight: equation (10)'s lambdas.
    """

    batch: int = 128
    queries: int = 128
    latent_weight: float = 1e-3
    theta_weight: float = 1e-3


def grid(size: int) -> Float[Tensor, "p 2"]:
    """Middles of a square image's pixels in [-1, 1]: x to the right, y down, row after row."""
    return Grid(size, size).all_points()


def observe(b: int, places: Float[Tensor, "p 2"], generator: torch.Generator) -> Float[Tensor, "b p"]:
    """Which pixels a training step shows the encoder, of each of `b` images: 1/n at n of them, 0 elsewhere.

    Each image's n is log-uniform from 10 to half of its pixels. Of a quarter of the images only pixels on one side of a
    line through the middle are shown, in a random direction, as many as there are up to n.
    """
    p = len(places)
    fewest = min(FEWEST_OBSERVED, p // 2)
    drawn = torch.rand(3, b, generator=generator)
    counts = (fewest * (p // 2 / fewest) ** drawn[0]).round().long()
    angle = 2 * math.pi * drawn[1]
    beyond = torch.stack([angle.cos(), angle.sin()], dim=1) @ places.T > 0
    hidden = beyond & (drawn[2] < HALVES)[:, None]
    order = torch.rand(b, p, generator=generator) + hidden
    last = order.sort(dim=1).values.gather(1, counts[:, None] - 1)
    shown = ((order <= last) & ~hidden).float()
    return shown / shown.sum(1, keepdim=True)


def objective(prior: ImagePrior, images: UInt8[Tensor, "n h w c"], learning: Learning) -> Objective:
    """The loss of a step: images drawn at random, completed from a few pixels, compared with the whole."""
    places = grid(prior.config.size)
    if images.shape[1:] != (prior.config.size, prior.config.size, prior.config.channels):
        raise FitError(f"images: expected those of {prior.config}, found shape {tuple(images.shape)}")

    def step(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        picked = torch.randint(len(images), (learning.batch,), generator=generator)
        truth = signals(images[picked])
        share = observe(len(truth), places, generator)
        asked = torch.randperm(len(places), generator=generator)[: learning.queries]
        z = prior.encoder.on_grid(places, truth, share)
        theta = prior.hyper(z)
        values = prior.draw(theta, places[asked].expand(len(truth), -1, -1))
        loss = regularized(values, truth[:, asked], z, theta, learning.latent_weight, learning.theta_weight)
        with torch.no_grad():
            shown = float(psnr(values, truth[:, asked]).mean())
        return loss, {"psnr": shown}

    return step


def at(values: Float[Tensor, "b p c"], picked: Int[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
    """Each image's values at its own picked pixels."""
    return values.gather(1, picked[..., None].expand(-1, -1, values.shape[2]))


def complete(
    prior: ImagePrior,
    x: Float[Tensor, "b n 2"],
    values: Float[Tensor, "b n c"],
    places: Float[Tensor, "p 2"],
    refine: int = REFINE,
    rate: float = 0.02,
    tether: float = 30.0,
) -> Float[Tensor, "b p c"]:
    """Whole images from some of their pixels, in [-1, 1].

    Args:
        x, values: where and what was observed; there may be any number, in any order.
        places: where values are wanted. The SIREN is continuous: they need not be pixels.
        refine: steps of Adam on the codes, from the encoder's, that bring the images nearer to the observed pixels;
            0: one pass of the encoder, as in the paper.
        rate: of those steps.
        tether: what keeps the codes near the encoder's: tether/n times their mean squared distance.

    Raises:
        FitError: no pixel is observed.
    """
    z = code(prior, x, values, refine, rate, tether)
    with torch.no_grad():
        return prior(z, places.expand(len(z), -1, -1)).clamp(-1, 1)


def code(
    prior: ImagePrior,
    x: Float[Tensor, "b n 2"],
    values: Float[Tensor, "b n c"],
    refine: int = REFINE,
    rate: float = 0.02,
    tether: float = 30.0,
) -> Float[Tensor, "b k"]:
    """The codes of images of which some pixels are observed; arguments as `complete` has them."""
    if x.shape[1] == 0:
        raise FitError("observed pixels: expected at least one, found none")
    with torch.no_grad():
        start = prior.encode(x, values)
    if refine < 1:
        return start
    z = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=rate)
    with torch.enable_grad():
        for _ in range(refine):
            # A sum over images: each one's steps are its own, whatever else is in the batch.
            error = (prior(z, x) - values).square().mean((1, 2)).sum()
            away = (z - start).square().mean(1).sum()
            (z.grad,) = torch.autograd.grad(error + tether / x.shape[1] * away, z)
            optimizer.step()
    return z.detach()


def nearest(
    x: Float[Tensor, "n 2"], values: Float[Tensor, "n c"], places: Float[Tensor, "p 2"]
) -> Float[Tensor, "p c"]:
    """The plain method: every place takes the value of the observed pixel nearest to it."""
    return values[torch.cdist(places, x).argmin(dim=1)]


def linear(x: Float[Tensor, "n 2"], values: Float[Tensor, "n c"], places: Float[Tensor, "p 2"]) -> Float[Tensor, "p c"]:
    """The other plain method: linear between the observed pixels, over their Delaunay triangles; beyond, the nearest."""
    from matplotlib.tri import LinearTriInterpolator, Triangulation  # slow to import

    filled = nearest(x, values, places)
    try:
        triangles = Triangulation(*x.double().numpy().T)
    except (RuntimeError, ValueError):  # fewer than three of them, or all on one line
        return filled
    for channel in range(values.shape[1]):
        between = LinearTriInterpolator(triangles, values[:, channel].double().numpy())(*places.double().numpy().T)
        inside = torch.from_numpy(~between.mask.reshape(-1)) if between.mask.any() else torch.ones(len(places)).bool()
        filled[inside, channel] = torch.from_numpy(between.data).to(filled)[inside]
    return filled


def psnr(values: Float[Tensor, "b p c"], truth: Float[Tensor, "b p c"]) -> Float[Tensor, "b"]:
    """Decibels of each image; the values span [-1, 1]."""
    return 10 * torch.log10(4 / (values.clamp(-1, 1) - truth).square().mean((1, 2)).clamp_min(1e-10))


def cases(size: int) -> list[str]:
    """What a prior is measured with: 10, 100 and half of the pixels, at random, and the upper half."""
    p = size * size
    return [*(str(count) for count in sorted({10, 100, p // 2}) if count <= p // 2), UPPER_HALF]


def observed(case: str, count: int, size: int, seed: int = 0) -> Int[Tensor, "b n"]:
    """Which pixels are observed in each of `count` images: a number of them in decimals, or the upper half."""
    p = size * size
    if case == UPPER_HALF:
        return torch.arange(size // 2 * size).expand(count, -1)
    return torch.rand(count, p, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)[:, : int(case)]


Completion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From places, values "n ..." and query places "p 2" to values "p c"."""


def plainly(method: Completion, x: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """A plain method on every image of a batch."""
    return torch.stack([method(*one, places) for one in zip(x, values)])


def measure(
    prior: ImagePrior,
    train: UInt8[Tensor, "n h w c"],
    held_out: UInt8[Tensor, "m h w c"],
    refine: int = REFINE,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Mean PSNR in dB over held-out images, by what was observed and by method, over all pixels, observed or not.

    Methods: the prior; the same without refinement; the mean of the training images; the nearest observed pixel; linear
    between observed pixels.
    """
    size, truth = prior.config.size, signals(held_out)
    places = grid(size)
    average = torch.stack([signals(part).sum(0) for part in train.split(1024)]).sum(0) / len(train)
    found = {}
    for case in cases(size):
        seen = observed(case, len(truth), size, seed)
        x, values = places[seen], at(truth, seen)
        by_method = {
            "prior": complete(prior, x, values, places, refine),
            "encoder alone": complete(prior, x, values, places, refine=0),
            "mean image": average.expand_as(truth),
            "nearest": plainly(nearest, x, values, places),
            "linear": plainly(linear, x, values, places),
        }
        found[case] = {name: float(psnr(made, truth).mean()) for name, made in by_method.items()}
    return found
