"""How far a mesh lies from where the light of rendered rays ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from data.camera import Camera
from nerf.meshes import areas, open3d
from nerf.surface import Mesh

SAMPLES = 50_000  # of the mesh
CAMERAS = 16  # that look for them


class Cast(NamedTuple):
    """Where rays end, which of them do in the box that is looked at, and which before they reach it."""

    points: Float[torch.Tensor, "r 3"]
    ended: Bool[torch.Tensor, "r"]
    blocked: Bool[torch.Tensor, "r"]


class Agreement(NamedTuple):
    """Distances between a mesh and a rendered surface, in the mesh's units.

    Attributes:
        chamfer: mean of both directions' mean distances.
        off: mean distance from the mesh of places where rays through random pixels end.
        beyond: mean distance, of what cameras see of the mesh, to the nearest place where any ray ends.
    """

    chamfer: float
    off: float
    beyond: float


def agreement(
    mesh: Mesh,
    cast: Callable[[torch.Tensor, torch.Tensor], Cast],
    rays: tuple[Float[torch.Tensor, "r 3"], Float[torch.Tensor, "r 3"]],
    cameras: Sequence[Camera],
    near: float,
    seed: int = 0,
) -> Agreement | None:
    """Compare a mesh with the surface that is rendered; None where no ray ends.

    Of the mesh only what cameras see is compared, and nothing stands before the box: elsewhere no ray could have ended.
    What they see is also looked at by rays of its own, so that its distance to the nearest end is not just the spacing of
    pixels.

    Args:
        cast: where rays end, by origins and directions.
        rays: origins and directions through random pixels of the cameras.
        near: distance from a camera up to which nothing is rendered.
    """
    from scipy.spatial import cKDTree

    ends = cast(*rays)
    points = ends.points[ends.ended].double().numpy()
    if not len(points):
        return None
    scene = open3d().t.geometry.RaycastingScene()
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    off = float(scene.compute_distance(points.astype(np.float32)).numpy().mean(dtype=float))
    spread = sample(mesh, SAMPLES, np.random.default_rng(seed))
    some = [cameras[i] for i in np.unique(np.linspace(0, len(cameras) - 1, CAMERAS).round().astype(int))]
    by = visible(scene, spread, some, near)
    if (by < 0).all():
        return Agreement(off, off, 0.0)
    seen = torch.from_numpy(spread[by >= 0]).float()
    eyes = torch.stack([camera.pose[:, 3] for camera in some])[torch.from_numpy(by[by >= 0])]
    aimed = cast(eyes, torch.nn.functional.normalize(seen - eyes, dim=-1))
    if aimed.blocked.all():
        return Agreement(off, off, 0.0)
    tree = cKDTree(np.concatenate([points, aimed.points[aimed.ended].double().numpy()]))
    beyond = float(tree.query(seen[~aimed.blocked].numpy())[0].mean())
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
) -> Int[np.ndarray, " n"]:
    """The first camera that sees each point of a surface, from `near` on and before the triangles of `scene` (open3d's); -1:
    none does."""
    by, places = np.full(len(points), -1), torch.from_numpy(points)
    for index, camera in enumerate(cameras):
        pixel = camera.project(places).numpy()
        eye = camera.pose[:, 3].double().numpy()
        towards = points - eye
        far = np.linalg.norm(towards, axis=1)
        good = ((pixel >= 0) & (pixel <= [camera.width, camera.height])).all(1)  # NaN is not
        good &= (camera.depth(places) > 0).numpy() & (far > near) & (by < 0)
        d = towards[good] / far[good, None]
        # open3d has one far end for all rays, in lengths of their directions.
        start, length = eye + near * d, (far[good] - near) * (1 - 1e-3)
        rays = np.concatenate([start, d * length[:, None]], axis=1).astype(np.float32)
        free = ~scene.test_occlusions(rays, tnear=0.0, tfar=1.0).numpy()
        by[np.flatnonzero(good)[free]] = index
    return by
