"""nerf.localize against pictures in closed form: a ray tracer's, of textured balls, from cameras that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.camera import Camera
from nerf.kernels.space import Space
from nerf.localize import lay_over
from nerf.picture import Picture
from tests import textured

SPACE = Space((0.0, 0.0, 0.0), 1.0, False)
LENS = (0.05, -0.02, 0.001, 0.002, 0.0, 0.0, 0.0, 0.0)


def traced(camera: Camera, brighter: float = 0.0) -> Picture:
    """What `camera` sees, exactly; distance from the eye, which is 0 before the background."""
    origins, directions = camera.rays(camera.pixel_centres().double())
    rgb, distance = textured.seen(origins.numpy(), directions.numpy())
    shape, hit = (camera.height, camera.width), np.isfinite(distance)
    return Picture(
        torch.from_numpy(rgb + brighter).float().view(*shape, 3),
        torch.from_numpy(np.where(hit, distance, 0)).float().view(shape),
        torch.from_numpy(hit).float().view(shape),
    )


def photographed(camera: Camera) -> torch.Tensor:
    """Its photo, "h w 3" in bytes: 3 x 3 rays a pixel."""
    wide = traced(camera.scaled(3, 3 * camera.width, 3 * camera.height)).rgb
    blocks = wide.view(camera.height, 3, camera.width, 3, 3).mean((1, 3))
    return (blocks * 255).round().to(torch.uint8)


def cameras(count: int, width: int, height: int, distortion=(0.0,) * 8) -> list[Camera]:
    focal = 0.9 * max(width, height)
    return [
        Camera(
            torch.from_numpy(pose).float(), width, height, focal, focal, width / 2, height / 2, distortion=distortion
        )
        for pose in textured.poses(count)
    ]


def apart(a: Camera, b: Camera) -> tuple[float, float]:
    """Degrees and scene units."""
    cosine = float((torch.trace(a.pose[:, :3].double().T @ b.pose[:, :3].double()) - 1) / 2)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), float((a.pose[:, 3] - b.pose[:, 3]).norm())


@pytest.mark.parametrize("distortion", [(0.0,) * 8, LENS], ids=["pinhole", "lens"])
def test_cameras_are_found_from_two_degrees_and_two_percent(distortion):
    given = cameras(6, 180, 140, distortion)
    shaken = textured.shaken(torch.stack([camera.pose for camera in given]), 2.0, 0.02)
    for camera, pose in zip(given, shaken):
        start = camera.with_pose(pose)
        assert apart(start, camera) == pytest.approx((2.0, 0.02), rel=1e-2)
        found = lay_over(traced, start, photographed(camera), None, SPACE)
        degrees, units = apart(found, camera)
        assert degrees < 0.1 and units < 0.004, (degrees, units)
        assert found.distortion == distortion and (found.width, found.fx) == (start.width, start.fx)


def test_a_camera_that_is_right_stays():
    (camera, *_) = cameras(3, 120, 160)
    degrees, units = apart(lay_over(traced, camera, photographed(camera), None, SPACE), camera)
    assert degrees < 0.05 and units < 0.002


def test_what_a_mask_excludes_does_not_count():
    """Half of the photo shows something else."""
    camera = cameras(3, 160, 160)[1]
    (pose,) = textured.shaken(camera.pose[None], 2.0, 0.02)
    photo, mask = photographed(camera), torch.full((160, 160), 255, dtype=torch.uint8)
    photo[:, :80] = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (160, 80, 3), dtype=np.uint8))
    mask[:, :80] = 0
    start = camera.with_pose(pose)
    honoured = apart(lay_over(traced, start, photo, mask, SPACE), camera)
    assert honoured[0] < 0.2 and honoured[1] < 0.008, honoured


def test_a_picture_without_anything_leaves_the_camera_alone():
    camera = cameras(3, 64, 64)[0]

    def nothing(at: Camera) -> Picture:
        blank = torch.zeros(at.height, at.width)
        return Picture(torch.ones(at.height, at.width, 3), blank, blank)

    photo = torch.full((64, 64, 3), 255, dtype=torch.uint8)
    assert apart(lay_over(nothing, camera, photo, None, SPACE), camera) == (pytest.approx(0, abs=1e-2), 0)


def test_small_pictures_and_exposures_that_differ_are_no_trap():
    camera = cameras(3, 48, 40)[2]
    (pose,) = textured.shaken(camera.pose[None], 1.0, 0.01)
    found = lay_over(lambda at: traced(at, 0.03), camera.with_pose(pose), photographed(camera), None, SPACE)
    degrees, units = apart(found, camera)
    assert degrees < 0.3 and units < 0.01, (degrees, units)
