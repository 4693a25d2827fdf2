"""Corrections of camera poses: motions of rays against matrices, what they must not change, and their gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.camera import Camera
from nerf.config import ConfigError
from nerf.kernels.space import Space
from nerf.poses import DAMPING, DEPTHS, GRID, PoseRefinement, move, move_poses, whitening
from nerf.presets import posed, preset
from nerf.rays import PixelSampler
from tests import textured, tiny

SPACE = Space((0.1, -0.2, 0.3), 1.5, False)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cross_matrix(r: torch.Tensor) -> torch.Tensor:
    x, y, z = r.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=r.dtype)


def cameras(count: int = 5) -> list[Camera]:
    return [frame.camera for frame in tiny.scene(count).train]


def learned(count: int = 5, scale: float = 0.1) -> PoseRefinement:
    """One that has learned something, in float64."""
    poses = PoseRefinement(count, SPACE)
    poses.place(cameras(count))
    poses = poses.double()
    with torch.no_grad():
        poses.table.copy_(torch.randn(count, 6, generator=generator(), dtype=torch.float64) * scale)
    return poses


def test_rays_stay_as_they_are_at_the_start():
    poses = PoseRefinement(5, SPACE)
    poses.place(cameras())
    origins, directions = torch.randn(2, 40, 3, generator=generator())
    moved, turned = poses(torch.arange(40) % 5, origins, directions)
    assert torch.equal(moved, origins) and torch.equal(turned, directions)
    assert poses.moved() == (0, 0)


def test_a_quarter_turn_and_a_step():
    origins, directions = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.6, 0.0, 0.8]])
    twist = torch.tensor([[0.0, 0.0, np.pi / 2, 0.1, 0.2, -0.3]])
    moved, turned = move(origins, directions, twist, 2.0)
    torch.testing.assert_close(moved, torch.tensor([[1.2, 2.4, 2.4]]))
    torch.testing.assert_close(turned, torch.tensor([[0.0, 0.6, 0.8]]))


def test_directions_turn_by_the_matrix_exponential_and_keep_their_length():
    draw = generator(1)
    twist = torch.randn(30, 6, generator=draw, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(30, 3, generator=draw, dtype=torch.float64), dim=1)
    _, turned = move(torch.zeros_like(directions), directions, twist, 1.0)
    for row, d, found in zip(twist, directions, turned):
        torch.testing.assert_close(found, torch.linalg.matrix_exp(cross_matrix(row[:3])) @ d)
    torch.testing.assert_close(turned.norm(dim=1), torch.ones(30, dtype=torch.float64))


def test_a_moved_pose_has_the_moved_rays():
    camera = cameras()[2]
    twist = torch.tensor([[0.1, -0.2, 0.3, 0.4, 0.5, -0.6]])
    other = camera.with_pose(move_poses(camera.pose[None], twist, 1.5)[0])
    origins, directions = camera.rays()
    expected = move(origins, directions, twist.expand(len(origins), 6), 1.5)
    for found, wanted in zip(other.rays(), expected):
        torch.testing.assert_close(found, wanted)


def test_photos_rays_move_with_their_own_twist():
    poses, given = learned(), cameras()
    after = poses.cameras(given)
    for k, (camera, other) in enumerate(zip(given, after)):
        origins, directions = (part.double() for part in camera.rays())
        found = poses(torch.full((len(origins),), k), origins, directions)
        for part, wanted in zip(found, other.rays()):
            torch.testing.assert_close(part.float(), wanted, atol=1e-5, rtol=0)
        assert other.fx == camera.fx and not torch.allclose(other.pose, camera.pose, atol=1e-3)
    angles = [np.degrees(np.linalg.norm(r)) for r in poses.twists[:, :3].detach().numpy()]
    steps = [np.linalg.norm(v) for v in poses.twists[:, 3:].detach().numpy()]
    assert poses.moved() == pytest.approx((np.mean(angles), np.mean(steps)))


def test_the_cameras_as_a_whole_stay():
    poses = learned()
    given = np.stack([camera.pose.double().numpy() for camera in cameras()])
    after = np.stack([camera.pose.double().numpy() for camera in poses.cameras(cameras())])
    # The similarity without a turn that lays the given eyes over the refined ones best: no step, and scale 1.
    before, now = given[:, :, 3], after[:, :, 3]
    assert np.allclose(now.mean(0), before.mean(0), atol=1e-6)
    arms = before - before.mean(0)
    assert (arms * (now - now.mean(0))).sum() / (arms**2).sum() == pytest.approx(1, abs=1e-6)
    assert np.abs(poses.twists[:, :3].detach().numpy().mean(0)).max() < 1e-12
    assert np.abs(now - before).max() > 0.02


def test_what_all_photos_have_in_common_is_no_correction():
    poses, eyes = learned(), torch.stack([camera.pose[:, 3] for camera in cameras()]).double()
    turn, step = torch.tensor([0.1, -0.2, 0.05]).double(), torch.tensor([0.3, 0.1, -0.2]).double()
    twists = torch.cat([turn.expand(5, 3), step + 0.1 * (eyes - eyes.mean(0))], dim=1)
    with torch.no_grad():
        poses.table.copy_(torch.linalg.solve(poses.whitening, twists))
    assert poses.twists.abs().max() < 1e-6  # the eyes are rounded to float32


def test_gradients_are_those_of_finite_differences():
    draw = generator(2)
    origins, directions, twist = (torch.randn(7, n, generator=draw, dtype=torch.float64) for n in (3, 3, 6))
    inputs = [part.requires_grad_() for part in (origins, directions, twist)]
    assert torch.autograd.gradcheck(lambda o, d, t: move(o, d, t, 1.7), inputs)
    still = torch.zeros(7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: move(origins.detach(), directions.detach(), t, 1.7), [still])
    poses, photo = learned(), torch.tensor([0, 4, 4, 1, 2, 3, 0])

    def through(table):
        return torch.func.functional_call(poses, {"table": table}, (photo, origins.detach(), directions.detach()))

    assert torch.autograd.gradcheck(through, [poses.table.detach().clone().requires_grad_()])


def test_gradients_at_no_rotation_are_finite_and_right():
    directions = torch.nn.functional.normalize(torch.randn(9, 3, generator=generator(3)), dim=1)
    twist = torch.zeros(9, 6, requires_grad=True)
    pull = torch.randn(9, 3, generator=generator(4))
    _, turned = move(torch.zeros(9, 3), directions, twist, 1.0)
    (turned * pull).sum().backward()
    expected = torch.linalg.cross(directions, pull)  # d (r x d) . p / dr
    torch.testing.assert_close(twist.grad[:, :3], expected)
    assert torch.isfinite(twist.grad).all() and not twist.grad[:, 3:].any()


def seen(camera: Camera, twist: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit directions, in camera axes, to points from a camera that was moved."""
    pose = camera.pose.double().numpy()
    turn = torch.linalg.matrix_exp(cross_matrix(torch.from_numpy(twist[:3]))).numpy()
    local = (points - pose[:, 3] - SPACE.half * twist[3:]) @ (turn @ pose[:, :3])
    return local / np.linalg.norm(local, axis=1, keepdims=True)


def test_whitened_numbers_turn_what_a_photo_shows_alike():
    camera = cameras()[1]
    origins, n = (part.double().numpy() for part in camera.rays())
    u = (np.arange(GRID) + 0.5) / GRID
    pixels = np.stack(np.meshgrid(u * camera.width, u * camera.height), -1).reshape(-1, 2)
    origins, n = camera.rays(torch.from_numpy(pixels))
    reach = np.linalg.norm(origins[0].numpy() - SPACE.center)
    sigma = np.zeros((6, 6))
    for share in np.linspace(0.5, 1.5, DEPTHS):
        points, slopes = (origins + share * reach * n).numpy(), []
        for k in range(6):
            step = 1e-5 * np.eye(6)[k]
            slopes.append((seen(camera, step, points) - seen(camera, -step, points)) / 2e-5)
        jacobian = np.stack(slopes, axis=-1)  # points, 3, 6
        sigma += np.einsum("pci,pcj->ij", jacobian, jacobian) / len(points) / DEPTHS
    damped = sigma + DAMPING * np.diag(np.diag(sigma))
    w = whitening(camera, SPACE).numpy()
    assert np.allclose(w @ damped @ w, np.eye(6), atol=1e-6)
    assert np.linalg.cond(w @ sigma @ w) < np.linalg.cond(sigma) / 3


def test_rays_know_their_photo():
    mask = (torch.rand(6, 8, generator=generator()) < 0.4).to(torch.uint8) * 255
    numbers = [2, 0, 1]  # a colour's last channel names the photo
    frames = [tiny.frame(2, 10, 9), tiny.frame(0, mask=mask), tiny.frame(1, 5, 12)]
    frames[2] = replace(frames[2], warp_id=0)  # two photos of one instant
    for cut_out in (False, True):
        batch = PixelSampler(frames, cut_out).sample(400, generator())
        named = (batch.rgb[:, 2] * 255).round().int().tolist()
        assert [numbers[k] for k in batch.photo.tolist()] == named and set(named) == {0, 1, 2}
        assert batch.instant.tolist() == [frames[k].warp_id for k in batch.photo.tolist()]


def test_one_photo_has_nothing_to_be_moved_against():
    with pytest.raises(ConfigError, match="--refine-poses: expected at least 2 training photos, found 1"):
        posed(preset("instant", False, True), 1)


def test_the_test_scene_shakes_poses_by_what_it_says():
    given = torch.from_numpy(textured.poses(12)).float()
    other = textured.shaken(given, 2.0, 0.02)
    for a, b in zip(given.double(), other.double()):
        cosine = (torch.trace(b[:, :3] @ a[:, :3].T) - 1) / 2
        assert float(torch.rad2deg(torch.arccos(cosine))) == pytest.approx(2, abs=0.02)
        assert float((a[:, 3] - b[:, 3]).norm()) == pytest.approx(0.02, abs=1e-6)
