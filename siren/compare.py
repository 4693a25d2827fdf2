"""The paper's comparison: the same image in a SIREN, ReLU networks and a hash grid, with derivatives and PSNR over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from nerf.kernels import Ops
from siren import command
from siren.baselines import KINDS, RATES, TITLES, build, derivatives
from siren.differences import image_gradient, image_laplacian
from siren.figures import gradient_colors, gradient_scale, laplacian_grays, laplacian_scale, picture, sheet
from siren.image import BLOCK, Grid, sample
from siren.loop import Schedule, fit
from siren.network import SirenConfig
from siren.objectives import ImageObjective

MEASURES = 24  # points of a curve


def compare(
    values: Float[Tensor, "h w c"], config: SirenConfig, ops: Ops, seconds: float, seed: int, out: Path
) -> dict[str, Any]:
    """Fit `values` (in [-1, 1]) with every kind of network for `seconds` each, on all pixels at every step, in float32.

    Writes compare.png (images, gradients, Laplacians) and compare_psnr.png (PSNR against seconds).

    Returns:
        For each kind its psnr, steps, seconds, parameters, and the curve as pairs of seconds and dB.
    """
    grid = Grid(*values.shape[:2])
    config = SirenConfig(2, values.shape[-1], config.width, config.layers, config.omega, config.omega)
    gradient, laplacian = image_gradient(values, grid.pitch), image_laplacian(values, grid.pitch)
    length, bend = gradient_scale(gradient), laplacian_scale(laplacian)
    top = [
        (picture(values), "photo"),
        (gradient_colors(gradient, length), "gradient"),
        (laplacian_grays(laplacian, bend), "Laplacian"),
    ]
    columns, found = [top], {}
    for kind in KINDS:
        generator = torch.Generator().manual_seed(seed)
        network = build(kind, config, max(values.shape[:2]), ops, generator)
        curve: list[list[float]] = []
        schedule = Schedule(None, seconds, RATES[kind], seed=seed)
        last = None
        for last in fit(network, ImageObjective(network, values), schedule):
            if last.share * MEASURES >= len(curve) + 1 or last.step == 1:
                curve.append([last.seconds, last.figures["psnr"]])
        assert last is not None
        image = sample(network, grid)
        quality = command.decibels((image - values).square().mean())
        parts = [derivatives(network, points) for points in grid.all_points().split(BLOCK // 4)]
        columns.append([
            (picture(image), f"{TITLES[kind]}, {quality:.1f} dB"),
            (gradient_colors(torch.cat([p[0] for p in parts]).reshape(gradient.shape), length), ""),
            (laplacian_grays(torch.cat([p[1] for p in parts]).reshape(laplacian.shape), bend), ""),
        ])  # fmt: skip
        found[kind] = {
            "psnr": quality, "steps": last.step, "seconds": last.seconds, "rate": RATES[kind],
            "parameters": sum(p.numel() for p in network.parameters()), "curve": curve,
        }  # fmt: skip
        print(f"{TITLES[kind]}: {quality:.2f} dB, {last.step} steps in {last.seconds:.1f} s")
    rows = [list(row) for row in zip(*columns)]
    sheet(rows, out / "compare.png", f"{seconds:.0f} s each, all pixels at every step", 2.4)
    _plot(found, out / "compare_psnr.png")
    return found


def _plot(found: dict[str, Any], file: Path) -> None:
    figure = Figure(figsize=(6.4, 4), dpi=110)
    axes = figure.subplots()
    for kind, of in found.items():
        axes.plot(*zip(*of["curve"]), label=f"{TITLES[kind]} ({of['steps']} steps, rate {of['rate']:g})")
    axes.set_xlabel("seconds")
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    command.save_figure(figure, file)
