"""From a phone's clip, photos or a webcam to a scene that can be learnt.

    python -m data.capture clip.mp4 data/me
    python -m nerf.train --scene data/me

Frames are picked for sharpness and spread, their poses are found (pycolmap), the background's points are kept, and a
Nerfies tree is written with its own held-out photos, a report and a picture of the cameras. What is no scene isn't written.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from data.capturing.gather import Gathered, gather, take_masks
from data.capturing.job import SolveConfig, pycolmap_or_sentence
from data.capturing.judge import judge, require
from data.capturing.nerfies_tree import write_tree
from data.capturing.placing import place
from data.capturing.report import page, write_report
from data.capturing.structure import Solution, solve
from data.errors import SceneError, mismatch


@dataclass(frozen=True)
class Options:
    """Make a scene of a film, a folder of photos, or a webcam.

    Film for about ten seconds, at arm's length, with a room behind you; move the phone slowly around you, and keep as still
    as you can. Example: python -m data.capture clip.mp4 data/me
    """

    source: tyro.conf.Positional[str]
    """A film, a folder of photos, or webcam:0."""
    out: tyro.conf.Positional[Path]
    """The scene's folder: new, or that of an earlier capture, which is replaced."""
    kind: Literal["auto", "still", "moving"] = "auto"
    """Whether every photo is an instant of its own (a person) or all show the same (a thing). auto: films move, photos
    don't."""
    frames: int = 90
    """Pick at most so many frames of a film."""
    size: int = 1920
    """Reduce photos to at most so many pixels on the longer side."""
    seconds: float = 10.0
    """How long a webcam films."""
    masks: Path | None = None
    """Pictures, white where something moves: one a photo by its name, or one a frame in a folder or a film. Poses then come
    from the rest; without, a film's moving parts are found by themselves."""
    threads: int = -1
    """Processor threads; -1 takes all. 1 makes a run repeatable to the bit."""
    seed: int = 0
    """Of everything random."""


def capture(options: Options) -> str:
    """Write the scene, and return the report.

    Raises:
        SceneError: what was given can't be read, or no scene can come of it (CaptureError); nothing is written then.
    """
    _check(options)
    out = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        work = Path(folder)
        gathered = gather(options.source, work / "photos", options.frames, options.size, options.seconds)
        print("\n".join(gathered.said), flush=True)
        masks = None if options.masks is None else take_masks(options.masks, gathered, work / "masks")
        config = SolveConfig(threads=options.threads, seed=options.seed)
        solution = solve(gathered.folder, gathered.photos, work, gathered.ordered, masks, config)
        scene = work / "scene" / out.resolve().name  # the picture's title is the folder's name
        text = _write(options, gathered, solution, config, scene)
        if out.exists():
            os.replace(out, work / "earlier")
        os.replace(scene, out)
    return text


def _write(options: Options, gathered: Gathered, solution: Solution, config: SolveConfig, scene: Path) -> str:
    """Judge the solution, and write the scene's folder with its report."""
    photos = gathered.photos
    coarse = max(1.0, max(max(p.width, p.height) for p in photos) / config.longest)
    require(options.source, solution, photos, coarse)
    moving = options.kind == "moving" or (options.kind == "auto" and gathered.ordered)
    placed = place(solution, photos, moving, coarse)
    verdict = judge(options.source, solution, placed, photos, coarse)
    write_tree(scene, placed, photos, solution.lenses, moving)
    text = page(verdict, solution, placed, _clause(options, solution, moving))
    write_report(scene, options.source, text, verdict, solution, moving)
    return text


def _clause(options: Options, solution: Solution, moving: bool) -> str:
    """Why the scene is taken to move or not, and what would be better."""
    taken = "taken as moving" if moving else "taken as still"
    if options.kind != "auto":
        return f"{taken}, as --kind says"
    if not moving:
        return f"{taken}: these are photos; --kind moving for someone who moved"
    share = solution.evidence.share
    found = f"{share:.0%} of what was matched moves against the background" if solution.evidence.moves else ""
    return f"{found or 'a film'}: {taken}; --kind still for a thing that didn't"


def _check(options: Options) -> None:
    """End before any work where the work can't succeed."""
    for name, least in (("frames", 8), ("size", 64)):
        if getattr(options, name) < least:
            raise mismatch(f"--{name}", "number", f"{least} or more", getattr(options, name))
    if not 1 <= options.seconds <= 600:
        raise mismatch("--seconds", "time", "1 to 600", options.seconds)
    if options.threads == 0 or options.threads < -1:
        raise mismatch("--threads", "number", "1 or more, or -1 for all", options.threads)
    if options.masks is not None and not options.masks.exists():
        raise mismatch(options.masks, "--masks", "a folder or a film", "none")
    out = options.out
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "capture.json").is_file()):
        raise mismatch(
            out, "OUT", "a new folder, or an earlier capture's", "a file" if out.is_file() else "other files in it"
        )
    source = Path(options.source).expanduser()
    if (
        source.exists()
        and out.exists()
        and (source.resolve() == out.resolve() or out.resolve() in source.resolve().parents)
    ):
        raise mismatch(out, "OUT", "a folder that doesn't hold the photos themselves", str(source))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 2 for what is no scene, 130 after Ctrl-C."""
    options = tyro.cli(Options, args=arguments, prog="python -m data.capture")
    kept = signal.getsignal(signal.SIGTERM)
    try:
        pycolmap_or_sentence()  # takes the signal for a crash once it is loaded
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was begun is cleared away
        print(capture(options))
    except SceneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, kept)
    print(
        f"{options.out}: a scene; see {options.out / 'capture.png'}, then: python -m nerf.train --scene {options.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
