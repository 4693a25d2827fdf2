"""Learn a scene from posed photos: `python -m nerf.train --scene data/selfie`.

`train` is a generator of `Progress`: the command line prints it, a viewer can plot it, a test takes ten steps of it.
Closing the generator, at any step, saves the run; `resume=True` goes on from there with the bits that an
uninterrupted run would have had.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.files import write_atomically
from data.scene import Frame, Scene
from nerf import checkpoint, together
from nerf.config import ConfigError, TrainConfig
from nerf.evaluate import evaluating, instant
from nerf.localize import refined
from nerf.metrics import psnr
from nerf.model import SceneModel
from nerf.picture import render_image
from nerf.rig import Rig
from nerf.trainer import Collapse, Trainer

SAVE_EVERY = 60.0  # seconds of training between checkpoints
PREVIEWS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # shares of the run
ROOM = 1 << 16  # bytes that a disk must have left for the curves
PREVIEW_WIDTH = 400  # pixels; larger views are previewed smaller


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step.

    Attributes:
        step, fraction, seconds: steps, share of the run, and seconds of training so far.
        loss, psnr: smoothed training loss and PSNR (dB).
        rays_per_second, samples_per_second: over the run so far.
        terms: this step's loss terms.
        left: seconds of training that remain, an estimate where steps are counted.
        note: something a person should read (a preview written, a restart), or "".
        stage: what goes on where it isn't training, or "".
        metrics: the final figures, on the last one only.
        model: the scene as it stands; to be looked at before the next step is asked for, not while it is taken.
    """

    step: int
    fraction: float
    seconds: float
    loss: float
    psnr: float
    rays_per_second: float
    samples_per_second: float
    left: float
    terms: dict[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""
    stage: str = ""
    metrics: dict[str, Any] | None = None
    model: SceneModel | None = dataclasses.field(default=None, repr=False, compare=False)


class _Meter:
    """Smoothed figures of a run."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.rays, self.began = trainer, 0.0, trainer.seconds
        self.squared = self.loss = self.weight = 0.0

    def add(self, terms: dict[str, float]) -> None:
        loss = sum(
            value for name, value in terms.items() if name not in ("squared", "opacity", "visited", "kept", "rays")
        )
        keep = 0.97
        self.squared = keep * self.squared + (1 - keep) * terms["squared"]
        self.loss = keep * self.loss + (1 - keep) * loss
        self.weight = keep * self.weight + (1 - keep)
        self.rays += terms["rays"]

    def progress(self, terms: dict[str, float], note: str = "") -> Progress:
        trainer, weight = self.trainer, max(self.weight, 1e-9)
        seconds, fraction = max(trainer.seconds, 1e-9), trainer.fraction
        left = (
            (trainer.config.budget or 0) - seconds
            if trainer.config.steps is None
            else seconds * (1 / max(fraction, 1e-9) - 1)
        )
        return Progress(
            trainer.step, fraction, trainer.seconds, self.loss / weight, -10 * math.log10(max(self.squared / weight, 1e-12)),
            self.rays / max(seconds - self.began, 1e-9), trainer.visited / seconds, max(left, 0.0), terms, note,
            model=trainer.model,
        )  # fmt: skip


def train(
    config: TrainConfig, scene: Scene, out: Path | None = None, resume: bool = False
) -> Generator[Progress, None, None]:
    """Train on `scene` as `config` says, yielding after every step; the last `Progress` carries the final metrics.

    Args:
        out: the run's folder: config.json, checkpoint.safetensors, previews/, events, metrics.json; None writes nothing.
        resume: go on from the checkpoint in `out`.

    A collapse (a loss that is no number, a scene that stays empty) starts again from another seed, once; a second
    one raises `Collapse`.

    Several ranks (nerf/together.py) take every step together; the first one writes.
    """
    everywhere, out = out, out if together.first() else None
    writer = _events(out)
    try:
        trainer = Trainer(config, scene)
        if resume and everywhere is not None and (together.alone() or (everywhere / checkpoint.CHECKPOINT).is_file()):
            note = checkpoint.restore(everywhere, trainer)
            if note:
                yield dataclasses.replace(_Meter(trainer).progress({}), note=note)
        yield from _registered(trainer, out)
        together.share(trainer, checkpoint.save, checkpoint.restore)
        try:
            last = yield from _steps(trainer, out, writer)
        except Collapse as collapse:
            again = Trainer(dataclasses.replace(config, seed=config.seed + 1), scene)
            yield dataclasses.replace(
                _Meter(again).progress({}), note=f"collapsed: {collapse}; starting again with seed {again.config.seed}"
            )
            trainer = again
            yield from _registered(trainer, out)
            together.share(trainer, checkpoint.save, checkpoint.restore)
            last = yield from _steps(trainer, out, writer)
        metrics = yield from _measured(trainer, out, last, everywhere)
        yield dataclasses.replace(last, note="", metrics=metrics)
    finally:
        if writer is not None:
            with suppress(OSError):  # a full disk: `_log` has said so
                writer.close()


def _registered(trainer: Trainer, out: Path | None) -> Generator[Progress, None, None]:
    """Bring the photos into register, where the run is told to and has not done it, and say so before and after."""
    if trainer.config.register is None or trainer.registering:
        return
    start = _Meter(trainer).progress({})
    try:
        yield dataclasses.replace(start, note=f"following points through {len(trainer.scene.train)} photos ...")
        said = trainer.register()
        yield dataclasses.replace(start, note=f"{said} ({trainer.registering:.0f} s)")
    except GeneratorExit:
        if out is not None:
            checkpoint.save(out, trainer)
        raise


def _steps(trainer: Trainer, out: Path | None, writer: Any) -> Generator[Progress, None, Progress]:
    """Steps until the run is done; returns where it then stands. Whatever ends them early, the last whole step is saved."""
    meter = _Meter(trainer)
    progress = meter.progress({})
    saved = trainer.seconds
    previews = [share for share in PREVIEWS if share > trainer.fraction]
    try:
        while trainer.fraction < 1:
            terms = trainer.advance()
            meter.add(terms)
            note = ""
            if previews and trainer.fraction >= previews[0]:
                previews = [share for share in previews if share > trainer.fraction]
                note = preview(trainer, out / "previews") if out is not None else ""
                together.wait()
            if trainer.seconds - saved > SAVE_EVERY:
                if out is not None:
                    note = "\n".join(filter(None, (note, checkpoint.try_save(out, trainer))))
                saved = trainer.seconds
                together.wait()
            progress = meter.progress(terms, note)
            if writer is not None and trainer.step % 20 == 0 and (fault := _log(writer, progress)):
                writer, progress = None, dataclasses.replace(progress, note="\n".join(filter(None, (note, fault))))
            yield progress
    except Collapse:
        raise  # a state that has gone nowhere must not replace one that can be resumed
    except BaseException:
        if out is not None:
            checkpoint.save(out, trainer)
        raise
    if out is not None:
        checkpoint.save(out, trainer)
    return progress


def _measured(
    trainer: Trainer, out: Path | None, last: Progress, pictures: Path | None
) -> Generator[Progress, None, dict[str, Any]]:
    """Held-out figures, a view a `Progress`, and what the run took; returned, and written to metrics.json.

    pictures: the run's folder, for those of the views that fall to this rank.
    """
    model, config, views = trainer.model.eval(), trainer.config, trainer.scene.test
    if out is not None:
        preview(trainer, out / "previews")
        Rig.of(refined(model, trainer.scene)).save(out)  # photos' cameras, as they were learned
    together.wait()
    work = evaluating(model, trainer.scene, views, None if pictures is None else pictures / "evaluation")
    while True:
        try:
            done = next(work)
        except StopIteration as end:
            metrics = end.value
            break
        yield dataclasses.replace(last, note="", stage=f"measuring, {done} of {len(views)} views")
    metrics |= {
        "scene": config.scene, "preset": config.preset, "downscale": config.downscale, "seed": config.seed,
        "train_seconds": trainer.seconds, "register_seconds": trainer.registering, "steps": trainer.step,
        "samples_per_second": trainer.visited / max(trainer.seconds, 1e-9),
        "backend": config.backend, "warp": config.model.warp is not None,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    if trainer.exchange is not None:
        metrics |= {"processes": together.world(), "bytes_per_step": trainer.exchange.bytes_per_step}
    if out is not None:
        write_atomically(out / "metrics.json", json.dumps(metrics, indent=2).encode())
    return metrics


def preview(trainer: Trainer, folder: Path) -> str:
    """Write a held-out view (of training, where none is held out), photo left, rendering right; says where, or why not."""
    frames = trainer.scene.test or refined(trainer.model, trainer.scene).train
    frame = frames[len(frames) // 2]
    photo, camera = _small(frame)
    picture = render_image(trainer.model, camera, instant(trainer.model, trainer.scene, frame), lens=frame.camera_id)
    pair = torch.cat([photo, picture.rgb], dim=1)
    path = folder / f"{trainer.step:06d}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pair * 255).round().to(torch.uint8).numpy()).save(path)
    except OSError as error:
        return f"{path}: not written: {error.strerror or error}"
    return f"{path}: view {frame.name} at {psnr(picture.rgb, photo):.2f} dB"


def _small(frame: Frame) -> tuple[torch.Tensor, Any]:
    """A photo and its camera, reduced by a whole factor to about PREVIEW_WIDTH."""
    photo, camera = frame.image.float() / 255, frame.camera
    factor = max(1, round(camera.width / PREVIEW_WIDTH))
    if factor == 1:
        return photo, camera
    width, height = camera.width // factor, camera.height // factor
    image = (
        Image.fromarray(np.asarray(frame.image))
        .crop((0, 0, width * factor, height * factor))
        .resize((width, height), Image.Resampling.BOX)
    )
    return torch.from_numpy(np.array(image)).float() / 255, camera.scaled(1 / factor, width, height)


def _events(out: Path | None) -> Any:
    if out is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # slow to import, so only where it is used

    return SummaryWriter(str(out))


def _log(writer: Any, progress: Progress) -> str:
    """Add a step to the curves; says why they end here, or ""."""
    try:
        # Its own thread writes: it would end in a traceback.
        if shutil.disk_usage(writer.log_dir).free < ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writer.add_scalar("train/psnr", progress.psnr, progress.step)
        writer.add_scalar("train/loss", progress.loss, progress.step)
        writer.add_scalar("rate/samples_per_second", progress.samples_per_second, progress.step)
        for name, value in progress.terms.items():
            writer.add_scalar(f"terms/{name}", value, progress.step)
    except OSError as error:
        return f"{writer.log_dir}: TensorBoard's curves end at step {progress.step}: {error.strerror or error}"
    return ""


def prepare(out: Path, resume: bool) -> str:
    """Make the run's folder ready; a run that is already there and is not resumed is moved aside, never overwritten.

    Returns what was done, or "".
    """
    there = bool(checkpoint.saved(out))
    if resume and not there:
        raise ConfigError(f"--resume: expected a checkpoint in {out}, found none; train without --resume first")
    said = ""
    if there and not resume:
        number = 1
        while (aside := out.with_name(f"{out.name}.old{number}")).exists():
            number += 1
        out.rename(aside)
        said = f"{out} held a run; it is now {aside}"
    out.mkdir(parents=True, exist_ok=True)
    return said


if __name__ == "__main__":
    from nerf.cli import main

    main()
