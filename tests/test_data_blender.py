"""transforms*.json: what its fields mean, in the dialects of Blender, instant-ngp and nerfstudio."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import blender
from data.images import border, plain_background
from data.scene import Scene, load_scene
from tests import trees

SCENES = Path(__file__).parents[2] / "shared" / "scenes"


def edit(path: Path, change) -> Scene:
    trees.edit_json(path / "transforms.json", change)
    return load_scene(path)


def test_lens_of_the_file_and_of_frames(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path, k1=0.1, p2=0.02, k3=0.3)

    def change(record: dict) -> None:
        record["frames"][0].update(fl_x=50.0, k1=-0.1)
        record["frames"][0].pop("camera_model", None)

    scene = edit(tmp_path, change)
    cameras = {f.name: f.camera for f in scene.train + scene.test}
    own = cameras["images/shot_011.png"]  # the file lists photos backwards
    assert (own.fx, own.fy) == (50.0, trees.FOCAL)
    assert own.distortion == (-0.1, 0.0, 0.0, 0.02, 0.3, 0.0, 0.0, 0.0)
    assert cameras["images/shot_003.png"].distortion == (0.1, 0.0, 0.0, 0.02, 0.3, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("mark", [{"is_fisheye": True}, {"camera_model": "OPENCV_FISHEYE"}])
def test_fisheye(tmp_path: Path, mark: dict) -> None:
    trees.write_ngp(tmp_path, k1=0.1, k2=0.2, k3=0.3, k4=0.4, p1=9.0, **mark)
    camera = load_scene(tmp_path).train[0].camera
    assert camera.model == "fisheye" and camera.distortion == (0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0)


def test_pinhole_has_no_distortion(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path, k1=0.1, camera_model="PINHOLE")
    assert not load_scene(tmp_path).train[0].camera.distorted


def test_angles_of_view_and_missing_sizes(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path)

    def change(record: dict) -> None:
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            del record[key]
        record.update(camera_angle_x=2 * math.atan(20 / 33), camera_angle_y=2 * math.atan(15 / 31))

    camera = edit(tmp_path, change).train[0].camera
    assert (camera.fx, camera.fy) == (pytest.approx(33), pytest.approx(31))
    assert (camera.cx, camera.cy, camera.width, camera.height) == (20, 15, 40, 30)


@pytest.mark.parametrize("more", [{}, {"scale": 0.5, "offset": [0.5, 0.4, 0.7]}])
def test_box_of_instant_ngp(tmp_path: Path, more: dict) -> None:
    """x scale + offset must lie in the cube of side aabb_scale around 0.5: here, by its corners."""
    trees.write_ngp(tmp_path, aabb_scale=2)
    scene = edit(tmp_path, lambda record: record.update(more))
    assert scene.box.tolist() == [[-1.0] * 3, [1.0] * 3] and scene.bounded and scene.background is None
    inverse = torch.linalg.inv(scene.transform.double())
    corners = scene.box.double() @ inverse[:3, :3].T + inverse[:3, 3]
    in_cube = corners * more.get("scale", 0.33) + torch.tensor(more.get("offset", [0.5] * 3))
    assert torch.allclose(in_cube, torch.tensor([[-0.5] * 3, [1.5] * 3], dtype=torch.float64), atol=1e-5)


def test_photos_that_are_missing_are_skipped_with_one_warning(tmp_path: Path) -> None:
    tree = trees.write_ngp(tmp_path)
    for i in (0, 5, 6):
        (tmp_path / "images" / f"{tree.names[i]}.png").unlink()
    with pytest.warns(UserWarning) as caught:
        scene = load_scene(tmp_path)
    assert len(caught) == 1 and "3 of 12 photos are missing and skipped (images/shot_00" in str(caught[0].message)
    assert [f.name[-7:-4] for f in scene.test] == ["001", "011"]  # every 8th of those that are there


def test_names_without_extensions_and_with_backslashes(tmp_path: Path) -> None:
    tree = trees.write_ngp(tmp_path)
    for name in tree.names[:6]:
        Image.open(tmp_path / f"images/{name}.png").convert("RGB").save(tmp_path / f"images/{name}.jpeg")
        (tmp_path / f"images/{name}.png").unlink()

    def change(record: dict) -> None:
        for frame in record["frames"]:
            frame["file_path"] = frame["file_path"].removesuffix(".png").replace("/", "\\")

    assert len(edit(tmp_path, change).train) == 10


def test_val_stands_in_for_test_only(tmp_path: Path) -> None:
    trees.write_blender(tmp_path)
    (tmp_path / "transforms_test.json").rename(tmp_path / "transforms_val.json")
    assert len(load_scene(tmp_path).test) == 2
    (tmp_path / "transforms_test.json").write_text((tmp_path / "transforms_train.json").read_text())
    assert len(load_scene(tmp_path).test) == 10
    (tmp_path / "transforms_test.json").unlink()
    (tmp_path / "transforms_val.json").unlink()
    scene = load_scene(tmp_path)
    assert [f.name for f in scene.test] == ["./photos/shot_001", "./photos/shot_010"]


def test_cut_outs(tmp_path: Path) -> None:
    trees.write_blender(tmp_path)
    scene = load_scene(tmp_path)
    frame = scene.train[0]
    assert scene.background == (1.0, 1.0, 1.0) and scene.masks_are_alpha and frame.mask is not None
    assert set(frame.mask.unique().tolist()) == {0, 255}
    assert (frame.image[frame.mask == 0] == 255).all()
    assert scene.box.tolist() == [[-1.5] * 3, [1.5] * 3] and torch.equal(scene.transform, torch.eye(4))


@pytest.mark.parametrize("paint", [(255, 255, 255), (12, 90, 33)])
def test_one_colour_all_along_the_edges_is_a_background(tmp_path: Path, paint: tuple[int, int, int]) -> None:
    """A Blender scene whose photos were put on a colour before they were given to us: bounded as with its alpha."""
    tree = trees.write_blender(tmp_path)
    expected = load_scene(tmp_path)
    for name in tree.names:
        file = tmp_path / f"photos/{name}.png"
        behind = Image.new("RGBA", (trees.WIDTH, trees.HEIGHT), (*paint, 255))
        Image.alpha_composite(behind, Image.open(file)).convert("RGB").save(file)
    scene = load_scene(tmp_path)
    assert scene.background == pytest.approx([c / 255 for c in paint]) and scene.bounded
    assert not scene.masks_are_alpha and all(f.mask is None for f in scene.train + scene.test)
    assert torch.equal(scene.box, expected.box) and (scene.near, scene.far) == (expected.near, expected.far)


@pytest.mark.parametrize("share, plain", [(0.02, True), (0.1, False)])
def test_edges_that_an_object_crosses_are_no_background(share: float, plain: bool) -> None:
    photos = [np.full((20, 30, 3), 200, np.uint8) for _ in range(5)]
    photos[0][0, :: round(1 / (5 * share) / 3)] = 10  # the top row is 30 of a photo's 96 border pixels
    for photo in photos:
        photo[5:15, 5:25] = 60  # inside, nothing matters
        photo[-1] += np.arange(30, dtype=np.uint8)[:, None] % 3  # noise
    assert (plain_background([border(photo) for photo in photos]) == (200, 200, 200)) == plain
    assert plain_background([border(p) for p in (*photos[1:], np.zeros((20, 30, 3), np.uint8))]) is None


def test_opaque_alpha_is_no_mask(tmp_path: Path) -> None:
    tree = trees.write_ngp(tmp_path)
    for name in tree.names:
        file = tmp_path / f"images/{name}.png"
        Image.open(file).convert("RGBA").save(file)
    scene = load_scene(tmp_path)
    assert scene.train[0].mask is None and scene.background is None and not scene.masks_are_alpha


def test_masks_in_files(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path)
    Image.fromarray(np.eye(30, 40, dtype=np.uint8) * 255).save(tmp_path / "m.png")
    scene = edit(tmp_path, lambda r: r["frames"][5].update(mask_path="m.png"))
    masked = [f for f in scene.train + scene.test if f.mask is not None]
    assert [f.name for f in masked] == ["images/shot_006.png"]
    assert masked[0].mask is not None and torch.equal(masked[0].mask, torch.eye(30, 40, dtype=torch.uint8) * 255)
    assert not scene.masks_are_alpha and scene.background is None


def test_times_make_a_moving_scene(tmp_path: Path) -> None:
    trees.write_blender(tmp_path)
    for file in ("transforms_train.json", "transforms_test.json"):
        first = 0.05 if "test" in file else 0.0

        def change(record: dict, first: float = first) -> None:
            for i, frame in enumerate(record["frames"]):
                frame["time"] = first + 0.1 * i

        trees.edit_json(tmp_path / file, change)
    scene = load_scene(tmp_path)
    assert scene.moving and scene.interpolate_test
    assert [f.time for f in scene.train] == pytest.approx([0.1 * i / 0.9 for i in range(10)])
    assert [f.time for f in scene.test] == pytest.approx([0.05 / 0.9, 0.15 / 0.9])
    assert [f.warp_id for f in scene.train] == list(range(10))


def test_resized_photos_take_their_lens_along(tmp_path: Path) -> None:
    tree = trees.write_ngp(tmp_path)
    for name in tree.names:
        file = tmp_path / f"images/{name}.png"
        Image.open(file).reduce(4).save(file)  # 30 / 4 isn't whole: 8 rows
    camera = load_scene(tmp_path).train[0].camera
    assert (camera.width, camera.height) == (10, 8)
    assert camera.fx == pytest.approx(trees.FOCAL / 4) and camera.cy == pytest.approx(4)


def test_a_scaled_rotation_is_normalised(tmp_path: Path) -> None:
    tree = trees.write_ngp(tmp_path)

    def change(record: dict) -> None:
        for frame in record["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, :3] *= 2.5
            frame["transform_matrix"] = matrix.tolist()

    frame = edit(tmp_path, change).test[0]
    assert torch.allclose(frame.camera.pose[:, :3], torch.from_numpy(tree.poses[0][:3, :3]).float(), atol=1e-6)


def needs(name: str) -> Path:
    if not (SCENES / name).is_dir():
        pytest.skip(f"{SCENES / name} isn't there: it is development data that the project doesn't ship")
    return SCENES / name


def test_lego(tmp_path: Path) -> None:
    path = needs("lego")
    shots = blender.read(path).shots
    assert [sum(s.test == t for s in shots) for t in (False, True)] == [100, 25]
    for folder in ("train", "test"):  # a part of it: decoding all takes seconds
        (tmp_path / folder).symlink_to(path / folder)
        record = json.loads((path / f"transforms_{folder}.json").read_text())
        trees.write_json(tmp_path / f"transforms_{folder}.json", {**record, "frames": record["frames"][::7]})
    scene = load_scene(tmp_path, downscale=4)
    assert all(f.image.shape == (200, 200, 3) for f in scene.train + scene.test)
    assert scene.box.tolist() == [[-1.5] * 3, [1.5] * 3] and scene.bounded and scene.background == (1.0, 1.0, 1.0)
    assert scene.train[0].camera.fx == pytest.approx(0.5 * 200 / math.tan(0.5 * 0.6911112070083618))
    # Premultiplied averages of the file itself, composited on white.
    rgba = np.asarray(Image.open(path / "train" / "r_7.png")).astype(float) / 255
    colour, opacity = rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]
    blocks = [a.reshape(200, 4, 200, 4, -1).mean((1, 3)) for a in (colour, opacity)]
    expected = 255 * (blocks[0] + 1 - blocks[1])
    frame = next(f for f in scene.train if f.name == "./train/r_7")
    assert np.abs(frame.image.numpy() - expected).max() <= 0.502
    # Every opaque pixel's ray meets the box.
    origins, directions = frame.camera.rays()
    t = (scene.box[:, None] - origins) / directions
    enter, leave = t.amin(0).amax(-1), t.amax(0).amin(-1)
    assert frame.mask is not None and (leave > enter)[frame.mask.reshape(-1) > 0].all()
    assert scene.near <= enter[leave > enter].min() and scene.far >= leave[leave > enter].max()


def test_fox() -> None:
    path = needs("fox")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = load_scene(path, downscale=8)
    assert [str(w.message).split(": ")[1].split(" (")[0] for w in caught] == ["17 of 67 photos are missing and skipped"]
    assert (len(scene.train), len(scene.test)) == (43, 7)
    names = sorted(p.name for p in (path / "images").iterdir())
    assert [f.name for f in scene.test] == [f"images/{n}" for n in names[::8]]
    camera = scene.train[0].camera
    assert camera.distortion[:4] == (0.0578421, -0.0805099, -0.000980296, 0.00015575)
    assert (camera.width, camera.height) == (135, 240) and camera.fx == pytest.approx(1375.52 / 8)
    assert scene.box.tolist() == [[-1.0] * 3, [1.0] * 3] and not scene.moving
