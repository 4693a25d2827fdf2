"""True motion of surfaces: the file that ships against its photos, written and read again, and files that can't be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import SceneError
from data.scene import Scene, load_scene
from tests import trees

SELFIE = Path(__file__).parents[1] / "data" / "selfie"


@pytest.fixture(scope="module")
def selfie() -> Scene:
    return load_scene(SELFIE, 2)


def pixels(name: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels at 1x and depths of world points in metres, by the camera file as its format defines it."""
    camera = json.loads((SELFIE / "camera" / f"{name}.json").read_text())
    local = (points - camera["position"]) @ np.array(camera["orientation"]).T
    return camera["focal_length"] * local[:, :2] / local[:, 2:] + camera["principal_point"], local[:, 2]


def in_metres(scene: Scene) -> np.ndarray:
    """Points of the scene that ships "f n 3" as its files have them."""
    record = json.loads((SELFIE / "scene.json").read_text())
    return scene.motion.points.double().numpy() / record["scale"] + record["center"]


def test_the_points_that_ship_are_where_photos_can_see_them(selfie):
    places, seen = in_metres(selfie), selfie.motion.seen.numpy()
    assert places.shape == (100, 1500, 3) and (SELFIE / "motion.npz").stat().st_size < 1.5e6
    for frame, points, shown in zip(selfie.train, places, seen):
        at, depth = pixels(frame.name, points[shown])
        assert 500 < shown.sum() < 1500 and (depth > 0.2).all() and (depth < 1.0).all()
        assert (at >= 0).all() and (at <= (384, 512)).all()
    away = np.linalg.norm(places - places[50], axis=-1)
    assert 0.005 < away.mean() < 0.02 and away.max() < 0.12
    assert np.linalg.norm(np.diff(places, axis=0), axis=-1).max() < 0.02  # nobody jumps from one instant to the next
    assert selfie.motion.parts == ("skin", "sweater") and selfie.motion.part.bincount().min() > 300
    assert selfie.motion.metre == pytest.approx(json.loads((SELFIE / "scene.json").read_text())["scale"])


def test_the_background_is_not_the_person(selfie):
    room, person = np.load(SELFIE / "points.npy"), in_metres(selfie)
    assert len(room) == 4000
    assert np.hypot(room[:, 0], room[:, 2]).min() > 0.8 > 2 * np.hypot(person[..., 0], person[..., 2]).max()


def test_points_keep_their_colour_through_the_photos(selfie):
    """A point on a moving surface shows the same paint in each photo; two pixels beside it something else. Measured: a
    spread over time of 8.8 of 255 where the file says that points are, and of 13.6 two pixels beside."""
    g = np.random.default_rng(0)
    places, seen = in_metres(selfie), selfie.motion.seen.numpy()
    photos = range(0, 100, 4)
    colours = np.full((2, len(photos), 1500, 3), np.nan)
    for row, photo in enumerate(photos):
        name, shown = selfie.train[photo].name, seen[photo]
        image = np.asarray(Image.open(SELFIE / "rgb/1x" / f"{name}.jpg")).astype(float)
        at, _ = pixels(name, places[photo, shown])
        angle = g.uniform(0, 2 * np.pi, len(at))
        for k, shift in enumerate((0.0, 2.0)):
            x, y = np.floor(at + shift * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(int).T
            colours[k, row, shown] = image[y.clip(0, 511), x.clip(0, 383)]
    often = seen[::4].sum(0) >= 8
    there, beside = np.nanstd(colours[:, :, often], axis=1).mean((1, 2))
    assert there < 0.75 * beside, (there, beside)


def write(folder: Path, **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """A file for `trees.write_nerfies`: 11 points, 23 instants, photos from the last to the first."""
    g = np.random.default_rng(1)
    fields: dict[str, np.ndarray | None] = {
        "photos": np.array([f"shot_{i:03}" for i in range(11, -1, -1)]),
        "middle": g.normal(size=(11, 3)).astype(np.float32),
        "offset": (g.normal(size=(23, 11, 3)) * 0.1).astype(np.float16),
        "seen": g.integers(0, 256, (12, 2)).astype(np.uint8),
        "part": np.array([0, 1] * 5 + [0]), "parts": np.array(["nose", "ear"]),
    }  # fmt: skip
    kept = {name: value for name, value in (fields | changes).items() if value is not None}
    np.savez(folder / "motion.npz", **kept)  # type: ignore[arg-type]
    return kept


def test_motion_is_read_for_the_training_photos_in_scene_units(tmp_path):
    trees.write_nerfies(tmp_path)
    assert load_scene(tmp_path).motion is None
    fields = write(tmp_path)
    scene = load_scene(tmp_path)
    motion = scene.motion
    assert motion is not None and motion.parts == ("nose", "ear") and motion.part.tolist() == [0, 1] * 5 + [0]
    assert motion.metre == pytest.approx(0.2) and motion.points.shape == (10, 11, 3)
    for row, frame in enumerate(scene.train):
        number = int(frame.name[-3:])  # its warp_id is twice that
        for point in range(11):
            place = fields["middle"][point].astype(float) + fields["offset"][2 * number, point]
            expected = (place - (0.1, 0, 0)) * 0.2
            np.testing.assert_allclose(motion.points[row, point].numpy(), expected, atol=1e-6)
            byte = int(fields["seen"][11 - number, point // 8])
            assert bool(motion.seen[row, point]) == bool(byte >> (7 - point % 8) & 1)
    assert 0.2 < motion.seen.float().mean() < 0.8


def test_photos_held_out_by_count_have_no_motion(tmp_path):
    trees.write_nerfies(tmp_path)
    trees.edit_json(tmp_path / "dataset.json", lambda d: d.update(train_ids=d["ids"], val_ids=[]))
    write(tmp_path)
    scene = load_scene(tmp_path, split_every=4)
    assert len(scene.motion.points) == len(scene.train) == 9
    other = load_scene(tmp_path, split_every=0).motion
    names = [frame.name for frame in load_scene(tmp_path, split_every=0).train]
    for row, frame in enumerate(scene.train):
        assert torch.equal(scene.motion.points[row], other.points[names.index(frame.name)])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seen": None}, "seen: expected an array, found nothing"),
        ({"middle": np.zeros((11, 2))}, "middle: expected nx3 numbers, found 11x2"),
        ({"offset": np.zeros((23, 10, 3))}, "offset: expected nx11x3 numbers, found 23x10x3"),
        ({"offset": np.full((23, 11, 3), np.nan)}, "offset: expected finite numbers, found nan"),
        ({"offset": np.zeros((9, 11, 3))}, "offset: expected the instant of shot_005, its warp_id 10, found 0 to 8"),
        ({"photos": np.arange(12)}, "photos: expected a list of names, found int64 of 12"),
        (
            {"photos": np.array(["shot_001"] * 12)},
            "photos: expected all training photos, shot_000 too, found 12 others",
        ),
        ({"seen": np.zeros((12, 1), np.uint8)}, "seen: expected 12x2 numbers, found 12x1"),
        ({"seen": np.full((12, 2), 0.5)}, "seen: expected whole numbers from 0 to 255, found 0.5"),
        ({"part": np.full(11, 2)}, "part: expected whole numbers from 0 to 1, found 2"),
        ({"parts": np.array("skin")}, "parts: expected a list of names, found <U4 of one"),
        ({"parts": np.array([{}], dtype=object)}, "file: expected NumPy arrays"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, changes, sentence):
    trees.write_nerfies(tmp_path)
    write(tmp_path, **changes)
    with pytest.raises(SceneError) as raised:
        load_scene(tmp_path)
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 'motion.npz'}: {sentence}") and "\n" not in said


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip", b"not a zip at all"])
def test_a_broken_file_is_one_sentence(tmp_path, content):
    trees.write_nerfies(tmp_path)
    (tmp_path / "motion.npz").write_bytes(content)
    with pytest.raises(SceneError, match=r"motion.npz: file: expected NumPy arrays photos, middle, offset, seen"):
        load_scene(tmp_path)
