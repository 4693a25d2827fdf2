"""Nerfies trees: folders of scales, ids, splits, units, and a real tree of 696 cameras."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import SceneError
from data.scene import load_scene
from tests import trees

SCENES = Path(__file__).parents[2] / "shared" / "scenes"


def test_units_are_the_files(tmp_path: Path) -> None:
    tree = trees.write_nerfies(tmp_path)
    scene = load_scene(tmp_path)
    assert (scene.near, scene.far) == (0.2, 1.0)
    frame = scene.train[4]  # shot_005
    expected = (tree.poses[5][:3, 3] - (0.1, 0, 0)) * 0.2
    assert frame.name == "shot_005" and torch.allclose(frame.camera.pose[:, 3], torch.from_numpy(expected).float())


def test_points_are_carried_along(tmp_path: Path) -> None:
    trees.write_nerfies(tmp_path)
    np.save(tmp_path / "points.npy", np.array([[0.1, 0.0, 0.0], [1.1, 0.0, -1.0]]))
    points = load_scene(tmp_path).points
    assert points is not None and torch.allclose(points, torch.tensor([[0.0, 0, 0], [0.2, 0, -0.2]]))


@pytest.mark.parametrize(
    ("have", "downscale", "folder", "size"),
    [
        ((1, 2), 1, 1, (40, 30)),
        ((1, 2), 2, 2, (20, 15)),
        ((1, 2), 4, 2, (10, 8)),
        ((1, 2), 3, 1, (13, 10)),
        ((2,), 1, 2, (20, 15)),  # coarser than asked for, rather than not at all
        ((2,), 3, 2, (13, 10)),
    ],
)
def test_folders_of_scales(
    tmp_path: Path, have: tuple[int, ...], downscale: int, folder: int, size: tuple[int, int]
) -> None:
    trees.write_nerfies(tmp_path, shrinks=have)
    for file in (tmp_path / f"rgb/{folder}x").iterdir():  # marks the folder that ought to be read
        Image.new("RGB", Image.open(file).size, (1, 2, 3)).save(file)
    frame = load_scene(tmp_path, downscale).train[0]
    assert (frame.camera.width, frame.camera.height) == size
    assert frame.camera.fx == pytest.approx(trees.FOCAL * size[0] / 40)
    assert frame.image.reshape(-1, 3).unique(dim=0).tolist() == [[1, 2, 3]]


def test_masks_of_the_same_scale(tmp_path: Path) -> None:
    trees.write_nerfies(tmp_path)
    (tmp_path / "mask" / "1x").mkdir(parents=True)
    Image.new("L", (40, 30), 255).save(tmp_path / "mask" / "1x" / "shot_004.png")
    scene = load_scene(tmp_path)
    assert [f.name for f in scene.train if f.mask is not None] == ["shot_004"]


def test_a_photos_alpha_is_a_mask_and_no_cut_out(tmp_path: Path) -> None:
    trees.write_nerfies(tmp_path)
    pixels = np.full((30, 40, 4), (10, 20, 30, 255), np.uint8)
    pixels[:, 30:, 3] = 0  # the depth sensor knew nothing there
    Image.fromarray(pixels).save(tmp_path / "rgb" / "1x" / "shot_004.png")
    scene = load_scene(tmp_path)
    frame = next(f for f in scene.train if f.name == "shot_004")
    assert not scene.masks_are_alpha and scene.background is None
    assert frame.image.reshape(-1, 3).unique(dim=0).tolist() == [[10, 20, 30]]  # nothing is painted behind it
    assert frame.mask is not None and torch.equal(frame.mask[0] > 127, torch.arange(40) < 30)


def covisible(folder: Path, scale: int, name: str, size: tuple[int, int], seen: int) -> Path:
    """Write a mask whose first `seen` columns are co-visible."""
    file = folder / "covisible" / f"{scale}x" / "val" / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[:, :seen] = 255
    Image.fromarray(pixels).save(file)
    return file


def test_covisible_masks_of_held_out_photos(tmp_path: Path) -> None:
    trees.write_nerfies(tmp_path)
    covisible(tmp_path, 1, "shot_003", (40, 30), 13)
    covisible(tmp_path, 1, "shot_004", (40, 30), 13)  # which is trained on
    scene = load_scene(tmp_path)
    assert all(f.covisible is None and f.mask is None for f in scene.train)
    first, second = scene.test
    assert first.name == "shot_003" and first.mask is None and second.covisible is None  # one file is there
    expected = torch.zeros(30, 40, dtype=torch.uint8)
    expected[:, :13] = 255
    assert first.covisible is not None and torch.equal(first.covisible, expected)


@pytest.mark.parametrize(
    ("photos", "masks", "downscale", "taken", "size", "columns"),
    [
        ((1, 2), (2,), 1, 2, (40, 30), 20),  # DyCheck's trees: masks at 2x alone, enlarged
        ((1, 2), (2,), 2, 2, (20, 15), 10),
        ((1, 2), (1, 2), 2, 2, (20, 15), 10),
        ((1,), (1, 2), 2, 2, (20, 15), 10),  # the masks are there at the size that the photos are reduced to
        ((2,), (1, 2), 1, 2, (20, 15), 10),
        ((1, 2), (2,), 4, 2, (10, 8), 5),
        ((1, 2), (4,), 1, 4, (40, 30), 20),
    ],
)
def test_covisible_masks_of_other_scales(
    tmp_path: Path,
    photos: tuple[int, ...],
    masks: tuple[int, ...],
    downscale: int,
    taken: int,
    size: tuple[int, int],
    columns: int,
) -> None:
    trees.write_nerfies(tmp_path, shrinks=photos)
    for k in masks:  # the left half in the folder that ought to be read, nothing in the others
        covisible(tmp_path, k, "shot_003", (40 // k, -(-30 // k)), 20 // k if k == taken else 0)
    mask = load_scene(tmp_path, downscale).test[0].covisible
    assert mask is not None and tuple(mask.shape) == size[::-1]
    assert (mask[:, :columns] == 255).all() and (mask[:, columns:] == 0).all()


@pytest.mark.parametrize(
    ("scale", "size", "words"),
    [
        (1, (40, 31), "size: expected 40x30 as the photo, found 40x31"),
        (1, (20, 15), "size: expected 40x30 as the photo, found 20x15"),
        (2, (40, 30), "size: expected 20x15 as the photo reduced to 2x, found 40x30"),
        (2, (22, 15), "size: expected 20x15 as the photo reduced to 2x, found 22x15"),
    ],
)
def test_covisible_masks_of_a_wrong_size(tmp_path: Path, scale: int, size: tuple[int, int], words: str) -> None:
    trees.write_nerfies(tmp_path)
    file = covisible(tmp_path, scale, "shot_007", size, 3)
    with pytest.raises(SceneError, match=re.escape(f"{file}: {words}")):
        load_scene(tmp_path)


def test_a_broken_covisible_mask_is_named(tmp_path: Path) -> None:
    trees.write_nerfies(tmp_path)
    file = covisible(tmp_path, 1, "shot_007", (40, 30), 3)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(SceneError, match=rf"{re.escape(str(file))}: image: expected a .*PNG"):
        load_scene(tmp_path)


def test_a_rig_shares_training_instants(tmp_path: Path) -> None:
    """Held-out photos of a second camera, taken at training instants: their codes are the training ones'."""
    trees.write_nerfies(tmp_path)

    def second_camera(record: dict) -> None:
        record["shot_003"]["warp_id"] = record["shot_009"]["warp_id"]
        record["shot_007"]["warp_id"] = record["shot_001"]["warp_id"]

    trees.edit_json(tmp_path / "metadata.json", second_camera)
    scene = load_scene(tmp_path)
    assert scene.moving and not scene.interpolate_test
    codes = {f.name: f.warp_id for f in scene.train}
    assert [f.warp_id for f in scene.test] == [codes["shot_009"], codes["shot_001"]]
    assert [f.time for f in scene.test] == [18 / 22, 2 / 22]


def test_without_val_ids_every_8th_is_held_out(tmp_path: Path) -> None:
    trees.write_nerfies(tmp_path)
    trees.edit_json(tmp_path / "dataset.json", lambda d: d.update(train_ids=d["ids"], val_ids=[]))
    scene = load_scene(tmp_path)
    assert [f.name for f in scene.test] == ["shot_000", "shot_008"]
    assert scene.interpolate_test and [f.warp_id for f in scene.test] == [0, 6]


def test_lens_fields(tmp_path: Path) -> None:
    trees.write_nerfies(tmp_path)
    more = {"skew": 0.5, "pixel_aspect_ratio": 1.1, "principal_point": [19, 16]}
    more |= {"radial_distortion": [0.1, 0.2, 0.3], "tangential_distortion": [0.01, 0.02]}
    trees.edit_json(tmp_path / "camera" / "shot_000.json", lambda c: c.update(more))
    camera = load_scene(tmp_path).train[0].camera
    assert (camera.skew, camera.fy, camera.cx, camera.cy) == (0.5, pytest.approx(1.1 * trees.FOCAL), 19.0, 16.0)
    assert camera.distortion == (0.1, 0.2, 0.01, 0.02, 0.3, 0.0, 0.0, 0.0)


def test_jpegs(tmp_path: Path) -> None:
    tree = trees.write_nerfies(tmp_path)
    for name in tree.names:
        file = tmp_path / f"rgb/1x/{name}.png"
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    assert len(load_scene(tmp_path).train) == 10


def test_a_real_tree(tmp_path: Path) -> None:
    """DyCheck's 696 cameras, with tiny photos made for them."""
    source = SCENES / "nerfies-format"
    if not source.is_dir():
        pytest.skip(f"{source} isn't there: it is development data that the project doesn't ship")
    for name in ("dataset.json", "metadata.json", "scene.json"):
        shutil.copy(source / name, tmp_path)
    (tmp_path / "camera").symlink_to(source / "camera")  # links that a scene's owner has placed are followed
    dataset = json.loads((source / "dataset.json").read_text())
    folder = tmp_path / "rgb" / "16x"
    folder.mkdir(parents=True)
    Image.new("RGB", (45, 60), (9, 8, 7)).save(folder / "first.png")
    for name in dataset["ids"]:
        (folder / f"{name}.png").hardlink_to(folder / "first.png")
    scene = load_scene(tmp_path)
    assert (len(scene.train), len(scene.test)) == (277, 419)
    assert scene.moving and not scene.interpolate_test
    assert (scene.near, scene.far) == (0.10891095985144743, 0.5122392056138323)
    first = scene.train[0]
    assert (first.camera.width, first.camera.height) == (45, 60)
    assert first.camera.fx == pytest.approx(719.9471435546875 / 16)
    # Its orientation is diag(1, -1, -1): our axes are the world's. Its position is 0, the centre and scale are known.
    assert torch.allclose(first.camera.pose[:, :3], torch.eye(3), atol=1e-6)
    centre = -torch.tensor([-0.20061972737312317, 0.1705830693244934, -1.1717479228973389]) * 0.2715916376300303
    assert torch.allclose(first.camera.pose[:, 3], centre, atol=1e-6)
    # The look-at point that the tree's authors found lies in the box and ahead of every training camera.
    lookat = torch.tensor([json.loads((source / "extra.json").read_text())["lookat"]])
    assert ((lookat > scene.box[0]) & (lookat < scene.box[1])).all()
    assert all(f.camera.depth(lookat) > 0 for f in scene.train)
    up = torch.tensor(json.loads((source / "extra.json").read_text())["up"])
    assert scene.up @ up > 0.9
