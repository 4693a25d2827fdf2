"""The rules that place a scene, on captures of every shape and any size."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data.bounds import Bounds, find_bounds, focus, similarity
from data.shots import Capture, Shot, plain_lens
from tests import trees

SCALES = [1.0, 1e6, 1e-6]
SYNTHETIC = np.array([[-1.5] * 3, [1.5] * 3])


def look(eye: np.ndarray, at: np.ndarray) -> np.ndarray:
    back = (eye - at) / np.linalg.norm(eye - at)
    right = np.cross((0.02, 0.01, 1.0), back)
    right /= np.linalg.norm(right)
    return np.stack((right, np.cross(back, right), back, eye), 1)


def capture(poses: list[np.ndarray], **more) -> Capture:
    lens = plain_lens(100, 80, 90.0, 90.0, 50.0, 40.0)
    shots = [Shot(f"{i}", Path(f"{i}.png"), lens, p) for i, p in enumerate(poses)]
    return Capture(Path("."), "test", shots, Path("poses.json"), **more)


def orbit(centre: np.ndarray, radius: float, count: int = 24) -> list[np.ndarray]:
    turns = np.linspace(0, 2 * math.pi, count, endpoint=False)
    eyes = [centre + radius * np.array([math.cos(a), math.sin(a), 0.4]) for a in turns]
    return [look(e, centre) for e in eyes]


def placed(bounds: Bounds, point: np.ndarray) -> np.ndarray:
    return bounds.transform[:3, :3] @ point + bounds.transform[:3, 3]


@pytest.mark.parametrize("scale", SCALES)
def test_orbit_of_photos(scale: float) -> None:
    """The subject in the middle, the cameras at 1, the background beyond the box."""
    centre = np.array([5.0, -2.0, 1.0]) * scale
    bounds = find_bounds(capture(orbit(centre, 3 * scale)), cut_out=False)
    assert np.abs(placed(bounds, centre)).max() < 1e-4
    reach = [np.linalg.norm(placed(bounds, p[:, 3])) for p in orbit(centre, 3 * scale)]
    assert np.allclose(reach, 1, atol=1e-3)
    assert bounds.box.tolist() == [[-1] * 3, [1] * 3] and not bounds.bounded
    assert 0 < bounds.near < 0.2 and bounds.far > 2


@pytest.mark.parametrize("scale", SCALES)
def test_orbit_of_cut_outs(scale: float) -> None:
    """What fills the photos is a sphere of 3 sin(half the angle of view): it becomes the box."""
    centre = np.array([5.0, -2.0, 1.0]) * scale
    bounds = find_bounds(capture(orbit(centre, 3 * scale)), cut_out=True)
    distance = 3 * math.sqrt(1.16)
    assert bounds.transform[0, 0] * scale == pytest.approx(1 / (distance * math.sin(math.atan(50 / 90))), rel=1e-3)
    assert bounds.bounded and np.abs(bounds.box).max() == pytest.approx(1)


def test_synthetic_scenes_keep_their_units_where_the_cameras_agree() -> None:
    kept = find_bounds(capture(orbit(np.zeros(3), 4.0), synthetic_box=SYNTHETIC), cut_out=True)
    assert np.array_equal(kept.transform, np.eye(4)) and np.array_equal(kept.box, SYNTHETIC)
    assert 1.3 < kept.near < 3 and 5.5 < kept.far < 7.5
    for poses in (orbit(np.zeros(3), 400.0), orbit(np.array([9.0, 0, 0]), 4.0)):
        moved = find_bounds(capture(poses, synthetic_box=SYNTHETIC), cut_out=True)
        assert moved.bounded and np.abs(moved.box).max() == pytest.approx(1)


@pytest.mark.parametrize("scale", SCALES)
def test_forward_facing_photos_with_points(scale: float) -> None:
    """A wall at depth 8: the centre lies on it, and the box holds what the photos show of it."""
    eyes = [np.array([x, 0.0, z]) * scale for x in (-0.5, 0.0, 0.5) for z in (-0.3, 0.3)]
    ahead = np.array([0.0, 8.0, 0.0]) * scale
    random = np.random.default_rng(0)
    points = np.stack((random.uniform(-3, 3, 500), np.full(500, 8.0), random.uniform(-3, 3, 500)), 1) * scale
    points[:20] *= 50  # stray points far away
    bounds = find_bounds(capture([look(e, e + ahead) for e in eyes], points=points), cut_out=False)
    assert np.abs(placed(bounds, ahead)).max() < 0.05
    assert np.abs(placed(bounds, np.array([8 * 50 / 90, 8, 0]) * scale)).max() < 1
    near, far = bounds.near / bounds.transform[0, 0], bounds.far / bounds.transform[0, 0]
    assert 3.5 * scale < near < 4.5 * scale and 15 * scale < far


def test_forward_facing_photos_without_points() -> None:
    eyes = [np.array([x, 0.0, 0.1 * x]) for x in (-0.5, 0.0, 0.5)]
    parallel = find_bounds(capture([look(e, e + np.array([0.0, 1, 0])) for e in eyes]), cut_out=False)
    assert 0 < parallel.near < parallel.far
    converging = find_bounds(capture([look(e, np.array([0, 6.0, 0])) for e in eyes]), cut_out=False)
    assert np.abs(placed(converging, np.array([0, 6.0, 0]))).max() < 0.02


def test_outward_photos() -> None:
    poses = [look(np.array(e), 2 * np.array(e)) for e in ((1.0, 0, 0), (0, 1.0, 0), (-1.0, 0, 0), (0, -1.0, 0.1))]
    assert focus(np.stack(poses)) is None
    bounds = find_bounds(capture(poses), cut_out=False)
    assert np.abs(placed(bounds, np.zeros(3))).max() < 0.1 and bounds.transform[0, 0] == pytest.approx(0.25, rel=0.1)


def test_one_photo() -> None:
    bounds = find_bounds(capture([look(np.array([1.0, 2, 3]), np.zeros(3))]), cut_out=False)
    assert 0 < bounds.near < bounds.far and np.isfinite(bounds.transform).all()


def test_a_stray_camera_moves_little() -> None:
    poses = orbit(np.zeros(3), 3.0)
    steady = find_bounds(capture(poses), cut_out=False)
    stray = find_bounds(capture([*poses, look(np.array([90.0, 0, 0]), np.zeros(3))]), cut_out=False)
    assert stray.transform[0, 0] == pytest.approx(steady.transform[0, 0], rel=0.05)


def test_held_out_photos_dont_count() -> None:
    poses = orbit(np.zeros(3), 3.0)
    with_test = capture([*poses, *orbit(np.array([50.0, 0, 0]), 9.0)])
    for shot in with_test.shots[len(poses) :]:
        shot.test = True
    found, expected = find_bounds(with_test, False), find_bounds(capture(poses), False)
    assert np.array_equal(found.transform, expected.transform) and found.far == expected.far


def test_focus_is_where_the_axes_meet() -> None:
    point = np.array([1e6 + 0.25, -3.0, 7.0])  # far from the origin, and still to a thousandth
    assert np.abs(focus(np.stack(orbit(point, 2.0))) - point).max() < 1e-3


def test_similarity() -> None:
    matrix = similarity(np.array([1.0, 2.0, 3.0]), 4.0)
    assert (matrix @ (2.0, 2.0, 3.0, 1.0)).tolist() == [4.0, 0.0, 0.0, 1.0]


def test_up(tmp_path: Path) -> None:
    from data.scene import load_scene

    trees.write_ngp(tmp_path)
    assert load_scene(tmp_path).up @ torch.tensor([0.0, 0, 1]) > 0.9
