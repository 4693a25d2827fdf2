"""A rig: its file, its photos' names, its focus and which way is up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.scene import load_scene
from nerf.paths import (
    PathError,
    Rig,
    kind,
    orbit,
)
from tests.ball import write_ball
from tests.rigs import UP, arc, facing, polar


def test_rig_survives_its_file_and_scene(tmp_path):
    scene = load_scene(write_ball(tmp_path, moving=False))
    rig = Rig.of(scene)
    rig.save(tmp_path)
    again = Rig.load(tmp_path)
    assert np.array_equal(rig.poses, again.poses) and np.array_equal(rig.transform, again.transform)
    assert [(p.name, p.time, p.held_out) for p in rig.photos] == [(p.name, p.time, p.held_out) for p in again.photos]
    assert len(again.trained) == 12 and len(again.photos) == 15
    # The ball's cameras were laid on a ring around the origin.
    assert np.allclose(again.focus, 0, atol=1e-5) and kind(again) == "around"
    assert np.isclose(again.lens.fy, 30, rtol=1e-5) and (again.lens.width, again.lens.height) == (24, 24)
    for (a, _), (b, _) in zip(orbit(rig, 5), orbit(again, 5)):
        assert torch.equal(a.pose, b.pose)


def test_photos_are_found_by_any_unambiguous_end_of_their_name():
    rig = arc(12)
    for name in ("photos/007.png", "007.png", "007", "photos/007"):
        assert rig.photo(name) is rig.photos[7]
    with pytest.raises(PathError, match="none called so"):
        rig.photo("x")
    with pytest.raises(PathError, match="found 12 called so"):
        rig.photo(".png")


def test_axes_that_never_meet_get_a_focus_ahead(tmp_path):
    scene = load_scene(write_ball(tmp_path, moving=False))
    for i, frame in enumerate(scene.train):  # all look along -z from a small square
        pose = torch.eye(3, 4)
        pose[:, 3] = torch.tensor([0.05 * (i % 4), 0.05 * (i // 4), 0.0])
        frame.camera = frame.camera.with_pose(pose)
    rig = Rig.of(scene)
    assert scene.near < -rig.focus[2] < scene.far and np.allclose(rig.focus[:2], [0.075, 0.05], atol=1e-6)
    assert kind(rig) == "before"


def test_up_is_across_level_cameras_however_unevenly_they_look_down(tmp_path):
    scene = load_scene(write_ball(tmp_path, moving=False))
    for i, frame in enumerate(scene.train):  # half of them look down steeply, all from one side
        eye = polar(0.25 * i, 1.2 if i % 2 else 0.3)
        frame.camera = frame.camera.with_pose(torch.from_numpy(facing(eye)).float())
    scene.up = torch.nn.functional.normalize(torch.tensor([0.2, -0.1, 1.0]), dim=0)
    assert np.allclose(Rig.of(scene).up, UP, atol=1e-5)
    for frame in scene.train:  # all x axes alike: nothing to tell it by
        frame.camera = frame.camera.with_pose(scene.train[0].camera.pose)
    assert np.allclose(Rig.of(scene).up, scene.up.numpy())
