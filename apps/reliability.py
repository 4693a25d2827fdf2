"""What a run and the readers survive: `python -m apps.reliability` causes faults for as long as it is told, and writes down the
figures.

Trainings are killed at random moments, their files spoilt, their disks filled; every reader, and every file that the viewer takes,
is given inputs with faults in them, in processes whose memory, time and files are bounded. A case is a number, drawn from nothing else, so
that one that shows a fault can be repeated: `--case 1234`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

import tyro

from apps.ablation import insert
from apps.faults import cage, crash
from apps.faults.clock import Clock, interruptible
from apps.faults.numbers import numbers
from apps.faults.target import attempt, clear, rounds
from apps.faults.targets import targets
from data.durations import seconds
from data.files import write_atomically
from nerf.config import ConfigError

MARKERS = ("<!-- reliability -->", "<!-- /reliability -->")
KILLS, SPOILS = 0.15, 0.02  # shares of the time; the rest is for readers, and beside it come disks and numbers
Part = Literal["kills", "disks", "numbers", "states", "readers"]
PARTS: tuple[Part, ...] = get_args(Part)
FIGURES = "figures.json"


@dataclass(frozen=True)
class Options:
    """Kill trainings, spoil their files, fill their disks, feed readers with faults; write the figures down.

    Example: python -m apps.reliability --budget 25m
    """

    budget: str = "25m"
    """How long trainings are killed, states spoilt and readers fed. Full disks and odd numbers take some minutes more."""
    workers: int = 1
    """Processes that feed readers at the same time."""
    first: int = 0
    """Number of the first case; earlier figures come from other numbers."""
    case: int | None = None
    """Repeat this one case alone, and show what comes of it."""
    out: Path | None = Path("docs/reliability.md")
    """A text whose table is replaced; None: none."""
    only: tuple[Part, ...] = PARTS
    """What is tried; of the rest the table gets the figures that are in the folder `--work`."""
    work: Path | None = None
    """A folder for runs, cases and figures, on a disk that is quick. Default: a new one for the time being."""


def measure(options: Options, work: Path) -> dict[str, Any]:
    """Cause the faults; the figures."""
    budget = seconds(options.budget)
    if budget is None:
        raise ConfigError(f"--budget: expected a time such as 90s, 5m or 1h, found {options.budget!r}")
    random, runs = Random(options.first), work / "runs"
    figures = json.loads((work / FIGURES).read_text()) if (work / FIGURES).is_file() else {}
    scene, run = crash.make(runs)
    shares = {"kills": KILLS, "states": SPOILS, "readers": 1 - KILLS - SPOILS}
    tries: dict[Part, Callable[[Clock], Any]] = {
        "kills": lambda clock: crash.killed(scene, runs, clock, random),
        "disks": lambda clock: crash.full_disks(scene, run, runs),
        "numbers": lambda clock: numbers(runs, clock),
        "states": lambda clock: crash.spoilt(run, runs, clock, random),
        "readers": lambda clock: cage.fuzz(run, work / "cases", clock, options.workers, options.first),
    }
    with interruptible():
        for part in options.only:
            print(f"{part} ...", flush=True)
            found = tries[part](Clock(part, shares.get(part, 0.0) * budget))
            if Clock.stopped and part == "disks":  # half of them tell nothing
                break
            figures[part] = found
            (work / FIGURES).write_text(json.dumps(figures))
            if Clock.stopped:
                print("stopped: the figures are those until now", flush=True)
                break
    return figures


def markdown(figures: dict[str, Any]) -> str:
    """The figures as tables in Markdown, of the parts that were tried."""
    parts, disks = [], figures.get("disks", {})
    if "kills" in figures:
        parts.append(_table("Trainings killed (SIGKILL) at random moments", figures["kills"]))
    if disks:
        parts.append(f"Small disks: not tried ({disks}).\n" if isinstance(disks, str) else _table("Small disks", disks))
    if "numbers" in figures:
        rows = (f"| {name} | {came} |" for name, came in figures["numbers"]["results"].items())
        parts.append(
            "\n".join(["| Odd numbers, each a scene that is trained | what came of it |", "|---|---|", *rows, ""])
        )
    if "states" in figures:
        parts.append(_table("States of a run spoilt on disk", figures["states"]))
    if "readers" in figures:
        parts.append(_readers(figures["readers"]))
    return "\n".join(parts)


def _readers(fuzz: dict[str, Any]) -> str:
    lines = ["| Inputs with faults | tried | refused in a sentence | read |", "|---|---|---|---|"]
    for name, (refused, read) in fuzz["counts"].items():
        lines.append(f"| {name} | {refused + read:,} | {refused:,} | {read:,} |")
    refused, read = (sum(pair[i] for pair in fuzz["counts"].values()) for i in range(2))
    lines.append(f"| **all** | **{refused + read:,}** | {refused:,} | {read:,} |")
    said = (
        f"{fuzz['seconds'] / 60:.0f} minutes, {fuzz['workers']} at a time, from case {fuzz['first']}. Faults found: "
        f"{len(fuzz['faults'])}. The most memory of a process: {fuzz['peak'] / 1e6:.0f} MB."
    )
    return "\n".join([*lines, "", said, ""])


def wrong(figures: dict[str, Any]) -> bool:
    """Whether anything was lost, read wrongly or not refused as it should be."""
    kills, states = Counter(figures.get("kills", {})), Counter(figures.get("states", {}))
    disks = figures.get("disks", {})
    on_disks = Counter({} if isinstance(disks, str) else disks)
    tried = on_disks["disks that were full"] + on_disks["disks that became read-only"]
    return bool(
        figures.get("readers", {}).get("faults")
        or kills["runs that ended"] != kills["with the undisturbed run's bits"]
        or kills["failed"]
        or states["read wrongly"]
        or figures.get("numbers", {}).get("wrong")
        or tried != on_disks["went on to the undisturbed run's bits, given room"]
    )


def _table(title: str, figures: dict[str, int]) -> str:
    return "\n".join(
        [f"| {title} | |", "|---|---|", *(f"| {name} | {count:,} |" for name, count in figures.items()), ""]
    )


def repeat(case: int, work: Path) -> int:
    """Try one case; 1 where it shows a fault."""
    _, run = crash.make(work / "runs")
    every = rounds(targets(run))
    target, folder = every[case % len(every)], work / "case"
    clear(folder)
    target.prepare(folder, Random(f"{target.name} {case}"))
    try:
        print(f"{target.name}: {'read' if attempt(target, folder) else 'refused in a sentence'}; it lies in {folder}")
    except Exception:
        print(f"{target.name}: a fault; the case lies in {folder}\n{traceback.format_exc()}")
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 1 where a fault was found, 2 for bad input."""
    options = tyro.cli(Options, args=arguments, prog="python -m apps.reliability")
    work = Path(tempfile.mkdtemp(prefix="reliability-")) if options.work is None else options.work
    try:
        if options.case is not None:
            return repeat(options.case, work)
        text = "\n".join(MARKERS)
        if options.out is not None and options.out.is_file():
            text = options.out.read_text()
            insert(text, "", options.out, MARKERS)  # a text without markers is said before the time is spent
        figures = measure(options, work)
        found = markdown(figures)
        print(found)
        if options.out is not None:
            write_atomically(options.out, insert(text, f"\n{found}", options.out, MARKERS).encode())
        for said in figures.get("numbers", {}).get("wrong", []):
            print(said, file=sys.stderr)
        for fault in figures.get("readers", {}).get("faults", [])[:20]:
            print(f"case {fault['case']}, {fault['target']}:\n{fault['fault']}", file=sys.stderr)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if options.work is None and options.case is None:
            shutil.rmtree(work, ignore_errors=True)
    return int(wrong(figures))


if __name__ == "__main__":
    sys.exit(main())
