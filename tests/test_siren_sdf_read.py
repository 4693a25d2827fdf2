"""Surfaces from files: every format gives the same shape, and what is broken is said in a sentence."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from siren.loop import FitError
from siren.sdf_examples import EXAMPLES, Mesh, boxes, example, torus
from siren.sdf_glb import read_glb
from siren.sdf_read import read_shape
from siren.sdf_shape import inward, rough_distances, shape_from_mesh, shape_from_points

o3d = pytest.importorskip("open3d", exc_type=ImportError)  # or a system library of its own

# A box in millimetres, far from the origin: 40 by 20 by 10 around (1000, 0, 50).
CUTS = (np.array([980.0, 1020]), np.array([-10.0, 10]), np.array([45.0, 55]))
BOX = boxes(np.ones((1, 1, 1), bool), CUTS)


def volume(mesh: Mesh) -> float:
    """Signed: positive where corners run counter-clockwise as seen from outside."""
    return sum(np.linalg.det(mesh.vertices[face]) for face in mesh.faces) / 6


def edges(mesh: Mesh) -> dict[tuple[int, int], int]:
    """How often each directed edge occurs."""
    found: dict[tuple[int, int], int] = {}
    for a, b, c in mesh.faces.tolist():
        for edge in ((a, b), (b, c), (c, a)):
            found[edge] = found.get(edge, 0) + 1
    return found


def save(mesh: Mesh, path) -> None:
    out = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces))
    out.compute_triangle_normals()
    assert o3d.io.write_triangle_mesh(str(path), out)


def sphere_points(count: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_made_shapes_are_closed_and_point_out():
    genus = {"torus": 1, "knot": 1, "blob": 0, "frame": 5}
    assert set(genus) == set(EXAMPLES)
    for name, holes in genus.items():
        mesh = example(name)
        count = edges(mesh)
        assert set(count.values()) == {1} and all((b, a) in count for a, b in count)
        assert len(mesh.vertices) - len(count) // 2 + len(mesh.faces) == 2 - 2 * holes
        assert volume(mesh) > 0
    assert volume(torus(1.0, 0.4)) == pytest.approx(2 * np.pi**2 * 0.4**2, rel=5e-3)  # polygons within the circles
    with pytest.raises(FitError, match="torus, knot"):
        example("teapot")


@pytest.mark.parametrize("kind", ["ply", "obj", "stl", "off", "glb"])
def test_every_format_gives_the_same_box(tmp_path, kind):
    save(BOX, tmp_path / f"box.{kind}")
    shape = read_shape(tmp_path / f"box.{kind}", count=6000)
    assert shape.placement.centre == pytest.approx((1000, 0, 50), abs=1e-3)
    points = shape.placement.back(shape.points) - (1000, 0, 50)
    assert np.abs(points).max(0) == pytest.approx([20, 10, 5], rel=1e-2)
    # Each point lies on the face that its normal names, and faces have their share of 2 (800 + 400 + 200).
    assert (points * shape.normals).sum(1) == pytest.approx(np.abs(shape.normals) @ [20, 10, 5], abs=1e-3)
    share = np.abs(shape.normals).round().mean(0)
    assert share == pytest.approx([200 / 1400, 400 / 1400, 800 / 1400], abs=0.01)
    assert np.abs(shape.points).max() == pytest.approx(0.85, abs=1e-2)
    assert shape.diagonal * shape.placement.scale == pytest.approx((40**2 + 20**2 + 10**2) ** 0.5, rel=1e-4)


def test_points_from_text_and_from_ply_are_the_same(tmp_path):
    normals = sphere_points(500)
    points = normals * 30 + (1000, 0, 50)
    np.savetxt(tmp_path / "ball.xyz", np.hstack((points, normals * 1.0)), header="x y z nx ny nz")
    np.savetxt(tmp_path / "comma.xyz", np.hstack((points, normals)), delimiter=",")
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    for name, text in (("a.ply", False), ("b.ply", True)):
        o3d.io.write_point_cloud(str(tmp_path / name), cloud, write_ascii=text)
    for name in ("ball.xyz", "comma.xyz", "a.ply", "b.ply"):
        shape = read_shape(tmp_path / name)
        assert shape.mesh is None and shape.notes == ()
        digits = 6e-3 if name == "b.ply" else 1e-6  # open3d writes six digits in text
        assert shape.placement.back(shape.points) == pytest.approx(points, abs=digits)
        assert shape.normals == pytest.approx(normals, abs=1e-5)


def test_missing_normals_are_estimated_and_point_out(tmp_path):
    truth = sphere_points(1500)
    np.savetxt(tmp_path / "ball.xyz", truth * 0.01 - 7)
    shape = read_shape(tmp_path / "ball.xyz")
    assert (shape.normals * truth).sum(1).min() > 0.95
    assert any("estimated" in note for note in shape.notes)


def test_normals_that_point_in_are_turned_and_open_surfaces_are_left():
    points = sphere_points(500)
    shape = shape_from_points(points, -points)
    assert shape.normals == pytest.approx(points) and "turned" in shape.notes[0]
    turned = shape_from_mesh(Mesh(BOX.vertices, BOX.faces[:, ::-1].copy()), count=500)
    assert volume(turned.mesh) > 0 and "turned" in turned.notes[0] and not inward(turned.points, turned.normals)
    sheet = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * (1, 1, 0)
    assert shape_from_points(sheet, np.tile([0.0, 0, -1], (500, 1))).normals[:, 2].max() == -1


def test_rough_distances_are_those_of_the_box():
    shape = shape_from_mesh(BOX, count=20_000)
    points = np.random.default_rng(1).uniform(-1, 1, (3000, 3))
    beyond = np.abs(points) - np.array([20, 10, 5]) / shape.placement.scale
    truth = np.linalg.norm(beyond.clip(0), axis=1) + beyond.max(1).clip(max=0)
    found = rough_distances(shape, points)
    known = found != 0
    assert known.mean() > 0.6
    assert (np.sign(found) == np.sign(truth))[known].all()
    assert found[known] == pytest.approx(truth[known], abs=0.03)


def glb(tree: dict, binary: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def test_glb_places_its_nodes(tmp_path):
    """A triangle strip, its vertices between others' bytes, under a turned parent and a mirrored child."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    binary = np.hstack((corners, np.full((4, 3), 9, np.float32))).astype("<f4").tobytes()
    tree = {
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"rotation": [0, 0, 0.5**0.5, 0.5**0.5], "translation": [5, 0, 0], "children": [1]},
            {"scale": [2, 1, -1], "mesh": 0},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 5}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": len(binary), "byteStride": 24}],
        "buffers": [{"byteLength": len(binary)}],
    }
    (tmp_path / "strip.glb").write_bytes(glb(tree, binary))
    mesh = read_glb(tmp_path / "strip.glb")
    # x and y scaled by 2 and 1, then (x, y) -> (-y, x), then 5 to the right.
    assert mesh.vertices == pytest.approx(np.array([[5, 0, 0], [5, 2, 0], [4, 0, 0], [4, 2, 0]]), abs=1e-12)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] < 0).all()  # the mirror turned what faced +z
    tree["nodes"][1]["children"] = [0]
    (tmp_path / "circle.glb").write_bytes(glb(tree, binary))
    with pytest.raises(FitError, match="circle"):
        read_glb(tmp_path / "circle.glb")
    tree["nodes"][0] = {"scale": [10**400, 1, 1], "mesh": 0}
    (tmp_path / "huge.glb").write_bytes(glb(tree, binary))
    with pytest.raises(FitError, match=r"huge\.glb: expected a glTF document, found one that breaks"):
        read_glb(tmp_path / "huge.glb")


@pytest.mark.parametrize("kind", ["ply", "stl", "off", "glb", "obj"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_cut_off_is_refused(tmp_path, kind, share):
    save(torus(), tmp_path / f"whole.{kind}")
    data = (tmp_path / f"whole.{kind}").read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(share * len(data))])
    if kind == "obj" and share == 0.9:
        return  # the format doesn't say how many triangles there are
    with pytest.raises(FitError, match=f"cut.{kind}"):
        read_shape(path, count=500)


def test_a_cloud_cut_off_is_refused(tmp_path):
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(sphere_points(300)))
    for text in (False, True):
        o3d.io.write_point_cloud(str(tmp_path / "whole.ply"), cloud, write_ascii=text)
        data = (tmp_path / "whole.ply").read_bytes()
        (tmp_path / "cut.ply").write_bytes(data[: len(data) * 3 // 4])
        with pytest.raises(FitError, match="cut off"):
            read_shape(tmp_path / "cut.ply")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.ply", None, "found none"),
        ("empty.ply", b"", "empty"),
        ("junk.ply", b"hello", "PLY"),
        ("junk.glb", b"hello", "glTF"),
        ("junk.stl", b"hello", "STL"),
        ("junk.obj", b"hello", "triangles"),
        ("junk.off", b"hello", "triangles"),
        ("far.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2000000000\n", r"vertices 0\.\.2"),
        ("odd.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 x\n3 0 1 2\n", "in numbers, found"),
        ("shape.fbx", b"x", ".fbx"),
        ("words.xyz", b"one two three\n", "numbers"),
        ("four.xyz", b"1 2 3 4\n" * 200, "3 numbers"),
        ("few.xyz", b"1 2 3\n4 5 6\n", "at least 100"),
        ("nan.xyz", b"1 2 nan\n" * 200, "finite"),
        ("same.xyz", b"1 2 3 0 0 1\n" * 200, "extent"),
        ("nothing.xyz", b"", "empty"),
        ("colours.xyz", b"1 2 3 200 100 50\n4 5 6 10 200 30\n" * 100, "normals"),
        ("zero.xyz", b"1 2 3 0 0 0\n4 5 6 0 0 0\n" * 100, "normals"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FitError, match=said) as caught:
        read_shape(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_bad_meshes_are_a_sentence():
    for vertices, faces, said in (
        (np.zeros((3, 3)), [[0, 1, 2]], "extent"),
        (np.eye(3), [[0, 1, 3]], "0..2"),
        (np.eye(3) * np.nan, [[0, 1, 2]], "finite"),
        (np.eye(3), np.zeros((0, 3)), "found none"),
        (np.eye(3), [[0, 0, 1]], "area"),
    ):
        with pytest.raises(FitError, match=said):
            shape_from_mesh(Mesh(vertices, np.array(faces, dtype=np.int64)))
