"""From a network's zero level to triangles, and how far they lie from the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from siren.loop import FitError
from siren.network import Siren
from siren.sdf_examples import Mesh
from siren.sdf_shape import Shape, marching_cubes, open3d, sample_mesh

BLOCK = 1 << 16  # points evaluated at once
FAR = 0.02  # share of the diagonal beyond which a reconstructed point belongs to no true surface


@torch.no_grad()
def sample_grid(siren: Siren, resolution: int) -> Float[np.ndarray, "x y z"]:
    """The network on resolution^3 points that span [-1, 1]^3, block by block."""
    side = torch.linspace(-1, 1, resolution)
    volume = np.empty((resolution,) * 3, np.float32)
    flat = volume.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        index = torch.arange(start, min(start + BLOCK, flat.size))
        i, j, k = index // resolution**2, index // resolution % resolution, index % resolution
        flat[start : start + BLOCK] = siren(torch.stack((side[i], side[j], side[k]), 1))[:, 0].numpy()
    return volume


def gradients(siren: Siren, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """The network's gradient, block by block, without a graph."""
    with torch.no_grad():
        return torch.cat([siren.gradient(part)[:, 0] for part in points.split(BLOCK // 4)] or [points])


def extract(siren: Siren, resolution: int) -> tuple[Mesh, Float[np.ndarray, "v 3"]]:
    """Triangles of the zero level in the cube, and the network's unit normals at their vertices.

    Raises:
        FitError: there is no zero level.
    """
    cubes = marching_cubes()
    volume = sample_grid(siren, resolution)
    if not volume.min() < 0 < volume.max():
        raise FitError(
            f"the network has no zero level in the cube (values {volume.min():.3g}..{volume.max():.3g}), so there is no "
            "surface; fit for more steps"
        )
    step = 2 / (resolution - 1)
    vertices, faces, _, _ = cubes(
        volume, 0.0, spacing=(step,) * 3, gradient_direction="descent", allow_degenerate=False
    )
    vertices = vertices.astype(float) - 1
    normals = gradients(siren, torch.from_numpy(vertices).float()).double().numpy()
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    return Mesh(vertices, faces.astype(np.int64)), normals


class Comparison(NamedTuple):
    """How far two surfaces lie apart.

    Attributes:
        chamfer: mean of both directions' mean distances, in the cube's units.
        chamfer_share: of the true surface's bounding-box diagonal.
        far_share: of the reconstructed area, what lies farther from the truth than 2 % of that diagonal.
        missed_share: of the true area, what lies as far from the reconstruction.
    """

    chamfer: float
    chamfer_share: float
    far_share: float
    missed_share: float


def compare(mesh: Mesh, shape: Shape, count: int = 100_000, seed: int = 0) -> Comparison:
    """A reconstruction against the truth, on `count` points of each, spread evenly over their areas.

    Distances are to the other's triangles; to its nearest point, which is never nearer, where the truth is a cloud.
    """
    random = np.random.default_rng(seed)
    made = sample_mesh(mesh, count, random)[0]
    if shape.mesh is not None:
        true = sample_mesh(shape.mesh, count, random)[0]
        there = distances(made, shape.mesh)
    else:
        true = shape.points[:: -(-len(shape.points) // count)]
        o3d = open3d()
        search = o3d.core.nns.NearestNeighborSearch(o3d.core.Tensor(shape.points))
        search.knn_index()
        there = np.sqrt(search.knn_search(o3d.core.Tensor(made), 1)[1].numpy()[:, 0])
    here = distances(true, mesh)
    diagonal = shape.diagonal
    chamfer = float(there.mean() + here.mean()) / 2
    far, missed = (float((d > FAR * diagonal).mean()) for d in (there, here))
    return Comparison(chamfer, chamfer / diagonal, far, missed)


def distances(points: Float[np.ndarray, "n 3"], mesh: Mesh) -> Float[np.ndarray, " n"]:
    """Distance of each point to the nearest triangle (open3d)."""
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    return scene.compute_distance(points.astype(np.float32)).numpy().astype(float)


def eikonal_error(siren: Siren, count: int = 100_000, seed: int = 0) -> float:
    """Mean of ||grad Phi| - 1| over random points of the cube."""
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return float((gradients(siren, points).norm(dim=1) - 1).abs().mean())
