"""Depth maps: of a ball, along the optical axis, in the file's units, in files that open again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from data.camera import Camera
from nerf.depths import UNIT, write_depth, z_depth
from nerf.picture import Picture
from nerf.rig import Photo
from nerf.surface import MeshError
from tests.solids import Solid, model_of
from tests.tiny import look_at

CAMERA = Camera(look_at((2.5, 0.0, 0.0)), 48, 36, 50.0, 50.0, 24.0, 18.0)


def test_a_wall_across_the_axis_has_one_depth():
    _, directions = CAMERA.rays(None)
    along = 2.0 / -directions[:, 0]  # the wall x = 0.5
    picture = Picture(torch.zeros(36, 48, 3), along.view(36, 48), torch.ones(36, 48))
    assert picture.depth.max() > 2.1
    torch.testing.assert_close(z_depth(CAMERA, picture, 0.5), torch.full((36, 48), 2.0))
    assert (z_depth(CAMERA, picture._replace(opacity=torch.full((36, 48), 0.4)), 0.5) == 0).all()


def test_a_balls_depth_is_written_in_the_files_units(tmp_path):
    model, _ = model_of(Solid())
    path = write_depth(model, Photo("./test/r_0.png", CAMERA, 0.5, True), CAMERA, 0.5, 0.25, 0.5, tmp_path / "new")
    assert path == tmp_path / "new" / "test_r_0.tiff"
    assert sorted(p.name for p in path.parent.iterdir()) == ["test_r_0.png", "test_r_0.tiff"]
    with Image.open(path) as opened:
        found, said = np.asarray(opened), opened.tag_v2[270]
    assert found.dtype == np.float32 and found.shape == (36, 48) and said == UNIT
    origins, directions = CAMERA.rays(None)
    b = (origins * directions).sum(1)
    under = b * b - (2.5**2 - 0.52**2)  # light ends a little above the ball of radius 0.5
    depth = ((-b - under.clamp_min(0).sqrt()) * -directions[:, 0] / 0.25).view(36, 48).numpy()
    inner = (under > 0.1).view(36, 48).numpy()
    assert np.abs(found - depth)[inner].max() < 0.1
    assert (found[(under < -0.3).view(36, 48).numpy()] == 0).all()
    assert np.asarray(Image.open(path.with_suffix(".png"))).shape == (36, 48, 3)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    model, _ = model_of(Solid())
    (tmp_path / "a.tiff").mkdir()
    with pytest.raises(MeshError, match=r"a\.tiff: expected a place that can be written"):
        write_depth(model, Photo("a", CAMERA, 0.5, True), CAMERA, 0.5, 1.0, 0.5, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.tiff"]
