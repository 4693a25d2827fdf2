"""Which frames of a film to keep: sharp ones, spread over its time and its motion; and where it was cut.

    watched = watch(frames, fps)          sharpness, motion and likeness of every frame
    first, last = longest_take(watched)   a film that was cut shows several places: one of them is used
    chosen = choose(watched, 90, first, last)

Motion is the shift between successive frames that phase correlation finds, a share of the picture's diagonal. A cut is a
frame that looks like nothing before it, while its neighbours do look like each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

SMALL = 64  # pixels of the longer side of the pictures that motion is found in
BLURRED = 0.3  # of the sharpness around a frame: below it, a frame is called blurred
AROUND = 0.75  # seconds on each side that sharpness is compared with
UNLIKE, ALIKE = 0.45, 0.7  # correlation across a cut is below the one, beside it above the other
SAME = 1 - 1e-5  # correlation above which a frame repeats the one before
TIME = 0.6  # share of time in a frame's place along the film; the rest is motion


@dataclass
class Watched:
    """What was seen of every frame.

    sharpness  variance of the Laplacian, squared gray levels
    motion     shift from the frame before, a share of the diagonal; 0 for the first
    likeness   correlation with the frame before once that shift is undone, at most 1; 1 for the first
    contrast   standard deviation of the gray levels
    """

    sharpness: Float[np.ndarray, " n"]
    motion: Float[np.ndarray, " n"]
    likeness: Float[np.ndarray, " n"]
    contrast: Float[np.ndarray, " n"]
    fps: float

    def blurred(self) -> np.ndarray:
        """Frames that are much less sharp than the sharper half of those around them; "n" bool."""
        reach = max(2, round(AROUND * self.fps))
        padded = np.pad(self.sharpness, reach, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
        return self.sharpness < BLURRED * np.percentile(around, 75, axis=1)


@dataclass
class Choice:
    """Chosen frames' numbers in order, and which of them are blurred: to find poses by, not to learn from."""

    frames: list[int]
    blurred: list[bool]


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of "h w" gray levels."""
    g = grey.astype(np.float32)
    return float((g[1:-1, :-2] + g[1:-1, 2:] + g[:-2, 1:-1] + g[2:, 1:-1] - 4 * g[1:-1, 1:-1]).var())


def watch(frames: Iterable[np.ndarray], fps: float) -> Watched:
    """Look at all frames, "h w" uint8 of one size, one at a time."""
    rows: list[tuple[float, float, float, float]] = []
    before = None
    for frame in frames:
        small = _shrink(frame)
        shift, likeness = (0.0, 1.0) if before is None else _compare(before, small)
        rows.append((sharpness(frame), shift, likeness, float(frame.std())))
        before = small
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return Watched(columns[0], columns[1], columns[2], columns[3], fps)


def longest_take(watched: Watched) -> tuple[int, int]:
    """First frame and past the last of the longest part between cuts."""
    cuts = [0, *find_cuts(watched), len(watched.motion)]
    length, start = max((b - a, -a) for a, b in pairwise(cuts))
    return -start, length - start


def find_cuts(watched: Watched) -> list[int]:
    """Frames that begin a new take."""
    like = watched.likeness
    found = []
    for i in np.flatnonzero(like < UNLIKE):
        beside = np.concatenate((like[max(1, i - 3) : i], like[i + 1 : i + 4]))
        if len(beside) and np.median(beside) > ALIKE:
            found.append(int(i))
    return found


def choose(watched: Watched, count: int, first: int, last: int) -> Choice:
    """At most `count` of the frames from `first` to before `last`: the sharpest of each equal part of the way, which is
    time and motion added up. A film that stands still where it isn't turned yields fewer."""
    blurred = watched.blurred()
    frames = np.arange(first, last)
    if len(frames) > count:
        # A frame that repeats the one before it says nothing new.
        same = (watched.likeness[frames] > SAME) & (watched.motion[frames] < 1 - SAME)
        frames = frames[~same | (frames == first)]
    if len(frames) > count:
        moved = np.cumsum(np.minimum(watched.motion[frames], 0.1))
        along = np.linspace(0, 1, len(frames))
        if moved[-1] > 0.05:
            along = TIME * along + (1 - TIME) * moved / moved[-1]
        frames = _sharpest(frames, along / along[-1], count, watched.sharpness)
    return Choice(frames.tolist(), blurred[frames].tolist())


def _sharpest(frames: np.ndarray, along: np.ndarray, count: int, sharp: np.ndarray) -> np.ndarray:
    """The sharpest frame of each equal part of the way `along`, in [0, 1]; as many parts as yield at most `count`, since where
    the camera is quick, some hold no frame."""
    best = frames[:0]
    for parts in range(count, 2 * count, max(1, count // 30)):
        part = np.minimum((along * parts).astype(int), parts - 1)
        found = np.array([max(frames[part == p], key=lambda f: sharp[f]) for p in np.unique(part)])
        if len(found) > count:
            break
        best = found
    return best


def _shrink(frame: np.ndarray) -> np.ndarray:
    """Block means, the longer side about SMALL pixels; float32 without its mean."""
    step = max(1, max(frame.shape) // SMALL)
    rows, columns = (side // step for side in frame.shape)
    blocks = frame[: rows * step, : columns * step].reshape(rows, step, columns, step)
    small = blocks.mean((1, 3), dtype=np.float32)
    return small - small.mean()


def _compare(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Shift between two small pictures, a share of their diagonal, and their correlation where they then overlap."""
    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    spectrum = np.fft.rfft2(before * window) * np.conj(np.fft.rfft2(after * window))
    peaks = np.fft.irfft2(spectrum / np.maximum(np.abs(spectrum), 1e-6), before.shape)
    row, column = divmod(int(peaks.argmax()), peaks.shape[1])
    still = _correlation(before, after, 0, 0)
    down, right = (at - side * (at > side // 2) for at, side in zip((row, column), before.shape))
    if 2 * abs(down) >= before.shape[0] or 2 * abs(right) >= before.shape[1]:
        return 0.0, still
    shifted = _correlation(before, after, down, right)
    if shifted < still:
        return 0.0, still
    exact = down + _between(peaks[:, column], row), right + _between(peaks[row], column)
    return float(np.hypot(*exact) / np.hypot(*before.shape)), shifted


def _between(line: np.ndarray, top: int) -> float:
    """How far the peak of a line lies from its highest sample, in samples: the centroid of the three around it."""
    three = np.maximum(line[[top - 1, top, (top + 1) % len(line)]], 0)
    return float((three[2] - three[0]) / three.sum()) if three.sum() > 0 else 0.0


def _correlation(before: np.ndarray, after: np.ndarray, down: int, right: int) -> float:
    rows, columns = before.shape
    a = before[max(0, down) : rows + min(0, down), max(0, right) : columns + min(0, right)]
    b = after[max(0, -down) : rows + min(0, -down), max(0, -right) : columns + min(0, -right)]
    if a.size < 16:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 1e-3 * a.size else 1.0
