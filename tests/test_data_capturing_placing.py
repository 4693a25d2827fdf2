"""Up, units, background and distances of a reconstruction that was turned, scaled and moved; and the tree written from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.camera import Camera
from data.capturing.nerfies_tree import camera_record, write_tree
from data.capturing.photos import Photo
from data.capturing.placing import place, upright
from data.capturing.structure import Solution
from data.scene import load_scene
from data.shots import plain_lens
from tests.clips import pan
from tests.room import arc, look_at

LENS = plain_lens(96, 72, 80.0, 81.0, 47.0, 37.0, distortion=(0.05, -0.02, 0.003, -0.004))


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def around(count: int = 24, pitch: float = 0.4) -> np.ndarray:
    """A phone carried around somebody, tilted up and down, rolled a little."""
    angles = np.linspace(-1.2, 1.2, count)
    at = [np.array([np.sin(a), pitch * np.sin(3 * a), np.cos(a)]) for a in angles]
    return np.stack(
        [look_at(p, np.array([0, 0.3 * np.cos(5 * a), 0]), 0.02 * np.sin(7 * a)) for p, a in zip(at, angles)]
    )


@pytest.mark.parametrize("poses", [around(), arc(20), around(24, 0.0)], ids=["around", "arc", "level"])
def test_up_is_found_in_any_turn(poses: np.ndarray):
    for seed in range(4):
        turn = rotation(seed)
        found = upright(turn @ poses[:, :, :4]) @ turn
        assert np.allclose(found @ found.T, np.eye(3)) and np.linalg.det(found) > 0
        assert found[1, 1] > np.cos(np.radians(3))
        assert (found @ poses[:, :, 2].mean(0))[0] == pytest.approx(0, abs=0.05)  # ahead is -z


def test_cameras_that_look_one_way_keep_their_mean_up():
    poses = np.stack([look_at(np.array([x, 0.1 * x, 2.0]), np.array([x, 0.1 * x, 0.0])) for x in np.linspace(-1, 1, 9)])
    turn = rotation(7)
    assert (upright(turn @ poses) @ turn)[1] == pytest.approx(np.array([0, 1, 0]), abs=1e-6)


def solution(seed: int = 0, scale: float = 3.0) -> tuple[Solution, list[Photo], np.ndarray]:
    """Cameras around points on a ball of radius 2, in a world turned, scaled and moved; and the points' true places."""
    random = np.random.default_rng(seed)
    poses = around(20)
    points = random.normal(size=(200, 3))
    points = 2 * points / np.linalg.norm(points, axis=1, keepdims=True)
    turn, shift = rotation(seed), np.array([5.0, -2.0, 1.0])
    moved = np.concatenate((turn @ poses[:, :, :3], (scale * poses[:, :, 3] @ turn.T + shift)[:, :, None]), 2)
    errors, lengths = np.full(200, 0.5), np.full(200, 6)
    errors[:20], lengths[20:50] = 9.0, 2
    seen = np.array([(i, j) for i in range(20) for j in range(200)])
    photos = [Photo(f"{i:03d}", f"frame {i}", Path(f"{i:03d}.jpg"), 96, 72, place=i) for i in range(20)]
    named = dict(zip([p.name for p in photos], moved))
    return Solution(named, {0: LENS}, scale * points @ turn.T + shift, errors, lengths, seen, 0.5), photos, points


def test_units_are_the_median_distance_and_points_the_good_ones():
    solved, photos, points = solution()
    true = np.linalg.norm(points[None] - around(20)[:, None, :, 3], axis=-1)
    unit = np.median(true)
    placed = place(solved, photos, moving=False, coarse=1.0)
    assert len(placed.points) == 150
    gaps = np.linalg.norm(placed.points[:, None] - placed.points[None], axis=-1)
    assert np.allclose(gaps, np.linalg.norm(points[50:, None] - points[None, 50:], axis=-1) / unit, atol=1e-9)
    both = np.concatenate((placed.points, placed.poses[:, :, 3]))
    fitted = (both - placed.center) * placed.scale
    assert np.abs(fitted).max() < 0.56 and np.ptp(fitted, axis=0).max() > 0.9
    near, far = np.percentile(true, (1, 99)) / unit * placed.scale
    assert placed.near < near < far < placed.far and placed.near > 0.4 * near and placed.far < 1.6 * far


def test_a_person_may_be_nearer_than_all_points_and_needs_lasting_ones():
    solved, photos, _ = solution()
    still, moving = (place(solved, photos, moving=m, coarse=1.0) for m in (False, True))
    assert moving.near < 0.5 * still.near and moving.far == still.far


def test_the_tree_is_read_back_exactly(tmp_path: Path):
    solved, photos, _ = solution()
    del solved.poses["005"]
    solved.sightings = solved.sightings[solved.sightings[:, 0] != 5]
    files = []
    for i, (photo, picture) in enumerate(zip(photos, pan(1, 20))):
        Image.fromarray(picture).save(tmp_path / photo.file.name, quality=95)
        blurred = i == 7
        files.append(Photo(**{**vars(photo), "file": tmp_path / photo.file.name, "blurred": blurred, "lens": i % 2}))
    other = Camera(torch.eye(3, 4), 96, 72, 90.0, 90.0, 48.0, 36.0)
    placed = place(solved, files, moving=True, coarse=1.0)
    write_tree(tmp_path / "scene", placed, files, {0: LENS, 1: other}, moving=True)
    scene = load_scene(tmp_path / "scene")
    assert scene.moving and (scene.near, scene.far) == (placed.near, placed.far) and scene.interpolate_test
    names = [n for n in placed.names if n != "007"]
    assert len(names) == 18 and [f.name for f in scene.test] == names[3:-1:8]
    assert sorted(f.name for f in scene.train + scene.test) == names
    for frame in scene.train + scene.test:
        pose = placed.poses[placed.names.index(frame.name)]
        centre = (pose[:, 3] - placed.center) * placed.scale
        assert np.allclose(frame.camera.pose[:, :3].numpy(), pose[:, :3], atol=1e-6)
        assert np.allclose(frame.camera.pose[:, 3].numpy(), centre, atol=1e-6)
        lens = (LENS, other)[int(frame.name) % 2]
        for name in ("width", "height", "fx", "fy", "cx", "cy", "skew"):
            assert getattr(frame.camera, name) == pytest.approx(getattr(lens, name), rel=1e-12)
        assert frame.camera.distortion == lens.distortion
        with Image.open(tmp_path / f"{frame.name}.jpg") as image:
            assert np.array_equal(frame.image.numpy(), np.asarray(image))
    assert scene.points is not None
    assert np.allclose(scene.points.numpy(), (placed.points - placed.center) * placed.scale, atol=1e-6)
    assert float(scene.up[1]) > 0.9


def test_a_still_scene_has_one_instant_and_looks_of_its_own(tmp_path: Path):
    solved, photos, _ = solution()
    for photo, picture in zip(photos, pan(1, 20)):
        Image.fromarray(picture).save(tmp_path / photo.file.name)
    files = [Photo(**{**vars(p), "file": tmp_path / p.file.name}) for p in photos]
    placed = place(solved, files, moving=False, coarse=1.0)
    write_tree(tmp_path / "scene", placed, files, solved.lenses, moving=False)
    scene = load_scene(tmp_path / "scene")
    assert not scene.moving and {f.warp_id for f in scene.train} == {0}
    assert [f.appearance_id for f in scene.train] == list(range(len(scene.train)))
    assert [f.time for f in scene.train] == sorted(f.time for f in scene.train) and scene.train[-1].time == 1
    record = json.loads((tmp_path / "scene" / "dataset.json").read_text())
    assert record["count"] == 20 and record["num_exemplars"] == len(record["train_ids"]) == 18


def test_lenses_that_the_format_has_no_place_for_are_refused():
    with pytest.raises(ValueError, match="expected opencv with k1 k2 p1 p2 k3"):
        camera_record(plain_lens(96, 72, 80, 80, 48, 36, distortion=(0, 0, 0, 0, 0, 0.1)), np.eye(3, 4))
