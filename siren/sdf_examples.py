"""Made shapes, in closed form, for trying the fit without a file: `example:torus` and others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from siren.loop import FitError

ROUND, ALONG = 48, 400  # faces around a tube and along it


class Mesh(NamedTuple):
    """Triangles whose corners run counter-clockwise as seen from outside."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]


def torus(major: float = 1.0, minor: float = 0.4) -> Mesh:
    """A torus around the z axis: radii of its circle and of its tube."""
    turn = np.linspace(0, 2 * np.pi, ALONG, endpoint=False)
    zero = np.zeros_like(turn)
    curve = np.stack((major * np.cos(turn), major * np.sin(turn), zero), 1)
    return tube(curve, np.full(ALONG, minor))


def knot(radius: float = 0.38) -> Mesh:
    """A tube along a trefoil knot, thinner and thicker as it goes."""
    turn = np.linspace(0, 2 * np.pi, ALONG, endpoint=False)
    ring = 2 + np.cos(3 * turn)
    curve = np.stack((ring * np.cos(2 * turn), ring * np.sin(2 * turn), 1.2 * np.sin(3 * turn)), 1)
    return tube(curve, radius * (1 + 0.25 * np.cos(5 * turn)))


def blob(bumps: float = 0.12) -> Mesh:
    """A sphere with bumps of three sizes."""
    polar, turn = np.linspace(0, np.pi, 160)[1:-1], np.linspace(0, 2 * np.pi, 320, endpoint=False)
    p, t = np.meshgrid(polar, turn, indexing="ij")
    way = np.stack((np.sin(p) * np.cos(t), np.sin(p) * np.sin(t), np.cos(p)), -1).reshape(-1, 3)
    way = np.concatenate((way, [[0, 0, 1], [0, 0, -1]]))
    size = np.ones(len(way))
    for frequency, share, shift in ((3, 1.5, 0.3), (7, 0.6, 1.1), (15, 0.3, 2.0)):
        size += bumps * share * np.sin(frequency * way + shift).prod(1)
    return Mesh(way * size[:, None], _wrapped(len(polar), len(turn), True))


def frame(bar: float = 0.16) -> Mesh:
    """The twelve edges of a cube as square bars: sharp edges, thin parts, five holes."""
    cuts = np.array([-1, -1 + bar, 1 - bar, 1])
    middle = np.arange(3) == 1
    i, j, k = np.meshgrid(middle, middle, middle, indexing="ij")
    return boxes((i.astype(int) + j + k) < 2, (cuts, cuts, cuts))


EXAMPLES: dict[str, Callable[[], Mesh]] = {"torus": torus, "knot": knot, "blob": blob, "frame": frame}


def example(name: str) -> Mesh:
    """The made shape called `name`. Raises FitError for another name."""
    if name not in EXAMPLES:
        raise FitError(f"example:{name}: expected one of {', '.join(EXAMPLES)}, found {name!r}")
    return EXAMPLES[name]()


def tube(curve: Float[np.ndarray, "n 3"], radius: Float[np.ndarray, " n"]) -> Mesh:
    """The tube of changing radius around a smooth closed curve.

    The circle's axes are carried along the curve without twist, and what is missing to a whole turn at the end is
    spread over all of it.
    """
    count = len(curve)
    ahead = np.roll(curve, -1, 0) - np.roll(curve, 1, 0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.zeros_like(curve)
    side[0] = np.cross(ahead[0], np.eye(3)[np.abs(ahead[0]).argmin()])
    for i in range(count + 1):
        before, here = side[i - 1] if i else side[0], ahead[i % count]
        carried = before - here * (before @ here)
        carried /= np.linalg.norm(carried)
        if i < count:
            side[i] = carried
    missing = np.arctan2(carried @ np.cross(ahead[0], side[0]), carried @ side[0])
    up = np.cross(ahead, side)
    angle = np.linspace(0, 2 * np.pi, ROUND, endpoint=False) - missing * np.arange(count)[:, None] / count
    way = np.cos(angle)[..., None] * side[:, None] + np.sin(angle)[..., None] * up[:, None]
    vertices = (curve[:, None] + radius[:, None, None] * way).reshape(-1, 3)
    return Mesh(vertices, _wrapped(count, ROUND, False)[:, ::-1].copy())


def boxes(filled: np.ndarray, cuts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Mesh:
    """The outer faces of the filled cells of a grid of boxes.

    Args:
        filled: booleans, one a cell.
        cuts: where the cells end along x, y and z: one more than there are cells.
    """
    padded = np.pad(filled, 1)
    corners: list[np.ndarray] = []
    for axis in range(3):
        for step in (-1, 1):
            bare = padded & ~np.roll(padded, -step, axis)
            cells = np.argwhere(bare) - 1
            u, v = (axis + 1) % 3, (axis + 2) % 3
            square = np.repeat(cells[:, None], 4, 1)
            square[:, :, axis] += step == 1
            square[:, (1, 2), u] += 1
            square[:, (2, 3), v] += 1
            corners.append(square if step == 1 else square[:, ::-1])
    indices, faces = np.unique(np.concatenate(corners).reshape(-1, 3), axis=0, return_inverse=True)
    squares = faces.reshape(-1, 4)
    vertices = np.stack([cut[indices[:, axis]] for axis, cut in enumerate(cuts)], 1).astype(float)
    return Mesh(vertices, np.concatenate((squares[:, :3], squares[:, (0, 2, 3)])))


def _wrapped(rows: int, columns: int, capped: bool) -> np.ndarray:
    """Triangles between neighbours of a grid that closes across columns, and across rows or with a cap at each end:
    the two vertices that follow the grid's."""
    i, j = np.meshgrid(np.arange(rows - 1 if capped else rows), np.arange(columns), indexing="ij")
    below, beside = (i + 1) % rows, (j + 1) % columns
    a, b, c, d = i * columns + j, below * columns + j, below * columns + beside, i * columns + beside
    faces = [np.stack((a, b, c), -1).reshape(-1, 3), np.stack((a, c, d), -1).reshape(-1, 3)]
    if capped:
        here, following, last = np.arange(columns), (np.arange(columns) + 1) % columns, (rows - 1) * columns
        faces.append(np.stack((np.full(columns, rows * columns), here, following), 1))
        faces.append(np.stack((np.full(columns, rows * columns + 1), last + following, last + here), 1))
    return np.concatenate(faces)
