"""LLFF and NR-NeRF: folders of reduced photos, bounds, and a real moving hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.scene import load_scene
from tests import trees

SCENES = Path(__file__).parents[2] / "shared" / "scenes"


@pytest.mark.parametrize(
    ("have", "downscale", "size"), [((1, 2), 2, (20, 15)), ((2,), 1, (20, 15)), ((2,), 4, (10, 8)), ((1,), 1, (40, 30))]
)
def test_folders_of_reduced_photos(
    tmp_path: Path, have: tuple[int, ...], downscale: int, size: tuple[int, int]
) -> None:
    trees.write_llff(tmp_path, shrinks=have)
    camera = load_scene(tmp_path, downscale).train[0].camera
    assert (camera.width, camera.height) == size
    assert camera.fx == pytest.approx(trees.FOCAL * size[0] / 40)


def test_a_few_tiny_near_bounds_are_ignored(tmp_path: Path) -> None:
    """Photo 4 of 12 claims a near bound of 0.001; the others say 1.8."""
    trees.write_nrnerf(tmp_path)
    scene = load_scene(tmp_path)
    scale = float(scene.transform[0, 0])
    assert 0.9 * 1.0 < scene.near / scale < 1.8


def test_far_reaches_the_corners(tmp_path: Path) -> None:
    """Bounds are depths, t runs along rays: a wall at the far bound is reached in the corner too."""
    trees.write_llff(tmp_path)
    scene = load_scene(tmp_path)
    frame = scene.train[0]
    origin, direction = frame.camera.rays(torch.tensor([[0.0, 0.0]]))
    end = origin + scene.far * direction
    depth = float(frame.camera.depth(end)) / float(scene.transform[0, 0])
    assert depth == pytest.approx(1.1 * 4.2, rel=0.02)


def test_frusta_lie_in_the_box(tmp_path: Path) -> None:
    trees.write_llff(tmp_path)
    scene = load_scene(tmp_path)
    scale = float(scene.transform[0, 0])
    outside = []
    for frame in scene.train:
        origins, directions = frame.camera.rays()
        for depth in (1.8, 4.2):
            x = origins + directions * (depth * scale / (-frame.camera.pose[:, 2] @ directions.T))[:, None]
            outside.append(((x < scene.box[0]) | (x > scene.box[1])).any(-1).float().mean())
    assert np.mean(outside) < 0.01


def test_hand() -> None:
    path = SCENES / "hand"
    if not path.is_dir():
        pytest.skip(f"{path} isn't there: it is development data that the project doesn't ship")
    scene = load_scene(path, downscale=4)
    assert (len(scene.train), len(scene.test)) == (65, 21)
    assert [f.name for f in scene.test[:2]] == ["image000003.png", "image000007.png"]
    assert scene.moving and scene.interpolate_test and scene.bounded and scene.background is None
    assert scene.train[0].image.shape == (96, 128, 3)
    assert scene.train[0].camera.fx == pytest.approx(256.6095275878906 / 4)
    times = {f.warp_id: f.time for f in scene.train}
    for frame in scene.test:  # the training neighbours on both sides are there to interpolate between
        gaps = sorted(abs(t - frame.time) for t in times.values())
        assert gaps[0] == pytest.approx(1 / 85) and gaps[1] == pytest.approx(1 / 85)
        assert abs(times[frame.warp_id] - frame.time) == pytest.approx(1 / 85)
    assert scene.near < 0.1 and 0.9 < scene.box.abs().max() <= 1.001
