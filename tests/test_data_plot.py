"""The picture of a capture: its lines are where the cameras are, and it draws any scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.camera import Camera
from data.errors import SceneError
from data.plot import _visible, box_edges, frustum, plot_scene, view_axes
from data.scene import load_scene
from tests import trees


def test_frustum_edges() -> None:
    lines = frustum(Camera(torch.eye(3, 4), 4, 2, 2.0, 2.0, 2.0, 1.0), 1.5)
    assert lines.shape == (8, 2, 3) and np.abs(lines[:4, 0]).max() == 0
    assert np.allclose(lines[:4, 1], np.array([[-1, 0.5, -1], [1, 0.5, -1], [1, -0.5, -1], [-1, -0.5, -1]]))
    assert np.allclose(lines[4:, 0], lines[:4, 1]) and np.allclose(lines[4:, 1], np.roll(lines[:4, 1], -1, 0))


def test_box_edges() -> None:
    lines = box_edges(np.array([[0.0, 0, 0], [1.0, 2, 3]]))
    lengths = np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1)
    assert sorted(lengths.tolist()) == [1.0] * 4 + [2.0] * 4 + [3.0] * 4


def test_view_axes_stand_behind_the_cameras(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path)
    scene = load_scene(tmp_path)
    axes = view_axes(scene)
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-6) and np.linalg.det(axes) == pytest.approx(1)
    mean = torch.stack([f.camera.pose[:, 3] for f in scene.train]).mean(0).double().numpy()
    assert axes[1] @ mean < 0 and axes[2] @ scene.up.double().numpy() == pytest.approx(1)


def test_points_that_a_lens_folds_back_are_left_out(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path, k1=-0.3)
    frame = load_scene(tmp_path).train[0]
    pose = frame.camera.pose.double().numpy()
    local = np.array([[0.1, 0.0, -1.0], [1.7, 0.0, -1.0], [0.0, 0.0, 1.0]])  # seen; 1.7 (1 - 0.3 1.7^2) = 0.23; behind
    pixels = _visible(frame, local @ pose[:, :3].T + pose[:, 3])
    assert np.isnan(pixels).all(0).tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["blender", "nerfies"])
def test_draws(name: str, tmp_path: Path) -> None:
    trees.WRITERS[name](tmp_path)
    plot_scene(load_scene(tmp_path), tmp_path / "out.png")
    pixels = np.asarray(Image.open(tmp_path / "out.png").convert("L"))
    assert pixels.shape[0] > 800 and (pixels < 200).mean() > 0.005


def test_one_camera(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path, count=2)
    plot_scene(load_scene(tmp_path), tmp_path / "out.svg")
    assert "<svg" in (tmp_path / "out.svg").read_text()


def test_a_file_that_cant_be_written(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path, count=2)
    scene = load_scene(tmp_path)
    for file in (tmp_path / "out.xyz", tmp_path / "nowhere" / "out.png"):
        with pytest.raises(SceneError, match="plot: expected a file that can be written"):
            plot_scene(scene, file)
