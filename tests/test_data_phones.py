"""Exports of Polycam and Record3D, and COLMAP models that broke into several."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from data.errors import SceneError
from data.scene import load_scene
from tests import trees


def write_polycam(path: Path, corrected: bool = True) -> trees.Tree:
    """Raw data as PolyCam/polyform describes it."""
    tree = trees.write_ngp(path / "source")
    kind = "corrected_" if corrected else ""
    cameras, images = (path / "keyframes" / f"{kind}{name}" for name in ("cameras", "images"))
    cameras.mkdir(parents=True)
    shutil.move(path / "source" / "images", images)
    shutil.rmtree(path / "source")
    for i, (name, pose) in enumerate(zip(tree.names, tree.poses)):
        time = str(99_000_000 + 500_000 * i)
        (images / f"{name}.png").rename(images / f"{time}.png")
        record = {
            "fx": trees.FOCAL,
            "fy": trees.FOCAL,
            "cx": 21.0,
            "cy": 15.0,
            "blur_score": 90.0,
            "timestamp": int(time),
        }
        record |= {"width": trees.WIDTH, "height": trees.HEIGHT}
        record |= {f"t_{row}{column}": float(pose[row, column]) for row in range(3) for column in range(4)}
        trees.write_json(cameras / f"{time}.json", record)
    trees.write_json(path / "mesh_info.json", {"alignmentTransform": np.eye(4).ravel().tolist()})
    return tree


def write_record3d(path: Path, name: str = "metadata", folder: str = "rgbd") -> trees.Tree:
    """An .r3d file, unzipped."""
    tree = trees.write_ngp(path)
    (path / "transforms.json").unlink()
    (path / folder).mkdir()
    for i, photo in enumerate(tree.names):
        with Image.open(path / "images" / f"{photo}.png") as image:
            image.convert("RGB").save(path / folder / f"{i}.jpg", quality=98)
    shutil.rmtree(path / "images")
    poses = np.stack(tree.poses)
    turns = Rotation.from_matrix(poses[:, :3, :3]).as_quat()  # x y z w
    record = {"w": trees.WIDTH, "h": trees.HEIGHT, "fps": 60, "dw": 4, "dh": 3}
    record["K"] = [trees.FOCAL, 0, 0, 0, trees.FOCAL, 0, 21.0, 15.0, 1]
    record["poses"] = np.concatenate((turns, poses[:, :3, 3]), 1).tolist()
    trees.write_json(path / name, record)
    return tree


def in_file_units(path: Path) -> tuple[list, np.ndarray]:
    """Frames in the order of their names, and their poses as the files have them."""
    scene = load_scene(path)
    frames = sorted(scene.train + scene.test, key=lambda f: f.name)
    inverse = np.linalg.inv(scene.transform.double().numpy())
    poses = np.stack([f.camera.pose.double().numpy() for f in frames])
    poses[:, :, 3] = poses[:, :, 3] @ inverse[:3, :3].T + inverse[:3, 3]
    return frames, poses


@pytest.mark.parametrize("corrected", [True, False])
def test_polycam(tmp_path: Path, corrected: bool):
    tree = write_polycam(tmp_path, corrected)
    scene = load_scene(tmp_path)
    assert scene.format == "Polycam" and len(scene.train) == 10 and not scene.moving
    found = sorted(scene.train + scene.test, key=lambda f: int(f.name))
    inverse = np.linalg.inv(scene.transform.double().numpy())
    for frame, pose in zip(found, tree.poses):
        centre = inverse[:3, :3] @ frame.camera.pose[:, 3].double().numpy() + inverse[:3, 3]
        assert np.allclose(frame.camera.pose[:, :3].numpy(), pose[:3, :3], atol=1e-5)
        assert np.allclose(centre, pose[:3, 3], atol=1e-5)
    assert (found[0].camera.fx, found[0].camera.cx, found[0].camera.cy) == (trees.FOCAL, 21.0, 15.0)


def test_polycam_prefers_corrected_photos_and_leaves_out_what_is_missing(tmp_path: Path):
    write_polycam(tmp_path)
    (tmp_path / "keyframes" / "cameras").mkdir()
    (tmp_path / "keyframes" / "images").mkdir()
    next((tmp_path / "keyframes" / "corrected_images").iterdir()).unlink()
    scene = load_scene(tmp_path)
    assert len(scene.train) + len(scene.test) == 11


@pytest.mark.parametrize(("name", "folder"), [("metadata", "rgbd"), ("metadata.json", "rgb")])
def test_record3d(tmp_path: Path, name: str, folder: str):
    tree = write_record3d(tmp_path, name, folder)
    frames, poses = in_file_units(tmp_path)
    assert load_scene(tmp_path).format == "Record3D" and len(frames) == 12
    assert np.allclose(poses, np.stack(tree.poses)[:, :3], atol=1e-5)
    assert (frames[0].camera.fy, frames[0].camera.cx, frames[0].camera.cy) == (trees.FOCAL, 21.0, 15.0)


def test_bad_exports_are_said(tmp_path: Path):
    write_record3d(tmp_path / "a")
    trees.edit_json(tmp_path / "a/metadata", lambda r: r.update(poses=[[0, 0, 0, 1, 0, 0, 0]] * 12))
    with pytest.raises(
        SceneError, match=r"metadata: poses: expected some that differ, found one and the same, as of the front"
    ):
        load_scene(tmp_path / "a")
    trees.edit_json(tmp_path / "a/metadata", lambda r: r.update(poses=[[0, 0, 0, 0, 0, 0, i] for i in range(12)]))
    with pytest.raises(SceneError, match=r"poses\[0\]: expected a quaternion of a length above 0, found 0"):
        load_scene(tmp_path / "a")
    trees.edit_json(tmp_path / "a/metadata", lambda r: r["poses"].pop())
    with pytest.raises(SceneError, match=r"rgbd: photos: expected 11, one a pose of metadata, found 12"):
        load_scene(tmp_path / "a")
    write_polycam(tmp_path / "b")
    file = next((tmp_path / "b/keyframes/corrected_cameras").iterdir())
    trees.edit_json(file, lambda r: r.pop("t_12"))
    with pytest.raises(SceneError, match=r"\.json: t_12: expected a number, found nothing"):
        load_scene(tmp_path / "b")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("root", ["sparse", "colmap/sparse"])
def test_of_several_colmap_models_the_largest_is_read(tmp_path: Path, binary: bool, root: str):
    trees.write_colmap(tmp_path / "small", count=4, binary=binary, folder=f"{root}/0")
    trees.write_colmap(tmp_path / "large", count=9, binary=binary, folder=f"{root}/0")
    shutil.copytree(tmp_path / "small", tmp_path / "both")
    shutil.copytree(tmp_path / "large" / root / "0", tmp_path / "both" / root / "1")
    shutil.copytree(tmp_path / "large" / "images", tmp_path / "both" / "images", dirs_exist_ok=True)
    scene = load_scene(tmp_path / "both")
    assert len(scene.train) + len(scene.test) == 9
    # Of equal ones, the first.
    shutil.copytree(tmp_path / "large" / root / "0", tmp_path / "both" / root / "2")
    (tmp_path / "both" / root / "2" / ("images.bin" if binary else "images.txt")).touch()
    assert len(load_scene(tmp_path / "both").train) == len(scene.train)
