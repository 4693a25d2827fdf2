"""What the command lines of this package share: a progress bar, Ctrl-C, and errors as sentences."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tyro
from torch import Tensor
from tqdm import tqdm

from data.durations import seconds
from data.errors import SceneError
from data.files import write_atomically
from data.films import VideoError
from nerf.kernels import BackendError, Ops, choose, keep_memory, load
from siren.loop import FitError, Progress, Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # slow to import, and only commands that plot do

T = TypeVar("T")
STOPPED = 130  # exit code after Ctrl-C
CURVE = 50  # points of a fit's curve in its metrics
BAR = "{desc} {percentage:3.0f}%|{bar:24}| {postfix}"


class Interrupted(Exception):
    """Ctrl-C came, and the fit was saved. Carries the command that goes on."""


def run(options: type[T], command: Callable[[T], None], program: str, arguments: list[str] | None = None) -> None:
    """Read the command line and run the command; exit code 2 for bad input, 130 after Ctrl-C (with the fit saved)."""
    parsed = tyro.cli(options, args=arguments, prog=f"python -m {program}")
    keep_memory()
    try:
        command(parsed)
    except (FitError, SceneError, VideoError, BackendError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as saved:
        print(f"saved. {saved}")
        sys.exit(STOPPED)
    except KeyboardInterrupt:  # before or after the fit
        print("stopped")
        sys.exit(STOPPED)


def backend(name: str) -> Ops:
    """The kernels by that name, said on screen."""
    chosen, said = choose(name, ("reference", "cpu"))
    print(said)
    return load(chosen)


def length(steps: int | None, budget: str | None, default: Schedule) -> tuple[int | None, float | None]:
    """--steps and --budget ("90s", "5m", "1h") as a Schedule takes them; the default's where neither was given."""
    if steps is None and budget is None:
        return default.steps, default.budget
    if budget is None:
        return steps, None
    found = seconds(budget)
    if found is None:
        raise FitError(f"--budget: expected a time such as 15s, 5m or 1h, found {budget!r}")
    return steps, found


def follow(
    progress: Generator[Progress, None, None], name: str, again: str = "", curve: list[list[float]] | None = None
) -> Progress:
    """Show a fit's progress and return where it ended. Ctrl-C or a termination saves it and raises Interrupted.

    Args:
        name: what stands before the bar.
        again: the sentence that says how to go on after Ctrl-C.
        curve: takes step, seconds and PSNR a few dozen times, where the fit has one.
    """
    stop: list[int] = []
    kept = {number: signal.signal(number, lambda *_: stop.append(1)) for number in (signal.SIGINT, signal.SIGTERM)}
    shown, last = 0.0, None
    bar: Any = None
    try:
        for last in progress:
            bar = bar or tqdm(total=100, bar_format=BAR, desc=name, dynamic_ncols=True)
            if time.monotonic() - shown > 0.3 or last.share >= 1:
                shown = time.monotonic()
                bar.n = round(100 * last.share, 1)
                bar.set_postfix_str(describe(last), refresh=True)
            if curve is not None and "psnr" in last.figures and last.share * CURVE >= len(curve):
                curve.append([last.step, last.seconds, last.figures["psnr"]])
            if stop:
                progress.close()  # saves
                raise Interrupted(again)
    finally:
        if bar is not None:
            bar.close()
        for number, handler in kept.items():
            signal.signal(number, handler)
    if last is None:
        raise FitError("--resume: expected a fit with steps left, found one that is done; raise --steps or --budget")
    return last


def describe(progress: Progress) -> str:
    """One line: step, loss, figures, rate, time left."""
    minutes, rest = divmod(round(progress.left), 60)
    figures = "".join(
        f", {name} {value:.4g}{' dB' if name == 'psnr' else ''}" for name, value in progress.figures.items()
    )
    return f"step {progress.step}, loss {progress.loss:.3g}{figures}, {progress.rate:.1f} steps/s, {minutes}:{rest:02d} left"


def save_figure(figure: Figure, file: Path) -> None:
    """Write a plot, in the format of the file's extension. Raises FitError where that can't be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise FitError(f"{file}: expected a picture that can be written, found: {error}") from None


def write_metrics(out: Path, metrics: dict[str, Any]) -> None:
    """metrics.json of a fit's folder."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=2).encode())


def decibels(mean_square: float | Tensor, peak: float = 2.0) -> float:
    """PSNR for a mean squared error of a signal whose values span `peak` ([-1, 1]: 2)."""
    value = float(mean_square)
    return 10 * math.log10(peak**2 / max(value, 1e-20))
