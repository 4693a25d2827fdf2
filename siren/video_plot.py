"""The picture of a fitted film: one frame, one row over time, and the error of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from siren.command import save_figure

_INK, _LINE, _MARK = "#30343b", "#1f6fb2", "#d6336c"
GAIN = 10  # of the error that is shown


def plot_film(
    truth: UInt8[np.ndarray, "f h w 3"], fitted: UInt8[np.ndarray, "f h w 3"], psnrs: Sequence[float], path: Path
) -> None:
    """Draw truth, fit and error of the middle frame, the same of its middle row over all frames, and PSNR by frame."""
    from matplotlib.figure import Figure  # here: it takes a second to import, and only commands plot

    count, height, _, _ = truth.shape
    frame, row = count // 2, height // 2
    figure = Figure(figsize=(13, 9.5), dpi=110, facecolor="white", layout="constrained")
    panels: Any = figure.subplot_mosaic(
        [["frame 0", "frame 1", "frame 2"], ["row 0", "row 1", "row 2"], ["psnr"] * 3], height_ratios=(3, 2, 1)
    )
    slices = (("frame", f"frame {frame}", (truth[frame], fitted[frame])),
              ("row", f"row {row} over time", (truth[:, row], fitted[:, row])))  # fmt: skip
    for key, name, (a, b) in slices:
        error = np.minimum(np.abs(a.astype(int) - b) * GAIN, 255).astype(np.uint8)
        for column, (what, picture) in enumerate((("truth", a), ("fit", b), (f"error x {GAIN}", error))):
            panel = panels[f"{key} {column}"]
            panel.imshow(picture, aspect="auto" if key == "row" else "equal", interpolation="nearest")
            panel.set_title(f"{what}, {name}", fontsize=10, color=_INK)
            panel.tick_params(labelsize=8)
        if key == "row":
            panels["row 0"].set(ylabel="frame")
    panel = panels["psnr"]
    panel.plot(range(count), psnrs, color=_LINE, marker="." if count < 100 else "")
    panel.axvline(frame, color=_MARK, lw=0.8)
    panel.set(xlabel="frame", ylabel="PSNR, dB", xlim=(-0.5, count - 0.5))
    panel.grid(color="#e6e8eb", linewidth=0.6)
    save_figure(figure, path)
