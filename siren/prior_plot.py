"""Pictures of a prior: completions beside the truth, and the way from one image to another through the codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from data.images import to_uint8
from siren.command import save_figure
from siren.prior_data import signals
from siren.prior_fit import REFINE, at, cases, code, complete, grid, linear, observed, plainly
from siren.prior_model import ImagePrior

_UNSEEN = np.array((58, 84, 122), np.float32)  # of pixels that aren't observed: no grey, so that it can't be a value
_INK, _PAPER = "#30343b", 255.0


def colors(values: Float[Tensor, "b p c"]) -> np.ndarray:
    """Square images of values in [-1, 1] as "b h w 3", in [0, 255]."""
    side = round(values.shape[1] ** 0.5)
    levels = ((values.clamp(-1, 1) + 1) * 127.5).unflatten(1, (side, side))
    return levels.expand(-1, -1, -1, 3).cpu().numpy()


def masked(values: Float[Tensor, "b p c"], seen: Int[Tensor, "b n"]) -> np.ndarray:
    """The same, with one colour where nothing is observed."""
    shown = torch.zeros(values.shape[:2], dtype=torch.bool).scatter(1, seen, True)
    images = colors(values)
    return np.where(shown.numpy().reshape(*images.shape[:3], 1), images, _UNSEEN)


def plot_completions(
    prior: ImagePrior, images: UInt8[Tensor, "b h w c"], file: Path, refine: int = REFINE, seed: int = 0
) -> None:
    """Truth, then by case: what is observed, what the prior makes of it, and linear interpolation of it."""
    truth, size = signals(images), prior.config.size
    places = grid(size)
    rows, names = [colors(truth)], ["truth"]
    for case in cases(size):
        seen = observed(case, len(truth), size, seed)
        x, values = places[seen], at(truth, seen)
        rows += [masked(truth, seen), colors(complete(prior, x, values, places, refine))]
        rows += [colors(plainly(linear, x, values, places))]
        names += [f"{case}{' pixels' if case.isdecimal() else ''}", "completion", "linear"]
    write_rows(rows, names, file, "Held-out images, completed from some of their pixels", gaps=(1, 3))


def plot_interpolation(prior: ImagePrior, images: UInt8[Tensor, "b h w c"], file: Path, columns: int = 9) -> None:
    """From each image to the next through their codes, at twice the pixels that the prior learned from."""
    truth, size = signals(images), prior.config.size
    fine, places = grid(2 * size), grid(size)
    z = code(prior, places.expand(len(truth), -1, -1), truth)
    with torch.no_grad():
        share = torch.linspace(0, 1, columns)[:, None]
        rows = []
        for first in range(0, len(truth) - 1, 2):
            mixed = torch.lerp(z[first], z[first + 1], share)
            drawn = colors(prior(mixed, fine.expand(columns, -1, -1)))
            ends = colors(truth[first : first + 2]).repeat(2, 1).repeat(2, 2)
            rows.append(np.concatenate((ends[:1], drawn, ends[1:])))
    write_rows(rows, [""] * len(rows), file, "Truth, from its code to another image's, and that image")


def write_rows(
    rows: list[np.ndarray], names: list[str], file: Path, title: str, gaps: tuple[int, int] = (0, 0)
) -> None:
    """A picture of rows of images, "n h w 3" each, with names at the left. Raises FitError where it can't be written.

    Args:
        gaps: a wider space comes before row gaps[0] and before every gaps[1]-th from there on.
    """
    side, count = rows[0].shape[1], len(rows[0])
    line, wide = max(1, side // 16), side // 4
    tops, top = [], 0
    for index in range(len(rows)):
        top += wide if gaps[1] and index >= gaps[0] and (index - gaps[0]) % gaps[1] == 0 else 0
        tops.append(top)
        top += side + line
    sheet = np.full((top - line, count * (side + line) - line, 3), _PAPER, np.float32)
    for row, start in zip(rows, tops):
        for column, image in enumerate(row):
            sheet[start : start + side, column * (side + line) : column * (side + line) + side] = image
    scale = 76 / side / 100  # inches a pixel: an image is 0.76 wide
    width, height = sheet.shape[1] * scale, sheet.shape[0] * scale
    figure = Figure(figsize=(width + 1.5, height + 0.6), dpi=120, facecolor="white")
    panel = figure.add_axes((1.3 / (width + 1.5), 0.1 / (height + 0.6), width / (width + 1.5), height / (height + 0.6)))
    panel.imshow(to_uint8(sheet), interpolation="nearest", aspect="auto")
    panel.set_xticks([])
    panel.set_yticks([start + side / 2 for start in tops], names, color=_INK, fontsize=9)
    panel.tick_params(length=0)
    panel.set_frame_on(False)
    panel.set_title(title, color=_INK, fontsize=10, loc="left")
    save_figure(figure, file)
