"""Registration: triangulation against closed forms, and a turning body whose motion is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data.camera import Camera
from data.scene import Scene
from nerf import register as module
from nerf.kernels.space import Space
from nerf.model import Geometry, ModelConfig, SceneModel
from nerf.register import RegisterConfig, RegisterError, Sightings, fit, register, sight, triangulate
from nerf.tracks import Tracks
from nerf.warp import WarpConfig
from tests.test_nerf_tracks import frame, sliding, texture

PHOTOS = 24
SPACE = Space((0.0, 0.0, 0.0), 1.0, True)
CONFIG = RegisterConfig(steps=250, batch=1024, rigidity_points=256)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(parts: int = 2) -> SceneModel:
    warp = WarpConfig(width=16, depth=2, skip=2, bands=4, code=6, start="time", fade=0.25, parts=parts)
    times = tuple(i / PHOTOS for i in range(PHOTOS))
    return SceneModel(
        ModelConfig(warp=warp), Geometry(SPACE, 0.05, 4.0, 3.0, None, SPACE, times), generator=generator()
    )


def body(count: int = 120) -> torch.Tensor:
    """Points on the half of a sphere that faces the cameras."""
    points = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator(3)), dim=-1)
    return 0.3 * torch.stack([points[:, 0], points[:, 1], points[:, 2].abs()], -1)


def pose(i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The body's rotation about y and its shift in photo i."""
    a = 0.2 * math.sin(2.1 * i)
    turn = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    return turn, 0.04 * torch.tensor([math.cos(1.7 * i), math.sin(1.1 * i), 0.0])


def eye(i: int) -> torch.Tensor:
    a = 0.5 * math.sin(0.6 * i)
    return torch.tensor([math.sin(a), 0.2 * math.cos(i), math.cos(a)])


def moved(i: int) -> torch.Tensor:
    turn, shift = pose(i)
    return body() @ turn.T + shift


def sightings() -> Sightings:
    origins = torch.cat([eye(i).expand(len(body()), 3) for i in range(PHOTOS)])
    directions = torch.nn.functional.normalize(torch.cat([moved(i) for i in range(PHOTOS)]) - origins, dim=-1)
    instant = torch.arange(PHOTOS).repeat_interleave(len(body()))
    point = torch.arange(len(body())).repeat(PHOTOS)
    return Sightings(
        origins, directions, instant, point, triangulate(origins, directions, point, len(body()), torch.zeros(3))
    )


def apart(model: SceneModel) -> float:
    """How far the photos' canonical bodies lie apart, root mean square."""
    with torch.no_grad():
        bodies = torch.stack(
            [model.warp(moved(i), model.warp_codes(torch.full((len(body()),), i)), 2.0) for i in range(PHOTOS)]
        )
    return float((bodies - bodies.mean(0)).square().sum(-1).mean().sqrt())


def test_rays_meet_where_they_were_aimed():
    places = torch.randn(5, 3, generator=generator(1))
    origins = torch.randn(40, 3, generator=generator(2)) * 3
    point = torch.arange(5).repeat(8)
    directions = torch.nn.functional.normalize(places[point] - origins, dim=-1)
    found = triangulate(origins, directions, point, 5, torch.zeros(3), trust=1e-9)
    torch.testing.assert_close(found, places, atol=1e-3, rtol=0)


def test_parallel_rays_meet_at_the_depth_of_the_guess():
    origins, ahead = torch.tensor([[0.0, 0, 0], [0.2, 0, 0]]), torch.tensor([[0.0, 0, 1]]).expand(2, 3)
    guess = torch.tensor([0.1, 0.0, 2.5])
    found = triangulate(origins, ahead, torch.zeros(2, dtype=torch.int64), 1, guess)
    torch.testing.assert_close(found, guess[None], atol=1e-3, rtol=0)


def test_a_turning_body_comes_into_register():
    model = build()
    before = apart(model)
    table = model.warp_codes.table.detach().clone()
    miss = fit(model, sightings(), CONFIG, 2.0, generator())
    # What is left lies mostly along the rays, of which photos say little.
    assert before > 0.05 and apart(model) < 0.4 * before and miss < 2e-3
    assert torch.equal(model.warp_codes.table[:, :6], table[:, :6])
    assert model.warp_codes.table[:, 6:].abs().max() > 0.05
    assert all(p.grad is None for p in model.parameters())


def test_the_fit_is_the_same_every_time():
    first, second = build(), build()
    few = dataclasses.replace(CONFIG, steps=20)
    misses = [fit(model, sightings(), few, 2.0, generator(7)) for model in (first, second)]
    assert misses[0] == misses[1] and torch.equal(first.warp_codes.table, second.warp_codes.table)


def test_rigidity_keeps_the_motion_from_bending():
    def bend(weight: float) -> float:
        model = build(parts=4)
        fit(model, sightings(), dataclasses.replace(CONFIG, rigidity=weight, stillness=0.0), 4.0, generator())
        x, instant = moved(3), torch.full((len(body()),), 3)
        with torch.no_grad():
            return float(module._bent(model.warp, x, model.warp_codes(instant), 4.0))

    assert bend(1.0) < 0.5 * bend(0.0)


def test_of_the_motions_that_explain_the_photos_the_smaller_is_preferred():
    def motion(weight: float) -> float:
        model = build()
        fit(model, sightings(), dataclasses.replace(CONFIG, stillness=weight), 2.0, generator())
        instant = torch.arange(PHOTOS).repeat_interleave(len(body()))
        x = torch.cat([moved(i) for i in range(PHOTOS)])
        with torch.no_grad():
            return float((model.warp(x, model.warp_codes(instant), 2.0) - x).norm(dim=-1).mean())

    assert motion(1.0) < 0.5 * motion(0.0)


def test_points_are_sighted_along_their_cameras_rays():
    """A camera that moves sideways past still points: their places are found, and those out of the cube are left out."""
    places = torch.tensor([[0.1, 0.05, 0.0], [-0.2, 0.1, 0.3], [0.0, 0.0, -3.0], [0.1, 0.1, 0.2]])
    frames, rows = [], []
    for i in range(10):
        pose = torch.eye(3, 4)
        pose[:, 3] = torch.tensor([0.1 * i - 0.5, 0.0, 1.0])
        camera = Camera(pose, 96, 80, 100.0, 100.0, 48.0, 40.0)
        frames.append(dataclasses.replace(sliding(1)[0][0], camera=camera, warp_id=9 - i))
        pixels = camera.project(places)
        rows += [(i, k, *pixels[k].tolist()) for k in range(4) if k < 3 or i < 5]
    table = torch.tensor(rows)
    tracks = Tracks(table[:, 0].long(), table[:, 1].long(), table[:, 2:])
    found = sight(frames, tracks, SPACE, 0.05, CONFIG)
    # The third lies far off, the fourth is seldom seen.
    torch.testing.assert_close(found.places, places[:2], atol=5e-3, rtol=0)
    assert found.point.tolist() == [0, 1] * 10 and found.instant.tolist() == [
        9 - i for i in range(10) for _ in range(2)
    ]
    along = ((places[found.point] - found.origins) * found.directions).sum(-1, keepdim=True)
    torch.testing.assert_close(found.origins + along * found.directions, places[found.point], atol=1e-4, rtol=0)


def passing(depth: float, wobble: float) -> tuple[list, Tracks]:
    """One point `depth` before cameras that pass it sideways; it goes up and down by `wobble` between photos."""
    frames, pixels = [], []
    for i in range(10):
        pose = torch.eye(3, 4)
        pose[:, 3] = torch.tensor([0.1 * i - 0.45, 0.0, depth])
        camera = Camera(pose, 96, 80, 60.0, 60.0, 48.0, 40.0)
        frames.append(dataclasses.replace(sliding(1)[0][0], camera=camera, warp_id=i))
        pixels.append(camera.project(torch.tensor([[0.0, wobble * (-1) ** i, 0.0]])))
    return frames, Tracks(torch.arange(10), torch.zeros(10, dtype=torch.int64), torch.cat(pixels))


@pytest.mark.parametrize(("wobble", "near", "kept"), [(0.0, 0.1, 1), (0.02, 0.1, 1), (0.05, 0.1, 0), (0.0, 1.2, 0)])
def test_points_that_move_too_far_or_lie_before_near_are_left_out(wobble, near, kept):
    # It strays from its mean place by its wobble; CONFIG lets 0.03 half sides pass.
    assert len(sight(*passing(1.0, wobble), SPACE, near, CONFIG).places) == kept


def capture(frames: list) -> Scene:
    up, box = torch.tensor([0.0, 1, 0]), torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    return Scene(Path(), "", frames, [], box, 0.05, 4.0, False, None, None, True, up, torch.eye(4), False, False)


def test_photos_of_something_still_come_into_register_without_a_motion():
    """A wall at z = 0, seen at f = 60 from z = 1 by a camera that slides along it: from photos to twists."""
    frames, slid = sliding(PHOTOS)
    placed = []
    for i, (f, (right, down)) in enumerate(zip(frames, slid)):
        pose = torch.eye(3, 4)
        pose[:, 3] = torch.tensor([-right / 60, down / 60, 1.0])
        placed.append(dataclasses.replace(f, camera=Camera(pose, 96, 80, 60.0, 60.0, 48.0, 40.0), warp_id=i))
    model = build()
    said = register(model, capture(placed), dataclasses.replace(CONFIG, points=100), 2.0, generator())
    assert said.startswith("photos registered by ")
    x = torch.rand(200, 3, generator=generator(1)) * torch.tensor([1.0, 0.8, 0.0]) - torch.tensor([0.5, 0.4, 0.0])
    with torch.no_grad():
        motion = model.warp(x, model.warp_codes(torch.arange(200) % PHOTOS), 2.0) - x
    # A pixel is 1/60: less than half of one across the view.
    assert model.warp_codes.table[:, 6:].any() and motion[:, :2].norm(dim=-1).mean() < 0.5 / 60


@pytest.mark.parametrize("related", [False, True])
def test_photos_without_common_points_or_depth_are_refused(related):
    v, u = np.mgrid[:80, :96] + 0.5
    frames = [frame(i, texture(u, v, 0 if related else i), i / PHOTOS) for i in range(PHOTOS)]
    model = build()
    before = model.warp_codes.table.detach().clone()
    # One place sees no depth: its points lie at the guess, the cube's centre, which is the camera itself.
    with pytest.raises(
        RegisterError, match=r"--register: expected 200 points .* found \d+: .* Train without --register"
    ):
        register(model, capture(frames), CONFIG, 2.0, generator())
    assert torch.equal(model.warp_codes.table, before)
