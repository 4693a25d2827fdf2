"""What a network is fitted to: an image's values, its gradient or its Laplacian (Sitzmann et al. 2020, sections 3.1, 4.1)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from siren.baselines import Baseline
from siren.command import decibels
from siren.differences import image_gradient, image_laplacian, mean_rise
from siren.image import Grid
from siren.network import Siren

TARGETS = ("image", "gradient", "laplacian")


def _draw(count: int, batch: int | None, generator: torch.Generator) -> Tensor:
    """Which pixels a step sees: `batch` of them at random, or all."""
    if batch is None or batch >= count:
        return torch.arange(count)
    return torch.randint(count, (batch,), generator=generator)


class ImageObjective:
    """Mean squared error of values: equation (3) with the image itself as the constraint.

    Args:
        values: the image, in [-1, 1].
        batch: pixels a step; None: all.
    """

    def __init__(self, network: Siren | Baseline, values: Float[Tensor, "h w c"], batch: int | None = None) -> None:
        self.network, self.batch = network, batch
        self.grid = Grid(*values.shape[:2])
        self.values = values.reshape(len(self.grid), -1)
        self.whole = None if batch is not None and batch < len(self.grid) else self.grid.all_points()

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if self.whole is not None:
            loss = self.network.squared_error(self.whole, self.values)
        else:
            indices = _draw(len(self.grid), self.batch, generator)
            loss = self.network.squared_error(self.grid.points(indices), self.values[indices])
        return loss, {"psnr": decibels(loss.detach())}


class GradientObjective:
    """Mean squared error of gradients (equation (5)), as a share of the target's mean square; and of what they add up to.

    A wave that is twice as long has half the gradient, so brightness over large areas weighs next to nothing in the
    gradient's error and comes last. Differences between distant points don't have that fault, and they too follow from
    the gradient, by adding it up along the rows and columns between them.

    Args:
        gradient: d value / d (x, y); need not be the gradient of any image, but then take no spans: what it adds up to
            depends on the way.
        batch: points a step; None: all.
        spans: weight of the squared error of those differences, as a share of their mean square; 0: the paper's loss.
        anywhere: draw points between the pixels too, where the field is bilinear: a field that is no image's would be met at
            the pixels alone, by jumps in between.
    """

    def __init__(
        self,
        siren: Siren,
        gradient: Float[Tensor, "h w c 2"],
        batch: int | None = None,
        spans: float = 0.0,
        anywhere: bool = False,
    ) -> None:
        self.siren, self.batch, self.spans, self.anywhere = siren, batch, spans, anywhere
        self.grid = Grid(*gradient.shape[:2])
        self.gradient = gradient.reshape(len(self.grid), -1, 2)
        self.scale = float(gradient.square().mean().clamp_min(1e-12))
        if anywhere:  # "1 c2 h w"
            self.field = gradient.flatten(2).permute(2, 0, 1)[None].contiguous()
        if spans:
            along_x, along_y = (_running(gradient[..., axis], 1 - axis) * self.grid.pitch for axis in (0, 1))
            self.running = torch.stack([along_x.flatten(0, 1), along_y.flatten(0, 1)])

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        points, target = self._targets(generator)
        loss = (self.siren.gradient(points) - target).square().mean() / self.scale
        figures = {"gradient": float(loss.detach())}
        if self.spans:
            loss = loss + self.spans * self._spans(max(64, len(points) // 2), generator)
        return loss, figures

    def _targets(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points of a step, and the field there."""
        if not self.anywhere:
            indices = _draw(len(self.grid), self.batch, generator)
            return self.grid.points(indices), self.gradient[indices]
        places = torch.rand(self.batch or len(self.grid), 2, generator=generator) * 2 - 1
        target = F.grid_sample(self.field, places[None, None], padding_mode="border", align_corners=False)[0, :, 0].T
        return places * self.grid.extent, target.unflatten(1, (-1, 2))

    def _spans(self, count: int, generator: torch.Generator) -> Tensor:
        """Squared error of differences between points of a row, and of a column."""
        total = torch.zeros(())
        for axis, length in ((0, self.grid.width), (1, self.grid.height)):
            ends = torch.randint(length, (2, count), generator=generator)
            other = torch.randint(len(self.grid) // length, (count,), generator=generator)
            start, end = (other * length + e if axis == 0 else e * self.grid.width + other for e in ends)
            target = self.running[axis, end] - self.running[axis, start]
            found = self.siren(self.grid.points(end)) - self.siren(self.grid.points(start))
            total = total + (found - target).square().mean() / target.square().mean().clamp_min(1e-12)
        return total / 2


def _running(slope: Float[Tensor, "h w c"], axis: int) -> Float[Tensor, "h w c"]:
    """Integral along an axis from the first sample on, by the trapezoidal rule, in samples."""
    steps = (slope.narrow(axis, 1, slope.shape[axis] - 1) + slope.narrow(axis, 0, slope.shape[axis] - 1)) / 2
    return torch.cat([torch.zeros_like(slope.narrow(axis, 0, 1)), steps.double().cumsum(axis).to(slope.dtype)], axis)


class LaplacianObjective:
    """Mean squared error of Laplacians (equation (6)), as a share of the target's mean square, and of the slope across
    the border, which the target's image doesn't have (see siren/differences.py); and of what they add up to.

    As with gradients, but squared: a wave twice as long has a quarter of the Laplacian. What a point differs by from the mean
    of its four neighbours at a distance follows from the Laplacian too, and weighs long waves as distances do.

    Args:
        laplacian: d2 value / dx2 + d2 value / dy2.
        batch: points a step; None: all.
        spans: weight of the squared error of those differences, as a share of their mean square; 0: the paper's loss.
        border: weight of the slope across the border, whose unit is the mean slope that such a Laplacian goes with.
    """

    def __init__(
        self,
        siren: Siren,
        laplacian: Float[Tensor, "h w c"],
        batch: int | None = None,
        spans: float = 0.0,
        border: float = 1.0,
    ) -> None:
        self.siren, self.batch, self.spans, self.border = siren, batch, spans, border
        self.grid = Grid(*laplacian.shape[:2])
        self.laplacian = laplacian.reshape(len(self.grid), -1)
        self.scale = float(laplacian.square().mean().clamp_min(1e-12))
        if spans:
            self.distances = [2.0**k * self.grid.pitch for k in range(2, int(math.log2(1 / self.grid.pitch)) + 1)]
            self.rises: dict[int, Tensor] = {}  # each when it is first drawn: together they take a second

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        indices = _draw(len(self.grid), self.batch, generator)
        identity = torch.eye(2)[None]
        found = self.siren.jet(self.grid.points(indices), identity).second[..., 0]
        loss = (found - self.laplacian[indices]).square().mean() / self.scale
        figures = {"laplacian": float(loss.detach())}
        if self.border:
            loss = loss + self.border * self._border(max(64, len(indices) // 16), generator)
        if self.spans and self.distances:
            loss = loss + self.spans * self._spans(max(64, len(indices) // 4), generator)
        return loss, figures

    def _spans(self, count: int, generator: torch.Generator) -> Tensor:
        """Squared error of differences from the mean of four neighbours, at one distance."""
        pick = int(torch.randint(len(self.distances), (1,), generator=generator))
        indices = torch.randint(len(self.grid), (count,), generator=generator)
        points, distance = self.grid.points(indices), self.distances[pick]
        shifts = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * distance
        places = self._mirrored(points + shifts[:, None]).reshape(-1, 2)
        middle, *around = self.siren(places).reshape(5, count, -1).unbind()
        if pick not in self.rises:
            laplacian = self.laplacian.unflatten(0, (self.grid.height, self.grid.width))
            self.rises[pick] = mean_rise(laplacian, self.grid.pitch, distance).flatten(0, 1)
        error = torch.stack(around).mean(0) - middle - self.rises[pick][indices]
        return error.square().mean() / self.rises[pick].square().mean().clamp_min(1e-12)

    def _mirrored(self, x: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p 2"]:
        """Places beyond the border as those in front of it."""
        return x.clamp(-self.grid.extent, self.grid.extent) * 2 - x

    def _border(self, count: int, generator: torch.Generator) -> Tensor:
        """Mean squared slope across the border at random places, over the square of one unit of curvature."""
        width, height = self.grid.extent.tolist()
        along = torch.rand(count, 2, generator=generator) * 2 - 1
        side = torch.randint(2, (count,), generator=generator) * 2.0 - 1
        upright = torch.rand(count, generator=generator) * (width + height) < height
        x = torch.where(upright, side, along[:, 0]) * width
        y = torch.where(upright, along[:, 1], side) * height
        slope = self.siren.gradient(torch.stack([x, y], -1))
        across = torch.where(upright[:, None], slope[..., 0], slope[..., 1])
        return across.square().mean() / (self.scale * self.grid.pitch**2)


def objective(
    siren: Siren,
    values: Float[Tensor, "h w c"],
    target: str,
    batch: int | None = None,
    finer: int = 1,
    spans: float = 0.0,
) -> ImageObjective | GradientObjective | LaplacianObjective:
    """The objective called `target` (one of TARGETS) for an image with values in [-1, 1].

    Args:
        batch: points a step; None: all.
        finer: derivatives are given at so many times as many points along each axis. At pixel centres alone a network may have
            them right and do as it likes in between, and what it adds up to drifts away from the image.
    """
    pitch = Grid(*values.shape[:2]).pitch
    match target:
        case "image":
            return ImageObjective(siren, values, batch)
        case "gradient":
            return GradientObjective(siren, image_gradient(values, pitch, finer), batch, spans)
        case "laplacian":
            return LaplacianObjective(siren, image_laplacian(values, pitch, finer), batch, spans)
    raise ValueError(f"objective: expected one of {', '.join(TARGETS)}, found {target!r}")
