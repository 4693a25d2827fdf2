"""COLMAP models: every supported lens, both encodings, every place where they are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.scene import load_scene
from tests import trees

LENSES = {  # parameters in COLMAP's order, then fx fy cx cy and our coefficients
    "SIMPLE_PINHOLE": ((36, 19, 16), (36, 36, 19, 16), "opencv", ()),
    "PINHOLE": ((36, 35, 19, 16), (36, 35, 19, 16), "opencv", ()),
    "SIMPLE_RADIAL": ((36, 19, 16, 0.1), (36, 36, 19, 16), "opencv", (0.1,)),
    "RADIAL": ((36, 19, 16, 0.1, 0.2), (36, 36, 19, 16), "opencv", (0.1, 0.2)),
    "OPENCV": ((36, 35, 19, 16, 0.1, 0.2, 0.3, 0.4), (36, 35, 19, 16), "opencv", (0.1, 0.2, 0.3, 0.4)),
    "OPENCV_FISHEYE": ((36, 35, 19, 16, 0.1, 0.2, 0.3, 0.4), (36, 35, 19, 16), "fisheye", (0.1, 0.2, 0.3, 0.4)),
    "FULL_OPENCV": (
        (36, 35, 19, 16, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        (36, 35, 19, 16),
        "opencv",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    ),
    "SIMPLE_RADIAL_FISHEYE": ((36, 19, 16, 0.1), (36, 36, 19, 16), "fisheye", (0.1,)),
    "RADIAL_FISHEYE": ((36, 19, 16, 0.1, 0.2), (36, 36, 19, 16), "fisheye", (0.1, 0.2)),
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", LENSES)
def test_lenses(tmp_path: Path, name: str, binary: bool) -> None:
    values, inside, model, lens = LENSES[name]
    trees.write_colmap(tmp_path, count=4, binary=binary, model=name, lens=values)
    camera = load_scene(tmp_path).train[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == inside and camera.model == model
    assert camera.distortion == tuple(lens) + (0.0,) * (8 - len(lens))


@pytest.mark.parametrize("folder", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_places(tmp_path: Path, folder: str) -> None:
    trees.write_colmap(tmp_path, count=4, folder=folder)
    scene = load_scene(tmp_path)
    assert scene.format == "COLMAP" and len(scene.train) == 3
    assert [f.name for f in scene.test] == ["left/shot_000.png"]


def test_points_and_depths(tmp_path: Path) -> None:
    trees.write_colmap(tmp_path)
    scene = load_scene(tmp_path)
    assert scene.points is not None
    inverse = torch.linalg.inv(scene.transform)
    points = scene.points @ inverse[:3, :3].T + inverse[:3, 3]
    assert np.abs(points.numpy() - trees.surface_points(1.0)).max() < 1e-5
    # The nearest point is about 2.2 units from a camera, the farthest 4; the rules leave a factor of two.
    scale = float(scene.transform[0, 0])
    assert 0.9 < scene.near / scale < 1.4 and 7 < scene.far / scale < 9


def test_a_model_without_points(tmp_path: Path) -> None:
    trees.write_colmap(tmp_path)
    (tmp_path / "sparse/0/points3D.bin").unlink()
    scene = load_scene(tmp_path)
    assert scene.points is None and 0 < scene.near < 0.1 < 2 < scene.far


def test_masks(tmp_path: Path) -> None:
    trees.write_colmap(tmp_path)
    (tmp_path / "masks" / "left").mkdir(parents=True)
    Image.new("L", (40, 30), 255).save(tmp_path / "masks/left/shot_004.png.png")
    Image.new("L", (40, 30), 255).save(tmp_path / "masks/left/shot_005.png")
    masked = [f.name for f in load_scene(tmp_path).train if f.mask is not None]
    assert masked == ["left/shot_004.png", "left/shot_005.png"]


def test_reduced_photos_with_another_extension(tmp_path: Path) -> None:
    tree = trees.write_colmap(tmp_path)
    (tmp_path / "images_2" / "left").mkdir(parents=True)
    for name in tree.names:
        Image.new("RGB", (20, 15), (5, 5, 5)).save(tmp_path / "images_2" / f"{name.removesuffix('.png')}.jpg")
    frame = load_scene(tmp_path, downscale=2).train[0]
    assert (frame.camera.width, frame.camera.fx) == (20, trees.FOCAL / 2) and frame.image.float().mean() < 10


def test_other_formats_come_first(tmp_path: Path) -> None:
    """A folder often keeps the COLMAP model from which its transforms.json was made."""
    trees.write_colmap(tmp_path)
    trees.write_ngp(tmp_path)
    assert load_scene(tmp_path).format == "transforms.json"
