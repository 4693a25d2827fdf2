"""Surfaces from files: meshes (PLY, OBJ, STL, OFF, GLB) and point clouds (PLY, XYZ), each checked before it is used."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from data.errors import shown
from siren.loop import FitError
from siren.sdf_examples import Mesh, example
from siren.sdf_glb import read_glb
from siren.sdf_ply import read_ply
from siren.sdf_shape import SAMPLES, Shape, open3d, shape_from_mesh, shape_from_points

MESHES, CLOUDS = (".ply", ".obj", ".stl", ".off", ".glb"), (".ply", ".xyz", ".xyzn")


def read_shape(source: str | Path, seed: int = 0, count: int = SAMPLES) -> Shape:
    """A surface, in the cube [-1, 1]^3.

    Args:
        source: a file, or "example:NAME" for a made shape.
        seed, count: of the points that are spread over a mesh.

    Raises:
        FitError: a file that is missing, broken, or of another kind; the sentence names it.
    """
    if str(source).startswith("example:"):
        return shape_from_mesh(example(str(source)[8:]), seed, str(source), count)
    path = Path(source)
    kind = path.suffix.lower()
    if not path.is_file():
        raise FitError(f"{path}: expected a file, or example:NAME, found {'a folder' if path.is_dir() else 'none'}")
    if kind not in (*MESHES, *CLOUDS):
        known = ", ".join(dict.fromkeys((*MESHES, *CLOUDS)))
        raise FitError(f"{path}: expected a file that ends in {known}, found {kind or 'no ending'!r}")
    if path.stat().st_size == 0:
        raise FitError(f"{path}: expected a surface, found an empty file")
    if kind in (".xyz", ".xyzn"):
        return _read_xyz(path)
    if kind == ".glb":
        return shape_from_mesh(_joined(read_glb(path), path), seed, str(path), count)
    if kind == ".ply":
        points, normals, faces = read_ply(path)
        if faces is None:
            return shape_from_points(points, normals, str(path))
        return shape_from_mesh(_joined(Mesh(points, faces), path), seed, str(path), count)
    mesh = _read_off(path) if kind == ".off" else _read_mesh(path, kind)
    return shape_from_mesh(_joined(mesh, path), seed, str(path), count)


def _check_stl(path: Path) -> None:
    """Refuse a binary STL that is shorter than its count of triangles says."""
    with open(path, "rb") as file:
        head = file.read(84)
    if head.lstrip().startswith(b"solid") and b"facet" in path.read_bytes()[:1024]:
        return
    least = 84 + 50 * struct.unpack("<I", head[80:84])[0] if len(head) == 84 else 84
    if (have := path.stat().st_size) < least:
        raise FitError(f"{path}: expected an STL file of at least {least} bytes, found {have}; it is cut off or no STL")


def _read_off(path: Path) -> Mesh:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    words = [word for line in lines for word in line.partition("#")[0].split()]
    if words and words[0].upper().endswith("OFF"):
        del words[0]
    if len(words) < 3 or not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words[:2]):
        found = " ".join(words[:3])[:60]
        raise FitError(f"{path}: expected OFF and the numbers of vertices and triangles, found {found!r}")
    count, faces = int(words[0]), int(words[1])
    if len(words) < (least := 3 + 3 * count + 4 * faces):
        raise FitError(f"{path}: expected at least {least} numbers, found {len(words)}; the file is cut off")
    at, fans = 3 + 3 * count, []
    try:
        vertices = np.array(words[3:at], float).reshape(-1, 3)
        for _ in range(faces):
            corners = [int(word) for word in words[at + 1 : at + 1 + int(words[at])]]
            fans += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
            at += 1 + max(0, int(words[at]))
        triangles = np.array(fans, np.int64).reshape(-1, 3)
    except (ValueError, IndexError, OverflowError) as error:
        raise FitError(f"{path}: expected vertices and faces in numbers, found: {shown(str(error))}") from None
    return Mesh(vertices, triangles)


def _read_mesh(path: Path, kind: str) -> Mesh:
    """An OBJ or STL file, by open3d."""
    if kind == ".stl":
        _check_stl(path)
    mesh = open3d().io.read_triangle_mesh(str(path))
    return Mesh(np.asarray(mesh.vertices).copy(), np.asarray(mesh.triangles).astype(np.int64))


def _joined(mesh: Mesh, path: Path) -> Mesh:
    """Vertices at one place made one, as files that repeat them for each triangle need, and neighbouring triangles
    turned to agree, where that can be done."""
    if len(mesh.faces) == 0:
        raise FitError(f"{path}: faces: expected triangles, found none; the file is broken, cut off or of another kind")
    if not np.isfinite(mesh.vertices).all() or mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        return mesh  # what is wrong is said where the shape is placed
    o3d = open3d()
    whole = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces))
    whole.remove_duplicated_vertices()
    whole.remove_degenerate_triangles()
    if whole.is_orientable():
        whole.orient_triangles()
    return Mesh(np.asarray(whole.vertices).copy(), np.asarray(whole.triangles).astype(np.int64))


def _read_xyz(path: Path) -> Shape:
    """Lines of x y z, or x y z nx ny nz."""
    try:
        with open(path, encoding="utf-8") as file:
            table = np.loadtxt((line.replace(",", " ") for line in file), ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise FitError(f"{path}: expected lines of 3 or 6 numbers, found: {error}") from None
    if table.shape[1] not in (3, 6) or len(table) == 0:
        found = f"{len(table)} lines of {table.shape[1]}"
        raise FitError(f"{path}: expected lines of 3 numbers (x y z) or 6 (x y z nx ny nz), found {found}")
    if table.shape[1] == 3:
        return shape_from_points(table, None, str(path))
    lengths = np.linalg.norm(table[:, 3:], axis=1)
    if not 0.9 < np.median(lengths) < 1.1:
        raise FitError(
            f"{path}: columns 4 to 6: expected normals of length 1, found {np.median(lengths):.3g} (the median); leave "
            "these columns out to have normals estimated"
        )
    return shape_from_points(table[:, :3], table[:, 3:], str(path))
