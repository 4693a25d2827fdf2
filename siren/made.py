"""Signals that this project makes itself: a few seconds of music or of a voice, and a film of moving shapes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from siren.loop import FitError
from siren.wav import Sound

SOUNDS = ("music", "voice")
_SCALE = (0, 3, 5, 7, 10, 12, 15)  # semitones: minor pentatonic
_VOWELS = np.array([[730, 1090, 2440], [270, 2290, 3010], [570, 840, 2410], [530, 1840, 2480], [300, 870, 2240]])
_WIDTHS = np.array([90, 110, 160])  # of the three formants' resonances, Hz


def make_sound(name: str = "music", seconds: float = 5.0, rate: int = 22050, seed: int = 0) -> Sound:
    """A sound, the same for the same arguments: "music" (plucked notes, two at a time) or "voice" (a hummed sentence
    whose formants glide from vowel to vowel). One channel, largest magnitude 0.9."""
    if name not in SOUNDS:
        raise FitError(f"example: expected one of {', '.join(SOUNDS)}, found {name!r}")
    if not 0.05 <= seconds <= 600 or not 100 <= rate <= 192_000:
        raise FitError(f"example: expected 0.05 to 600 s at 100 to 192000 Hz, found {seconds} s at {rate} Hz")
    random = np.random.default_rng(seed)
    times = np.arange(max(1, round(seconds * rate))) / rate
    wave = (_music if name == "music" else _voice)(times, rate, random)
    wave += 1e-4 * random.standard_normal(len(wave))  # no recording is without
    return Sound((0.9 * wave / np.abs(wave).max()).astype(np.float32)[:, None], rate)


def _music(times: np.ndarray, rate: int, random: np.random.Generator) -> Float[np.ndarray, " n"]:
    wave = np.zeros(len(times))
    for start in np.arange(0, times[-1] + 1e-9, 0.25):
        for octave in (110, 220)[: random.integers(1, 3)]:
            pitch = octave * 2 ** (random.choice(_SCALE) / 12)
            wave += random.uniform(0.4, 1) * _note(times - start, pitch, rate)
    return wave


def _note(times: np.ndarray, pitch: float, rate: int) -> Float[np.ndarray, " n"]:
    """A plucked string: partials of the pitch, the higher the quieter and the sooner gone."""
    on = (times >= 0) & (times < 2)
    t, wave = times[on], np.zeros(len(times))
    for k in range(1, 13):
        frequency = pitch * k * (1 + 2e-4 * k**2)  # a stiff string's partials are a little sharp
        if frequency < 0.45 * rate:
            wave[on] += np.sin(2 * np.pi * frequency * t) * np.exp(-t * (1.5 + 0.8 * k)) / k
    wave[on] *= (1 - np.exp(-t / 0.004)) * np.clip((2 - t) / 0.1, 0, 1)
    return wave


def _voice(times: np.ndarray, rate: int, random: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Harmonics of a gliding pitch, each as loud as the formants make its frequency at that instant."""
    syllables = np.arange(0, times[-1] + 0.7, 0.35)
    spoken = _VOWELS[random.integers(len(_VOWELS), size=len(syllables))].astype(float)
    formants = np.stack([np.interp(times, syllables, column) for column in spoken.T])
    pitch = np.interp(times, syllables, random.uniform(95, 150, len(syllables))) * (1 + 0.01 * np.sin(35 * times))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = np.zeros(len(times))
    for k in range(1, 41):
        frequency = k * pitch
        loud = (1 / (1 + ((frequency - formants) / _WIDTHS[:, None]) ** 2) * np.array([[1], [0.6], [0.3]])).sum(0)
        wave += (loud + 0.02) / np.sqrt(k) * (frequency < 0.45 * rate) * np.sin(k * phase)
    return wave * (0.08 + np.sin(np.pi * times / 0.35) ** 2)  # one swell a syllable


def make_film(frames: int = 64, height: int = 128, width: int = 128, seed: int = 0) -> UInt8[np.ndarray, "f h w 3"]:
    """A film, the same for the same arguments: discs and a striped square that drift, turn and grow over a gradient.

    Sizes and speeds are shares of the picture and of the film, edges one pixel soft: other sizes show the same scene.
    """
    if min(frames, height, width) < 1:
        raise FitError(f"example: expected at least 1 frame of 1 x 1, found {frames} of {width} x {height}")
    random = np.random.default_rng(seed)
    y, x = (np.mgrid[:height, :width] + 0.5) / min(height, width)
    right, bottom = width / min(height, width), height / min(height, width)
    starts, ends = random.uniform(0.15, 0.85, (2, 4, 2)) * (right, bottom)
    radii, colours = random.uniform(0.07, 0.18, 4), random.uniform(0, 1, (4, 3))
    film = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        now = (index + 0.5) / frames
        picture = np.stack([0.2 + 0.5 * x / right, 0.3 + 0.4 * y / bottom, 0.6 - 0.3 * now + 0 * x], -1)
        for start, end, radius, colour in zip(starts, ends, radii, colours):
            at = start + (end - start) * 0.5 * (1 - np.cos(np.pi * now))
            far = np.hypot(x - at[0], y - at[1]) - radius * (0.8 + 0.4 * now)
            picture = _paint(picture, far, colour, min(height, width))
        picture = _paint(picture, *_square(x - right / 2, y - bottom / 2, now), min(height, width))
        film[index] = np.rint(255 * picture)
    return film


def _square(x: np.ndarray, y: np.ndarray, now: float) -> tuple[np.ndarray, np.ndarray]:
    """A turning square's distance and striped colour."""
    turn = 2 * np.pi * 0.4 * now
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    stripes = 0.5 + 0.4 * np.sin(2 * np.pi * u / 0.06)
    return np.maximum(np.abs(u), np.abs(v)) - 0.17, np.stack([stripes, 0.9 - 0.5 * stripes, 0.2 + 0 * u], -1)


def _paint(picture: np.ndarray, far: np.ndarray, colour: np.ndarray, side: int) -> np.ndarray:
    cover = np.clip(0.5 - far * side, 0, 1)[..., None]
    return picture * (1 - cover) + cover * colour
