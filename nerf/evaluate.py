"""Figures on held-out views: `python -m nerf.evaluate --run DIR` repeats those of training from the checkpoint."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from data.errors import SceneError
from data.files import file_stem, write_atomically
from data.films import VideoError, write_png
from data.scene import Frame, Scene, load_scene
from data.sizes import bytes_of
from nerf import together
from nerf.checkpoint import load_model, read_config
from nerf.config import ConfigError
from nerf.kernels import BackendError, choose, keep_memory
from nerf.kernels.backends import available
from nerf.localize import localize, remark
from nerf.metrics import flip_map, lpips, masked_lpips, masked_ssim, ms_ssim, psnr, ssim
from nerf.model import Geometry, SceneModel
from nerf.picture import Picture, finished, render_image
from nerf.point_error import measured_motion, sentence
from nerf.video import colormap, depth_colors, depth_range, to_bytes

METRICS = "metrics.json"
FIGURES = {  # and their names in the table
    "psnr": "PSNR", "ssim": "SSIM", "msssim": "MS-SSIM", "flip": "FLIP", "lpips": "LPIPS",
    "mpsnr": "mPSNR", "mssim": "mSSIM", "mlpips": "mLPIPS",
}  # fmt: skip
ALWAYS = ("psnr", "ssim", "flip")  # the others are left out where no view has them
SAME = 1e-4  # by how much a scene's numbers may differ from the run's, as a share of the scene's size


@dataclass(frozen=True)
class Options:
    """Measure a trained scene on the photos that were held out, and write the figures to the run's metrics.json.

    Example: python -m nerf.evaluate --run runs/fox

    PSNR (dB), SSIM and MS-SSIM (of photos from 161 pixels a side): higher is better. FLIP (NVIDIA's perceptual
    difference, 0 to 1) and LPIPS (where the package lpips and its weights are installed): lower is better. mPSNR, mSSIM
    and mLPIPS: over the pixels that training photos show too, where DyCheck's masks say which these are. Where the scene
    knows how its surfaces moved (motion.npz), how far from there its warp carries their points.
    """

    run: Path
    """The run's folder, as python -m nerf.train made it."""
    backend: str | None = None
    """Kernels. Default: those of the run, so that its figures are repeated; auto: the fastest there are."""
    views: int | None = None
    """Only so many views, evenly spread; metrics.json then stays as it is."""
    out: Path | None = None
    """Folder for a picture a view: photo, render, depth and FLIP's error side by side."""
    scene: Path | None = None
    """The photos' folder, where it is no longer the one that the run was trained on."""
    memory: str | None = None
    """What the photos may take in memory: 500MB, 2GB. Default: half of what is free."""


def evaluate(
    model: SceneModel,
    scene: Scene,
    frames: Sequence[Frame] | None = None,
    progress: Callable[[Sequence[Frame]], Iterable[Frame]] | None = None,
    out: Path | None = None,
    views: int | None = None,
) -> dict[str, Any]:
    """Render held-out views and compare them with their photos.

    Args:
        frames: the views; None: all that the scene holds out.
        progress: wraps the list of views, as `tqdm` does.
        out: folder for comparison pictures.
        views: look at no more than this many, evenly spread.

    Returns:
        "psnr" (dB), "ssim", "flip": means over the views, None where there are none; where they can be had, "msssim"
        and "lpips", and over co-visible pixels "mpsnr", "mssim" and "mlpips", each over the views that have it;
        "views": the same for each, with its "name"; "render_seconds". Masks that aren't a cut-out's alpha are
        honoured: what they exclude doesn't count. "poses", where they were learned: how far training photos were moved,
        "rotation" (degrees) and "translation" (shares of the scene's size), means over them; views are then rendered from
        where their photos fit the scene best (nerf/localize.py). "motion": see `point_error`, where the scene knows how it moved.
    """
    chosen = list(scene.test if frames is None else frames)
    if views is not None and views < len(chosen):
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, views).round().astype(int)]
    return finished(evaluating(model, scene, chosen, out, progress))


def evaluating(
    model: SceneModel,
    scene: Scene,
    frames: Sequence[Frame],
    out: Path | None = None,
    progress: Callable[[Sequence[Frame]], Iterable[Frame]] | None = None,
) -> Generator[int, None, dict[str, Any]]:
    """`evaluate` a view at a time: yields how many are done, returns the figures. Ranks share the views."""
    found: list[dict[str, Any] | None] = []
    seconds = 0.0
    mine = together.own(frames)
    for done, frame in enumerate(mine if progress is None else progress(mine), 1):
        camera, at = frame.camera, instant(model, scene, frame)
        if model.poses is not None:
            camera = localize(model, frame, at, scene.masks_are_alpha)
        began = time.perf_counter()
        picture = render_image(model, camera, at, lens=frame.camera_id)
        seconds += time.perf_counter() - began
        found.append(_compare(picture, frame, scene, out))
        yield min(done * together.world(), len(frames))
    rows, seconds = [row for row in together.merged(found) if row is not None], sum(together.merged([seconds]))
    had = [name for name in FIGURES if name in ALWAYS or any(name in row for row in rows)]
    means = {name: _mean([row[name] for row in rows if name in row]) for name in had}
    motion = measured_motion(model, scene)
    figures = {**means, "views": rows, "render_seconds": seconds, **({} if motion is None else {"motion": motion})}
    return figures if model.poses is None else figures | {"poses": model.poses.moved()._asdict()}


def instant(model: SceneModel, scene: Scene, frame: Frame) -> float:
    """The instant to show a held-out view at: its own, mixed from its neighbours', or that of the photo whose codes it
    shares, as the scene's protocol says."""
    if scene.interpolate_test or not scene.moving:
        return frame.time
    return model.geometry.times[frame.warp_id]


def _compare(picture: Picture, frame: Frame, scene: Scene, out: Path | None) -> dict[str, Any] | None:
    photo = frame.image.float() / 255
    mask = None if frame.mask is None or scene.masks_are_alpha else frame.mask > 127
    if mask is not None and not mask.any():
        return None
    error = flip_map(picture.rgb, photo, mask)
    figures: dict[str, float | None] = {
        "psnr": psnr(picture.rgb, photo, mask), "ssim": ssim(picture.rgb, photo, mask),
        "msssim": ms_ssim(picture.rgb, photo, mask),
        "flip": float((error if mask is None else error[mask]).double().mean()),
        "lpips": lpips(picture.rgb if mask is None else torch.where(mask[..., None], picture.rgb, photo), photo),
    }  # fmt: skip
    if frame.covisible is not None:
        seen = frame.covisible > 127
        figures |= _covisible(picture.rgb, photo, seen if mask is None else seen & mask)
    row = {"name": frame.name, **{name: value for name, value in figures.items() if value is not None}}
    if out is not None:
        write_png(out / f"{file_stem(frame.name)}.png", _sheet(photo, picture, error, scene))
    return row


def _covisible(rgb: Tensor, photo: Tensor, seen: Tensor) -> dict[str, float | None]:
    """DyCheck's figures (Gao et al. 2022, section 4), of pixels that training photos show too; none where none is."""
    if not seen.any():
        return {}
    return {
        "mpsnr": psnr(rgb, photo, seen), "mssim": masked_ssim(rgb, photo, seen), "mlpips": masked_lpips(rgb, photo, seen)
    }  # fmt: skip


def _sheet(photo: Tensor, picture: Picture, error: Tensor, scene: Scene) -> np.ndarray:
    """Photo, render, depth and error side by side."""
    depths = depth_range(picture.depth.flatten(), picture.opacity.flatten(), (scene.near, scene.far))
    depth = depth_colors(picture.depth, picture.opacity, *depths)
    return to_bytes(torch.cat([photo, picture.rgb, depth, colormap(error)], dim=1))


def _mean(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def table(figures: dict[str, Any]) -> str:
    """The figures as text: a row a view, and the means; a line on the motion, and one on the poses."""
    names = [name for name in FIGURES if name in figures]
    wide = max([len("mean"), *(len(row["name"]) for row in figures["views"])])
    digits = {"psnr": 2, "mpsnr": 2}
    head = f"{'view':{wide}}" + "".join(f"  {FIGURES[name]:>7}" for name in names)
    lines = [head, "-" * len(head)]
    for row in [*figures["views"], {"name": "mean", **figures}]:
        cells = ("-" if row.get(name) is None else f"{row[name]:.{digits.get(name, 4)}f}" for name in names)
        lines.append(f"{row['name']:{wide}}" + "".join(f"  {cell:>7}" for cell in cells))
    said = [sentence(figures["motion"])] if "motion" in figures else []
    said += [remark(figures["poses"])] if "poses" in figures else []
    return "\n".join([*lines[:-1], "-" * len(head), lines[-1], *said])


def open_scene(folder: Path, moved: Path | None = None, memory: int | None = None) -> Scene:
    """The photos that the run in `folder` was trained on, in so many bytes (see `load_scene`). Raises ConfigError where
    they are gone or others."""
    run = read_config(folder)
    place = Path(run.train.scene) if moved is None else moved
    if not place.expanduser().exists():
        raise ConfigError(f"{folder}: expected its photos at {place}, found nothing; --scene DIR says where they are")
    scene = load_scene(place, run.train.downscale, memory=memory)
    odd = differing(Geometry.of(scene), run.geometry)
    if odd:
        raise ConfigError(f"{place}: {odd}; {folder} was trained on other photos, or they have changed since")
    return scene


def differing(found: Geometry, expected: Geometry) -> str:
    """What about a scene differs from the one that a run knows, in words; "" where nothing does."""
    if len(found.times) != len(expected.times):
        return f"times: expected {len(expected.times)} instants, found {len(found.times)}"
    if found.space.contract != expected.space.contract or (found.background is None) != (expected.background is None):
        return "bounds: expected the run's kind of scene (open, bounded, or on a plain colour), found another"
    for name, now, then in (
        ("box", (*found.space.center, found.space.half), (*expected.space.center, expected.space.half)),
        ("near, far and reach", (found.near, found.far, found.reach), (expected.near, expected.far, expected.reach)),
        ("times", found.times, expected.times),
        ("background", found.background or (), expected.background or ()),
    ):
        if not np.allclose(now, then, rtol=SAME, atol=SAME * (1.0 if name == "times" else expected.space.half)):
            return f"{name}: expected {then}, found {now}"
    return ""


def run_evaluation(options: Options) -> str:
    """Do what the command line asks for; returns the table."""
    if options.views is not None and options.views < 1:
        raise ConfigError(f"--views: expected at least 1, found {options.views}")
    own = read_config(options.run).train.backend
    backend = options.backend or (own if available().get(own) == "" else "auto")
    print(choose(backend)[1] + ("" if options.backend or backend == own else f"; the run's own, {own}, can't be had"))
    model, _ = load_model(options.run, backend)
    scene = open_scene(options.run, options.scene, bytes_of(options.memory))
    if not scene.test:
        raise ConfigError(f"{scene.path}: expected held-out photos to measure on, found none")
    bar = partial(tqdm, desc="views", unit="view", dynamic_ncols=True, leave=False)
    figures = evaluate(model, scene, progress=bar, out=options.out, views=options.views)
    text = table(figures)
    if options.views is not None and options.views < len(scene.test):
        return f"{text}\n{options.views} of {len(scene.test)} views; metrics.json stays as it is"
    update(options.run, figures)
    return f"{text}\nwrote {options.run / METRICS}"


def update(folder: Path, figures: dict[str, Any]) -> None:
    """Put figures into the run's metrics.json, keeping what else it says (how long training took, and so on), but not
    means that these views no longer have."""
    path = folder / METRICS
    try:
        kept = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ConfigError(f"{path}: expected JSON, found: {error}") from None
    if not isinstance(kept, dict):
        raise ConfigError(f"{path}: expected an object, found {type(kept).__name__}")
    kept = {name: value for name, value in kept.items() if name in figures or name not in FIGURES}
    write_atomically(path, json.dumps({**kept, **figures}, indent=2).encode())


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    options = tyro.cli(Options, args=arguments, prog="python -m nerf.evaluate")
    keep_memory()
    try:
        print(run_evaluation(options))
    except (ConfigError, SceneError, BackendError, VideoError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; metrics.json stays as it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
