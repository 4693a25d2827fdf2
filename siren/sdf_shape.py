"""A surface ready to be fitted: points with normals, moved and scaled into the cube [-1, 1]^3."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from siren.loop import FitError
from siren.sdf_examples import Mesh

SAMPLES = 200_000  # of a mesh: at most this many points are fitted
FILLED = 0.85  # half of the longest side, in the cube; what is left keeps the cube's faces clear of the surface
FEWEST = 100  # points that can say anything about a surface
ORIENTED = 30_000  # points among which normals are made consistent; the others take their neighbour's side


@dataclass(frozen=True)
class Placement:
    """Where the cube lies in the file's units: x = centre + scale * x_cube."""

    centre: tuple[float, float, float]
    scale: float

    def into(self, x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """From the file's units into the cube."""
        return (x - np.array(self.centre)) / self.scale

    def back(self, x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """From the cube into the file's units."""
        return x * self.scale + np.array(self.centre)


@dataclass(frozen=True)
class Shape:
    """A surface in the cube.

    Attributes:
        points, normals: on the surface; normals have length 1 and point out.
        placement: of the cube.
        mesh: the surface itself in the cube, where triangles were given.
        notes: what was done to the input that a person should know.
    """

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    placement: Placement
    mesh: Mesh | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def diagonal(self) -> float:
        """Of the surface's bounding box, in the cube's units."""
        corners = self.points if self.mesh is None else self.mesh.vertices[np.unique(self.mesh.faces)]
        return float(np.linalg.norm(np.ptp(corners, axis=0)))


def shape_from_mesh(mesh: Mesh, seed: int = 0, name: str = "mesh", count: int = SAMPLES) -> Shape:
    """A shape from triangles, with `count` points spread evenly over their area.

    Raises:
        FitError: no area, numbers that aren't finite, or faces that name vertices that don't exist.
    """
    vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces)
    if len(faces) == 0:
        raise FitError(f"{name}: faces: expected at least one triangle, found none")
    if faces.min() < 0 or faces.max() >= len(vertices):
        found = f"{faces.min()}..{faces.max()}"
        raise FitError(f"{name}: faces: expected vertices 0..{len(vertices) - 1}, found {found}")
    placement = place(vertices[np.unique(faces)], name)
    inside = Mesh(placement.into(vertices), faces)
    points, normals = sample_mesh(inside, count, np.random.default_rng(seed), name)
    notes: tuple[str, ...] = ()
    if inward(points, normals):
        inside, normals, notes = Mesh(inside.vertices, faces[:, ::-1].copy()), -normals, (TURNED,)
    return Shape(points, normals, placement, inside, notes)


def shape_from_points(
    points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"] | None = None, name: str = "points"
) -> Shape:
    """A shape from an oriented point cloud; normals that are None are estimated with open3d.

    Raises:
        FitError: fewer than 100 points, no extent, numbers that aren't finite, or normals without length.
    """
    points = np.asarray(points, float)
    if len(points) < FEWEST:
        raise FitError(f"{name}: points: expected at least {FEWEST}, found {len(points)}")
    placement = place(points, name)
    inside = placement.into(points)
    notes: tuple[str, ...] = ()
    if normals is None:
        normals = estimate_normals(inside, name)
        notes = ("no normals: estimated from neighbours, and turned to agree with each other",)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    usable = (np.isfinite(lengths) & (lengths > 1e-12))[:, 0]
    if usable.mean() < 0.5:
        bad = int((~usable).sum())
        raise FitError(f"{name}: normals: expected finite ones with a length, found {bad} of {len(points)} without")
    if not usable.all():
        notes += (f"{int((~usable).sum())} points without a normal are left out",)
    inside, normals = inside[usable], normals[usable] / lengths[usable]
    if inward(inside, normals):
        normals, notes = -normals, (*notes, TURNED)
    return Shape(inside, normals, placement, None, notes)


def place(points: Float[np.ndarray, "n 3"], name: str) -> Placement:
    """The cube for these points: their box in its middle, the longest side filling most of it."""
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).any(1).sum())
        raise FitError(f"{name}: coordinates: expected finite numbers, found {bad} of {len(points)} points without")
    low, high = points.min(0), points.max(0)
    longest = float((high - low).max())
    # Where the extent drowns in the coordinates' own rounding there is no shape left in the numbers.
    if not math.isfinite(longest) or longest <= 1e-12 * float(np.abs(points).max()) or longest == 0:
        raise FitError(f"{name}: coordinates: expected a shape with an extent, found {longest:g} on its longest side")
    x, y, z = ((low + high) / 2).tolist()
    return Placement((x, y, z), longest / 2 / FILLED)


def sample_mesh(
    mesh: Mesh, count: int, random: np.random.Generator, name: str = "mesh"
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points spread evenly over the triangles' area, and the triangles' normals there."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)
    area = np.linalg.norm(across, axis=1)
    if not area.sum() > 0:
        raise FitError(f"{name}: faces: expected triangles with an area, found none")
    # One point in each of `count` equal shares of the area: no clumps where chance would put them.
    share = (np.arange(count) + random.random(count)) / count
    chosen = np.searchsorted(np.cumsum(area) / area.sum(), share, side="right").clip(max=len(area) - 1)
    chosen[area[chosen] == 0] = area.argmax()
    root, v = np.sqrt(random.random((count, 1))), random.random((count, 1))
    points = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
    return points, across[chosen] / area[chosen, None]


TURNED = "normals pointed in: turned to point out, so that the distance is positive outside"


def inward(points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]) -> bool:
    """Whether the normals of a closed surface point in: by Gauss, the flux of x out of it is three times its volume.

    An open surface's normals don't cancel out, and it has no inside: False.
    """
    closed = np.linalg.norm(normals.mean(0)) < 0.1
    return bool(closed and (points * normals).sum(1).mean() < -0.01)


def estimate_normals(points: Float[np.ndarray, "n 3"], name: str = "points") -> Float[np.ndarray, "n 3"]:
    """Normals of planes through each point's neighbours, turned so that neighbours agree (open3d)."""
    o3d = open3d()
    step = -(-len(points) // ORIENTED)
    few = np.ascontiguousarray(points[::step])
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(few))
    cloud.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(16))
    try:
        cloud.orient_normals_consistent_tangent_plane(16)
    except RuntimeError as error:  # points on one line, or all the same
        said = str(error).splitlines()[0]
        raise FitError(
            f"{name}: normals: expected points on a surface, to estimate them; open3d says: {said}"
        ) from None
    oriented = np.asarray(cloud.normals)
    if step == 1:
        return oriented.copy()
    every = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    every.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(16))
    normals = np.asarray(every.normals).copy()
    search = o3d.core.nns.NearestNeighborSearch(o3d.core.Tensor(few))
    search.knn_index()
    nearest = search.knn_search(o3d.core.Tensor(points), 1)[0].numpy()[:, 0]
    return normals * np.where((normals * oriented[nearest]).sum(1) < 0, -1.0, 1.0)[:, None]


def rough_distances(shape: Shape, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Distance to the nearest of the shape's points, negative inside by that point's normal, 0 where uncertain (open3d).

    Uncertain is where that point doesn't lie straight below or above: beside an edge or a border, or so near that its
    distance is no longer large against the gaps between the shape's points.
    """
    o3d = open3d()
    search = o3d.core.nns.NearestNeighborSearch(o3d.core.Tensor(shape.points))
    search.knn_index()
    index, square = search.knn_search(o3d.core.Tensor(np.ascontiguousarray(points)), 1)
    nearest, distance = index.numpy()[:, 0], np.sqrt(square.numpy()[:, 0])
    height = ((points - shape.points[nearest]) * shape.normals[nearest]).sum(1)
    return np.where(np.abs(height) > 0.7 * distance, np.sign(height) * distance, 0.0)


def open3d() -> Any:
    """The module, quiet. Raises FitError where it isn't installed."""
    try:
        import open3d as o3d
    except ImportError as error:
        raise FitError(f"open3d can't be imported ({error}); pip install 'nerf-siren[mesh]'") from None
    o3d.utility.set_verbosity_level(o3d.utility.VerbosityLevel.Error)
    return o3d


def marching_cubes() -> Callable[..., Any]:
    """scikit-image's. Raises FitError where it isn't installed."""
    try:
        from skimage.measure import marching_cubes as function
    except ImportError as error:
        raise FitError(f"scikit-image can't be imported ({error}); pip install 'nerf-siren[mesh]'") from None
    return function
