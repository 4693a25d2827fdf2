"""Keyframes: met exactly, passed without a jump, there and back through their file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerf.keyframes import interpolate, knots, quaternion, rotation
from nerf.paths import (
    Keyframe,
    PathError,
    along,
    field_of_view,
    load_path,
    path,
    save_path,
)
from tests.rigs import arc, facing, polar, rig_of


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
