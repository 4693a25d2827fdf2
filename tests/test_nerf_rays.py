"""Training pixels and the part of a ray that lies in the scene."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch

from nerf import rays
from nerf.kernels.space import Space
from nerf.model import Geometry
from nerf.rays import PixelSampler, clip
from tests.tiny import frame, scene


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def geometry(contract: bool = False, near: float = 0.3, far: float = 6.0) -> Geometry:
    space = Space((0.5, -0.2, 0.1), 1.2, contract)
    return Geometry(space, near, far, 9.0, None, space, (0.0,))


def clip_slowly(o: list[float], d: list[float], g: Geometry) -> tuple[float, float]:
    """The two crossings of each pair of planes."""
    low, high = g.near, g.far
    for p, v, c in zip(o, d, g.space.center):
        if v == 0:
            if abs(p - c) > g.space.half:
                return 1.0, 0.0
            continue
        a, b = sorted(((c - g.space.half - p) / v, (c + g.space.half - p) / v))
        low, high = max(low, a), min(high, b)
    return low, high


def test_near_and_far_are_those_of_the_cube():
    origins = torch.randn(500, 3, generator=generator(), dtype=torch.float64) * 2
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator(1), dtype=torch.float64), dim=-1)
    near, far = clip(origins, directions, geometry())
    hits = 0
    for o, d, a, b in zip(origins.tolist(), directions.tolist(), near.tolist(), far.tolist()):
        low, high = clip_slowly(o, d, geometry())
        assert (b > a) == (high > low)
        if high > low:
            assert (a, b) == pytest.approx((low, high))
            hits += 1
            middle = [p + (a + b) / 2 * v for p, v in zip(o, d)]
            assert all(abs(p - c) <= 1.2 + 1e-9 for p, c in zip(middle, (0.5, -0.2, 0.1)))
    assert 60 < hits < 450


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_rays_along_an_axis(axis, sign, zero):
    d = torch.full((2, 3), zero)
    d[:, axis] = sign
    o = torch.tensor([[0.5, -0.2, 0.1]]).repeat(2, 1)
    o[:, axis] -= sign * 3
    o[1, (axis + 1) % 3] += 1.3  # passes beside the cube
    near, far = clip(o, d, geometry())
    assert (near[0].item(), far[0].item()) == pytest.approx((1.8, 4.2), rel=1e-5)
    assert far[1] <= near[1]


def test_without_bounds_near_and_far_are_the_scenes():
    o, d = torch.zeros(3, 3), torch.eye(3)
    near, far = clip(o, d, geometry(contract=True))
    assert near.tolist() == pytest.approx([0.3] * 3) and far.tolist() == pytest.approx([6.0] * 3)


def ray_slowly(photo, column: int, row: int) -> tuple[list[float], list[float]]:
    """Through a pixel's centre, by the pinhole's formula."""
    lens, pose = photo.camera, photo.camera.pose.tolist()
    local = [(column + 0.5 - lens.cx) / lens.fx, -(row + 0.5 - lens.cy) / lens.fy, -1.0]
    size = math.sqrt(sum(v * v for v in local))
    return [p[3] for p in pose], [sum(p[k] * local[k] for k in range(3)) / size for p in pose]


def test_every_pixel_comes_with_its_own_ray_colour_and_instant():
    frames = scene(4).train  # of different sizes; a colour names column, row, photo
    batch = PixelSampler(frames).sample(600, generator())
    assert batch.opacity is None
    for o, d, instant, rgb in zip(*(part.tolist() for part in batch[:4])):
        column, row, number = (round(255 * c) for c in rgb)
        assert instant == frames[number].warp_id
        origin, direction = ray_slowly(frames[number], column, row)
        assert o == pytest.approx(origin, abs=1e-6)
        assert d == pytest.approx(direction, abs=1e-6)


def test_directions_are_kept_once_a_lens_and_computed_where_they_are_too_many(monkeypatch):
    first, second, third, fourth = scene(4).train
    bent = dataclasses.replace(third.camera, distortion=(0.1, -0.02, 1e-3, -2e-3))
    third.camera = bent
    fourth.camera = dataclasses.replace(fourth.camera, model="fisheye", distortion=(0.05, 0.01))
    again = frame(7, 10, 10)  # another place, the third one's lens
    again.camera = bent.with_pose(again.camera.pose)
    frames = [first, second, third, fourth, again]
    kept = PixelSampler(frames)
    assert kept.kept is not None and len(kept.kept.local) == 8 * 6 + 9 * 8 + 10 * 10 + 11 * 12
    monkeypatch.setattr(rays, "MOST_KEPT", len(kept.kept.local) - 1)
    computed = PixelSampler(frames)
    assert computed.kept is None
    for one, other in zip(kept.sample(900, generator())[:5], computed.sample(900, generator())[:5]):
        torch.testing.assert_close(one, other, rtol=0, atol=2.5e-7)  # two units of the last place


def test_instants_are_codes_and_not_positions_in_the_list():
    frames = [frame(2), frame(0), frame(1)]
    batch = PixelSampler(frames).sample(200, generator())
    assert batch.instant.tolist() == [round(255 * c) for c in batch.rgb[:, 2].tolist()]
    assert set(batch.instant.tolist()) == {0, 1, 2}


def test_pixels_of_all_photos_are_drawn_alike():
    frames = scene(3).train
    total = sum(f.image.shape[0] * f.image.shape[1] for f in frames)
    draws = 100 * total
    seen = Counter(map(tuple, (PixelSampler(frames).sample(draws, generator()).rgb * 255).round().int().tolist()))
    assert len(seen) == total
    chi = sum((n - 100) ** 2 / 100 for n in seen.values())
    assert abs(chi - (total - 1)) < 5 * math.sqrt(2 * total)  # chi squared's mean and deviation


def test_masked_pixels_are_never_drawn():
    mask = (torch.rand(6, 8, generator=generator()) < 0.4).to(torch.uint8) * 255
    mask[0, :3] = torch.tensor([127, 128, 129], dtype=torch.uint8)
    frames = [frame(0), frame(1, mask=mask)]
    rgb = (PixelSampler(frames).sample(5000, generator()).rgb * 255).round().int().tolist()
    drawn = {(c, r) for c, r, number in rgb if number == 1}
    assert drawn == {(c, r) for r in range(6) for c in range(8) if int(mask[r, c]) > 127}
    assert len({(c, r) for c, r, number in rgb if number == 0}) == 48  # no mask: all
    free = PixelSampler(frames, cut_out=True).sample(5000, generator())
    opacity = {}
    for (column, row, number), share in zip((free.rgb * 255).round().int().tolist(), free.opacity.tolist()):
        opacity[number, column, row] = share
    assert len(opacity) == 96
    for (number, column, row), share in opacity.items():
        assert share == pytest.approx(1.0 if number == 0 else int(mask[row, column]) / 255)


def test_the_generator_decides():
    sampler = PixelSampler(scene(2).train)
    one, two = sampler.sample(64, generator(5)), sampler.sample(64, generator(5))
    assert all(torch.equal(a, b) for a, b in zip(one[:4], two[:4]))
    assert not torch.equal(one.rgb, sampler.sample(64, generator(6)).rgb)
