"""One fit that somebody watches: what is known of it, and its work and its pictures, for the engine."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from apps.viewer.engine import Task
from apps.viewer.fit_pictures import Window, mean_square, opened, photo_part, pixels_of, rendered, scales
from siren.command import decibels
from siren.image import Grid, to_signal
from siren.loop import FitError, Progress
from siren.network import Siren

POINTS = 150  # of a curve
AWAY = 60.0  # seconds after which somebody who hasn't asked about a fit is taken to have left

Begin = Callable[[], tuple[Siren, Generator[Progress, None, None]]]


@dataclass
class Fit:
    """One fit, under way or over. The engine's thread writes, others read.

    Attributes:
        target: "image", "gradient", "laplacian" or "blend".
        photo: what it is compared with; of a blend, the two images laid over each other.
        original: width and height of the file.
        budget: seconds of fitting.
        sums, counts: of the curve's points, the measure's total (dB) and the steps in it.
        psnr: of the whole image, after the fit.
        coefficients: of what derivatives leave open, and the step that they are of.
    """

    owner: str
    target: str
    photo: UInt8[np.ndarray, "h w c"]
    original: tuple[int, int]
    budget: float
    state: str = "waiting"
    error: str = ""
    siren: Siren | None = None
    task: Task[None] | None = None
    last: Progress | None = None
    curve: list[list[float]] = field(default_factory=list)
    psnr: float | None = None
    coefficients: tuple[int, Tensor] | None = None
    scales: tuple[float, float] = (1.0, 1.0)
    pictures: list[Task[Any]] = field(default_factory=list)
    touched: float = field(default_factory=time.monotonic)
    _gathered: list[float] = field(default_factory=list)

    @property
    def grid(self) -> Grid:
        """The photo's pixels."""
        return Grid(*self.photo.shape[:2])

    @property
    def truth(self) -> Float[Tensor, "h w c"]:
        """The photo as the network has it, in [-1, 1]."""
        return to_signal(self.photo)

    @property
    def open(self) -> str:
        """The target whose freedom the result has: a blend's gradients leave its brightness open."""
        return "gradient" if self.target == "blend" else self.target

    @property
    def now(self) -> str:
        """Its state; "stopped" where it was ended before its time."""
        over = self.task is not None and self.task.ended
        return "stopped" if over and self.state in ("waiting", "running") else self.state

    @property
    def active(self) -> bool:
        """Whether somebody is waiting for it."""
        paused = self.task is not None and self.task.paused
        return self.now in ("waiting", "running") and not paused and time.monotonic() - self.touched < AWAY

    def note(self, progress: Progress) -> None:
        """Take a step's figures; the curve's points are means over equal times."""
        self.last = progress
        self._gathered.append(progress.figures.get("psnr", -10 * math.log10(max(progress.loss, 1e-20))))
        if progress.share * POINTS >= len(self.curve) + 1 or not self.curve:
            self.curve.append([progress.seconds, float(np.mean(self._gathered))])
            self._gathered = []

    def status(self) -> dict[str, Any]:
        """What a page shows."""
        last, height, width = self.last, *self.photo.shape[:2]
        valued = self.target == "image"
        latest = self.curve[-1][1] if self.curve and valued else None
        return {
            "state": self.now, "paused": bool(self.task and self.task.paused), "target": self.target,
            "error": self.error, "budget": self.budget, "measure": "PSNR" if valued else "-10 log10 loss",
            "step": last.step if last else 0, "seconds": last.seconds if last else 0.0,
            "share": last.share if last else 0.0, "rate": last.rate if last else 0.0,
            "left": last.left if last and math.isfinite(last.left) else None,
            "loss": last.loss if last else None, "psnr": self.psnr if self.psnr is not None else latest,
            "curve": [list(point) for point in self.curve], "width": width, "height": height,
            "original": list(self.original),
            "parameters": sum(p.numel() for p in self.siren.parameters()) if self.siren else None,
            "ready": self.siren is not None,
        }  # fmt: skip


def work(fit: Fit, begin: Begin) -> Generator[None, None, None]:
    """A whole fit, for the engine."""
    yield
    try:
        fit.scales = scales(fit.photo)
        yield
        fit.siren, steps = begin()
        fit.state = "running"
        yield
        for progress in steps:
            fit.note(progress)
            yield
        coefficients = yield from opened(fit.siren, fit.truth, fit.open, True)
        fit.coefficients = (fit.last.step if fit.last else 0, coefficients)
        if fit.target != "blend":  # which no image is known to compare with
            fit.psnr = decibels((yield from mean_square(fit.siren, coefficients, fit.truth)))
        fit.state = "done"
    except FitError as error:
        fit.state, fit.error = "failed", str(error)
    except Exception as error:
        logging.getLogger(__name__).exception("a fit failed")
        fit.state, fit.error = "failed", f"the fit failed: {type(error).__name__}"
    finally:
        if fit.siren is not None:
            fit.siren.zero_grad(set_to_none=True)  # as large as the network, which is kept


def shot(fit: Fit, window: Window, shown: Grid, mode: str) -> Generator[None, None, UInt8[np.ndarray, "h w 3"]]:
    """One picture, for the engine."""
    if mode == "photo":
        return photo_part(fit.photo, window, shown)
    assert fit.siren is not None
    step = fit.last.step if fit.last else 0
    if fit.coefficients is None or fit.coefficients[0] != step:
        fit.coefficients = step, (yield from opened(fit.siren, fit.truth, fit.open, False))
    values = yield from rendered(fit.siren, fit.coefficients[1], fit.grid, window, shown, mode)
    return pixels_of(values, mode, fit.scales[mode == "laplacian"])
