"""Whether something that runs for long grows: samples of it, a line through them, and a verdict that says what flat means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

EVERY = 5.0  # seconds between samples
# Share of the time after which growth counts: until then caches fill, and things are done for the first time.
WARM = 1 / 6
BLOCK = 60.0  # seconds whose mean is one point of the line: samples closer than that aren't independent
GROWTH = 2.0  # MB a minute that memory may grow by, with two standard errors added
SHARE = 0.05  # by which the last third's median of anything may lie above the middle third's
MORE = 3  # threads and files that it may lie above it in any case


@dataclass(frozen=True)
class Sample:
    """The viewer at a moment.

    Attributes:
        seconds: since it was opened.
        memory, threads, files: of its own process: resident memory (MB), threads, open files.
        children: resident memory of the processes that it has started (MB); they come and go.
        temporary: files that aren't to stay (MB).
    """

    seconds: float
    memory: float
    threads: int
    files: int
    children: float
    temporary: float


COLUMNS = {
    "memory": "resident memory, MB", "threads": "threads", "files": "open files", "children": "memory of encoders, MB",
    "temporary": "temporary files, MB",
}  # fmt: skip


def line(seconds: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """Growth a minute by least squares, and its standard error, from means of blocks of BLOCK seconds; NaN from fewer than 3."""
    number = ((seconds - seconds[0]) // BLOCK).astype(int)
    whole = [n for n in np.unique(number) if (number == n).sum() >= 0.5 * BLOCK / EVERY]
    if len(whole) < 3:
        return math.nan, math.nan
    x = np.array([seconds[number == n].mean() for n in whole]) / 60
    y = np.array([values[number == n].mean() for n in whole])
    spread = ((x - x.mean()) ** 2).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    rest = y - y.mean() - slope * (x - x.mean())
    return float(slope), float(math.sqrt((rest**2).sum() / (len(x) - 2) / spread))


def figures(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """Of each column, after the warm-up: the medians of its thirds, its growth a minute and the error of that, its peak of all."""
    seconds = np.array([one.seconds for one in samples])
    late = seconds >= seconds[0] + WARM * (seconds[-1] - seconds[0])
    found = {}
    for name in COLUMNS:
        every = np.array([float(getattr(one, name)) for one in samples])
        thirds = [float(np.median(part)) for part in np.array_split(every[late], 3)]
        slope, error = line(seconds[late], every[late])
        found[name] = {
            "first": thirds[0], "middle": thirds[1], "last": thirds[2], "slope": slope, "error": error,
            "peak": float(every.max()),
        }  # fmt: skip
    return found


def verdict(found: dict[str, dict[str, float]]) -> list[str]:
    """What isn't flat, a sentence each; none: all is."""
    said = []
    memory = found["memory"]
    most = memory["slope"] + 2 * memory["error"]
    if math.isnan(most):
        said.append("the time is too short to tell whether memory grows")
    elif most > GROWTH:
        said.append(f"memory may grow by {most:.2f} MB a minute (expected at most {GROWTH:g})")
    for name in ("memory", "threads", "files"):
        allowed = max((1 + SHARE) * found[name]["middle"], 0 if name == "memory" else found[name]["middle"] + MORE)
        if found[name]["last"] > allowed:
            said.append(
                f"{COLUMNS[name]}: {found[name]['last']:.0f} in the last third, {found[name]['middle']:.0f} in the middle one "
                f"(expected at most {allowed:.0f})"
            )
    return said


def markdown(told: dict[str, Any]) -> str:
    """All of it as tables in Markdown: `told` is what soak.json holds."""
    found = told["figures"]
    lines = [
        f"{told['minutes']:.1f} minutes, {told['browsers']} browsers, {told['trainings']} trainings of {told['budget']} each; "
        f"a sample every {EVERY:.0f} s, growth from the means of each minute, both after the first {100 * WARM:.0f} % of the time.",
        "",
        "| the viewer | first third | middle third | last third | a minute | peak |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in COLUMNS.items():
        one = found[name]
        digits = 2 if name == "temporary" else 0
        thirds = " | ".join(f"{one[third]:,.{digits}f}" for third in ("first", "middle", "last"))
        grown = "-" if math.isnan(one["slope"]) else f"{one['slope']:+.2f} ± {one['error']:.2f}"
        lines.append(f"| {title} | {thirds} | {grown} | {one['peak']:,.{digits}f} |")
    done = ", ".join(f"{name} {count:,}" for name, count in sorted(told["done"].items()))
    wrong = verdict(found)
    lines += [
        "",
        f"Done: {done}. Errors: {len(told['errors'])}; of the pages' scripts: {len(told['console'])}.",
        "",
        f"**{'Flat' if not wrong else 'Not flat: ' + '; '.join(wrong)}.** Flat means: memory's growth and two standard errors "
        f"come to at most {GROWTH:g} MB a minute, and the last third's medians of memory, threads and open files lie at most "
        f"{100 * SHARE:.0f} % above the middle third's (threads and files: or {MORE}).",
    ]
    return "\n".join(lines) + "\n"


def plot(samples: list[Sample], file: Path) -> None:
    """Memory against time, with threads below it."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    minutes = [one.seconds / 60 for one in samples]
    above.plot(minutes, [one.memory for one in samples], color="#1f6fb2")
    above.axvspan(minutes[0], minutes[0] + WARM * (minutes[-1] - minutes[0]), color="#eee")
    above.set_ylabel("resident memory, MB")
    above.set_ylim(0, 1.1 * max(one.memory for one in samples))
    below.plot(minutes, [one.threads for one in samples], color="#d6336c")
    below.set_ylabel("threads")
    below.set_xlabel("minutes")
    figure.savefig(file)
