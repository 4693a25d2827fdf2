"""Networks that are fitted to people's images while they watch: started, paused, stopped and looked at by a token."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from apps.viewer.engine import FRAME, Engine, Task
from apps.viewer.fit_one import Begin, Fit, shot, work
from apps.viewer.fit_photos import Photo, read_photo
from apps.viewer.fit_pictures import MODES, WHOLE, Window
from nerf.kernels import Ops, choose, load
from siren import fit as fitting
from siren import poisson
from siren.image import Grid, stretched, to_pixels, to_signal
from siren.loop import FitError, Progress
from siren.network import Siren

# For each target: pixels of the longer side that so many seconds suffice for on two cores, and at most.
SIDES = {"image": (320, 15, 512), "gradient": (256, 40, 384), "laplacian": (256, 40, 384), "blend": (256, 30, 384)}
SMALL = 128  # pixels that are fitted however short the time
BATCH = {"image": 8192, "gradient": 1024, "laplacian": 2048, "blend": 1024}  # points a step, that slices are short
LONGEST = 600.0  # seconds of a fit
LARGEST = 1024  # pixels a side of a picture
NARROWEST = 1e-4  # share of the image that a picture shows at least, along each side
PENDING = 2  # pictures of one fit that are computed at once


class UnknownFit(FitError):
    """A token that stands for nothing, or no longer."""


class Busy(FitError):
    """More people are fitting than there is room for."""


class Fits:
    """Those of everybody who uses the page.

    Args:
        limit: fits that are kept for each owner; four times as many in all.
        backend: of the kernels.
    """

    def __init__(self, engine: Engine, limit: int = 4, backend: str = "auto") -> None:
        self.engine, self.limit, self.backend = engine, limit, backend
        self._fits: OrderedDict[str, Fit] = OrderedDict()
        self._lock = threading.Lock()

    def start_fit(self, image: bytes, target: str, seconds: float, owner: str) -> str:
        """Fit a network to an image's values, gradient or Laplacian; returns the fit's token."""
        if target not in ("image", "gradient", "laplacian"):
            raise FitError(f"target: expected image, gradient or laplacian, found {target[:40]!r}")
        budget = _budget(seconds)
        photo = read_photo(image, side(target, seconds))
        options = fitting.Options("", target, budget=budget, batch=BATCH[target])  # type: ignore[arg-type]
        return self._begin(
            Fit(owner, target, *photo, seconds), lambda: fitting.start(options, self._ops(), to_signal(photo.pixels))
        )

    def start_blend(self, first: bytes, second: bytes, seconds: float, weight: float, mixed: bool, owner: str) -> str:
        """Fit a network to a blend of two images' gradients; returns the fit's token.

        Args:
            weight: of the second one's.
            mixed: follow the stronger of the two gradients instead, wherever that is.
        """
        if not 0 < weight < 1:
            raise FitError(f"weight: expected a number between 0 and 1, found {weight}")
        budget = _budget(seconds)
        longest = side("blend", seconds)
        # The second one is cut to the first one's shape, so it takes more pixels.
        a = read_photo(first, longest, "the first image")
        a, b = _alike(a, read_photo(second, 2 * longest, "the second image"))
        options = poisson.Options("", "", weight=weight, mixed=mixed, budget=budget, batch=BATCH["blend"])

        def begin() -> tuple[Siren, Generator[Progress, None, None]]:
            values = to_signal(a.pixels)
            follow = poisson.field_of(values, to_signal(b.pixels), None, weight, mixed)
            return poisson.start(options, self._ops(), follow, values, torch.zeros(values.shape[:2], dtype=torch.bool))

        laid = to_pixels((1 - weight) * to_signal(a.pixels) + weight * to_signal(b.pixels))
        return self._begin(Fit(owner, "blend", laid, a.original, seconds), begin)

    def status(self, token: str) -> dict[str, Any]:
        """Where a fit stands: see `Fit.status`. Raises UnknownFit, as everything that takes a token."""
        return {"token": token} | self._touch(token).status()

    def pause(self, token: str) -> None:
        """Let a fit wait."""
        self._task(token).paused = True

    def resume(self, token: str) -> None:
        """Let it go on."""
        self._task(token).paused = False

    def stop(self, token: str) -> None:
        """End a fit early; its network stays to be looked at."""
        self._task(token).cancel()

    def picture(
        self, token: str, window: Window = WHOLE, width: int = 256, height: int = 256, mode: str = "image"
    ) -> Task[UInt8[np.ndarray, "h w 3"]]:
        """A part of the network's picture, as a task.

        Args:
            window: left, top, right and bottom, as shares of the image.
            mode: "image", "gradient" or "laplacian" of the network, or "photo".
        """
        left, top, right, bottom = window
        inside = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        if not inside or right - left < NARROWEST or bottom - top < NARROWEST:
            raise FitError(f"left, top, right, bottom: expected a part of 0 0 1 1, found {left} {top} {right} {bottom}")
        if not (1 <= width <= LARGEST and 1 <= height <= LARGEST):
            raise FitError(f"width, height: expected 1 to {LARGEST} pixels, found {width} x {height}")
        if mode not in MODES:
            raise FitError(f"mode: expected one of {', '.join(MODES)}, found {mode[:40]!r}")
        fit = self._touch(token)
        if mode != "photo" and fit.siren is None:
            raise FitError(fit.error or "nothing to show yet: the fit hasn't begun")
        task = self.engine.start(shot(fit, window, Grid(height, width), mode), fit.owner, FRAME)
        with self._lock:
            fit.pictures.append(task)
            while len(fit.pictures) > PENDING:
                fit.pictures.pop(0).cancel()
        task.future.add_done_callback(lambda done: self._shown(fit, done))
        return task

    def _shown(self, fit: Fit, done: Future[Any]) -> None:
        """Let go of a picture that is there: a fit is kept for long, and its last picture is larger than its network."""
        with self._lock:
            fit.pictures = [task for task in fit.pictures if task.future is not done]

    def _begin(self, fit: Fit, begin: Begin) -> str:
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._make_room(fit.owner)
            fit.task = self.engine.start(work(fit, begin), fit.owner)
            self._fits[token] = fit
        return token

    def _make_room(self, owner: str) -> None:
        """Drop the fits that were asked about longest ago, so that one more has a place."""
        own = [token for token, fit in self._fits.items() if fit.owner == owner]
        for token in own[: max(0, len(own) - self.limit + 1)]:
            self._drop(token)
        while len(self._fits) >= 4 * self.limit:
            left = next((token for token, fit in self._fits.items() if not fit.active), None)
            if left is None:
                raise Busy(
                    f"{len(self._fits)} fits are under way here, which is all there is room for; try again later"
                )
            self._drop(left)

    def _drop(self, token: str) -> None:
        fit = self._fits.pop(token)
        for task in (fit.task, *fit.pictures):
            if task is not None:
                task.cancel()

    def _touch(self, token: str) -> Fit:
        with self._lock:
            fit = self._fits.get(token)
            if fit is None:
                raise UnknownFit("no such fit: it was dropped for newer ones, or the viewer was started anew")
            self._fits.move_to_end(token)
        fit.touched = time.monotonic()
        return fit

    def _task(self, token: str) -> Task[None]:
        task = self._touch(token).task
        assert task is not None
        return task

    def _ops(self) -> Ops:
        return load(choose(self.backend, ("reference", "cpu"))[0])


def side(target: str, seconds: float) -> int:
    """Pixels of the longer side that are fitted in so many seconds: their number grows with the time."""
    pixels, enough, most = SIDES[target]
    return min(max(round(pixels * math.sqrt(seconds / enough)), SMALL), most)


def _budget(seconds: float) -> str:
    if not 1 <= seconds <= LONGEST:
        raise FitError(f"seconds: expected 1 to {LONGEST:.0f}, found {seconds}")
    return f"{seconds:.3f}s"


def _alike(first: Photo, second: Photo) -> tuple[Photo, Photo]:
    """Two photos of the first one's size and of as many channels: the second one fills the frame from its middle."""
    a, b = (photo.pixels for photo in (first, second))
    if a.shape[2] != b.shape[2]:  # gray beside colours
        a, b = (np.repeat(p, 3, -1) if p.shape[2] == 1 else p for p in (a, b))
    height, width = a.shape[:2]
    scale = min(b.shape[0] / height, b.shape[1] / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (b.shape[0] - rows) // 2, (b.shape[1] - columns) // 2
    b = stretched(b[top : top + rows, left : left + columns], height, width)
    return Photo(a, first.original), Photo(b, second.original)
