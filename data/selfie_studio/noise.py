"""Procedural noise: the grain in skin, wood, wool, plaster and hair."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def lattice_noise(points: np.ndarray, period: float, seed: int) -> np.ndarray:
    """Smooth noise in about [-1, 1] at points "n d" (d 1 to 3), with features of size `period` (the points' unit)."""
    place = np.asarray(points, np.float32) / np.float32(period)
    low = np.floor(place)
    place -= low
    place = low + place * place * (3 - 2 * place)  # eased, so that linear interpolation shows no creases
    lattice = np.random.default_rng(seed).uniform(-1, 1, (32,) * place.shape[1]).astype(np.float32)
    return ndimage.map_coordinates(lattice, place.T, order=1, mode="grid-wrap") * 1.4


def fractal_noise(points: np.ndarray, period: float, seed: int, octaves: int = 4, gain: float = 0.5) -> np.ndarray:
    """Sum of `lattice_noise` at `period`, `period`/2, ...; each octave weaker by `gain`."""
    points = np.asarray(points, np.float32)
    total = np.zeros(len(points), np.float32)
    for octave in range(octaves):
        total += gain**octave * lattice_noise(points + np.float32(7.3 * octave), period / 2**octave, seed + octave)
    return total


def image_noise(
    height: int, width: int, period: float | tuple[float, float], seed: int, octaves: int = 4, gain: float = 0.5
) -> np.ndarray:
    """Fractal noise as an image "height width"; `period` in pixels, a pair (rows, columns) makes it streaky."""
    rows, columns = period if isinstance(period, tuple) else (period, period)
    grid = np.moveaxis(np.mgrid[:height, :width], 0, -1).reshape(-1, 2) / np.array([rows, columns], np.float64)
    return fractal_noise(grid, 1.0, seed, octaves, gain).reshape(height, width)


def smoothstep(low: float | np.ndarray, high: float | np.ndarray, value: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high` (or the other way round where low > high), smooth in between."""
    unit = np.clip((value - low) / (high - low), 0, 1)
    return unit * unit * (3 - 2 * unit)


def mix(first, second, amount) -> np.ndarray:
    """Blend colours "... 3" by amount "..." in [0, 1]."""
    amount = np.asarray(amount)[..., None]
    return np.asarray(first) * (1 - amount) + np.asarray(second) * amount


def to_bytes(colour: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] (sRGB) as uint8."""
    return (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)
