"""From a scene with a surface in closed form to a mesh and points with the right places, normals and colours."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nerf import agreement as agreement_module
from nerf import cloud as cloud_module
from nerf import sculpt as sculpt_module
from nerf.cloud import cloud
from nerf.model import HierarchicalConfig
from nerf.moment import Moment
from nerf.paint import colors, normals
from nerf.sculpt import Recipe, World, region, sculpt
from nerf.sights import Sights
from nerf.surface import HAZE, MeshError
from tests.solids import LEVEL, SHARP, Solid, model_of, paint, radius_at

pytest.importorskip("skimage")
pytest.importorskip("open3d", exc_type=ImportError)  # or a system library of its own

TRANSFORM = np.array([[0.5, 0, 0, 1.0], [0, 0.5, 0, -2.0], [0, 0, 0.5, 0.25], [0, 0, 0, 1]])  # file to scene
MIDDLE = np.array([-2.0, 4.0, -0.5])  # of the scene, in the file


@pytest.fixture(autouse=True)
def few_rays(monkeypatch):
    monkeypatch.setattr(sculpt_module, "PROBES", 1000)
    monkeypatch.setattr(sculpt_module, "RENDERED", 2000)
    monkeypatch.setattr(sculpt_module, "SLOW", 500)
    monkeypatch.setattr(agreement_module, "SAMPLES", 500)
    monkeypatch.setattr(cloud_module, "PIXELS", 6000)


def box(low: list[float], high: list[float]) -> tuple[float, ...]:
    """A crop, from its corners as seen from the scene's middle."""
    return (*(MIDDLE + np.array(low)), *(MIDDLE + np.array(high)))


def scene(kind: str = "ball"):
    model, rig = model_of(Solid(kind))
    return Moment(model, 0.5), replace(rig, transform=TRANSFORM)


def test_worlds_lead_there_and_back():
    world = World(TRANSFORM)
    np.testing.assert_allclose(world.back(np.zeros((1, 3))), [MIDDLE], atol=1e-12)
    x = np.random.default_rng(0).random((5, 3))
    np.testing.assert_allclose(world.into(world.back(x)), x)
    assert world.scale == pytest.approx(0.5)


def test_a_mesh_lies_in_the_files_coordinates_with_its_normals_and_colours():
    moment, rig = scene()
    made = sculpt(moment, rig, Recipe(resolution=40, threshold=LEVEL / 2))
    # Density is by length: LEVEL / 2 in the file's units, which are half as long in the scene, is LEVEL there.
    out = made.mesh.vertices - MIDDLE
    radius = np.linalg.norm(out, axis=1)
    assert made.step == pytest.approx(0.1)
    seen_by_some = out[:, 2] > -0.5  # all cameras are above; below, haze that nobody sees counts as full
    assert np.abs(radius - 1.0)[seen_by_some].max() < 0.02
    assert 1.04 < radius.max() < 1 + 2 * SHARP * math.log(1 / HAZE) + 0.1
    assert made.threshold == pytest.approx(LEVEL / 2)
    assert ((made.normals * out).sum(1) / radius).min() > 0.995
    # Light is gathered on the way in: half of it by the depth at which the density's integral is ln 2.
    seen = 0.5 - SHARP * math.log(math.log(2) / (LEVEL * SHARP))
    expected = paint(torch.from_numpy(out / radius[:, None] * seen)).numpy()
    assert np.abs(made.rgb - expected)[seen_by_some].max() < 0.06
    assert made.found == 1


def test_the_level_is_found_where_light_ends_and_the_agreement_says_so():
    moment, rig = scene()
    made = sculpt(moment, rig, Recipe(resolution=40))
    assert made.threshold == pytest.approx(0.5 * (0.5 * math.log(2) / SHARP), rel=0.4)  # see test_nerf_moment
    assert made.apart is not None and made.apart.off < 0.035 and made.apart.chamfer < 0.035
    wrong = sculpt(moment, rig, Recipe(resolution=40, threshold=made.threshold / 1e3)).apart
    assert wrong is not None and wrong.off > 3 * made.apart.off
    out = made.mesh.vertices - MIDDLE
    radius = np.linalg.norm(out, axis=1)[out[:, 2] > -0.5].mean() / 2
    assert radius == pytest.approx(radius_at(made.threshold * 2), abs=0.01)


def test_a_hierarchical_models_mesh_is_the_same_ball():
    moment, rig = scene()
    model = moment.model
    model.config = replace(model.config, sampling=HierarchicalConfig(32, 64))
    model.coarse, model.occupancy = model.field, None
    made = sculpt(moment, rig, Recipe(resolution=32, threshold=LEVEL / 2))
    out = made.mesh.vertices - MIDDLE
    assert np.abs(np.linalg.norm(out, axis=1) - 1.0)[out[:, 2] > -0.5].max() < 0.03
    assert made.apart is not None and made.apart.off < 0.1


def test_crops_faces_and_pieces():
    moment, rig = scene("ring")
    recipe = Recipe(resolution=28, threshold=LEVEL / 2, crop=box([0, -3, -3], [3, 3, 3]))
    half = sculpt(moment, rig, recipe)
    assert half.mesh.vertices[:, 0].min() >= MIDDLE[0] - 1e-6 and half.found == 1
    slice_ = replace(recipe, crop=box([-3, -0.2, -3], [3, 0.2, 3]))
    ends = sculpt(moment, rig, slice_)
    assert ends.found == 2
    one = sculpt(moment, rig, replace(slice_, pieces=1))
    assert len(one.mesh.faces) == pytest.approx(len(ends.mesh.faces) / 2, rel=0.1)
    fewer = sculpt(moment, rig, replace(recipe, crop=None, faces=500))
    assert len(fewer.mesh.faces) <= 500 and len(fewer.rgb) == len(fewer.normals) == len(fewer.mesh.vertices)


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ((0.0, 0, 0, 0, 1, 1), "--crop: expected X0 Y0 Z0 X1 Y1 Z1 with X0 < X1"),
        ((math.nan, 0, 0, 1, 1, 1), "found nan 0 0"),
        ((50.0, 50, 50, 51, 51, 51), "a box that meets the scene's, -4 2 -2.5 0 6 1.5, found 50 50 50"),
    ],
)
def test_a_crop_that_makes_no_sense_is_said(crop, message):
    moment, rig = scene()
    with pytest.raises(MeshError, match=message):
        region(moment, World(rig.transform), crop)


def test_a_crop_may_leave_a_cube_beyond_which_the_scene_goes_on():
    moment, rig = scene()
    crop = (*(MIDDLE - 9), *(MIDDLE + 9))
    low, high = region(moment, World(rig.transform), crop)
    assert low.tolist() == [-1] * 3 and high.tolist() == [1] * 3
    geometry = moment.model.geometry
    moment.model.geometry = replace(geometry, space=geometry.space._replace(contract=True))
    assert region(moment, World(rig.transform), crop)[1].tolist() == [4.5] * 3


def test_normals_are_the_densitys_or_the_guess_where_it_tells_nothing():
    moment, _ = scene()
    x = torch.tensor([[0.5, 0, 0], [0, -0.45, 0], [0.9, 0.9, 0.9]])
    found = normals(moment, x, 0.05)
    torch.testing.assert_close(found[:2], torch.tensor([[1.0, 0, 0], [0, -1.0, 0]]), atol=1e-3, rtol=0)
    guess = torch.tensor([[-1.0, 0, 0], [0, -0.6, 0.8], [0.0, 0, 1]])
    kept = normals(moment, x, 0.05, guess)
    assert kept[0].tolist() == [-1, 0, 0] and kept[1, 1] < -0.99 and kept[2].tolist() == [0, 0, 1]


def test_colours_are_seen_from_the_camera_that_a_point_faces():
    moment, _ = scene()
    moment.model.field.color = lambda features, view: (view + 1) / 2  # the colour is the direction
    eyes = torch.tensor([[2.0, 0, 0], [0, 2.0, 0]])
    x = torch.tensor([[0.5, 0, 0], [0, 0.5, 0], [-0.3, -0.4, 0]])
    found = 2 * colors(moment, x, x / x.norm(dim=1, keepdim=True), eyes) - 1
    torch.testing.assert_close(found[:2], torch.tensor([[-1.0, 0, 0], [0, -1.0, 0]]))
    assert found[2].norm() == pytest.approx(1, abs=1e-4)  # from one of the cameras, not from between them


def test_what_lies_behind_the_ball_from_all_around_is_hidden():
    model, rig = model_of(Solid())
    sights = Sights(Moment(model, 0.5), [photo.camera for photo in rig.photos])
    x = torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [0.52, 0, 0], [0.6, 0, 0], [0, 0, 40.0]])
    assert sights.hidden(x).tolist() == [True, True, False, False, False]


def test_points_lie_on_the_surface_evenly_with_normals_and_colours():
    moment, rig = scene()
    made = cloud(moment, rig, list(rig.trained), resolution=16)
    out = made.points - MIDDLE
    radius = np.linalg.norm(out, axis=1)
    assert made.voxel == pytest.approx(0.25) and len(made.points) > 100
    assert np.median(np.abs(radius / 2 - 0.52)) < 0.02 and np.abs(radius / 2 - 0.52).max() < 0.07
    assert ((made.normals * out).sum(1) / radius).min() > 0.95
    assert np.abs(made.rgb - paint(torch.from_numpy(out / 2)).numpy()).max() < 0.15
    assert len(np.unique(np.floor((made.points - made.points.min(0)) / made.voxel), axis=0)) > 0.6 * len(made.points)
    with pytest.raises(MeshError, match="expected rays of the photos to end in the box, found none"):
        cloud(moment, rig, list(rig.trained), 16, crop=(*(MIDDLE + 1.5), *(MIDDLE + 1.9)))
