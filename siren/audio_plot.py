"""The picture of a fitted sound: truth, fit and error, as waves and as spectrograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from siren.command import save_figure

_INK, _WAVE, _ERROR = "#30343b", "#1f6fb2", "#d6336c"
_FLOOR = 90.0  # dB below the loudest that spectrograms still show


def plot_sound(truth: Float[np.ndarray, "n c"], fitted: Float[np.ndarray, "n c"], rate: int, path: Path) -> None:
    """Draw a sound, its fit and their difference; spectrograms of the channels' mean, all on one scale of decibels."""
    from matplotlib.figure import Figure  # here: it takes a second to import, and only commands plot

    figure = Figure(figsize=(14, 7.6), dpi=110, facecolor="white", layout="constrained")
    panels: Any = figure.subplots(3, 2, sharex=True)
    rows = (("truth", truth), ("fit", fitted), ("error, on its own scale", fitted - truth))
    spectra = [spectrogram(signal.mean(1)) for _, signal in rows]
    top = max(float(spectra[0].max()), -200.0)
    at = np.arange(len(truth)) / rate
    for row, (name, signal) in enumerate(rows):
        wave, spectrum = panels[row]
        for channel in range(signal.shape[1]):
            wave.plot(at, signal[:, channel], lw=0.4, alpha=0.8, color=_ERROR if row == 2 else _WAVE)
        wave.set_title(f"{name}: largest {np.abs(signal).max():.3g}", fontsize=10, color=_INK, loc="left")
        wave.grid(color="#e6e8eb", linewidth=0.6)
        image = spectrum.imshow(
            spectra[row], origin="lower", aspect="auto", extent=(0, len(truth) / rate, 0, rate / 2000), cmap="magma",
            vmin=top - _FLOOR, vmax=top, interpolation="nearest",
        )  # fmt: skip
        spectrum.set(ylabel="kHz")
        wave.tick_params(labelsize=8)
        spectrum.tick_params(labelsize=8)
    for panel in panels[2]:
        panel.set(xlabel="seconds")
    figure.colorbar(image, ax=list(panels[:, 1]), label="dB", shrink=0.6)
    save_figure(figure, path)


def spectrogram(signal: Float[np.ndarray, " n"], window: int = 512, columns: int = 600) -> Float[np.ndarray, "f t"]:
    """Power in decibels of Hann-windowed stretches of the signal, `columns` of them at most, frequency by time."""
    window = min(window, len(signal))
    starts = np.linspace(0, len(signal) - window, min(columns, max(1, 2 * len(signal) // window))).round().astype(int)
    stretches = np.asarray(signal, float)[starts[:, None] + np.arange(window)] * np.hanning(window + 2)[1:-1]
    return 10 * np.log10(np.abs(np.fft.rfft(stretches)).T ** 2 + 1e-20)
