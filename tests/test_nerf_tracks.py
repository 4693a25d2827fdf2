"""Points followed through photos of a textured plane that moves by known amounts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from data.camera import Camera
from data.photos import Photo
from data.scene import Frame
from nerf import tracks
from nerf.tracks import follow

WIDTH, HEIGHT = 96, 80


def texture(x: np.ndarray, y: np.ndarray, seed: int = 0) -> np.ndarray:
    """Sum of waves of 7 to 40 pixels, known between pixels, in [0, 255]."""
    random = np.random.default_rng(seed)
    length, angle, phase = random.uniform(7, 40, 24), random.uniform(0, np.pi, 24), random.uniform(0, 6.28, 24)
    waves = [np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / k + p) for k, a, p in zip(length, angle, phase)]
    return np.clip(128 + 18 * np.sum(waves, 0), 0, 255)


def frame(
    index: int, image: np.ndarray, time: float = 0.0, camera_id: int = 0, mask: np.ndarray | None = None
) -> Frame:
    height, width = image.shape[:2]
    camera = Camera(torch.eye(3, 4), width, height, 100.0, 100.0, width / 2, height / 2)
    rgb = torch.from_numpy(np.repeat(image[..., None], 3, -1).round().astype(np.uint8))
    given = None if mask is None else torch.from_numpy(mask)
    return Frame(str(index), camera, Photo(rgb, given), index, index, camera_id, time)


def sliding(
    count: int = 12, width: int = WIDTH, height: int = HEIGHT, size: float = 1.0
) -> tuple[list[Frame], np.ndarray]:
    """Photos of a plane that slides by some pixels a photo; and how far it has slid "n 2"."""
    steps = np.stack([2.3 * np.cos(np.arange(count)), 1.7 * np.sin(1.3 * np.arange(count))], axis=-1) * size
    slid = np.concatenate([[[0, 0]], steps.cumsum(0)[:-1]])
    v, u = np.mgrid[:height, :width] + 0.5
    return [frame(i, texture((u - s[0]) / size, (v - s[1]) / size), i / count) for i, s in enumerate(slid)], slid


def misses(found: tracks.Tracks, slid: np.ndarray) -> np.ndarray:
    """How far each sighting lies from where the plane took the point since it set out, pixels."""
    photo, point, pixel = (part.numpy() for part in found)
    start = np.full((point.max() + 1, 2), np.nan)
    for name, index, place in sorted(zip(point, photo, map(tuple, pixel)), reverse=True):
        start[name] = np.array(place) - slid[index]
    return np.linalg.norm(pixel - slid[photo] - start[point], axis=1)


def test_points_go_where_the_plane_takes_them():
    frames, slid = sliding()
    found = follow(frames)
    miss = misses(found, slid)
    assert np.median(miss) < 0.15 and np.quantile(miss, 0.95) < 0.6
    # Three starts of 12 x 10 points; most are followed to the end.
    assert int(found.point.max()) + 1 == 3 * 120
    seen = np.bincount(found.point.numpy())[:120]
    assert (seen == 12).mean() > 0.5
    assert sorted(set(found.photo[found.point < 120].tolist())) == list(range(12))


def test_order_is_that_of_time_whatever_the_list_says():
    frames, slid = sliding()
    order = np.random.default_rng(1).permutation(len(frames))
    found = follow([frames[i] for i in order])
    photo, point, pixel = found
    assert np.quantile(misses(tracks.Tracks(torch.from_numpy(order[photo.numpy()]), point, pixel), slid), 0.95) < 0.6


def test_photos_that_have_nothing_in_common_yield_next_to_nothing():
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    found = follow([frame(i, texture(u, v, seed=i), i / 9) for i in range(9)])
    assert (np.bincount(found.point.numpy()) >= 4).mean() < 0.05


def test_no_point_crosses_from_camera_to_camera_or_from_size_to_size():
    frames, _ = sliding(6)
    v, u = np.mgrid[: HEIGHT - 8, :WIDTH] + 0.5
    cameras = [dataclasses.replace(f, camera_id=i % 2) for i, f in enumerate(frames)]
    both = follow([*cameras, *(frame(i, texture(u, v), float(i), camera_id=1) for i in (6, 7))])
    groups = [{0, 2, 4}, {1, 3, 5}, {6, 7}]
    for name in both.point.unique().tolist():
        assert any(set(both.photo[both.point == name].tolist()) <= group for group in groups)
    # Within a camera they do go on: from its first photo to its last.
    for first, last in ((0, 4), (1, 5)):
        assert set(both.point[both.photo == first].tolist()) & set(both.point[both.photo == last].tolist())


def test_masks_leave_sightings_out_where_they_are_honoured():
    frames, _ = sliding(4)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, : WIDTH // 2] = 0
    frames[2] = dataclasses.replace(frames[2], photo=Photo(frames[2].image, torch.from_numpy(mask)))
    free, masked = follow(frames), follow(frames, masked=True)
    left = (free.photo == 2) & (free.pixel[:, 0] < WIDTH // 2)
    assert left.sum() > 20 and len(masked.photo) == len(free.photo) - int(left.sum())
    assert not ((masked.photo == 2) & (masked.pixel[:, 0] < WIDTH // 2)).any()


def test_large_photos_are_followed_at_a_smaller_size_in_their_own_pixels():
    frames, slid = sliding(4, 1280, 320, size=2.5)
    found = follow(frames)
    assert np.quantile(misses(found, slid), 0.9) < 1.5
    assert found.pixel[:, 0].max() > 1200 and int(found.point.max()) < 64 * 16


@pytest.mark.parametrize("frames", [sliding(1)[0], [frame(i, np.zeros((12, 12)), float(i)) for i in range(4)]])
def test_one_photo_or_tiny_photos_yield_nothing(frames):
    assert [len(part) for part in follow(frames)] == [0, 0, 0]


def test_many_points_at_once_are_looked_up_in_parts(monkeypatch):
    frames, _ = sliding(4)
    whole = follow(frames)
    monkeypatch.setattr(tracks, "REMAP", 7)
    assert all(torch.equal(a, b) for a, b in zip(whole, follow(frames)))
