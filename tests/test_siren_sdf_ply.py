"""PLY files, written by hand byte for byte."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from siren.loop import FitError
from siren.sdf_ply import read_ply
from siren.sdf_read import read_shape

CORNERS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 2)]
FACES = [(0, 1, 2, 3), (0, 4, 1)]  # a quad and a triangle
HEAD = """ply
format {} 1.0
comment by hand
element vertex 5
property double x
property float y
property uchar z
element face 2
property list uchar uint vertex_index
property short odd
end_header
"""


def text(faces=FACES) -> bytes:
    rows = [" ".join(map(str, corner)) for corner in CORNERS]
    rows += [f"{len(face)} {' '.join(map(str, face))} 7" for face in faces]
    return (HEAD.format("ascii") + "\n".join(rows) + "\n").encode()


def binary(order: str, faces=FACES) -> bytes:
    name = "binary_little_endian" if order == "<" else "binary_big_endian"
    body = b"".join(struct.pack(f"{order}dfB", *corner) for corner in CORNERS)
    body += b"".join(struct.pack(f"{order}B{len(face)}Ih", len(face), *face, 7) for face in faces)
    return HEAD.format(name).encode() + body


@pytest.mark.parametrize("data", [text(), binary("<"), binary(">")], ids=["text", "little", "big"])
def test_every_layout_says_the_same(data, tmp_path):
    (tmp_path / "x.ply").write_bytes(data)
    points, normals, faces = read_ply(tmp_path / "x.ply")
    assert points.tolist() == [list(map(float, corner)) for corner in CORNERS] and normals is None
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 4, 1]]  # the quad as a fan
    (tmp_path / "x.ply").write_bytes(data[:-3])
    with pytest.raises(FitError, match=r"cut off|expected its numbers"):
        read_ply(tmp_path / "x.ply")


def test_three_corners_each_are_read_at_once(tmp_path):
    (tmp_path / "x.ply").write_bytes(binary("<", [(0, 1, 2), (2, 3, 0)]))
    assert read_ply(tmp_path / "x.ply").faces.tolist() == [[0, 1, 2], [2, 3, 0]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (text([(0, 1, 2), (0, 4, 2**31)]), "vertices 0..4, found 0..2147483648"),  # this ended the process once
        (text([(0, 1, 2), (0, 4, -1)]), "vertices 0..4, found -1..4"),
        (binary("<").replace(b"element vertex 5", b"element vertex 500000000"), "cut off"),
        (text().replace(b"element vertex 5", b"element vertex -5"), "a line of the format, found 'element vertex -5'"),
        (text().replace(b"double x", b"double u"), "the properties x, y and z, found u, y, z"),
        (text().replace(b"vertex_index", b"corners"), "a list vertex_indices, found corners, odd"),
        (text().replace(b"format ascii", b"format morse"), "binary_big_endian, found 'morse'"),
    ],
)
def test_what_is_wrong_is_a_sentence(data, said, tmp_path):
    (tmp_path / "x.ply").write_bytes(data)
    with pytest.raises(FitError) as caught:
        read_shape(tmp_path / "x.ply", count=50)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_normals_are_read(tmp_path):
    rows = "".join(f"{x} {y} 1 0 0 1\n" for x in range(12) for y in range(12))
    head = "ply\nformat ascii 1.0\nelement vertex 144\n" + "".join(
        f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz")
    )
    (tmp_path / "x.ply").write_text(f"{head}end_header\n{rows}")
    found = read_ply(tmp_path / "x.ply")
    assert (
        found.faces is None
        and (found.normals == np.array([0, 0, 1])).all()
        and found.points[-1].tolist() == [11, 11, 1]
    )
