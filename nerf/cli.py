"""The command line of `python -m nerf.train`."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from tqdm import tqdm

from data.durations import seconds
from data.errors import SceneError
from data.films import VideoError
from data.scene import Scene, load_scene
from data.sizes import bytes_of
from nerf import checkpoint, together
from nerf.config import ConfigError, TrainConfig
from nerf.exchange import stop
from nerf.kernels import BackendError, choose, keep_memory
from nerf.kernels.backends import ON_GPU
from nerf.localize import refined, remark
from nerf.paths import Rig
from nerf.presets import on_gpu, posed, preset, registered, sliced
from nerf.register import RegisterError
from nerf.render import render_video
from nerf.train import Progress, prepare, train
from nerf.trainer import Collapse

DEFAULT_BUDGET = 300.0  # seconds, for presets that count time


@dataclass(frozen=True)
class Options:
    """Learn a scene from posed photos, measure it on held-out views, and make its orbit video.

    Example: python -m nerf.train --scene data/selfie --budget 5m
    """

    scene: Path
    """Folder of posed photos: Blender, instant-ngp, nerfstudio, Nerfies, HyperNeRF, DyCheck, LLFF, NR-NeRF, COLMAP, Polycam or
    Record3D; python -m data.capture makes one of a film or of photos."""
    preset: Literal["auto", "instant", "nerf", "nerfies"] = "auto"
    """auto: instant, with a warp where the scene moves. nerf, nerfies: the papers' own (days on a CPU)."""
    budget: str | None = None
    """Train for this long: 90s, 5m, 1h. Default: 5m for instant."""
    steps: int | None = None
    """Train for this many steps instead. Default for nerf and nerfies: the papers'."""
    downscale: int = 1
    """Read the photos reduced by this whole factor."""
    memory: str | None = None
    """What the photos may take in memory: 500MB, 2GB. Those of a larger scene stay on the disk. Default: half of what is free."""
    out: Path | None = None
    """The run's folder. Default: runs/<scene>."""
    resume: bool = False
    """Go on with the run in that folder."""
    warp: bool = True
    """--no-warp treats a moving scene as if it were rigid."""
    register: bool = False
    """Follow points through the photos first, and start the warp from them: a sharper face; not better for every scene."""
    slicing: Literal["none", "plane", "sheet"] = "none"
    """plane, sheet: HyperNeRF's ambient coordinates, for what opens and closes rather than bends."""
    refine_poses: bool = False
    """Learn corrections of the photos' poses beside the scene; held-out photos are then fitted to it before they are compared."""
    backend: str = "auto"
    """Kernels: auto, or cuda, cpu, reference, tcnn (python -m nerf.kernels says which there are)."""
    seed: int = 0
    """Of everything random."""
    video: bool = True
    """Make orbit.mp4 at the end."""


def budget_seconds(text: str) -> float:
    """--budget in seconds."""
    found = seconds(text)
    if found is None:
        raise ConfigError(f"--budget: expected a time such as 90s, 5m or 1h, found {text!r}")
    return found


def length(options: Options) -> tuple[int | None, float | None]:
    """--steps and --budget (seconds), checked; both None where neither was given."""
    if options.budget is not None and options.steps is not None:
        raise ConfigError("--budget, --steps: expected one of them, found both")
    if options.steps is not None and options.steps < 1:
        raise ConfigError(f"--steps: expected at least 1, found {options.steps}")
    return options.steps, None if options.budget is None else budget_seconds(options.budget)


def configure(options: Options, scene: Scene, backend: str) -> TrainConfig:
    """The run that the options ask for on this scene."""
    config = preset(options.preset, scene.moving and options.warp, scene.background is not None)
    if options.register:
        config = registered(config)
    if backend in ON_GPU:
        config = on_gpu(config)
    if options.slicing != "none":
        config = sliced(config, options.slicing)
    if options.refine_poses:
        config = posed(config, len(scene.train))
    steps, budget = length(options)
    if steps is None and budget is None:
        steps = config.steps
        budget = DEFAULT_BUDGET if steps is None else None
    model = config.model if options.warp else dataclasses.replace(config.model, warp=None)
    cameras = len({frame.camera_id for frame in scene.train})
    if model.appearance and cameras > 1:
        model = dataclasses.replace(model, cameras=cameras)
    return dataclasses.replace(
        config,
        scene=str(options.scene.resolve()),
        downscale=options.downscale,
        steps=steps,
        budget=budget,
        model=model,
        seed=options.seed,
        backend=backend,
    )


def resumed(options: Options, out: Path, backend: str) -> TrainConfig:
    """The saved configuration of the run in `out`; a new --steps or --budget replaces its end, nothing else changes."""
    config = checkpoint.read_config(out).train
    plain = Options(options.scene)
    for name, saved in (("preset", config.preset), ("downscale", config.downscale), ("seed", config.seed)):
        asked = getattr(options, name)
        if asked not in (getattr(plain, name), saved):
            raise ConfigError(f"--{name} with --resume: expected {saved}, as the run in {out} has it, found {asked}")
    if not options.warp and config.model.warp is not None:
        raise ConfigError(f"--no-warp with --resume: the run in {out} has a warp; train another one with --out")
    if options.register and config.register is None:
        raise ConfigError(f"--register with --resume: the run in {out} began without; train another one with --out")
    warp = config.model.warp
    if options.slicing not in ("none", "none" if warp is None or warp.slicing is None else warp.slicing.kind):
        raise ConfigError(f"--slicing with --resume: the run in {out} began with another; train another one with --out")
    if options.refine_poses and not config.model.poses:
        raise ConfigError(f"--refine-poses with --resume: the run in {out} began without; train another one with --out")
    steps, budget = length(options)
    if steps is not None or budget is not None:
        config = dataclasses.replace(config, steps=steps, budget=budget)
    if backend != config.backend and options.backend != "auto":
        config = dataclasses.replace(config, backend=backend)
    return config


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a sentence and exit code 2 for bad input, 130 after Ctrl-C (with the run saved)."""
    options = tyro.cli(Options, args=arguments, prog="python -m nerf.train")
    keep_memory()
    try:
        together.join()
        sys.exit(_run(options))
    except (SceneError, ConfigError, RegisterError, BackendError, Collapse, VideoError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except together.Lost as error:
        print(f"error: {error}. The last whole step is saved; torchrun --max-restarts goes on from it", file=sys.stderr)
        sys.stderr.flush()
        os._exit(3)  # to say goodbye to those who are lost would take as long again
    except OSError as error:  # a full disk, a folder that can't be written
        place = f"{error.filename}: expected a place that can be written, found: {error.strerror}"
        print(f"error: {error if error.filename is None else place}", file=sys.stderr)
        sys.exit(2)


def open_run(options: Options, say: Callable[[str], None]) -> tuple[TrainConfig, Scene, Path]:
    """Make a run's folder ready for the training that the options ask for: its configuration, its photos, the folder.

    say: told what a person should know, a line at a time. Raises what readers and configurations raise.
    """
    backend, said = choose(options.backend)
    say(said)
    out, memory = folder_of(options), bytes_of(options.memory)
    here = (out / checkpoint.CHECKPOINT).is_file()
    somewhere = together.anyone(here)  # asked by all, or those who ask wait for those who don't
    if options.resume and (here or not somewhere):
        prepare(out, True)
        config = resumed(options, out, backend)
        scene = load_scene(options.scene, config.downscale, memory=memory)
    else:
        scene = load_scene(options.scene, options.downscale, memory=memory)
        config = configure(options, scene, backend)
    if not options.resume:
        moved = together.one_a_machine(lambda: prepare(out, False))
        if moved:
            say(moved)
    out.mkdir(parents=True, exist_ok=True)
    say(scene.summary())
    if not together.alone():
        say(f"{together.world()} processes train together, this one with {torch.get_num_threads()} threads")
    say(_intention(config, scene, out))
    if together.first():
        Rig.of(scene).save(out)  # so that paths can be laid without the photos
    return config, scene, out


def folder_of(options: Options) -> Path:
    """The run's folder."""
    return options.out or Path("runs") / options.scene.resolve().name


def _run(options: Options) -> int:
    out = folder_of(options)
    if together.goes_on(out, (out / checkpoint.CHECKPOINT).is_file()):
        options = dataclasses.replace(options, resume=True)
    config, scene, out = open_run(options, print if together.first() else lambda _: None)
    together.mark(out)
    final = _follow(config, scene, out, options.resume)
    if final is None:
        if together.first():
            print(f"saved. Go on with: python -m nerf.train --scene {options.scene} --out {out} --resume")
        return 130
    if together.first():
        _report(final, out)
    if options.video:
        _orbit(out, config.backend, final, scene)
    together.leave()
    return 0


def _intention(config: TrainConfig, scene: Scene, out: Path) -> str:
    length = f"{config.steps} steps" if config.steps is not None else f"{config.budget:.0f} s"
    kind = (
        "no warp"
        if config.model.warp is None
        else f"{config.model.warp.kind} warp over {len({f.warp_id for f in scene.train})} instants"
    )
    return f"preset {config.preset}, {kind}, {length} of training -> {out}"


def _follow(config: TrainConfig, scene: Scene, out: Path, resume: bool) -> Progress | None:
    """Show the run's progress. None where Ctrl-C or a termination ended it early."""
    stop.asked = stop.agreed = False
    kept = {number: signal.signal(number, lambda *_: stop.ask()) for number in (signal.SIGINT, signal.SIGTERM)}
    steps = train(config, scene, out, resume)
    shown, last = 0.0, None
    bar: Any = tqdm(
        total=100, bar_format="{percentage:3.0f}%|{bar:24}| {elapsed} {postfix}", dynamic_ncols=True,
        disable=not together.first(),
    )  # fmt: skip
    try:
        for progress in steps:
            last = progress
            if progress.note and together.first():
                bar.write(progress.note)
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                bar.n = round(100 * progress.fraction, 1)
                bar.set_postfix_str(describe(progress), refresh=True)
            if stop.now(training=not progress.stage):
                steps.close()  # saves
                if not progress.stage:
                    together.wait()  # for the one who writes: torchrun ends all when one has ended
                return None
    finally:
        bar.close()
        for number, handler in kept.items():
            signal.signal(number, handler)
    return last


def describe(progress: Progress) -> str:
    """One line: step, loss, train PSNR, rates, time left; or what goes on after the last step."""
    if progress.stage:
        return f"step {progress.step}, train {progress.psnr:.2f} dB, {progress.stage}"
    minutes, rest = divmod(round(progress.left), 60)
    return (
        f"step {progress.step}, loss {progress.loss:.4f}, train {progress.psnr:.2f} dB, {progress.rays_per_second / 1e3:.1f} k rays/s, "
        f"{progress.samples_per_second / 1e6:.2f} M samples/s, {minutes}:{rest:02d} left"
    )


def _report(final: Progress, out: Path) -> None:
    metrics = final.metrics or {}
    views, took = metrics.get("views", []), f"{final.step} steps in {final.seconds:.0f} s"
    if views:
        named = (("psnr", 2, " dB"), ("ssim", 4, ""), ("flip", 4, ""))
        figures = ", ".join(f"{name.upper()} {_figure(metrics[name], digits)}{unit}" for name, digits, unit in named)
        print(f"held out, mean of {len(views)} views: {figures}; {took}")
    else:
        print(f"no view was held out, so there are no figures; {took}")
    if "bytes_per_step" in metrics:
        sent = metrics["bytes_per_step"] / 1e6
        print(f"{metrics['processes']} processes; each sent {sent:.2f} MB a step to the others")
    if "poses" in metrics:
        print(remark(metrics["poses"]))
    print(
        f"{out}: metrics.json, checkpoint.safetensors, previews/, evaluation/; TensorBoard: tensorboard --logdir {out}"
    )


def _figure(value: float | None, digits: int) -> str:
    """A mean; there is none where every view is exact."""
    return "infinite" if value is None else f"{value:.{digits}f}"


def _orbit(out: Path, backend: str, final: Progress, scene: Scene) -> None:
    if together.alone():
        (model, _), rig = checkpoint.load_model(out, backend), Rig.load(out)
    else:  # the folder may be on the first rank's machine alone
        assert final.model is not None
        model, rig = final.model, Rig.of(refined(final.model, scene))
    path = out / "orbit.mp4"
    bar = partial(tqdm, desc="orbit", unit="frame", dynamic_ncols=True, leave=False, disable=not together.first())
    render_video(model, rig, "orbit", 60, path, progress=bar)
    if together.first():
        print(f"orbit video: {path}")
