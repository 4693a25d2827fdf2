"""Which points on the person a camera sees: rays from points to the lens, against every triangle and the scalp's hair."""

from __future__ import annotations

import numpy as np

from data.selfie_studio.motion import FOCAL, SIZE, PosedCamera
from data.selfie_studio.shapes import Strands

FACING = 0.15  # cosine below which a surface is seen too flat for its points to be told apart: 81 degrees
NEARER = 2e-4  # metres by which a triangle must lie before a point to hide it: neighbours on the same skin don't
THIN = 0.3  # widths of hair across a pixel, from where on it hides the point: a quarter of it is covered
PIECES = 8  # straight ones to each span of a hair: none is longer than a pixel is wide


def visible(
    camera: PosedCamera, positions: np.ndarray, triangles: np.ndarray, points: np.ndarray, own: np.ndarray,
    strands: list[Strands],
) -> np.ndarray:  # fmt: skip
    """Whether the camera sees each of `points` "n 3", which lie on the triangles `own` "n": "n" bool.

    All is in metres: the mesh `positions` "v 3", `triangles` "t 3", seen from outside, and the `strands` before it. A point
    is seen that projects into the photo, on a surface that faces the camera, with no triangle and little hair before it.
    """
    pixels, depth = project(camera, points)
    seen = (depth > 0) & (pixels >= 0).all(1) & (pixels < SIZE).all(1)
    a, b, c = positions[triangles[own].T]
    normal, away = np.cross(b - a, c - a), camera.position - points
    cosine = (normal * away).sum(1) / np.maximum(np.linalg.norm(normal, axis=1) * np.linalg.norm(away, axis=1), 1e-30)
    seen &= cosine > FACING
    rows = np.flatnonzero(seen)
    rows = rows[~_behind_triangles(camera, pixels[rows], depth[rows], positions, triangles, own[rows])]
    rows = rows[~_behind_hair(camera, pixels[rows], depth[rows], strands)]
    result = np.zeros(len(points), bool)
    result[rows] = True
    return result


def project(camera: PosedCamera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels "n 2" and depth along the camera's axis "n" of world points "n 3"."""
    return camera.project(points), (points - camera.position) @ camera.orientation[2]


def _behind_triangles(camera, pixels, depth, positions, triangles, own) -> np.ndarray:
    """Points "n" that a triangle other than their own lies before."""
    corners, deep = project(camera, positions)
    low, high = corners[triangles].min(1), corners[triangles].max(1)
    triangle, point = _meet(low, high, pixels)
    first, second, third = corners[triangles[triangle]].transpose(1, 0, 2)

    def twice_area(p, q, r):
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    at = pixels[point]
    shares = np.stack([twice_area(second, third, at), twice_area(third, first, at), twice_area(first, second, at)], 1)
    whole = shares.sum(1, keepdims=True)
    shares = shares / np.where(whole == 0, 1, whole)
    inverse = (shares / deep[triangles[triangle]]).sum(1)  # 1 / depth is linear in the picture
    before = (shares >= 0).all(1) & (whole[:, 0] != 0) & (inverse * (depth[point] - NEARER) > 1)
    return np.isin(np.arange(len(pixels)), point[before & (triangle != own[point])])


def _behind_hair(camera, pixels, depth, strands: list[Strands]) -> np.ndarray:
    """Points "n" whose pixel is covered, as far as the hair before them goes."""
    cover = np.zeros(len(pixels))
    for some in strands:
        curves, radii = _curve(some)
        drawn, deep = project(camera, curves.reshape(-1, 3))
        drawn, deep = drawn.reshape(*curves.shape[:2], 2), deep.reshape(curves.shape[:2])
        length = np.linalg.norm(np.diff(drawn, axis=1), axis=2)
        middle, deep = ((x[:, 1:] + x[:, :-1]) / 2 for x in (drawn, deep))
        width = 2 * radii[:, 1:] * FOCAL / deep
        area, middle, deep = (length * width).ravel(), middle.reshape(-1, 2), deep.ravel()
        piece, point = _meet(middle, middle, pixels)
        before = deep[piece] < depth[point]
        cover += np.bincount(point[before], area[piece[before]], len(pixels))
    return cover > THIN


def _curve(strands: Strands, pieces: int = PIECES) -> tuple[np.ndarray, np.ndarray]:
    """Points "n m 3" and radii "n m" along cubic B-splines, `pieces` to each of their spans."""
    spans = strands.points.shape[1] - 3
    place = np.linspace(0, spans, spans * pieces + 1)
    span = np.minimum(place.astype(int), spans - 1)
    t = place - span
    basis = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    weights = np.zeros((len(place), spans + 3))
    for k in range(4):
        weights[np.arange(len(place)), span + k] = basis[:, k]
    return np.einsum("mk,nkd->nmd", weights, strands.points), strands.radii @ weights.T


def _meet(low: np.ndarray, high: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (box, point) that share a pixel of the photo, of boxes from `low` to `high` "b 2" and `pixels` "n 2"."""
    width, height = SIZE
    low, high = (np.clip(np.floor(edge), -1, [width, height]).astype(int) for edge in (low, high))
    low, high = np.maximum(low, 0), np.minimum(high, [width - 1, height - 1])
    size = np.maximum(high - low + 1, 0)
    cells = np.floor(pixels).astype(int) @ [1, width]
    order = np.argsort(cells, kind="stable")
    filled = np.zeros(width * height + 1, int)
    np.add.at(filled, cells + 1, 1)
    begin = np.cumsum(filled)  # of a cell's points in `order`; one more at the end
    box, nth = _spread(size[:, 0] * size[:, 1])
    cell = (low[box, 1] + nth // size[box, 0]) * width + low[box, 0] + nth % size[box, 0]
    pair, nth = _spread(begin[cell + 1] - begin[cell])
    return box[pair], order[begin[cell[pair]] + nth]


def _spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row i `counts[i]` times, and the number of each among those of its row."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
