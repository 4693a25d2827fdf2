"""What each part of a moving scene's model is worth: `python -m apps.ablation` trains without one at a time and compares.

Every variant is a run of its own, of the same length and from the same seed, kept under `--runs`; a run that is there already
is read rather than made again. The table goes between the markers of `--out`, a picture of one held-out view beside it.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from PIL import Image, ImageDraw
from tqdm import tqdm

from data.errors import SceneError
from data.files import file_stem, write_atomically
from data.films import VideoError, write_png
from data.scene import Scene, load_scene
from nerf.cli import Options as TrainOptions
from nerf.cli import configure, describe
from nerf.config import ConfigError, TrainConfig, to_json
from nerf.evaluate import METRICS
from nerf.kernels import BackendError, choose, keep_memory
from nerf.paths import Rig
from nerf.presets import sliced
from nerf.train import prepare, train
from nerf.trainer import Collapse

MARKERS = "<!-- ablation -->", "<!-- /ablation -->"
CONFIG = "ablation.json"  # what a finished run was told, beside its figures
WIDE = 240  # pixels of a view in the picture


def _loss(**changes: Any) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: replace(config, loss=replace(config.loss, **changes))


def _translation(config: TrainConfig) -> TrainConfig:
    assert config.model.warp is not None
    return replace(config, model=replace(config.model, warp=replace(config.model.warp, kind="translation")))


VARIANTS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "full": lambda config: config,
    "without elastic": _loss(elastic=0.0),
    "without background": _loss(background=0.0),
    "without annealing": _loss(anneal=0.0),
    "translation": _translation,
    "HyperNeRF, plane": lambda config: sliced(config, "plane"),
    "HyperNeRF, sheet": lambda config: sliced(config, "sheet"),
    "all hash levels from the start": _loss(anneal_levels=None),
    "no warp (NeRF)": lambda config: replace(config, model=replace(config.model, warp=None)),
}
COLUMNS: dict[str, tuple[str, int]] = {
    "psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4), "msssim": ("MS-SSIM", 4), "flip": ("FLIP", 4), "lpips": ("LPIPS", 4),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Train a moving scene in full and without one part at a time; compare on held-out photos.

    Example: python -m apps.ablation --scenes data/selfie --steps 1800
    """

    scenes: tuple[Path, ...] = (Path("data/selfie"),)
    """Folders of posed photos of something that moves."""
    steps: int | None = 1800
    """Steps of each run."""
    budget: str | None = None
    """Or a time for each, such as 2m; --steps None then."""
    preset: Literal["instant", "nerfies"] = "instant"
    """What the full model is."""
    downscale: int = 1
    """Read the photos reduced by this whole factor."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which ones."""
    seed: int = 0
    """Of all runs."""
    runs: Path = Path("runs/ablation")
    """Folder of the runs."""
    out: Path | None = Path("docs/nerfies.md")
    """A text whose table is replaced; None: none."""


def _folder(options: Options, scene: Scene, name: str) -> Path:
    """Of a variant's run."""
    return options.runs / scene.path.name / re.sub(r"\W+", "-", name).strip("-")


def run_variant(options: Options, scene: Scene, place: Path, name: str) -> dict[str, Any]:
    """Train and measure one variant, or read what it gave; its metrics."""
    plain = TrainOptions(
        place, options.preset, options.budget, options.steps, options.downscale, seed=options.seed, video=False
    )
    config = VARIANTS[name](configure(plain, scene, choose()[0]))
    out = _folder(options, scene, name)
    told = to_json(config)
    if (out / METRICS).is_file() and (out / CONFIG).is_file() and (out / CONFIG).read_text() == told:
        return json.loads((out / METRICS).read_text())
    if out.exists():
        shutil.rmtree(out)  # another length, or cut short
    prepare(out, False)
    Rig.of(scene).save(out)
    bar: Any = tqdm(total=100, desc=name, bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed} {postfix}")
    metrics: dict[str, Any] = {}
    for progress in train(config, scene, out):
        bar.n = round(100 * progress.fraction, 1)
        bar.set_postfix_str(describe(progress), refresh=progress.step % 20 == 0)
        metrics = progress.metrics or {}
    bar.close()
    write_atomically(out / CONFIG, told.encode())
    return metrics


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Variants as a table in Markdown; figures that no row has are left out."""
    columns = {key: column for key, column in COLUMNS.items() if any(key in row for row in rows.values())}
    heads = [head for head, _ in columns.values()]
    moved = any("motion" in row for row in rows.values())
    heads += ["point error, share of the motion"] * moved
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, row in rows.items():
        cells = ["-" if row.get(key) is None else f"{row[key]:.{digits}f}" for key, (_, digits) in columns.items()]
        if moved:
            cells.append(f"{100 * row['motion']['share']:.0f} %" if "motion" in row else "-")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def strip(options: Options, scene: Scene, rows: dict[str, dict[str, Any]]) -> np.ndarray:
    """The middle held-out view: the photo and every variant's rendering, each under its name."""
    view = next(iter(rows.values()))["views"]
    file = f"{file_stem(view[len(view) // 2]['name'])}.png"
    tiles: list[tuple[str, Image.Image]] = []
    for name in rows:
        sheet = Image.open(_folder(options, scene, name) / "evaluation" / file)
        wide = sheet.width // 4  # photo, rendering, depth, error
        if not tiles:
            tiles.append(("photo", sheet.crop((0, 0, wide, sheet.height))))
        tiles.append((name, sheet.crop((wide, 0, 2 * wide, sheet.height))))
    high, across = round(WIDE * tiles[0][1].height / tiles[0][1].width), (len(tiles) + 1) // 2
    picture = Image.new("RGB", (across * WIDE, 2 * (high + 16)), "white")
    for place, (name, tile) in enumerate(tiles):
        x, y = place % across * WIDE, place // across * (high + 16)
        picture.paste(tile.convert("RGB").resize((WIDE, high), Image.Resampling.LANCZOS), (x, y + 16))
        ImageDraw.Draw(picture).text((x + 4, y + 2), name, fill="black")
    return np.asarray(picture)


def insert(text: str, found: str, where: Path, markers: tuple[str, str] = MARKERS) -> str:
    """`text` with what stands between its markers replaced."""
    start, end = text.find(markers[0]), text.find(markers[1])
    if not 0 <= start < end:
        raise ConfigError(f"{where}: expected the lines {' and '.join(markers)} around a table, found none")
    return f"{text[: start + len(markers[0])]}\n{found}\n{text[end:]}"


def run(options: Options) -> str:
    """Train all variants on all scenes; the tables as Markdown, also written to `--out`."""
    odd = [name for name in options.variants if name not in VARIANTS]
    if odd or not options.variants:
        raise ConfigError(f"--variants: expected some of {', '.join(map(repr, VARIANTS))}, found {odd or 'none'}")
    text = options.out.read_text() if options.out is not None and options.out.is_file() else "\n".join(MARKERS)
    if options.out is not None:
        insert(text, "", options.out)  # a text without markers is said before hours of training
    parts = []
    for place in options.scenes:
        scene = load_scene(place, options.downscale)
        if not scene.moving or not scene.test:
            raise ConfigError(
                f"{place}: expected photos of something that moves, some held out, found {scene.summary()}"
            )
        print(scene.summary())
        rows: dict[str, dict[str, Any]] = {}
        for name in options.variants:
            rows[name] = run_variant(options, scene, place, name)
            print(f"{name}: {rows[name]['psnr']:.2f} dB, FLIP {rows[name]['flip']:.4f}")
        long = f"{options.steps} steps" if options.steps is not None else str(options.budget)
        parts.append(
            f"### {scene.path.name}\n\nPreset {options.preset}, {long} each, {len(scene.test)} held-out views of "
            f"{scene.test[0].camera.width} x {scene.test[0].camera.height}, seed {options.seed}.\n\n{markdown(rows)}\n"
        )
        write_png(options.runs / f"{scene.path.name}.png", strip(options, scene, rows))
    found = "\n".join(parts)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, insert(text, f"\n{found}", options.out).encode())
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 2 for bad input, 130 after Ctrl-C (finished runs are kept)."""
    options = tyro.cli(Options, args=arguments, prog="python -m apps.ablation")
    keep_memory()
    try:
        print(run(options))
    except (ConfigError, SceneError, BackendError, Collapse, VideoError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished runs are kept and not made again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
