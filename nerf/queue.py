"""Train every scene below a folder: `python -m nerf.queue --scenes FOLDER`, on one machine or, at the same time, on several.

Each scene is trained by `python -m nerf.train` in a process of its own, so that what ends one ends no other. Machines share the
folder `--out` and claim scenes in it (nerf/claims.py); each does so on its own, and any of them may come, go, or die.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from data.errors import SceneError
from data.formats import find_reader
from nerf.cli import Options as TrainOptions
from nerf.cli import length
from nerf.config import ConfigError
from nerf.standings import replace
from nerf.states import saved
from nerf.worker import OWN, Worker, gpus

FREE = ("scene", "out", "resume", "backend")  # what may differ between runs of one folder


@dataclass(frozen=True)
class Options:
    """Train every scene below a folder, one after another, on every machine on which this is started.

    Options of python -m nerf.train follow behind --, for all scenes alike.

    Example: python -m nerf.queue --scenes scenes -- --budget 2m

    Start the same on other machines, with the same --out on a disk that they share, and they take scenes too.
    """

    scenes: Path
    """Folder with folders of posed photos in it, at any depth."""
    out: Path | None = None
    """Folder of the runs. Default: runs/<scenes>."""
    workers: int | None = None
    """Scenes at a time on this machine. Default: one a GPU; without one, 1, which uses all processors."""
    wait: bool = False
    """Stay until the other machines have ended too, and take up what they lose."""


def find_scenes(folder: Path, out: Path) -> list[str]:
    """The scenes below a folder, as paths from there, sorted; nothing inside a scene is one. Runs, `out` and hidden folders are
    left out. Raises ConfigError where there is none."""
    if not folder.is_dir():
        raise ConfigError(f"--scenes {folder}: expected a folder with scenes in it, found none")
    if _is_scene(folder):
        raise ConfigError(
            f"--scenes {folder}: expected a folder with scenes in it, found a scene; python -m nerf.train --scene trains one"
        )
    found: list[str] = []
    seen = {out.resolve(), folder.resolve()}  # links may lead in circles
    rest = [folder]
    while rest:
        with suppress(OSError):  # a folder that may not be looked into
            for place in rest.pop().iterdir():
                if place.name.startswith(".") or not place.is_dir() or place.resolve() in seen:
                    continue
                seen.add(place.resolve())
                if _is_scene(place):
                    found.append(place.relative_to(folder).as_posix())
                elif not saved(place):
                    rest.append(place)
    if not found:
        raise ConfigError(f"--scenes {folder}: expected at least one folder of posed photos, found none")
    return sorted(found)


def _is_scene(place: Path) -> bool:
    try:
        find_reader(place)
    except (SceneError, OSError):
        return False
    return True


def training(arguments: Sequence[str], folder: Path) -> TrainOptions:
    """The options of nerf.train that are meant for all scenes, checked. Raises ConfigError for those that are the queue's."""
    options = tyro.cli(TrainOptions, args=["--scene", str(folder), *arguments], prog="python -m nerf.queue ... --")
    for name, kept in (("scene", folder), ("out", None), ("resume", False)):
        if getattr(options, name) != kept:
            raise ConfigError(f"-- --{name}: expected options that hold for all scenes; the queue sets this one itself")
    length(options)
    return options


def agree(out: Path, folder: Path, options: TrainOptions) -> None:
    """See that all runs in a folder are made of the same scenes with the same options. Raises ConfigError where they aren't."""
    ours = {name: value for name, value in asdict(options).items() if name not in FREE}
    ours = {"scenes": folder.resolve().name, **ours}
    path = out / OWN / "options.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        replace(path, json.dumps(ours, indent=2))
    try:
        theirs = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: expected the options of this folder's runs, found no JSON: {error}") from None
    for name, value in ours.items():
        if theirs.get(name) != value:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{flag}: expected {theirs.get(name)}, with which the runs in {out} were begun, found {value}; take another --out"
            )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 1 where a scene wasn't trained, 2 for bad input, 130 after Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    split = words.index("--") if "--" in words else len(words)
    options = tyro.cli(Options, args=words[:split], prog="python -m nerf.queue")
    try:
        if options.workers is not None and options.workers < 1:
            raise ConfigError(f"--workers: expected at least 1, found {options.workers}")
        told = training(words[split + 1 :], options.scenes)
        out = options.out or Path("runs") / options.scenes.resolve().name
        names = find_scenes(options.scenes, out)
        agree(out, options.scenes, told)
        cards = gpus(told.backend)
        workers = options.workers or len(cards) or 1
        print(f"{len(names)} scenes below {options.scenes}, {workers} at a time -> {out}")
        return Worker(options.scenes, names, out, words[split + 1 :], workers, cards, options.wait).run()
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
