"""What is done to meshes and point clouds once they are found: pieces, fewer faces, files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from nerf.surface import Mesh, MeshError

MESHES = (".ply", ".obj", ".glb")
SEEN = 0.05  # share of a piece's vertices
SPECK = 1e-3  # of the largest piece's area: smaller pieces are dropped, unless a number of pieces is asked for


def open3d() -> Any:
    """The module, quiet. Raises MeshError where it isn't installed."""
    try:
        import open3d as o3d
    except (ImportError, OSError) as error:
        raise MeshError(f"open3d can't be imported ({error}); pip install -e '.[mesh]'") from None
    o3d.utility.set_verbosity_level(o3d.utility.VerbosityLevel.Error)
    return o3d


def areas(mesh: Mesh) -> Float[np.ndarray, " f"]:
    """Each triangle's area."""
    return np.linalg.norm(_crosses(mesh), axis=1) / 2


def _crosses(mesh: Mesh) -> Float[np.ndarray, "f 3"]:
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def vertex_normals(mesh: Mesh) -> Float[np.ndarray, "v 3"]:
    """Unit normals at the vertices, the mean of their triangles' by area; (0, 0, 1) where that is nothing."""
    crosses, total = _crosses(mesh), np.zeros((len(mesh.vertices), 3))
    for axis in range(3):
        for k in range(3):
            total[:, axis] += np.bincount(mesh.faces[:, k], crosses[:, axis], len(mesh.vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-30, total / np.maximum(length, 1e-30), [0.0, 0.0, 1.0])


def largest(mesh: Mesh, pieces: int | None = None, hidden: Bool[np.ndarray, " v"] | None = None) -> tuple[Mesh, int]:
    """A mesh's connected pieces with the largest areas, and how many there were.

    Args:
        pieces: how many to keep; None: all from SPECK of the largest one's area.
        hidden: vertices that can't be seen: pieces with fewer than SEEN of others are walls of hollows, and left out, unless
            there are no others.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([mesh.faces[:, :2], mesh.faces[:, 1:]])
    count = len(mesh.vertices)
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    found, label = connected_components(graph, directed=False)
    of_face = label[mesh.faces[:, 0]]
    area = np.bincount(of_face, areas(mesh), found)
    if hidden is not None:
        seen = np.bincount(label, ~hidden, found) >= SEEN * np.bincount(label, minlength=found)
        area = np.where(seen, area, 0) if (seen & (area > 0)).any() else area
    order = np.argsort(-area, kind="stable")
    order = order[area[order] > 0]
    kept = order[:pieces] if pieces is not None else order[area[order] >= SPECK * area[order[0]]]
    return used(Mesh(mesh.vertices, mesh.faces[np.isin(of_face, kept)])), found


def used(mesh: Mesh) -> Mesh:
    """The mesh without vertices that no triangle has."""
    keep = np.zeros(len(mesh.vertices), bool)
    keep[mesh.faces] = True
    return Mesh(mesh.vertices[keep], (np.cumsum(keep) - 1)[mesh.faces].astype(np.int32))


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """At most `faces` triangles, by quadric error metrics (Garland and Heckbert 1997; open3d)."""
    if len(mesh.faces) <= faces:
        return mesh
    fewer = _legacy(mesh).simplify_quadric_decimation(faces)
    fewer.remove_degenerate_triangles()
    return used(Mesh(np.asarray(fewer.vertices), np.asarray(fewer.triangles).astype(np.int32)))


def _legacy(mesh: Mesh) -> Any:
    o3d = open3d()
    vertices, faces = o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces)
    return o3d.geometry.TriangleMesh(vertices, faces)


def linear(rgb: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """Display-referred colours (sRGB, IEC 61966-2-1) as linear ones, which glTF wants of vertices."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def upright(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The least rotation that takes `up` to +y, glTF's vertical; half a turn about x where it points down."""
    x, y, z = up / np.linalg.norm(up)
    if y < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    # Rodrigues' formula with the axis up x (0, 1, 0) = (-z, 0, x), whose length is the angle's sine, and cosine y.
    cross = np.array([[0.0, -x, 0.0], [x, 0.0, z], [0.0, -z, 0.0]])
    return np.eye(3) + cross + cross @ cross / (1 + y)


def write_mesh(
    path: Path,
    mesh: Mesh,
    normals: Float[np.ndarray, "v 3"],
    rgb: Float[np.ndarray, "v 3"],
    up: Float[np.ndarray, "3"],
) -> None:
    """Write FILE.ply, FILE.obj or FILE.glb with normals and colours; never half of one.

    PLY and OBJ keep the mesh's axes, and colours in [0, 1] as photos have them. GLB is turned so that `up` is +y, and its
    colours are linear, as glTF says.
    """
    o3d = open3d()
    if path.suffix.lower() == ".glb":
        turn = upright(up)
        tensor = o3d.t.geometry.TriangleMesh()
        tensor.vertex.positions = o3d.core.Tensor((mesh.vertices @ turn.T).astype(np.float32))
        tensor.vertex.normals = o3d.core.Tensor((normals @ turn.T).astype(np.float32))
        tensor.vertex.colors = o3d.core.Tensor(linear(rgb).astype(np.float32))
        tensor.triangle.indices = o3d.core.Tensor(mesh.faces.astype(np.int32))
        _write(path, lambda draft: o3d.t.io.write_triangle_mesh(str(draft), tensor))
        return
    legacy = _legacy(mesh)
    legacy.vertex_normals = o3d.utility.Vector3dVector(normals)
    legacy.vertex_colors = o3d.utility.Vector3dVector(rgb)
    _write(path, lambda draft: o3d.io.write_triangle_mesh(str(draft), legacy))


def write_points(
    path: Path, points: Float[np.ndarray, "v 3"], normals: Float[np.ndarray, "v 3"], rgb: Float[np.ndarray, "v 3"]
) -> None:
    """Write FILE.ply with points, normals and colours; never half of one."""
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals, cloud.colors = o3d.utility.Vector3dVector(normals), o3d.utility.Vector3dVector(rgb)
    _write(path, lambda draft: o3d.io.write_point_cloud(str(draft), cloud))


def _write(path: Path, write: Callable[[Path], bool]) -> None:
    draft = path.with_name(f".{path.stem}.tmp{path.suffix.lower()}")  # open3d goes by the ending
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not write(draft) or not draft.is_file():
            raise MeshError(f"{path}: expected a place that can be written, found none")
        os.replace(draft, path)
    except OSError as error:
        raise MeshError(f"{path}: expected a place that can be written, found: {error}") from None
    finally:
        if draft.is_file():
            draft.unlink()
