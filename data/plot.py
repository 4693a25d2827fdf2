"""A picture of a capture: cameras, box and points from above, from the side and in space, and the box on some photos.

What a bad capture looks like here: cameras that don't look at the box, poses that jump between neighbours in time,
points or a box that don't sit on the photos' subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from data.camera import Camera
from data.errors import mismatch

if TYPE_CHECKING:
    from data.scene import Frame, Scene

_INK, _BOX, _TEST, _POINT = "#30343b", "#1f6fb2", "#d6336c", "#8a9099"
_MAP = "viridis"


def plot_scene(scene: Scene, file: Path) -> None:
    """Draw `scene` into `file`, whose extension names the kind of picture. Raises SceneError for one that can't be
    written."""
    figure = Figure(figsize=(15, 9.2), dpi=110, facecolor="white")
    grid = figure.add_gridspec(2, 1, height_ratios=(2.2, 1), left=0.045, right=0.985, top=0.9, bottom=0.02, hspace=0.1)
    figure.text(0.045, 0.965, scene.summary(), fontsize=11.5, color=_INK, va="center", wrap=True)
    _draw_views(figure, grid[0], scene)
    _draw_photos(figure, grid[1], scene)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise mismatch(file, "plot", "a file that can be written, such as out.png", str(error)) from None


def view_axes(scene: Scene) -> np.ndarray:
    """Rows: right, ahead and up of a viewer who stands behind the mean camera; "3 3", orthonormal."""
    up = scene.up.double().numpy()
    ahead = -torch.stack([f.camera.pose[:, 2] for f in scene.train]).double().mean(0).numpy()
    ahead = ahead - up * (ahead @ up)
    if np.linalg.norm(ahead) < 0.35:  # cameras all around: any horizontal direction serves
        ahead = np.eye(3)[np.argmin(np.abs(up))]
        ahead = ahead - up * (ahead @ up)
    ahead /= np.linalg.norm(ahead)
    return np.stack((np.cross(ahead, up), ahead, up))


def frustum(camera: Camera, length: float) -> np.ndarray:
    """The 8 edges of a camera's frustum, "8 2 3": 4 from its centre to the corners, `length` away, and 4 around."""
    w, h = float(camera.width), float(camera.height)
    corners = torch.tensor([[0, 0], [w, 0], [w, h], [0, h]], dtype=torch.float64)
    origin, direction = camera.rays(corners)
    ends = (origin + length * direction).numpy()
    return np.concatenate((np.stack((origin.numpy(), ends), 1), np.stack((ends, np.roll(ends, -1, 0)), 1)))


def box_edges(box: np.ndarray) -> np.ndarray:
    """The 12 edges of the box "2 3", as "12 2 3"."""
    corners = np.array([[box[i, 0], box[j, 1], box[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    along = [(a, b) for a, b in combinations(range(8), 2) if (a ^ b).bit_count() == 1]
    return np.array([(corners[a], corners[b]) for a, b in along])


@dataclass
class _Drawing:
    """What the three views share, in the viewer's axes (right, ahead, up): lines, dots, and the cube to show."""

    box: np.ndarray  # "12 2 3"
    centres: np.ndarray  # "n 3"
    colours: np.ndarray  # "n 4"
    frusta: np.ndarray  # "m 2 3"
    frusta_colours: np.ndarray  # "m 4"
    points: np.ndarray  # "k 3"
    middle: np.ndarray
    half: float


def _drawing(scene: Scene) -> _Drawing:
    turn = view_axes(scene).T
    frames = scene.train + scene.test
    box = box_edges(scene.box.double().numpy()) @ turn
    centres = np.stack([f.camera.pose[:, 3].double().numpy() for f in frames]) @ turn
    # One stray camera mustn't shrink all the others to a dot.
    around = np.concatenate((box.reshape(-1, 3), np.clip(centres, *np.percentile(centres, (1, 99), axis=0))))
    middle, half = (around.min(0) + around.max(0)) / 2, 0.56 * np.ptp(around, axis=0).max()
    length = np.clip(0.3 * np.ptp(centres, axis=0).max(), 0.04 * half, 0.13 * half)
    colours = np.array([_colour(f.time) for f in scene.train] + [to_rgba(_TEST)] * len(scene.test))
    # Every camera gets a dot, and few enough a frustum that those of a video don't cover each other.
    shown = range(0, len(frames), -(-len(frames) // 40))
    frusta = np.concatenate([frustum(frames[i].camera, float(length)) for i in shown]) @ turn
    points = np.zeros((0, 3))
    if scene.points is not None:
        points = scene.points[:: max(1, len(scene.points) // 6000)].double().numpy() @ turn
        points = points[(np.abs(points - middle) < half).all(1)]
    return _Drawing(box, centres, colours, frusta, np.repeat(colours[list(shown)], 8, 0), points, middle, float(half))


def _draw_views(figure: Figure, place: Any, scene: Scene) -> None:
    drawing = _drawing(scene)
    middle, half = drawing.middle, drawing.half
    inner = place.subgridspec(1, 3, wspace=0.13)
    for column, (title, axes) in enumerate((("from above", (0, 1)), ("from the right", (1, 2)))):
        panel: Any = figure.add_subplot(inner[column])
        panel.scatter(*drawing.points[:, axes].T, s=1.5, c=_POINT, alpha=0.5, linewidths=0)
        panel.add_collection(LineCollection(list(drawing.box[:, :, axes]), colors=_BOX, linewidths=1.1, alpha=0.7))
        panel.add_collection(
            LineCollection(list(drawing.frusta[:, :, axes]), colors=drawing.frusta_colours, linewidths=0.6)
        )
        panel.scatter(*drawing.centres[:, axes].T, s=7, c=drawing.colours, linewidths=0, zorder=3)
        names = ("right", "ahead", "up")
        panel.set(xlabel=f"{names[axes[0]]}, scene units", ylabel=names[axes[1]], aspect="equal")
        panel.set_xlim(middle[axes[0]] - half, middle[axes[0]] + half)
        panel.set_ylim(middle[axes[1]] - half, middle[axes[1]] + half)
        _style(panel, title)
    _draw_space(figure.add_subplot(inner[2], projection="3d"), drawing)
    _legend(figure, scene)


def _draw_space(panel: Any, drawing: _Drawing) -> None:
    half = drawing.half
    panel.add_collection3d(Line3DCollection(drawing.box, colors=_BOX, linewidths=1.0, alpha=0.7))
    panel.add_collection3d(Line3DCollection(drawing.frusta, colors=drawing.frusta_colours, linewidths=0.5))
    panel.scatter(*drawing.centres.T, s=5, c=drawing.colours, linewidths=0, depthshade=False)
    panel.scatter(*drawing.points.T, s=1, c=_POINT, alpha=0.4, linewidths=0)
    foot = drawing.box.reshape(-1, 3).mean(0)
    panel.quiver(*foot, 0, 0, 0.5 * half, color=_INK, linewidth=1.6, arrow_length_ratio=0.18)
    panel.text(foot[0], foot[1], foot[2] + 0.56 * half, "up", color=_INK, ha="center", fontsize=9)
    for name, m in zip("xyz", drawing.middle):
        getattr(panel, f"set_{name}lim")(m - half, m + half)
        getattr(panel, f"{name}axis").set_tick_params(labelsize=7, labelcolor=_INK, pad=-1)
        getattr(panel, f"{name}axis").set_pane_color((0.965, 0.97, 0.975, 1.0))
    panel.set_box_aspect((1, 1, 1), zoom=1.12)
    panel.view_init(elev=24, azim=-62)
    panel.set_title("in space", fontsize=10.5, color=_INK, pad=4)


def _legend(figure: Figure, scene: Scene) -> None:
    line = matplotlib.lines.Line2D
    marks = [line([], [], color=_colour(t), lw=2) for t in (0.0, 0.5, 1.0)]
    labels = ["first photo", "middle", "last"]
    if scene.test:
        marks.append(line([], [], color=_TEST, lw=2))
        labels.append("held out")
    marks.append(line([], [], color=_BOX, lw=2))
    labels.append("box")
    if scene.points is not None:
        marks.append(line([], [], color=_POINT, marker="o", ls="", ms=4))
        labels.append("points")
    figure.legend(marks, labels, loc="upper left", bbox_to_anchor=(0.04, 0.952), ncols=6, frameon=False, fontsize=9)


def _draw_photos(figure: Figure, place: Any, scene: Scene) -> None:
    """Six photos over time with the box, and points, where the poses say that they are."""
    frames = sorted(scene.train + scene.test, key=lambda f: f.time)
    picked = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, 6).round().astype(int))]
    inner = place.subgridspec(1, len(picked), wspace=0.05)
    edges = box_edges(scene.box.double().numpy())
    step = np.linspace(0, 1, 40)[:, None]
    for column, frame in enumerate(picked):
        panel: Any = figure.add_subplot(inner[column])
        panel.imshow(frame.image.numpy(), extent=(0, frame.camera.width, frame.camera.height, 0))
        for a, b in edges:
            u, v = _visible(frame, a + step * (b - a))
            panel.plot(u, v, color=_BOX, lw=1.1, alpha=0.85)
        if scene.points is not None:
            u, v = _visible(frame, scene.points[:: max(1, len(scene.points) // 600)].double().numpy())
            panel.scatter(u, v, s=2.5, c="#ffd43b", linewidths=0)
        held_out = any(frame is f for f in scene.test)
        panel.set_xlim(0, frame.camera.width)
        panel.set_ylim(frame.camera.height, 0)
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set(color=_TEST if held_out else _colour(frame.time), linewidth=2.2)
        panel.set_title(_short(frame.name), fontsize=8.5, color=_TEST if held_out else _INK, pad=3)


def _visible(frame: Frame, points: np.ndarray) -> np.ndarray:
    """Pixels "2 n" of points in or near the photo, NaN for the others: far outside, a lens folds points back into the
    photo, and there the ray through the pixel doesn't lead to the point."""
    x = torch.from_numpy(points)
    camera = frame.camera
    pixels = camera.project(x)
    size = torch.tensor([float(camera.width), float(camera.height)], dtype=torch.float64)
    near = ((pixels > -size) & (pixels < 2 * size)).all(-1)
    origin, direction = camera.rays(pixels.nan_to_num())
    leads_there = ((x - origin) * direction).sum(-1) > 0.999 * (x - origin).norm(dim=-1)
    return torch.where((near & leads_there).unsqueeze(-1), pixels, torch.nan).numpy().T


def _short(name: str) -> str:
    return name if len(name) <= 28 else "…" + name[-27:]


def _colour(time: float) -> tuple[float, float, float, float]:
    return matplotlib.colormaps[_MAP](0.92 * time)


def _style(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=10.5, color=_INK)
    panel.tick_params(labelsize=8, colors=_INK)
    panel.xaxis.label.set(size=9, color=_INK)
    panel.yaxis.label.set(size=9, color=_INK)
    panel.grid(color="#e6e8eb", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[:].set_color("#c9cdd2")
