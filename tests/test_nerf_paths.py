"""Paths against closed forms: circles, convex hulls, keyframes that are met, rotations at a constant rate."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.camera import Camera
from data.scene import load_scene
from nerf.keyframes import interpolate, knots, quaternion, rotation
from nerf.paths import (
    Keyframe,
    PathError,
    Photo,
    Rig,
    along,
    central,
    field_of_view,
    kind,
    load_path,
    look_at,
    orbit,
    path,
    save_path,
    spiral,
)
from tests.ball import write_ball

UP = np.array([0.0, 0.0, 1.0])


def facing(eye, target=(0, 0, 0)):
    """A pose by the textbook, apart from the code: columns right, up, back, eye."""
    back = np.subtract(eye, target) / np.linalg.norm(np.subtract(eye, target))
    right = np.cross(UP, back) / np.linalg.norm(np.cross(UP, back))
    return np.stack([right, np.cross(back, right), back, eye], 1)


def rig_of(eyes, target=(0, 0, 0), moving=False, transform=None):
    photos = []
    for i, eye in enumerate(eyes):
        pose = torch.from_numpy(facing(np.asarray(eye, float), target)).float()
        camera = Camera(pose, 40, 30, 36, 36, 20, 15)
        photos.append(Photo(f"photos/{i:03d}.png", camera, i / max(len(eyes) - 1, 1), False))
    transform = np.eye(4) if transform is None else transform
    return Rig(tuple(photos), np.asarray(target, float), UP, 0.5, 8.0, transform, moving)


def polar(azimuth, elevation, reach=2.0):
    c = math.cos(elevation)
    return reach * np.array([c * math.cos(azimuth), c * math.sin(azimuth), math.sin(elevation)])


def ring(count=24, elevation=0.5):
    return rig_of(
        [polar(2 * math.pi * i / count, elevation + 0.2 * (-1) ** i, 2 + 0.1 * (i % 3)) for i in range(count)]
    )


def arc(count=60, moving=True):
    rng = np.random.default_rng(3)
    spots = rng.uniform((-0.45, -0.15), (0.4, 0.2), (count, 2))
    return rig_of([polar(a + 1.0, e, 1.5 + 0.3 * a) for a, e in spots], moving=moving)


def poses_of(shots):
    return np.stack([camera.pose.double().numpy() for camera, _ in shots])


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


def keys(count=5, seed=0):
    rng = np.random.default_rng(seed)
    result = []
    for i in range(count):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        result.append(Keyframe(np.c_[turn, rng.normal(size=3)], float(rng.uniform(30, 70)), i / max(count - 1, 1)))
    return result


@pytest.mark.parametrize("loop", [False, True])
def test_paths_pass_through_their_keyframes_and_are_continuous(loop):
    given_keys = keys()
    knot = knots(given_keys, loop)
    assert len(knot) == 5 + loop
    for key, at in zip(given_keys, knot):
        for near in (0, -1e-7, 1e-7):
            found = interpolate(given_keys, float(at) + near, loop)
            assert np.allclose(found.pose, key.pose, atol=1e-5) and np.isclose(found.fov, key.fov, atol=1e-4)
            assert np.isclose(found.time, key.time, atol=1e-5)
    assert np.array_equal(interpolate(given_keys, float(knot[2]), loop).pose, given_keys[2].pose)


@pytest.mark.parametrize("loop", [False, True])
def test_velocity_does_not_jump_at_keyframes(loop):
    given_keys, step = keys(), 1e-5
    knot = knots(given_keys, loop)
    for at in knot[1:-1]:
        before, here, after = (interpolate(given_keys, float(at) + d, loop).pose for d in (-step, 0, step))
        assert np.allclose((here - before) / step, (after - here) / step, atol=2e-3)


def test_keyframes_turned_evenly_turn_evenly_between():
    def turned(angle):
        c, s = math.cos(angle), math.sin(angle)
        return np.array([[c, -s, 0, angle], [s, c, 0, 2 * angle], [0, 0, 1, 0]])

    stops = along([Keyframe(turned(0.7 * i), 40, i / 4) for i in range(5)], 41)
    for i, key in enumerate(stops):
        assert np.allclose(key.pose, turned(0.07 * i), atol=1e-9)
        assert np.isclose(key.time, i / 40) and np.isclose(key.fov, 40)


def test_a_loop_does_not_repeat_its_first_frame_and_closes():
    square = [Keyframe(facing(polar(a, 0.2)), 50, 0) for a in (0, math.pi / 2, math.pi, 1.5 * math.pi)]
    eyes = np.stack([key.pose[:, 3] for key in along(square, 16, loop=True)])
    steps = np.linalg.norm(np.diff(eyes, axis=0, append=eyes[:1]), axis=1)
    assert np.allclose(steps, np.tile(steps[:4], 4))  # the way back to the first frame is a side like the others
    assert np.allclose(eyes[::4], [key.pose[:, 3] for key in square])


def test_one_keyframe_and_equal_keyframes_stand_still():
    key = keys(1)[0]
    for group, loop in (([key], False), ([key], True), ([key, key], False), ([key, key], True)):
        assert all(np.allclose(stop.pose, key.pose) for stop in along(group, 4, loop))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, math.pi))
def test_quaternions_go_there_and_back_at_any_angle(seed, angle):
    axis = np.random.default_rng(seed).normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross  # Rodrigues
    found = quaternion(np.c_[turn, np.zeros(3)])
    assert np.isclose(np.abs(found[0]), math.cos(angle / 2), atol=1e-7)
    assert np.allclose(rotation(found), turn, atol=1e-7)


def test_path_files_go_there_and_back(tmp_path):
    rig, wanted = arc(), keys()
    save_path(tmp_path / "p.json", wanted, loop=True)
    found, loop = load_path(tmp_path / "p.json", rig)
    assert loop and len(found) == 5
    for a, b in zip(wanted, found):
        assert np.allclose(a.pose, b.pose) and (a.fov, a.time) == (b.fov, b.time)
    shots = path(rig, str(tmp_path / "p.json"), 5)
    assert np.allclose(shots[0][0].pose.numpy(), wanted[0].pose, atol=1e-6)
    assert np.isclose(field_of_view(shots[0][0]), wanted[0].fov)


def test_path_files_in_file_units_with_photos_and_defaults(tmp_path):
    transform = np.diag([0.5, 0.5, 0.5, 1.0])
    transform[:3, 3] = [1, 2, 3]
    rig = rig_of([polar(0.1 * i, 0) for i in range(5)], transform=transform)
    pose = np.eye(4)
    pose[:3, 3] = [2, 4, 6]
    rows = [{"pose": pose.tolist()}, {"photo": "003", "fov": 20}, {"pose": [*pose[:3].ravel().tolist(), 0, 0, 0, 1]}]
    (tmp_path / "p.json").write_text(json.dumps({"units": "file", "keyframes": rows}))
    found, loop = load_path(tmp_path / "p.json", rig)
    assert not loop and [key.time for key in found] == [0, 0.75, 1]
    assert np.allclose(found[0].pose, np.c_[np.eye(3), [2, 4, 6]]) and np.allclose(found[2].pose, found[0].pose)
    assert np.isclose(found[0].fov, math.degrees(2 * math.atan(15 / 36))) and found[1].fov == 20
    assert np.allclose(found[1].pose, rig.poses[3])


BAD = {
    "not json": ("{", "expected JSON"),
    "nothing": ("[]", "at least one keyframe"),
    "units": ('{"units": "m", "keyframes": [{}]}', "units: expected scene or file, found 'm'"),
    "unknown": ('{"frames": 3, "keyframes": [{}]}', "found also frames"),
    "loop": ('{"loop": "yes", "keyframes": [{}]}', "loop: expected true or false"),
    "no pose": ('[{"fov": 3}]', "keyframe 0: expected pose or photo"),
    "no object": ("[7]", "keyframe 0: expected pose or photo, and perhaps fov and time, found 7"),
    "shape": ('[{"pose": [1, 2]}]', "pose: expected 4x4 finite numbers"),
    "words": ('[{"pose": "here"}]', "pose: expected 4x4 finite numbers"),
    "scaled": (json.dumps([{"pose": np.diag([2, 2, 2, 1]).tolist()}]), "expected a rotation"),
    "mirrored": (json.dumps([{"pose": np.diag([1, 1, -1, 1]).tolist()}]), "determinant -1.000"),
    "fov": (
        json.dumps([{"pose": np.eye(4).tolist(), "fov": 200}]),
        "fov: expected a number from 1 to 170 degrees, found 200",
    ),
    "time": (json.dumps([{"pose": np.eye(4).tolist(), "time": 2}]), "time: expected a number from 0 to 1, found 2"),
    "photo": ('[{"photo": "none"}]', "none called so"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_path_files_are_named(name, tmp_path):
    text, message = BAD[name]
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(PathError, match=message) as caught:
        load_path(tmp_path / "p.json", arc(4))
    assert "\n" not in str(caught.value)


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
