"""How far a mesh lies from where the light of rendered rays ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from data.camera import Camera
from nerf.meshes import areas, open3d
from nerf.surface import Mesh

SAMPLES = 50_000  # of the mesh
CAMERAS = 16  # that look for them


class Agreement(NamedTuple):
    """Distances between a mesh and rendered points, in the mesh's units.

    Attributes:
        chamfer: mean of both directions' mean distances.
        off: mean distance of rendered points from the mesh.
        beyond: mean distance of what cameras see of the mesh from the nearest rendered point.
    """

    chamfer: float
    off: float
    beyond: float


def agreement(
    mesh: Mesh, points: Float[np.ndarray, "n 3"], cameras: Sequence[Camera], near: float, seed: int = 0
) -> Agreement:
    """Compare a mesh with points at which rays through the cameras' pixels end.

    Only what the cameras see of the mesh is compared: elsewhere no ray could have ended.

    Args:
        near: distance from a camera up to which nothing is rendered.
        points: at least one; the more there are, the less of the distance to the nearest of them is just their spacing.
    """
    from scipy.spatial import cKDTree

    scene = open3d().t.geometry.RaycastingScene()
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    off = float(scene.compute_distance(points.astype(np.float32)).numpy().mean(dtype=float))
    spread = sample(mesh, SAMPLES, np.random.default_rng(seed))
    some = np.unique(np.linspace(0, len(cameras) - 1, CAMERAS).round().astype(int))
    seen = visible(scene, spread, [cameras[i] for i in some], near)
    if not seen.any():
        return Agreement(off, off, 0.0)
    beyond = float(cKDTree(points).query(spread[seen])[0].mean())
    return Agreement((off + beyond) / 2, off, beyond)


def sample(mesh: Mesh, count: int, random: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Points spread evenly over a mesh's area."""
    size = areas(mesh)
    corners = mesh.vertices[mesh.faces[random.choice(len(size), count, p=size / size.sum())]]
    u, v = random.random((2, count, 1))
    root = np.sqrt(u)
    return (1 - root) * corners[:, 0] + root * (1 - v) * corners[:, 1] + root * v * corners[:, 2]


def visible(
    scene: Any, points: Float[np.ndarray, "n 3"], cameras: Sequence[Camera], near: float
) -> Bool[np.ndarray, " n"]:
    """Whether at least one camera sees each point of a surface, from `near` on, before the triangles of `scene` (open3d's)."""
    seen, places = np.zeros(len(points), bool), torch.from_numpy(points)
    for camera in cameras:
        pixel = camera.project(places).numpy()
        eye = camera.pose[:, 3].double().numpy()
        towards = points - eye
        far = np.linalg.norm(towards, axis=1)
        good = ((pixel >= 0) & (pixel <= [camera.width, camera.height])).all(1)  # NaN is not
        good &= (camera.depth(places) > 0).numpy() & (far > near) & ~seen
        d = towards[good] / far[good, None]
        # open3d has one far end for all rays, in lengths of their directions.
        start, length = eye + near * d, (far[good] - near) * (1 - 1e-3)
        rays = np.concatenate([start, d * length[:, None]], axis=1).astype(np.float32)
        seen[good] = ~scene.test_occlusions(rays, tnear=0.0, tfar=1.0).numpy()
    return seen
