"""A scene's held-out PSNR against seconds of training: a run for every budget, as its learning rates fall with it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.durations import seconds
from data.scene import Scene, load_scene
from nerf.cli import Options as TrainOptions
from nerf.cli import configure
from nerf.config import ConfigError
from nerf.evaluate import evaluate
from nerf.kernels import choose
from nerf.picture import render_image
from nerf.trainer import Trainer


@dataclass(frozen=True)
class SceneOptions:
    """PSNR against seconds on a scene."""

    path: Path | None = None
    """Folder of posed photos, as python -m nerf.train takes it. Default: no scene."""
    budgets: tuple[str, ...] = ("15s", "60s", "150s", "300s")
    """Training times; each is a run of its own."""
    downscale: int = 1
    """Read the photos reduced by this whole factor."""
    plot: Path | None = None
    """Draw the curve there (PNG)."""


def scene_rows(options: SceneOptions) -> list[dict[str, Any]]:
    """Train for every budget and measure. Raises ConfigError for a budget that is no time, and where nothing is held out."""
    assert options.path is not None
    budgets = []
    for text in options.budgets:
        found = seconds(text)
        if found is None or found <= 0:
            raise ConfigError(f"--scene.budgets: expected times such as 90s or 5m, found {text!r}")
        budgets.append(found)
    scene = load_scene(options.path, options.downscale)
    if not scene.test:
        raise ConfigError(f"--scene.path: expected photos of which some are held out, found none in {options.path}")
    print(scene.summary())
    rows = [measured(scene, options, budget) for budget in budgets]
    if options.plot is not None:
        draw(rows, f"{options.path.name}, {rows[0]['backend']}", options.plot)
    return rows


def measured(scene: Scene, options: SceneOptions, budget: float) -> dict[str, Any]:
    """One run: its PSNR on the held-out views, what it took, and how long one view takes to render."""
    assert options.path is not None
    plain = TrainOptions(options.path, budget=f"{budget}s", downscale=options.downscale)
    trainer = Trainer(configure(plain, scene, choose()[0]), scene)
    bar = tqdm(total=round(budget), desc=f"{budget:g} s", unit="s", leave=False, disable=not sys.stderr.isatty())
    rays = 0
    while trainer.fraction < 1:
        rays += int(trainer.advance()["rays"])
        bar.update(round(trainer.seconds) - bar.n)
    bar.close()
    model = trainer.model.eval()
    metrics = evaluate(model, scene)
    frame = scene.test[0]
    began = time.perf_counter()
    render_image(model, frame.camera, frame.time if model.warp is not None else None)
    return {
        "seconds": trainer.seconds, "psnr": metrics["psnr"], "ssim": metrics["ssim"], "steps": trainer.step,
        "rays_per_second": rays / trainer.seconds, "samples_per_second": trainer.visited / trainer.seconds,
        "view_seconds": time.perf_counter() - began, "width": frame.camera.width, "height": frame.camera.height,
        "backend": trainer.config.backend,
    }  # fmt: skip


def scene_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'training':>9}{'PSNR':>10}{'SSIM':>8}{'steps':>8}{'k rays/s':>10}{'M samples/s':>13}{'s/view':>9}"]
    for row in rows:
        quality = f"{row['psnr']:>7.2f} dB{row['ssim']:>8.3f}"
        rates = f"{row['rays_per_second'] / 1e3:>10.1f}{row['samples_per_second'] / 1e6:>13.2f}"
        lines.append(f"{row['seconds']:>7.0f} s{quality}{row['steps']:>8}{rates}{row['view_seconds']:>9.2f}")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """PSNR against seconds, on a logarithmic axis of time."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx([row["seconds"] for row in rows], [row["psnr"] for row in rows], "o-", color="#1f5fa8")
    for row in rows:
        axes.annotate(
            f"{row['psnr']:.1f}", (row["seconds"], row["psnr"]), (0, 6), textcoords="offset points", ha="center"
        )
    axes.set(xlabel="seconds of training", ylabel="held-out PSNR, dB", title=title)
    axes.margins(0.1, 0.2)
    axes.set_xticks([row["seconds"] for row in rows], [f"{row['seconds']:.0f}" for row in rows], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
