"""What a model reads off its scene, and what each configuration is made of."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from nerf.cli import Options, configure
from nerf.config import LossConfig
from nerf.field import HashField, HashFieldConfig, NerfField, NerfFieldConfig
from nerf.model import Geometry, HierarchicalConfig, MarchConfig, ModelConfig, SceneModel
from nerf.occupancy import OccupancyConfig
from nerf.trainer import Trainer
from nerf.warp import WarpConfig
from tests.tiny import frame, scene

HASH = HashFieldConfig(levels=2, features=2, log2_rows=8, base_resolution=4, finest_resolution=12, width=16)
NERF = NerfFieldConfig(width=16, depth=3, skip=1, color_width=8, position_bands=2, direction_bands=1)
MARCH = MarchConfig(steps=64, cone=1 / 128, occupancy=OccupancyConfig(resolution=8))
WARP = WarpConfig(width=8, depth=2, skip=1, bands=2, code=3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_cube_encloses_the_box():
    box = torch.tensor([[-1.0, 0.0, 2.0], [1.0, 6.0, 3.0]])
    found = Geometry.of(scene(box=box, bounded=False, near=0.2, far=70.0))
    assert found.space.center == (0, 3, 2.5) and found.space.half == 3 and found.space.contract
    assert (found.near, found.far, found.background) == (0.2, 70.0, (1, 1, 1))
    assert not Geometry.of(scene()).space.contract


def test_reach_is_the_longest_way_through_the_cube():
    world = scene(5)
    found = Geometry.of(world)
    corners = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    eyes = [f.camera.pose[:, 3].tolist() for f in world.train]
    longest = max(math.dist(eye, corner) for eye in eyes for corner in corners)
    assert longest <= found.reach <= longest * 1.15
    assert found.reach == pytest.approx(max(math.hypot(*eye) for eye in eyes) + math.sqrt(3))


def test_instants_are_ordered_by_code_and_each_is_there_once():
    frames = [frame(2, time=0.9), frame(0, time=0.1), frame(1, time=0.4), frame(1, time=0.4)]
    assert Geometry.of(scene(train=frames)).times == (0.1, 0.4, 0.9)


def build(seed: int = 0, count: int = 3, **more) -> SceneModel:
    config = ModelConfig(**{"field": HASH, "sampling": MARCH, "warp": WARP, "appearance": 2, **more})
    return SceneModel(config, Geometry.of(scene(count, moving=True, bounded=False)), generator=generator(seed))


def test_marching_has_a_grid_and_hierarchical_sampling_two_fields():
    marched, drawn = build(), build(field=NERF, sampling=HierarchicalConfig(4, 8))
    assert isinstance(marched.field, HashField) and marched.coarse is None and marched.occupancy is not None
    assert isinstance(drawn.field, NerfField) and isinstance(drawn.coarse, NerfField) and drawn.occupancy is None
    assert not torch.equal(drawn.field.trunk.weights[0], drawn.coarse.trunk.weights[0])


def test_steps_divide_the_diagonal_before_a_plain_colour_and_grow_with_distance_in_photographs():
    plain = SceneModel(ModelConfig(HASH, MARCH), Geometry.of(scene()))
    assert plain.step == pytest.approx(2 * math.sqrt(3) / 64) and plain.cone == 0
    photos = SceneModel(ModelConfig(HASH, MARCH), Geometry.of(scene(background=None, near=0.75)))
    assert photos.cone == 1 / 128 and photos.step == pytest.approx(0.75 / 128)


def test_a_rigid_scene_is_canonical_as_it_is():
    rigid = build(warp=None, appearance=0)
    x = torch.rand(5, 3, generator=generator())
    assert rigid.to_canonical(x, None) is x and rigid.codes(torch.tensor([0.3])) == (None, None) and rigid.bands == 0
    assert not any("warp" in name or "appearance" in name for name, _ in rigid.named_parameters())
    moving = build()
    assert moving.to_canonical(x, None) is x and moving.bands == 2


def test_codes_at_a_photos_instant_are_its_own():
    model = build()
    warp, appearance = model.codes(torch.tensor([0.0, 0.5, 1.0, 0.25]))
    assert torch.equal(warp[:3], model.warp_codes.table) and torch.equal(appearance[:3], model.appearance_codes.table)
    torch.testing.assert_close(warp[3], model.warp_codes.table[:2].mean(0))


def test_photographs_are_laid_out_around_what_the_cameras_look_at():
    world = scene(5, background=None, box=torch.tensor([[-9.0, -8.0, -7.0], [9.0, 6.0, 7.0]]))
    found = Geometry.of(world)
    away = sorted(math.dist(f.camera.pose[:, 3].tolist(), (0, 0, 0)) for f in world.train)
    assert found.space.center == pytest.approx((0, 0, 0), abs=1e-5) and found.space.contract
    assert found.space.half == pytest.approx(away[2], rel=1e-5)
    assert found.box == ((0, -1, 0), 9, False)
    marched = SceneModel(ModelConfig(HASH, MARCH, WARP), found)
    papers = SceneModel(ModelConfig(NERF, HierarchicalConfig(4, 8), WARP), found)
    assert marched.field.space == marched.warp.space == found.space
    assert papers.field.space == papers.coarse.space == papers.warp.space == found.box


def test_what_colour_depends_on_is_let_in_by_degrees():
    model = build()
    d, code = torch.nn.functional.normalize(torch.randn(6, 3, generator=generator()), dim=1), torch.ones(6, 2)
    full = model.field.view(d, code)
    assert full.abs().max() > 0.5 and torch.equal(model.view(d, code), full)
    model.sheen.fill_(0.25)
    torch.testing.assert_close(model.view(d, code), full / 4)


def test_the_generator_decides_every_weight():
    one, two, other = build(1).state_dict(), build(1).state_dict(), build(2).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["field.grid.table"], other["field.grid.table"])
    assert not torch.equal(one["warp.network.weights.0"], other["warp.network.weights.0"])


def test_cameras_have_codes_beside_the_photos():
    model = build(cameras=2)
    time = torch.tensor([0.0, 0.5])
    table, looks = model.camera_codes.table, model.appearance_codes.table
    assert table.shape == (2, 2) and not torch.equal(table[0], table[1])
    for camera in (0, 1):
        assert torch.equal(model.codes(time, camera)[1], torch.cat([looks[:2], table[camera].expand(2, 2)], dim=1))
    torch.testing.assert_close(model.codes(time)[1][:, 2:], ((table[0] + table[1]) / 2).expand(2, 2))
    found = model.look_of(torch.tensor([2, 0, 2]), torch.tensor([1, 1, 0]))
    assert torch.equal(found, torch.cat([looks[[2, 0, 2]], table[[1, 1, 0]]], dim=1))
    alone = build(cameras=2, appearance=0, warp=None)  # without codes of the photos
    assert torch.equal(alone.codes(time, 1)[1], alone.camera_codes.table[[1, 1]])


def test_what_one_camera_sees_teaches_its_code_and_no_other():
    frames = [dataclasses.replace(frame(i, time=i / 2), camera_id=i % 2) for i in range(3)]
    world = scene(3, moving=True, train=frames)
    config = configure(Options(Path("tiny"), steps=4), world, "reference")
    assert config.model.cameras == 2 and config.model.camera == 2
    config = dataclasses.replace(config, model=ModelConfig(HASH, MARCH, WARP, appearance=2, cameras=2), rays=64)
    trainer = Trainer(dataclasses.replace(config, loss=LossConfig()), world)
    trainer.sampler.allowed = torch.arange(48)  # pixels of the first photo: camera 0
    before = trainer.model.camera_codes.table.detach().clone()
    for _ in range(3):
        trainer.advance()
    after = trainer.model.camera_codes.table.detach()
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    one = configure(Options(Path("tiny"), steps=4), scene(3, moving=True), "reference")
    assert one.model.cameras == 0
