"""Triangles of a density's level, found slab by slab so that memory stays small however fine the lattice is.

The lattice is walked in slabs of a few planes. A slab is what is in memory of the field; of the one before, only the plane
that both share is kept, with the vertices on it. So the values on both sides of a border are the same bits, and so
are the vertices: they are found again by their places, and there is no seam, whatever the slabs' thickness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SLAB = 1 << 23  # lattice points in memory at once
HAZE = 0.02  # of the threshold: thinner is air, even where no photo looks
ASKED = 1 << 18  # places asked at once whether they are hidden
NEAREST = 1e-3  # how near to its level a lattice point's density may be, as a share of it

Density = Callable[[Tensor], Tensor]  # places "p 3" -> density "p"
Known = Callable[[Tensor], Tensor]  # places "p 3" -> "p": whether the density there means anything


class MeshError(ValueError):
    """A surface can't be had, or not be written. The message is one sentence."""


class Mesh(NamedTuple):
    """Triangles, anticlockwise as seen from outside."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]


class Lattice(NamedTuple):
    """Places low + step * (i, j, k), `shape` of them along x, y and z."""

    low: tuple[float, float, float]
    step: float
    shape: tuple[int, int, int]

    @staticmethod
    def over(low: Sequence[float], high: Sequence[float], cells: int) -> Lattice:
        """The lattice in a box with `cells` cells along its longest side; along the others, as many as there is room for."""
        sides = [float(b) - float(a) for a, b in zip(low, high)]
        step = max(sides) / cells
        counts = [max(1, math.floor(side / step + 1e-6)) for side in sides]
        first = [float(a) + (side - count * step) / 2 for a, side, count in zip(low, sides, counts)]
        return Lattice((first[0], first[1], first[2]), step, (counts[0] + 1, counts[1] + 1, counts[2] + 1))

    def plane(self, i: int) -> Float[Tensor, "p 3"]:
        """The places of one x, z fastest."""
        axes = [self.low[a] + self.step * torch.arange(self.shape[a], dtype=torch.float64) for a in (1, 2)]
        y, z = torch.meshgrid(*axes, indexing="ij")
        x = torch.full_like(y, self.low[0] + self.step * i)
        return torch.stack([x, y, z], dim=-1).reshape(-1, 3).float()


def extract(
    density: Density,
    lattice: Lattice,
    threshold: float,
    known: Known | None = None,
    hidden: Known | None = None,
    closed: bool = False,
    planes: int | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] | None = None,
) -> Mesh:
    """The surface on which `density` is `threshold`: marching cubes (Lewiner et al. 2003) between lattice points.

    Vertices lie where the logarithm of the density, straight between two lattice points, crosses the level: a field's own
    output is that logarithm, and the density itself leaps by orders of magnitude within a cell.

    Args:
        density: of places, at least 0, in 1 / unit of the lattice.
        known: only cells whose eight corners it holds for hold any surface; None: everywhere. The field isn't asked
            elsewhere, which is most of the time saved.
        hidden: of places that are less dense than the threshold but no less than HAZE of it, those it holds for count as
            full. Photos leave the inside of things undecided, a haze full of holes, and nobody can see that it isn't solid.
        closed: what isn't known, and the lattice's walls, count as empty instead: no surface has an edge.
        planes: of a slab; None: as many as SLAB points allow.
        progress: shows how far the lattice's planes are done, as `tqdm` does.

    Returns:
        vertices in the lattice's units.

    Raises:
        MeshError: nowhere is the density on both sides of the threshold.
    """
    if not (math.isfinite(threshold) and threshold > 0):
        raise MeshError(f"--threshold: expected a density above 0, found {threshold:g}")
    nx, ny, nz = lattice.shape
    planes = max(1, SLAB // (ny * nz)) if planes is None else planes
    size = min(planes, nx - 1) + 1
    values, told = np.full((size, ny, nz), -1, np.float32), np.zeros((size, ny, nz), bool)
    seam, filled, highest, hazy = _Seam(), 0, 0.0, list[tuple[Tensor, Tensor]]()
    for i in progress(range(nx)) if progress is not None else range(nx):
        plane = _ask(density, known, lattice, i, threshold)
        values[filled], told[filled], highest = plane.values, plane.told, max(highest, plane.highest)
        hazy.append((plane.haze + filled * ny * nz, lattice.plane(i)[plane.haze]))
        filled += 1
        if filled == size or i == nx - 1:
            if hidden is not None:
                _fill(values, hazy, hidden)
            hazy.clear()
            if closed:
                _wall(values[:filled], i + 1 == filled, i == nx - 1)
            if filled > 1:
                seam.add(i + 1 - filled, i, *_cubes(values[:filled], None if closed else told[:filled]))
            values[0], told[0], filled = values[filled - 1], told[filled - 1], 1
    mesh = seam.mesh()
    if not len(mesh.faces):
        found = "none below" if highest > threshold else f"none above {highest:.4g}"
        raise MeshError(f"--threshold: expected a density on both sides of {threshold:.4g}, found {found}")
    return Mesh(np.array(lattice.low) + lattice.step * mesh.vertices, mesh.faces)


class _Plane(NamedTuple):
    """One plane: (density - threshold) / (density + threshold) where it is known, else -1; where that is; the highest
    density; and the places, counted along the plane, that are hazy: thinner than the threshold but no air."""

    values: Float[np.ndarray, "y z"]
    told: Bool[np.ndarray, "y z"]
    highest: float
    haze: Int[Tensor, "h"]


@torch.no_grad()
def _ask(density: Density, known: Known | None, lattice: Lattice, i: int, threshold: float) -> _Plane:
    """Plane `i`. The value is tanh of half the logarithm of density / threshold: straight where it crosses 0, and finite for
    every density."""
    x, shape = lattice.plane(i), lattice.shape[1:]
    where = torch.ones(len(x), dtype=torch.bool) if known is None else known(x)
    found = density(x[where]).float()
    level = (found - threshold) / (found + threshold)
    level = torch.where(found.isfinite(), level, 1.0)
    # A lattice point on the level itself would be the place of up to six vertices at once.
    level = torch.where(level < 0, level.clamp(max=-NEAREST), level.clamp(min=NEAREST))
    values = torch.full((len(x),), -1.0)
    values[where] = level
    haze = where.nonzero().squeeze(1)[(found < threshold) & (found > HAZE * threshold)]
    return _Plane(
        values.view(shape).numpy(), where.view(shape).numpy(), float(found.max()) if len(found) else 0.0, haze
    )


def _fill(values: Float[np.ndarray, "x y z"], hazy: list[tuple[Tensor, Tensor]], hidden: Known) -> None:
    """Make what is hazy and hidden full: a slab's values, and the haze's places in them and in the world."""
    place, x = (torch.cat(parts) for parts in zip(*hazy))
    for at, where in zip(place.split(ASKED), x.split(ASKED)):
        values.reshape(-1)[at[hidden(where)].numpy()] = 1.0


def _wall(values: Float[np.ndarray, "x y z"], first: bool, last: bool) -> None:
    """Empty a slab where it meets the lattice's walls; `first`, `last`: it is the lattice's first, its last."""
    values[:, 0] = values[:, -1] = values[:, :, 0] = values[:, :, -1] = -1
    if first:
        values[0] = -1
    if last:
        values[-1] = -1


def _cubes(
    values: Float[np.ndarray, "x y z"], told: Bool[np.ndarray, "x y z"] | None
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Level 0 of a slab, in its own lattice's units; only in cells of which all corners are told."""
    nothing = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    if not values.min() < 0 < values.max():
        return nothing
    mask = None
    if told is not None:
        # scikit-image looks up a cell in the mask by its upper corner.
        mask = np.zeros_like(told)
        mask[1:, 1:, 1:] = told[1:, 1:, 1:]
        for a in (0, 1):
            for b in (0, 1):
                for c in (0, 1):
                    mask[1:, 1:, 1:] &= told[a : a - 1 or None, b : b - 1 or None, c : c - 1 or None]
    try:
        vertices, faces, _, _ = marching_cubes()(values, 0.0, gradient_direction="ascent", mask=mask)
    except RuntimeError:  # the level is crossed, but in no cell that is told
        return nothing
    return vertices, faces


class _Seam:
    """Slabs' triangles, joined along the planes that they share."""

    def __init__(self) -> None:
        self.vertices: list[np.ndarray] = []
        self.faces: list[np.ndarray] = []
        self.count = 0
        self.keys, self.names = np.zeros(0, np.int64), np.zeros(0, np.int64)  # of the vertices on the last plane

    def add(self, first: int, last: int, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> None:
        """Add the slab between planes `first` and `last` of the lattice; each begins where the one before ended."""
        names = np.empty(len(vertices), np.int64)
        below = np.flatnonzero(vertices[:, 0] == 0)
        keys = _keys(vertices[below])
        place = np.searchsorted(self.keys, keys)
        known = np.zeros(len(keys), bool)
        if len(self.keys):
            known = self.keys[np.minimum(place, len(self.keys) - 1)] == keys
        new = np.ones(len(vertices), bool)
        new[below[known]] = False
        names[below[known]] = self.names[place[known]]
        names[new] = self.count + np.arange(new.sum())
        self.count += int(new.sum())
        self.vertices.append(vertices[new] + np.array([first, 0, 0], np.float32))
        self.faces.append(names[faces].astype(np.int32))
        above = np.flatnonzero(vertices[:, 0] == last - first)
        keys = _keys(vertices[above])
        order = np.argsort(keys)
        self.keys, self.names = keys[order], names[above][order]

    def mesh(self) -> Mesh:
        """All of it, in the lattice's units."""
        empty = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
        return Mesh(np.concatenate([*self.vertices, empty[0]]), np.concatenate([*self.faces, empty[1]]))


def _keys(vertices: Float[np.ndarray, "v 3"]) -> Int[np.ndarray, " v"]:
    """A number for each place y, z: its bits. Places are at least 0, so the order of bits is one of places too."""
    y, z = np.ascontiguousarray(vertices[:, 1:].T, dtype=np.float32).view(np.int32).astype(np.int64)
    return (y << 32) | z


def marching_cubes() -> Callable[..., Any]:
    """scikit-image's. Raises MeshError where it isn't installed."""
    try:
        from skimage.measure import marching_cubes as function
    except ImportError as error:
        raise MeshError(f"scikit-image can't be imported ({error}); pip install -e '.[mesh]'") from None
    return function
