"""Shapes as arrays, meshes and strands, and the simple solids that furniture is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Surface:
    """A triangle mesh: positions "v 3", triangles "t 3", optional texture coordinates "v 2" and normals "v 3"."""

    positions: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray | None = None
    normals: np.ndarray | None = None


@dataclass
class Strands:
    """Curves: control points "n k 3" and radii "n k", drawn as cubic B-splines; cm."""

    points: np.ndarray
    radii: np.ndarray


@dataclass
class Item:
    """Surfaces that share one material: an image or a colour (sRGB), how rough it is, and light that it emits."""

    colour: np.ndarray | tuple
    roughness: float = 0.6
    surfaces: list[Surface] = field(default_factory=list)
    glow: tuple | None = None


def vertex_normals(positions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals "v 3"."""
    a, b, c = positions[triangles.T]
    face = np.cross(b - a, c - a)
    normals = np.stack(
        [sum(np.bincount(triangles[:, k], face[:, axis], len(positions)) for k in range(3)) for axis in range(3)], 1
    )
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """Triangles "t 3" of a sheet of rows x columns vertices, numbered row by row."""
    grid = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = grid[:-1, :-1].ravel(), grid[:-1, 1:].ravel(), grid[1:, :-1].ravel(), grid[1:, 1:].ravel()
    return np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


def quad(corner, across, up, uv=(0.0, 0.0, 1.0, 1.0)) -> Surface:
    """A parallelogram that faces `across` x `up`; `uv` is the texture's rectangle (u0, v0, u1, v1)."""
    corner, across, up = (np.asarray(v, float) for v in (corner, across, up))
    u0, v0, u1, v1 = uv
    return Surface(
        np.stack([corner, corner + across, corner + across + up, corner + up]),
        np.array([[0, 1, 2], [0, 2, 3]]),
        np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]]),
    )


def box(low, high, uv=(0.0, 0.0, 1.0, 1.0), grain: float | None = None) -> list[Surface]:
    """An upright box's six faces; with `grain`, the texture repeats every `grain` metres, else it fits each face."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    w, h, d = x1 - x0, y1 - y0, z1 - z0

    def fit(a, b):
        return uv if grain is None else (x0 / grain, y0 / grain, x0 / grain + a / grain, y0 / grain + b / grain)

    return [
        quad((x0, y0, z1), (w, 0, 0), (0, h, 0), fit(w, h)),
        quad((x1, y0, z0), (-w, 0, 0), (0, h, 0), fit(w, h)),
        quad((x0, y0, z0), (0, 0, d), (0, h, 0), fit(d, h)),
        quad((x1, y0, z1), (0, 0, -d), (0, h, 0), fit(d, h)),
        quad((x0, y1, z1), (w, 0, 0), (0, 0, -d), fit(w, d)),
        quad((x0, y0, z0), (w, 0, 0), (0, 0, d), fit(w, d)),
    ]


def lathe(centre, profile, uv_scale=(1.0, 1.0), sides: int = 48) -> Surface:
    """A turned shape about the y axis through `centre`: `profile` "n 2" lists (radius, height)."""
    profile = np.asarray(profile, float)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    points = np.stack(
        [
            profile[:, None, 0] * np.sin(angle),
            np.broadcast_to(profile[:, None, 1], (len(profile), sides + 1)),
            profile[:, None, 0] * np.cos(angle),
        ],
        -1,
    )
    u = np.broadcast_to(angle / (2 * np.pi) * uv_scale[0], points.shape[:2])
    v = np.broadcast_to(np.linspace(0, uv_scale[1], len(profile))[:, None], points.shape[:2])
    return Surface(
        points.reshape(-1, 3) + np.asarray(centre),
        grid_triangles(*points.shape[:2]),
        np.stack([u, v], -1).reshape(-1, 2),
    )
