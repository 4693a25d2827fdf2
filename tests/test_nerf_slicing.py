"""Ambient coordinates: closed forms of both surfaces, and what the model makes of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from nerf.config import ConfigError
from nerf.field import HashFieldConfig, NerfFieldConfig
from nerf.kernels.backends import load
from nerf.kernels.space import Space
from nerf.model import Geometry, HierarchicalConfig, MarchConfig, ModelConfig, SceneModel
from nerf.occupancy import OccupancyConfig
from nerf.picture import render_image
from nerf.presets import preset, registered, sliced
from nerf.slicing import SliceConfig, Slicing
from nerf.trainer import Trainer
from nerf.warp import WarpConfig
from tests import tiny

SPACE = Space((0.5, -1.0, 0.25), 2.0, False)
HASH = HashFieldConfig(levels=3, features=2, log2_rows=12, base_resolution=4, finest_resolution=32)
NERF = NerfFieldConfig(width=16, depth=2, skip=1, color_width=8, position_bands=3)


def points(count: int = 60, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    drawn = torch.rand(count, 3, generator=torch.Generator().manual_seed(4), dtype=dtype) * 2 - 1
    return drawn * SPACE.half + torch.tensor(SPACE.center, dtype=dtype)


def codes(count: int = 60, size: int = 5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(5), dtype=dtype)


def build(kind: str | None, field=HASH, **more) -> SceneModel:
    slicing = None if kind is None else SliceConfig(kind, width=8, depth=2, skip=1, bands=2)
    warp = WarpConfig(width=16, depth=2, skip=9, bands=2, code=3, slicing=slicing, **more)
    geometry = Geometry(SPACE, 0.3, 6.0, 4.0, (1.0, 1.0, 1.0), SPACE, (0.0, 0.5, 1.0))
    sampling = MarchConfig(steps=64, occupancy=OccupancyConfig(resolution=16))
    config = ModelConfig(field, sampling if field is HASH else HierarchicalConfig(8, 8), warp)
    return SceneModel(config, geometry, load("reference"), torch.Generator().manual_seed(0))


def test_a_plane_is_the_head_of_the_code():
    slicing = Slicing(SliceConfig("plane", ambient=2, ambient_bands=2), SPACE, 3)
    code = codes(dtype=torch.float64)
    found = slicing(points(dtype=torch.float64), code)
    w = code[:, :2].numpy()
    waves = [f(np.pi * 2**j * w) for j in (0, 1) for f in (np.sin, np.cos)]
    assert found.shape == (60, slicing.width) == (60, 8)
    np.testing.assert_allclose(found.numpy(), np.concatenate(waves, axis=1), atol=1e-12)
    assert not list(slicing.parameters())


def test_a_sheet_is_its_network_of_place_and_code():
    config = SliceConfig("sheet", ambient=2, ambient_bands=1, width=7, depth=3, skip=2, bands=2)
    slicing = Slicing(config, SPACE, 3, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        slicing.network.weights[-1] *= 1e4
    x, code = points(dtype=torch.float64), codes(dtype=torch.float64)
    y = ((x - torch.tensor(SPACE.center)) / SPACE.half).numpy()
    waves = [f(np.pi * 2**j * y) for j in (0, 1) for f in (np.sin, np.cos)]
    first = np.concatenate([y, *waves, code[:, :3].numpy()], axis=1)  # what follows the code isn't read
    weights = [w.detach().numpy() for w in slicing.network.weights]
    hidden = np.maximum(np.maximum(first @ weights[0].T, 0) @ weights[1].T, 0)
    hidden = np.maximum(np.concatenate([hidden, first], axis=1) @ weights[2].T, 0)
    w = hidden @ weights[3].T
    assert np.abs(w).max() > 0.05
    expected = np.concatenate([np.sin(np.pi * w), np.cos(np.pi * w)], axis=1)
    np.testing.assert_allclose(slicing(x, code).detach().numpy(), expected, atol=1e-9)


def test_sheets_start_flat_and_stay_flat_on_a_faded_cubes_walls():
    slicing = Slicing(SliceConfig(width=8, depth=2, skip=2), SPACE, 5, fade=0.5)
    at_first = slicing(points(), codes())
    torch.testing.assert_close(at_first, torch.tensor([0.0, 0, 1, 1]).expand(60, -1), atol=1e-3, rtol=0)
    with torch.no_grad():
        slicing.network.weights[-1] *= 1e5
    x = points()
    x[:20, 0] = SPACE.center[0] + SPACE.half  # on a wall
    x[20:40, 1] = SPACE.center[1] - 1.5 * SPACE.half  # beyond one
    found = slicing(x, codes())
    assert torch.equal(found[:40], torch.tensor([0.0, 0, 1, 1]).expand(40, -1))
    assert (found[40:, :2].abs() > 1e-3).any()


@pytest.mark.parametrize("kind", ["plane", "sheet"])
@pytest.mark.parametrize("field", [HASH, NERF], ids=["hash", "nerf"])
def test_the_same_place_is_another_thing_on_another_slice(kind, field):
    model = build(kind, field)
    if kind == "sheet":
        with torch.no_grad():
            model.slicing.network.weights[-1] *= 1e5
    x = points()
    one, other = codes(1, 3).expand(60, -1), -codes(1, 3).expand(60, -1)

    def density(code):
        return model.field.density(x, ambient=model.ambient(x, code))[0]

    assert (density(one) - density(other)).abs().max() > 1e-3
    flat = torch.tensor([0.0, 0, 1, 1]).expand(60, -1)
    assert torch.equal(density(None), model.field.density(x, ambient=flat)[0])
    model.sliced.fill_(0.0)  # before ambient coordinates are let in, all slices are one
    assert torch.equal(density(one), density(other)) and torch.equal(density(one), density(None))


@pytest.mark.parametrize("kind", ["plane", "sheet"])
@pytest.mark.parametrize("field", [HASH, NERF], ids=["hash", "nerf"])
def test_slices_reach_pictures(kind, field):
    model, camera = build(kind, field), tiny.frame(1).camera
    model.field.detail.fill_(1.0)
    with torch.no_grad():
        for head in (model.field.density_network if field is HASH else model.field.trunk,):
            head.weights[0] *= 20
        if kind == "sheet":
            model.slicing.network.weights[-1] *= 1e5
    pictures = [render_image(model, camera, time).rgb for time in (0.0, 1.0, None)]
    assert model.motion(0.0) is None and all(torch.isfinite(p).all() for p in pictures)
    assert (pictures[0] - pictures[1]).abs().max() > 1e-3
    assert build(None, field).slicing is None and build(None, field).ambient(points(), codes()) is None


def test_training_opens_the_slices_and_moves_them():
    config = sliced(preset("nerfies", True, True), "sheet")
    field = NERF
    small = dataclasses.replace(config.model.warp, width=8, depth=2, skip=1, slicing=SliceConfig(width=8, depth=2))
    model = dataclasses.replace(config.model, field=field, sampling=HierarchicalConfig(6, 6), warp=small)
    loss = dataclasses.replace(
        config.loss, anneal_slices=(0.25, 0.75), anneal_levels=(0.5, 1.0), anneal_levels_from=1.0
    )
    config = dataclasses.replace(config, model=model, loss=loss, steps=8, rays=64, scene="tiny")
    trainer = Trainer(config, tiny.scene(moving=True))
    before = trainer.model.slicing.network.weights[0].detach().clone()
    seen, detail = [], []
    for _ in range(8):
        trainer.advance()
        seen.append(float(trainer.model.sliced))
        detail.append((float(trainer.model.field.detail), float(trainer.model.coarse.detail)))
    assert seen == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1])
    assert detail == [pytest.approx((d, d)) for d in (1, 1, 1, 1, 1, 1.5, 2, 2.5)]
    assert not torch.equal(before, trainer.model.slicing.network.weights[0])


def test_what_cannot_be_sliced_is_a_sentence():
    with pytest.raises(ConfigError, match="--slicing: expected photos of something that moves"):
        sliced(preset("instant", False, False), "sheet")
    assert sliced(registered(preset("instant", True, False)), "plane").model.warp.slicing.kind == "plane"
    with pytest.raises(ValueError, match=r"SliceConfig\.kind: expected one of plane, sheet, found 'cube'"):
        Slicing(SliceConfig("cube"), SPACE, 3)
    with pytest.raises(ValueError, match=r"SliceConfig\.ambient: expected at most the code's 3, found 4"):
        Slicing(SliceConfig("plane", ambient=4), SPACE, 3)
    assert math.isclose(sliced(preset("nerfies", True, False), "sheet").loss.anneal_slices[0], 0.004)
