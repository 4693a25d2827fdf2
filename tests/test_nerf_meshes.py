"""Meshes as files that open again, their pieces, fewer faces, and how far they lie from points."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from data.camera import Camera
from nerf.agreement import Cast, agreement, sample, visible
from nerf.meshes import areas, decimate, largest, linear, upright, vertex_normals, write_mesh, write_points
from nerf.surface import Lattice, Mesh, MeshError, extract
from siren.sdf_glb import read_glb
from tests.solids import LEVEL, Solid
from tests.tiny import look_at

pytest.importorskip("skimage")
o3d = pytest.importorskip("open3d", exc_type=ImportError)  # or a system library of its own

UP = np.array([0.0, 0.0, 1.0])


def solid(kind: str = "ball", cells: int = 24, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    return extract(Solid(kind, center).at, Lattice.over([-1.0] * 3, [1.0] * 3, cells), LEVEL)


def joined(*meshes: Mesh) -> Mesh:
    shifts = np.cumsum([0, *[len(mesh.vertices) for mesh in meshes]])
    faces = [mesh.faces + shift for mesh, shift in zip(meshes, shifts)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def colored(mesh: Mesh) -> np.ndarray:
    return np.random.default_rng(0).random(mesh.vertices.shape)


def matched(found: np.ndarray, mesh: Mesh) -> np.ndarray:
    """The index of the mesh's vertex at each place found (readers may reorder them)."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(mesh.vertices).query(found)
    assert distance.max() < 1e-5
    return index


@pytest.mark.parametrize("ending", ["ply", "obj", "PLY"])
def test_files_open_again_with_their_colours_and_normals(tmp_path, ending):
    mesh, path = solid(), tmp_path / "new" / f"a.{ending}"
    rgb, normals = colored(mesh), vertex_normals(mesh)
    write_mesh(path, mesh, normals, rgb, UP)
    read = o3d.io.read_triangle_mesh(str(path) if ending != "PLY" else str(path.rename(path.with_suffix(".ply"))))
    index = matched(np.asarray(read.vertices), mesh)
    assert len(read.triangles) == len(mesh.faces) and len(read.vertices) == len(mesh.vertices)
    assert np.abs(np.asarray(read.vertex_colors) - rgb[index]).max() < 0.0021
    assert np.abs(np.asarray(read.vertex_normals) - normals[index]).max() < 1e-4
    assert read.is_watertight()
    assert [p.name.lower() for p in path.parent.iterdir()] == [f"a.{ending}".lower()]


def chunk(data: bytes) -> dict:
    return json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])


def test_a_glb_stands_upright_with_linear_colours(tmp_path):
    mesh = solid(center=(0.1, 0.2, 0.3))
    rgb, path = colored(mesh), tmp_path / "a.glb"
    write_mesh(path, mesh, vertex_normals(mesh), rgb, UP)
    mine = read_glb(path)  # shares nothing with open3d
    turned = mesh.vertices[:, [0, 2, 1]] * [1, 1, -1]  # z up becomes y up, x stays
    assert len(mine.faces) == len(mesh.faces)
    np.testing.assert_allclose(np.sort(mine.vertices, axis=0), np.sort(turned, axis=0), atol=1e-6)
    attributes = chunk(path.read_bytes())["meshes"][0]["primitives"][0]["attributes"]
    assert {"POSITION", "NORMAL", "COLOR_0"} <= set(attributes)
    read = o3d.t.io.read_triangle_mesh(str(path))
    index = matched(read.vertex.positions.numpy()[:, [0, 2, 1]] * [1, -1, 1], mesh)
    srgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert np.abs(read.vertex.colors.numpy() - srgb[index]).max() < 1e-5
    centre = np.array([0.1, 0.3, -0.2])
    out = read.vertex.positions.numpy() - centre
    assert ((out * read.vertex.normals.numpy()).sum(1) > 0.4).all()


def test_linear_colours_are_the_standards():
    np.testing.assert_allclose(linear(np.array([[0.0, 0.5, 1.0]])), [[0.0, 0.21404114, 1.0]], atol=1e-7)
    assert linear(np.array([[0.04]]).repeat(3, 1))[0, 0] == pytest.approx(0.04 / 12.92)


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 1, 0), (0, -1, 0), (0.3, -0.5, 0.8), (1, 0, 0)])
def test_upright_is_a_rotation_to_y(up):
    turn = upright(np.array(up, float))
    np.testing.assert_allclose(turn @ up, [0, np.linalg.norm(up), 0], atol=1e-9)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    mesh = solid(cells=8)
    with pytest.raises(MeshError, match=r"file/a\.ply: expected a place that can be written"):
        write_mesh(tmp_path / "file" / "a.ply", mesh, vertex_normals(mesh), colored(mesh), UP)


def test_points_open_again(tmp_path):
    places = np.random.default_rng(1).random((50, 3))
    write_points(tmp_path / "a.ply", places, np.tile([[0.0, 0.6, 0.8]], (50, 1)), places)
    read = o3d.io.read_point_cloud(str(tmp_path / "a.ply"))
    np.testing.assert_allclose(np.asarray(read.points), places, atol=1e-6)
    np.testing.assert_allclose(np.asarray(read.colors), places, atol=0.0021)
    np.testing.assert_allclose(np.asarray(read.normals)[:, 2], 0.8, atol=1e-6)


def test_the_largest_pieces_are_kept_and_specks_are_not():
    ball, ring = solid("ball", 24), solid("ring", 24)
    corner = np.array([[0.0, 0, 0], [0.01, 0, 0], [0, 0.01, 0]])
    far = Mesh(ring.vertices + 5, ring.faces)
    mesh = joined(Mesh(corner - 3, np.array([[0, 1, 2]], np.int32)), ball, far)
    kept, found = largest(mesh)
    assert found == 3 and len(kept.faces) == len(ball.faces) + len(ring.faces)
    one, _ = largest(mesh, 1)
    assert len(one.faces) == len(ring.faces) and one.vertices.min() > 3 and len(one.vertices) == len(ring.vertices)
    assert len(largest(mesh, 5)[0].faces) == len(mesh.faces)
    of_ring = mesh.vertices.min(axis=1) > 3
    assert len(largest(mesh, 1, of_ring)[0].faces) == len(ball.faces)
    assert len(largest(mesh, 1, np.ones(len(of_ring), bool))[0].faces) == len(ring.faces)


def test_fewer_faces_keep_the_shape():
    mesh = solid("ring", 48)
    fewer = decimate(mesh, 600)
    assert 400 < len(fewer.faces) <= 600
    assert areas(fewer).sum() == pytest.approx(areas(mesh).sum(), rel=0.02)
    assert np.abs(Solid("ring").depth(torch.from_numpy(fewer.vertices)).numpy()).max() < 0.02
    assert decimate(mesh, 10**6) is mesh


def test_vertex_normals_point_out():
    mesh = solid("ball", 24, (0.2, 0.0, 0.0))
    out = mesh.vertices - [0.2, 0, 0]
    assert ((vertex_normals(mesh) * out).sum(1) / np.linalg.norm(out, axis=1)).min() > 0.98
    alone = Mesh(np.zeros((4, 3)), np.array([[0, 1, 2]], np.int32))
    assert vertex_normals(alone).tolist() == [[0, 0, 1]] * 4


CAMERAS = [Camera(look_at((2.5, 0.3, 0.2)), 100, 100, 120, 120, 50, 50)]


def scene_of(mesh: Mesh):
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    return scene


def test_a_camera_sees_the_side_of_a_ball_that_faces_it():
    mesh = solid(cells=48)
    points = sample(mesh, 4000, np.random.default_rng(0))
    assert np.abs(np.linalg.norm(points, axis=1) - 0.5).max() < 0.003
    assert np.abs(points.mean(0)).max() < 0.03  # evenly spread
    eye = np.array([2.5, 0.3, 0.2])
    facing = ((eye - points) * points).sum(1) / np.linalg.norm(eye - points, axis=1) / 0.5
    seen = visible(scene_of(mesh), points, CAMERAS, 0.5) == 0
    assert seen[facing > 0.1].all() and not seen[facing < -0.1].any()
    assert (visible(scene_of(mesh), points, CAMERAS, 5.0) < 0).all()  # all of it is nearer than the view begins
    aside = CAMERAS[0].with_pose(look_at((2.5, 0.3, 0.2), (2.5, 9.0, 0.2)))
    assert ((visible(scene_of(mesh), points, [aside, *CAMERAS], 0.5) == 1) == seen).all()
    assert (visible(scene_of(mesh), points, [aside], 0.5) < 0).all()


def ball_of(radius: float, below: float = -1.0):
    """Where rays meet a ball about the middle, by its quadratic equation; something stands before what is `below`."""

    def cast(origins, directions):
        b = (origins * directions).sum(1)
        under = b * b - (origins.square().sum(1) - radius**2)
        hit = under > 0
        points = origins + directions * (-b - under.clamp_min(0).sqrt())[:, None]
        return Cast(points, hit & (origins[:, 0] > 0), hit & (points[:, 2] < below))

    return cast


def test_the_distance_between_a_ball_and_a_rendered_one_a_little_larger_is_the_difference():
    rays = CAMERAS[0].scaled(6).rays(None)
    found = agreement(solid(cells=64), ball_of(0.52), rays, CAMERAS, 0.5)
    assert found.off == pytest.approx(0.0203, rel=0.02)  # the mesh's triangles lie a little inside of their ball
    assert found.beyond == pytest.approx(0.0203, rel=0.05)
    assert found.chamfer == pytest.approx((found.off + found.beyond) / 2)
    whole = solid(cells=64)
    dented = Mesh(np.where(whole.vertices[:, 2:] < 0, 0.8 * whole.vertices, whole.vertices), whole.faces)
    assert agreement(dented, ball_of(0.52), rays, CAMERAS, 0.5).beyond > 0.05
    # What rays are kept from by something before it isn't held against the mesh.
    assert agreement(dented, ball_of(0.52, 0.05), rays, CAMERAS, 0.5).beyond < 0.025
    assert agreement(solid(cells=16), lambda o, d: Cast(o, o[:, 0] > 9, o[:, 0] > 9), rays, CAMERAS, 0.5) is None
