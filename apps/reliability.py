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
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import tyro

from apps.ablation import insert
from apps.faults import cage, crash
from apps.faults.targets import attempt, clear, targets
from data.durations import seconds
from data.files import write_atomically
from nerf.config import ConfigError

MARKERS = ("<!-- reliability -->", "<!-- /reliability -->")
KILLS, SPOILS = 0.2, 0.03  # shares of the time; the rest is for readers


@dataclass(frozen=True)
class Options:
    """Kill trainings, spoil their files, fill their disks, feed readers with faults; write the figures down.

    Example: python -m apps.reliability --budget 25m
    """

    budget: str = "25m"
    """How long."""
    workers: int = 1
    """Processes that feed readers at the same time."""
    first: int = 0
    """Number of the first case; earlier figures come from other numbers."""
    case: int | None = None
    """Repeat this one case alone, and show what comes of it."""
    out: Path | None = Path("docs/reliability.md")
    """A text whose table is replaced; None: none."""
    work: Path | None = None
    """A folder for runs and cases, emptied first, on a disk that is quick. Default: a new one for the time being."""


def measure(options: Options, work: Path) -> dict[str, Any]:
    """Cause the faults; the figures."""
    budget = seconds(options.budget)
    if budget is None:
        raise ConfigError(f"--budget: expected a time such as 90s, 5m or 1h, found {options.budget!r}")
    random = Random(options.first)
    scene, run = crash.make(work / "runs")
    print("an undisturbed run is there; killing others ...", flush=True)
    kills = crash.killed(scene, run, work / "runs", KILLS * budget, random)
    print(dict(kills), flush=True)
    disks = crash.full_disks(scene, run, work / "runs")
    print(disks if isinstance(disks, str) else dict(disks), flush=True)
    spoils = crash.spoilt(run, work / "runs", SPOILS * budget, random)
    print(dict(spoils), flush=True)
    began = time.time()
    left = (1 - KILLS - SPOILS) * budget
    found = cage.fuzz(run, work / "cases", left, options.workers, options.first)
    return {"kills": kills, "disks": disks, "spoils": spoils, "fuzz": found, "minutes": (time.time() - began) / 60}


def markdown(figures: dict[str, Any], options: Options) -> str:
    """The figures as tables in Markdown."""
    parts = [_table("Trainings killed (SIGKILL) at random moments", figures["kills"])]
    disks = figures["disks"]
    parts.append(
        f"Small disks: not tried here ({disks}).\n" if isinstance(disks, str) else _table("Small disks", disks)
    )
    parts.append(_table("States of a run spoilt on disk", figures["spoils"]))
    fuzz = figures["fuzz"]
    total = sum(sum(pair) for pair in fuzz["counts"].values())
    lines = ["| inputs with faults | tried | refused in a sentence | read |", "|---|---|---|---|"]
    for name, (refused, read) in fuzz["counts"].items():
        lines.append(f"| {name} | {refused + read:,} | {refused:,} | {read:,} |")
    refused, read = (sum(pair[i] for pair in fuzz["counts"].values()) for i in range(2))
    lines.append(f"| **all** | **{total:,}** | {refused:,} | {read:,} |")
    said = (
        f"{figures['minutes']:.0f} minutes, {options.workers} at a time, from case {options.first}. Faults found: "
        f"{len(fuzz['faults'])}. The most memory of a process: {fuzz['peak'] / 1e6:.0f} MB."
    )
    return "\n".join([*parts, "\n".join(lines), "", said, ""])


def _table(title: str, figures: Counter[str]) -> str:
    return "\n".join(
        [f"| {title} | |", "|---|---|", *(f"| {name} | {count:,} |" for name, count in figures.items()), ""]
    )


def repeat(case: int, work: Path) -> int:
    """Try one case; 1 where it shows a fault."""
    _, run = crash.make(work / "runs")
    every = targets(run)
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
        found = markdown(figures, options)
        print(found)
        if options.out is not None:
            write_atomically(options.out, insert(text, f"\n{found}", options.out, MARKERS).encode())
        faults = figures["fuzz"]["faults"]
        for fault in faults[:20]:
            print(f"case {fault['case']}, {fault['target']}:\n{fault['fault']}", file=sys.stderr)
        (work / "faults.json").write_text(json.dumps(faults, indent=1))
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if options.work is None and options.case is None:
            shutil.rmtree(work, ignore_errors=True)
    kills, spoils = figures["kills"], figures["spoils"]
    lost = (
        kills["runs that ended"] - kills["with the undisturbed run's bits"] + kills["failed"] + spoils["read wrongly"]
    )
    return int(bool(faults or lost))


if __name__ == "__main__":
    sys.exit(main())
