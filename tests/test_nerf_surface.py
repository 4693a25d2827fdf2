"""Marching cubes slab by slab: the areas, volumes and holes of solids in closed form, and no seam whatever the slabs."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nerf.surface import Lattice, Mesh, MeshError, extract
from tests.solids import LEVEL, Solid, radius_at

pytest.importorskip("skimage")

ROOT = Path(__file__).resolve().parent.parent
CUBE = Lattice.over([-1.0] * 3, [1.0] * 3, 48)


def edges(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Each edge once, and how many triangles have it."""
    sides = np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    return np.unique(np.sort(sides, axis=1), axis=0, return_counts=True)


def euler(mesh: Mesh) -> int:
    """Corners less edges and triangles: 2 for a sphere, 0 for a torus, for each closed piece."""
    return len(mesh.vertices) - len(edges(mesh)[0]) + len(mesh.faces)


def area_and_volume(mesh: Mesh) -> tuple[float, float]:
    """Of the solid inside, above 0 where triangles are anticlockwise from outside (divergence theorem)."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    return float(area), float((a * np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("kind", ["ball", "ring"])
@pytest.mark.parametrize("planes", [None, 1, 7])
def test_a_solid_has_its_area_its_volume_and_its_holes(kind, planes):
    mesh = extract(Solid(kind).at, CUBE, LEVEL, planes=planes)
    area, volume = area_and_volume(mesh)
    truth = {
        "ball": (4 * math.pi * 0.25, 4 / 3 * math.pi * 0.125, 2),
        "ring": (4 * math.pi**2 * 0.5 * 0.2, 2 * math.pi**2 * 0.5 * 0.04, 0),
    }[kind]
    assert area == pytest.approx(truth[0], rel=0.005) and volume == pytest.approx(truth[1], rel=0.012)
    assert euler(mesh) == truth[2]
    assert (edges(mesh)[1] == 2).all()  # no edge is open
    assert len(np.unique(mesh.vertices.round(7), axis=0)) == len(mesh.vertices)
    assert np.abs(Solid(kind).depth(torch.from_numpy(mesh.vertices)).numpy()).max() < 0.06 * CUBE.step


def sorted_triangles(mesh: Mesh) -> np.ndarray:
    corners = mesh.vertices[mesh.faces].round(6)
    turned = np.stack([np.roll(t, -int(np.lexsort(t.T[::-1])[0]), axis=0) for t in corners]).reshape(-1, 9)
    return turned[np.lexsort(turned.T)]


def test_the_mesh_is_the_same_whatever_the_slabs_thickness():
    whole = sorted_triangles(extract(Solid("ring", (0.1, 0.05, -0.02)).at, CUBE, LEVEL, planes=48))
    for planes in (1, 2, 5, 47):
        other = extract(Solid("ring", (0.1, 0.05, -0.02)).at, CUBE, LEVEL, planes=planes)
        np.testing.assert_allclose(sorted_triangles(other), whole, atol=2e-6)


def test_levels_lie_where_the_density_says():
    for level in (10.0, 1000.0):
        radii = np.linalg.norm(extract(Solid().at, CUBE, level).vertices, axis=1)
        assert np.abs(radii - radius_at(level)).max() < 0.05 * CUBE.step


def test_a_density_that_is_the_level_at_lattice_points_makes_no_point_twice():
    def density(x):  # a step of the lattice's own planes: exactly the level at x = 0
        return 5 * torch.exp2(-torch.round(x[:, 0] / CUBE.step)).clamp(0, 1e3)

    mesh = extract(density, CUBE, 5.0, planes=5)
    assert len(np.unique(mesh.vertices.round(6), axis=0)) == len(mesh.vertices) == 49 * 49
    assert np.abs(mesh.vertices[:, 0]).max() < 0.01 * CUBE.step and len(mesh.faces) == 2 * 48 * 48


@pytest.mark.parametrize("value", [math.inf, 0.0])
def test_densities_beyond_numbers_are_full_or_empty(value):
    def density(x):
        return torch.where(x.norm(dim=-1) < 0.5, math.inf if value else LEVEL, 0.0 if value else value)

    mesh = extract(density, CUBE, LEVEL / 2)
    assert np.isfinite(mesh.vertices).all() and euler(mesh) == 2 and (edges(mesh)[1] == 2).all()


def test_only_cells_that_are_known_hold_a_surface_and_nothing_else_is_asked():
    solid = Solid()
    mesh = extract(solid.at, CUBE, LEVEL, known=lambda x: x[:, 2] > 0.1, planes=5)
    assert mesh.vertices[:, 2].min() >= 0.1 and mesh.vertices[:, 2].min() < 0.1 + 2 * CUBE.step
    assert solid.asked == 49 * 49 * int((CUBE.plane(0)[:49, 2] > 0.1).sum())
    area, _ = area_and_volume(mesh)
    cap = 2 * math.pi * 0.5 * (0.5 - float(mesh.vertices[:, 2].min()))
    assert area == pytest.approx(cap, rel=0.01)
    single, double = (edges(mesh)[1] == 1).sum(), (edges(mesh)[1] == 2).sum()
    assert single > 0 and single + double == len(edges(mesh)[1])


@pytest.mark.parametrize("planes", [None, 5])
def test_haze_that_is_hidden_is_full_but_air_is_not(planes):
    def density(x):  # a hollow ball, haze within, air without
        radius = x.norm(dim=-1)
        return torch.where(radius < 0.3, 0.1 * LEVEL, torch.where(radius < 0.5, 10 * LEVEL, 0.01 * LEVEL))

    hollow = extract(density, CUBE, LEVEL, planes=planes)
    assert euler(hollow) == 4  # two spheres
    full = extract(density, CUBE, LEVEL, hidden=lambda x: torch.ones(len(x), dtype=torch.bool), planes=planes)
    assert euler(full) == 2 and np.linalg.norm(full.vertices, axis=1).min() > 0.4
    half = extract(density, CUBE, LEVEL, hidden=lambda x: x[:, 0] > 0, planes=planes)
    inner = half.vertices[np.linalg.norm(half.vertices, axis=1) < 0.35]
    assert inner[:, 0].max() < CUBE.step and (edges(half)[1] == 2).all() and euler(half) == 4


def test_a_closed_mesh_has_no_edges_though_the_box_and_what_is_known_cut_it():
    half = Lattice.over([-0.3, -1.0, -1.0], [1.0, 1.0, 1.0], 48)
    for known in (None, lambda x: x[:, 2] > 0.1):
        mesh = extract(Solid().at, half, LEVEL, known, closed=True, planes=9)
        assert (edges(mesh)[1] == 2).all() and euler(mesh) == 2
    assert area_and_volume(mesh)[1] > 0
    assert (edges(extract(Solid().at, half, LEVEL, planes=9))[1] == 1).any()


def test_lattices_are_cubes_that_fit_in_the_box():
    lattice = Lattice.over([0.0, 0.0, 0.0], [1.0, 0.5, 0.33], 10)
    assert lattice.shape == (11, 6, 4) and lattice.step == pytest.approx(0.1)
    assert lattice.low[2] == pytest.approx(0.015)
    x = lattice.plane(3)
    assert torch.allclose(x[6], torch.tensor([0.3, 0.1, 0.215])) and len(x) == 24


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (1e9, "both sides of 1e.09, found none above"),
        (1e-30, "both sides of 1e-30, found none below"),
        (0.0, "above 0, found 0"),
        (math.nan, "nan"),
    ],
)
def test_a_level_that_is_nowhere_is_said(threshold, message):
    with pytest.raises(MeshError, match=message):
        extract(Solid().at, CUBE, threshold)


MEASURE = """
import resource, sys
import torch
from nerf.surface import Lattice, extract
from tests.solids import LEVEL, Solid
torch.set_num_threads(1)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
solid = Solid()
def thin(x):  # all of the lattice but a shell is skipped, as an occupancy grid skips it
    return solid.depth(x).abs() < 0.05
extract(solid.at, Lattice.over([-1.0] * 3, [1.0] * 3, 32), LEVEL, thin)
start = peak()
mesh = extract(solid.at, Lattice.over([-1.0] * 3, [1.0] * 3, int(sys.argv[1])), LEVEL, thin)
print(peak() - start, len(mesh.vertices))
"""


def test_memory_is_that_of_a_slab_and_of_the_mesh():
    # A slab has at most SLAB points of 6 bytes (value, two masks) and a plane's places; the mesh grows with the square of
    # the resolution. The lattice of 256^3 alone would be 64 MiB as float32 and 384 MiB with its masks and places.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "256"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown, vertices = map(float, done.stdout.split())
    assert vertices > 70_000
    assert grown < 200
