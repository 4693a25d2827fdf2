"""Surfaces from files: meshes (PLY, OBJ, STL, OFF, GLB) and point clouds (PLY, XYZ), each checked before it is used."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from siren.loop import FitError
from siren.sdf_examples import Mesh, example
from siren.sdf_glb import read_glb
from siren.sdf_shape import SAMPLES, Shape, open3d, shape_from_mesh, shape_from_points

MESHES, CLOUDS = (".ply", ".obj", ".stl", ".off", ".glb"), (".ply", ".xyz", ".xyzn")
SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}


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
        return shape_from_mesh(_joined(read_glb(path)), seed, str(path), count)
    if kind == ".ply" and not check_ply(path):
        return _read_ply_points(path)
    if kind in (".stl", ".off"):
        (_check_stl if kind == ".stl" else _check_off)(path)
    return shape_from_mesh(_read_mesh(path), seed, str(path), count)


def check_ply(path: Path) -> bool:
    """Whether a PLY file holds faces. Raises FitError where the file is shorter than its header says, since readers
    fill what is missing with whatever was in memory."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    end = head.find(b"end_header")
    if not head.startswith(b"ply") or end < 0:
        raise FitError(f"{path}: expected a PLY file, which starts with 'ply' and has an 'end_header', found none")
    begin = head.find(b"\n", end) + 1
    lines = [line.split() for line in head[:end].decode("latin-1").splitlines()]
    layout = next((line[1] for line in lines if line[:1] == ["format"] and len(line) > 1), "none")
    counts, least, faces = [], 0, 0
    for line in lines:
        if line[:1] == ["element"] and len(line) == 3 and line[2].isdigit():
            counts.append(int(line[2]))
            faces += int(line[2]) if line[1] == "face" else 0
        elif line[:1] == ["property"] and counts and len(line) >= 3:
            # A list says its length; that of a face is at least three.
            parts = (line[2], *[line[3]] * 3) if line[1] == "list" and len(line) == 5 else (line[1],)
            least += counts[-1] * sum(SIZES.get(part, 1) for part in parts) if faces or line[1] != "list" else 0
    have = path.stat().st_size - begin
    if layout == "ascii":
        with open(path, "rb") as file:
            file.seek(begin)
            least, have = sum(counts), sum(1 for line in file if line.strip())
    if have < least:
        unit = "lines" if layout == "ascii" else "bytes"
        raise FitError(f"{path}: expected at least {least} {unit} after the header, found {have}; the file is cut off")
    return faces > 0


def _check_stl(path: Path) -> None:
    """Refuse a binary STL that is shorter than its count of triangles says."""
    with open(path, "rb") as file:
        head = file.read(84)
    if head.lstrip().startswith(b"solid") and b"facet" in path.read_bytes()[:1024]:
        return
    least = 84 + 50 * struct.unpack("<I", head[80:84])[0] if len(head) == 84 else 84
    if (have := path.stat().st_size) < least:
        raise FitError(f"{path}: expected an STL file of at least {least} bytes, found {have}; it is cut off or no STL")


def _check_off(path: Path) -> None:
    """Refuse an OFF file with fewer numbers than its vertices (3 each) and faces (4 at least) need."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    words = [word for line in lines for word in line.partition("#")[0].split()]
    if words and words[0].upper().endswith("OFF"):
        del words[0]
    if len(words) < 3 or not (words[0].isdigit() and words[1].isdigit()):
        raise FitError(f"{path}: expected OFF and the numbers of vertices and triangles, found {' '.join(words[:3])!r}")
    least = 3 + 3 * int(words[0]) + 4 * int(words[1])
    if len(words) < least:
        raise FitError(f"{path}: expected at least {least} numbers, found {len(words)}; the file is cut off")


def _read_mesh(path: Path) -> Mesh:
    o3d = open3d()
    mesh = o3d.io.read_triangle_mesh(str(path))
    mesh = Mesh(np.asarray(mesh.vertices).copy(), np.asarray(mesh.triangles).astype(np.int64))
    if len(mesh.faces) == 0:
        raise FitError(f"{path}: faces: expected triangles, found none; the file is broken, cut off or of another kind")
    return _joined(mesh)


def _joined(mesh: Mesh) -> Mesh:
    """Vertices at one place made one, as files that repeat them for each triangle need, and neighbouring triangles
    turned to agree, where that can be done."""
    if not np.isfinite(mesh.vertices).all():
        return mesh  # what is wrong is said where the shape is placed
    o3d = open3d()
    whole = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces))
    whole.remove_duplicated_vertices()
    whole.remove_degenerate_triangles()
    if whole.is_orientable():
        whole.orient_triangles()
    return Mesh(np.asarray(whole.vertices).copy(), np.asarray(whole.triangles).astype(np.int64))


def _read_ply_points(path: Path) -> Shape:
    cloud = open3d().io.read_point_cloud(str(path), remove_nan_points=False, remove_infinite_points=False)
    normals = np.asarray(cloud.normals).copy() if cloud.has_normals() else None
    return shape_from_points(np.asarray(cloud.points).copy(), normals, str(path))


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
