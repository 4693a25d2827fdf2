"""Pictures of solved equations: the field and where the equation isn't met, or a wave's instants and its film."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from siren.command import save_figure
from siren.pde_linear import Solution, evaluate, total

SIDE = 180  # points of a picture along the domain's longer side
_FIELD, _ERROR = "RdBu_r", "magma"


def lattice(low: Sequence[float], high: Sequence[float], side: int = SIDE) -> tuple[Float[Tensor, "p 2"], int, int]:
    """Pixel centres of a rectangle's picture, from its top left along rows, and its height and width in pixels."""
    spans = [b - a for a, b in zip(low, high)]
    width, height = (max(2, round(side * span / max(spans))) for span in spans)
    x = low[0] + (torch.arange(width, dtype=torch.float64) + 0.5) * spans[0] / width
    y = high[1] - (torch.arange(height, dtype=torch.float64) + 0.5) * spans[1] / height
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns.flatten(), rows.flatten()), 1), height, width


def misfit(solution: Solution, x: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
    """The size of the first condition's residual at points, relative to the root mean square of its largest term."""
    condition = solution.problem.conditions[0]
    parts = [evaluate(solution.siren, solution.problem, condition, chunk) for chunk in x.split(1024)]
    sizes = torch.cat([torch.stack([t.abs() for t in (*terms, target)], 1) for terms, target in parts])
    residual = torch.cat([(total(terms) - target).abs() for terms, target in parts])
    return residual / float(sizes.square().mean(0).max().sqrt().clamp_min(1e-300))


def plot_field(solution: Solution, low: Sequence[float], high: Sequence[float], file: Path) -> None:
    """A field on a rectangle: its real part (and imaginary part, where it is complex), and the relative residual."""
    x, height, width = lattice(low, high)
    value = solution(x)
    panels = [("real part", value.real), ("imaginary part", value.imag)] if value.is_complex() else [("field", value)]
    figure = Figure(figsize=(4.6 * (len(panels) + 1), 4.3), dpi=110, layout="constrained")
    extent = (low[0], high[0], low[1], high[1])
    for column, (name, part) in enumerate(panels):
        bound = float(part.abs().max()) or 1.0
        _panel(figure, len(panels) + 1, column, name, part.reshape(height, width), extent, _FIELD, (-bound, bound))
    residual = misfit(solution, x).clamp_min(1e-12).log10().reshape(height, width)
    bounds = (math.floor(float(torch.quantile(residual, 0.02))), math.ceil(float(residual.max())))
    name = "log10 relative residual"
    _panel(figure, len(panels) + 1, len(panels), name, residual, extent, _ERROR, bounds)
    save_figure(figure, file)


def plot_wave(solution: Solution, file: Path, instants: int = 6) -> None:
    """A wave: in one dimension u(t, x) and how well it starts (the equation itself its features meet exactly), in two a
    row of instants."""
    about = solution.about
    extent, duration = about["extent"], about["duration"]
    if about["dims"] == 1:
        x, height, width = lattice((-extent, 0.0), (extent, duration), SIDE)
        value = solution(x.flip(1)).reshape(height, width)
        figure = Figure(figsize=(10, 4.3), dpi=110, layout="constrained")
        bound, sides = float(value.abs().max()) or 1.0, (-extent, extent, 0.0, duration)
        _panel(figure, 2, 0, "u (time upwards)", value, sides, _FIELD, (-bound, bound))
        figure.axes[0].set_aspect("auto")
        _start(figure, solution, extent)
    else:
        figure = Figure(figsize=(2.5 * instants, 3.2), dpi=110, layout="constrained")
        times = torch.linspace(0, duration, instants).tolist()
        frames = [snapshot(solution, time) for time in times]
        bound = max(float(frame.abs().max()) for frame in frames) or 1.0
        for column, (time, frame) in enumerate(zip(times, frames)):
            sides = (-extent, extent, -extent, extent)
            _panel(
                figure,
                instants,
                column,
                f"t = {time:.3g}",
                frame,
                sides,
                _FIELD,
                (-bound, bound),
                column == instants - 1,
            )
    save_figure(figure, file)


def _start(figure: Figure, solution: Solution, extent: float) -> None:
    """How far a one-dimensional wave's u and u_t at t = 0 are from what was asked for."""
    panel: Any = figure.add_subplot(1, 2, 2)
    x = torch.linspace(-extent, extent, 400, dtype=torch.float64)
    for condition in solution.problem.conditions[1:3]:
        terms, target = evaluate(solution.siren, solution.problem, condition, torch.stack((torch.zeros_like(x), x), 1))
        panel.semilogy(x.numpy(), (total(terms) - target).abs().clamp_min(1e-16).numpy(), label=condition.name, lw=1)
    panel.set_title("error at t = 0", fontsize=10)
    panel.legend(fontsize=8, frameon=False)


def snapshot(solution: Solution, time: float, side: int = SIDE) -> Float[Tensor, "h w"]:
    """A two-dimensional wave at an instant."""
    extent = solution.about["extent"]
    x, height, width = lattice((-extent, -extent), (extent, extent), side)
    with torch.no_grad():  # the fused kernels, in float32: a film is many points
        value = solution.siren(torch.cat((torch.full_like(x[:, :1], time), x), 1).float())
    return value[:, 0].reshape(height, width)


def film(solution: Solution, frames: int = 48) -> list[UInt8[np.ndarray, "h w 3"]]:
    """A two-dimensional wave's frames, from its first to its last instant, as colours: red above zero, blue below."""
    values = [snapshot(solution, t) for t in torch.linspace(0, solution.about["duration"], frames).tolist()]
    bound = max(float(value.abs().max()) for value in values) or 1.0
    colours: Any = matplotlib.colormaps[_FIELD]
    return [(colours((value / bound * 0.5 + 0.5).numpy())[..., :3] * 255).round().astype(np.uint8) for value in values]


def _panel(
    figure: Figure, columns: int, column: int, name: str, values: Tensor, extent: tuple[float, float, float, float],
    colours: str, bounds: tuple[float, float], bar: bool = True,
) -> None:  # fmt: skip
    panel: Any = figure.add_subplot(1, columns, column + 1)
    picture = panel.imshow(values.numpy(), extent=extent, cmap=colours, vmin=bounds[0], vmax=bounds[1])
    panel.set_title(name, fontsize=10)
    panel.tick_params(labelsize=8)
    if bar:
        figure.colorbar(picture, ax=panel, shrink=0.8)
