"""The parts between photos and poses: which pairs are matched, what moves, where features are looked for."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from data.capturing import moving
from data.capturing.job import ATTEMPTS, Job, SolveConfig, pycolmap_or_sentence
from data.capturing.matching import counts, find_features, guess_focal, match, pairs_of
from data.capturing.photos import Photo
from tests import room


def test_small_sets_are_matched_in_all_pairs():
    assert pairs_of(5, ordered=True) == pairs_of(5, ordered=False) == list(combinations(range(5), 2))
    assert len(pairs_of(150, ordered=False)) == 150 * 149 // 2


def test_a_films_pairs_are_neighbours_and_loops():
    pairs = pairs_of(120, ordered=True)
    assert pairs == sorted(set(pairs)) and all(a < b for a, b in pairs)
    assert {(i, i + 1) for i in range(119)} | {(i, i + 8) for i in range(112)} <= set(pairs)
    assert (0, 119) in pairs  # the loop is closed
    assert len(pairs) < 120 * 14
    assert len(pairs_of(120, ordered=True, every_pair=True)) == 120 * 119 // 2


def two_views(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of 300 still points and of 30 on something that moves, in two views; then which are its."""
    random = np.random.default_rng(seed)
    still = np.concatenate((random.uniform(-2, 2, (300, 2)), random.uniform(3, 6, (300, 1))), 1)
    thing = np.concatenate((random.uniform(-0.3, 0.3, (30, 2)), random.uniform(2, 2.1, (30, 1))), 1)
    views = []
    for shift, moved in ((0.0, 0.0), (0.2, 0.25)):
        points = np.concatenate((still - [shift, 0, 0], thing - [shift, -moved, 0]))
        views.append(500 * points[:, :2] / points[:, 2:] + [320, 240])
    return views[0], views[1], np.arange(330) >= 300


def test_what_moves_together_is_told_from_what_is_wrong():
    here, there, thing = two_views()
    random = np.random.default_rng(1)
    wrong = random.choice(300, 20, replace=False)
    there[wrong] = random.uniform(0, 600, (20, 2))
    agreed = np.array([[i, i] for i in range(300) if i not in set(wrong)])
    raw = np.array([[i, i] for i in range(330)])
    votes = {1: np.zeros((330, 2)), 2: np.zeros((330, 2))}
    moving._vote(votes, {1: here, 2: there}, 1, 2, raw, agreed, 800.0)
    assert (votes[1][thing, 0] > 0).mean() > 0.8 and votes[1][~thing, 0].sum() <= 1
    assert votes[1][agreed[:, 0], 1].min() == 1 and votes[1][thing, 1].sum() == 0
    found = moving._spread(here, votes[1], 800.0)
    assert found[thing].mean() > 0.7 and found[~thing].mean() < 0.05  # found: 0.80 and 0.027


def test_a_few_stray_votes_move_nothing():
    here, _, _ = two_views()
    votes = np.tile([0.0, 3.0], (330, 1))
    votes[:4] = (2, 0)
    assert not moving._spread(here, votes, 800.0).any()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Features and matches of four views of the room, with the left third masked away in the first."""
    folder = tmp_path_factory.mktemp("structure")
    for name in ("photos", "masks"):
        (folder / name).mkdir()
    photos = []
    for i, pose in enumerate(room.arc(12)[[1, 3, 5, 7]]):
        file = folder / "photos" / f"{i}.png"
        Image.fromarray(room.photo(pose)).save(file)
        mask = np.full(room.SIZE[::-1], 255, np.uint8)
        mask[:, : 80 if i == 0 else 0] = 0
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png.png")
        photos.append(Photo(str(i), f"{i}.png", file, *room.SIZE, place=i))
    made = Job(
        pycolmap_or_sentence(), folder / "a.db", folder / "photos", photos, folder, True, folder / "masks", ATTEMPTS[0],
        SolveConfig(threads=1),
    )  # fmt: skip
    find_features(made)
    match(made)
    return made


def test_no_feature_is_found_behind_a_mask(job: Job):
    with job.open() as database:
        columns = {i.name: database.read_keypoints(i.image_id)[:, 0] for i in database.read_all_images()}
        assert len({i.camera_id for i in database.read_all_images()}) == 1
    assert len(columns["0.png"]) > 200 and columns["0.png"].min() > 79
    assert columns["1.png"].min() < 20
    features, matches = counts(job)
    assert features == {str(i): len(columns[f"{i}.png"]) for i in range(4)} and min(matches.values()) > 100


def test_focal_lengths_come_from_the_pairs(job: Job):
    guess_focal(job)
    with job.open() as database:
        (camera,) = database.read_all_cameras()
    assert camera.mean_focal_length() == pytest.approx(room.FOCAL, rel=0.1)


def test_what_moves_is_taken_out_of_the_matches(job: Job):
    with job.open() as database:
        sizes = {i.image_id: database.num_keypoints_for_image(i.image_id) for i in database.read_all_images()}
        before = database.num_matches()
        first = min(sizes)
        lost = sum(
            len(m) for pair, m in zip(*database.read_all_matches()) if first in job.pycolmap.pair_id_to_image_pair(pair)
        )
    moved = {key: np.full(size, key == first) for key, size in sizes.items()}
    moving.forget(job, moving.Evidence(moved, 1.0, 1.0))
    with job.open() as database:
        assert 0 < database.num_matches() == before - lost
