"""Paths against closed forms: circles, convex hulls, rotations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nerf.paths import (
    PathError,
    Photo,
    Rig,
    central,
    kind,
    look_at,
    orbit,
    path,
    spiral,
)
from tests.rigs import UP, arc, facing, polar, poses_of, rig_of, ring


def in_hull(point, points):
    """Whether a point of the plane lies in the convex hull: no direction in which it is beyond all others."""
    turn = np.linspace(0, 2 * math.pi, 3600)
    across = np.stack([np.cos(turn), np.sin(turn)])
    return ((point @ across) <= (points @ across).max(0) + 1e-9).all()


@pytest.mark.parametrize("make", [orbit, spiral])
@pytest.mark.parametrize("rig", [ring(), arc()], ids=["around", "before"])
def test_poses_are_rotations_that_look_at_the_focus_with_up_upward(make, rig):
    for pose in poses_of(make(rig, 16)):
        turn = pose[:, :3]
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-6) and np.linalg.det(turn) > 0
        to_focus = rig.focus - pose[:, 3]
        assert np.allclose(-turn[:, 2], to_focus / np.linalg.norm(to_focus), atol=1e-6)
        assert turn[:, 1] @ UP > 0 and abs(turn[:, 0] @ UP) < 1e-6


def test_orbit_around_is_a_circle_of_equal_angles_at_the_mean_height():
    rig = ring()
    assert kind(rig) == "around"
    eyes = poses_of(orbit(rig, 24))[:, :, 3]
    reach = np.linalg.norm(eyes, axis=1)
    assert np.allclose(reach, 2.1, atol=1e-5)
    mean_sine = np.mean([math.sin(0.3), math.sin(0.7)])
    assert np.allclose(eyes[:, 2] / reach, mean_sine, atol=1e-6)
    steps = np.diff(np.unwrap(np.arctan2(eyes[:, 1], eyes[:, 0]), discont=math.pi))
    assert np.allclose(steps, math.radians(15), atol=1e-5)
    first = rig.poses[0, :, 3]
    assert np.isclose(math.atan2(eyes[0, 1], eyes[0, 0]), math.atan2(first[1], first[0]))


@pytest.mark.parametrize("make", [orbit, spiral])
def test_loops_before_a_subject_stay_where_photos_were_taken(make):
    rig = arc()
    assert kind(rig) == "before"
    eyes, photos = poses_of(make(rig, 48))[:, :, 3], rig.poses[:, :, 3]

    def angles(x):
        return np.stack([np.arctan2(x[:, 1], x[:, 0]), np.arcsin(x[:, 2] / np.linalg.norm(x, axis=1))], 1)

    spots = angles(photos)
    assert all(in_hull(spot, spots) for spot in angles(eyes))
    reach, known = np.linalg.norm(eyes, axis=1), np.linalg.norm(photos, axis=1)
    assert known.min() <= reach.min() and reach.max() <= known.max()
    # The loop uses the room there is: most of the width, and closes smoothly.
    assert np.ptp(angles(eyes)[:, 0]) > 0.6 * np.ptp(spots[:, 0])
    steps = np.linalg.norm(np.diff(eyes, axis=0, append=eyes[:1]), axis=1)
    assert steps.max() < 0.25


def test_an_arc_along_a_line_is_followed():
    rig = rig_of([polar(a, 0.1) for a in np.linspace(-0.4, 0.4, 9)])
    eyes = poses_of(orbit(rig, 20))[:, :, 3]
    assert np.allclose(np.arcsin(eyes[:, 2] / 2), 0.1, atol=1e-5)
    azimuth = np.arctan2(eyes[:, 1], eyes[:, 0])
    assert np.abs(azimuth).max() < 0.4 and np.ptp(azimuth) > 0.6


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("make", [orbit, spiral])
def test_few_photos_still_give_a_path(count, make):
    eyes = [polar(0.1 * i, 0.05 * i * i) for i in range(count)]
    stops = poses_of(make(rig_of(eyes), 7))[:, :, 3]
    assert np.isfinite(stops).all()
    # Within 2 degrees of the only photo; else within the photos' own spread.
    assert np.linalg.norm(stops - np.mean(eyes, 0), axis=1).max() < 0.3


def test_cameras_that_look_outward_turn_on_the_spot():
    eyes = [0.1 * polar(a, 0) for a in np.arange(12) / 12 * 2 * math.pi]
    rig = rig_of(eyes)
    away = [
        Photo(p.name, p.camera.with_pose(torch.from_numpy(facing(e, 2 * e)).float()), p.time, False)
        for p, e in zip(rig.photos, eyes)
    ]
    rig = Rig(tuple(away), np.zeros(3), UP, 0.1, 9, np.eye(4), False)
    assert kind(rig) == "outward"
    poses = poses_of(orbit(rig, 12))
    assert np.ptp(poses[:, :, 3], axis=0).max() == 0
    heading = np.unwrap(np.arctan2(poses[:, 1, 2], poses[:, 0, 2]))
    assert np.allclose(np.diff(heading), math.pi / 6, atol=1e-5)


def test_time_runs_forth_and_back_without_a_stop():
    times = [time for _, time in orbit(arc(), 8)]
    assert times == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]


def test_central_is_a_photos_place_turned_to_the_focus():
    rig = arc()
    eye = central(rig).pose[:, 3].double().numpy()
    assert np.linalg.norm(rig.poses[:, :, 3] - eye, axis=1).min() < 1e-6


def test_looking_straight_down_is_still_a_rotation():
    pose = look_at(np.array([0.0, 0.0, 2.0]), np.zeros(3), UP)
    assert np.allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3)) and np.allclose(pose[:, 2], UP)


def test_bad_paths_and_rigs_are_named(tmp_path):
    with pytest.raises(PathError, match=r"expected orbit, spiral or FILE.json, found 'circle'"):
        path(arc(4), "circle", 3)
    with pytest.raises(PathError, match="--frames: expected at least 1, found 0"):
        path(arc(4), "orbit", 0)
    with pytest.raises(PathError, match="found no file"):
        path(arc(4), str(tmp_path / "no.json"), 3)
    with pytest.raises(PathError, match=r"expected a run with cameras.json, found none"):
        Rig.load(tmp_path)
    (tmp_path / "cameras.json").write_text('{"photos": [{"name": "a"}]}')
    with pytest.raises(PathError, match="can't be read"):
        Rig.load(tmp_path)
