"""A warp on a lattice: the warp itself at its points and near it between them, and the pictures behind it."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from nerf.field import HashFieldConfig, NerfFieldConfig
from nerf.kernels.backends import load
from nerf.kernels.frame import moved
from nerf.kernels.space import Space
from nerf.model import Geometry, HierarchicalConfig, MarchConfig, ModelConfig, SceneModel
from nerf.occupancy import OccupancyConfig, OccupancyGrid
from nerf.rays import Rays, clip
from nerf.warp import Warp, WarpConfig
from nerf.waves import render_waves
from tests.cpu_levels import MARKS

SPACE = Space((0.5, -1.0, 0.25), 2.0, True)
BACKENDS = ["reference", pytest.param("cpu", marks=MARKS[0])]
SMALL = HashFieldConfig(levels=3, features=2, log2_rows=12, base_resolution=4, finest_resolution=32, density_bias=0.0)
MARCH = MarchConfig(steps=256, cone=1 / 128, occupancy=OccupancyConfig(resolution=32))


def bend(warp: Warp) -> Warp:
    """A real deformation, as training might end at."""
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        warp.network.weights[-1] *= 1000
        for bias in warp.network.biases:
            bias.uniform_(-0.1, 0.1, generator=g)
    return warp


def make_warp(space: Space = SPACE, **more) -> Warp:
    config = WarpConfig(**{"width": 16, "depth": 2, "skip": 9, "bands": 2, "code": 4, "fade": 0.5, **more})
    return bend(Warp(config, space, generator=torch.Generator().manual_seed(0)))


def build(backend: str, contract: bool = True, moving: bool = True, **more) -> SceneModel:
    space = Space((0.1, -0.1, 0.2), 1.0, contract)
    geometry = Geometry(space, 0.3, 6.0, 4.0, None if contract else (0.2, 0.9, 0.4), space, (0.0, 0.5, 1.0))
    warp = WarpConfig(width=16, depth=2, skip=9, bands=2, code=3, fade=0.5) if moving else None
    config = dataclasses.replace(ModelConfig(SMALL, MARCH, warp, appearance=2), **more)
    model = SceneModel(config, geometry, load(backend), torch.Generator().manual_seed(0))
    if hasattr(model.field, "grid"):
        torch.nn.init.normal_(model.field.grid.table, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            for weight in model.field.color_head.weights:
                weight *= 3
    if model.warp is not None:
        bend(model.warp)
    return model


def make_rays(model: SceneModel, time: float | None, count: int = 400) -> Rays:
    g = torch.Generator().manual_seed(7)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1) * 2.5
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g) * 0.4 - origins, dim=-1)
    codes = model.codes(torch.tensor([0.5 if time is None else time]))
    warp, appearance = (None if code is None else code.expand(count, -1).detach() for code in codes)
    return Rays(
        origins, directions, *clip(origins, directions, model.geometry), None if time is None else warp, appearance
    )


@pytest.mark.parametrize("fade", [0.5, 0.0])
@pytest.mark.parametrize("kind, parts", [("se3", 0), ("se3", 2), ("translation", 0)])
@pytest.mark.parametrize("bands", [None, 1.3])
def test_a_lattice_holds_the_warp_at_its_points(fade, kind, parts, bands):
    warp = make_warp(SPACE._replace(contract=fade > 0), kind=kind, parts=parts, fade=fade)
    code = torch.randn(4 + 6 * parts, generator=torch.Generator().manual_seed(2)) * 0.3
    lattice = warp.bake(code, bands, 9).lattice
    assert lattice.shape == (9, 9, 9, 3) and not lattice.requires_grad and lattice.abs().max() > 0.1
    for k, j, i in itertools.product(range(9), repeat=3):
        x = torch.tensor([[n / 4 - 1 for n in (i, j, k)]]) * SPACE.half + torch.tensor(SPACE.center)
        expected = (warp(x, code[None], bands) - x)[0] / SPACE.half
        torch.testing.assert_close(lattice[k, j, i], expected, atol=1e-6, rtol=1e-5)


def test_between_its_points_the_lattice_is_off_by_the_curvature():
    warp, code = make_warp().double(), torch.randn(4, generator=torch.Generator().manual_seed(2)).double() * 0.3
    g = torch.Generator().manual_seed(4)
    x = torch.tensor(SPACE.center) + (torch.rand(4000, 3, generator=g) * 2.2 - 1.1).double() * SPACE.half
    exact, errors = warp(x, code.expand(len(x), -1)).detach(), []
    for size in (17, 33, 65):
        errors.append(float((moved(x, SPACE, warp.bake(code, None, size)) - exact).abs().max()) / SPACE.half)
    assert (exact - x).abs().max() > 0.2
    # With cells half as wide, mixing errs by a quarter, or by a half at the kinks of rectified layers and of the fade; in
    # half sides, 0.023, 0.0086 and 0.0043 were measured.
    assert errors[2] < 5e-3 and errors[1] < 0.6 * errors[0] and errors[2] < 0.6 * errors[1], errors


def test_what_moves_beyond_the_cube_is_not_baked():
    warp = make_warp(fade=0.0)
    assert not warp.bakes and make_warp().bakes and make_warp(SPACE._replace(contract=False), fade=0.0).bakes
    with pytest.raises(ValueError, match=r"Warp.bake: expected fade > 0"):
        warp.bake(torch.zeros(4))


def test_points_that_are_not_asked_for_stay():
    warp, code = make_warp(), torch.ones(4) * 0.2
    where = torch.rand(7, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.3
    whole, part = warp.bake(code, None, 7).lattice, warp.bake(code, None, 7, where).lattice
    torch.testing.assert_close(part[where], whole[where])
    assert part[~where].abs().max() == 0 and whole[~where].abs().max() > 0.05


@pytest.mark.parametrize("contract", [False, True])
@pytest.mark.parametrize("resolution, size", [(16, 5), (12, 6), (10, 17)])
def test_corners_are_those_of_cells_that_something_lies_in(contract, resolution, size):
    grid = OccupancyGrid(OccupancyConfig(resolution=resolution), Space((1.0, 2.0, 3.0), 0.7, contract), 0.1, 0.0, 1.0)
    grid.occupied.copy_(torch.rand(resolution**3, generator=torch.Generator().manual_seed(0)) < 0.02)
    wall, expected = 2.0 if contract else 1.0, torch.zeros(size, size, size, dtype=torch.bool)
    for row in grid.occupied.nonzero().flatten().tolist():
        cell = row // resolution**2, row // resolution % resolution, row % resolution
        touched = []
        for index in cell:  # the lattice's cells that overlap with more than a wall
            low, high = ((2 * (index + end) / resolution - 1) * wall for end in (0, 1))
            low, high = ((v + 1) / 2 * (size - 1) for v in (max(low, -1), min(high, 1)))
            cells = range(math.floor(low + 1e-9), math.ceil(high - 1e-9)) if low < high else []
            touched.append(sorted({corner for c in cells for corner in (c, c + 1)}))
        for corner in itertools.product(*touched):
            expected[corner] = True
    assert torch.equal(grid.corners(size), expected) and 0 < expected.float().mean() < 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("contract", [False, True])
def test_a_picture_behind_a_lattice_is_the_warps(backend, contract):
    model = build(backend, contract)
    rays, motion, background = make_rays(model, 0.3), model.motion(0.3), torch.tensor([[0.2, 0.9, 0.4]])
    bent, still = (render_waves(model, r, background) for r in (rays, rays._replace(warp=None)))
    found = render_waves(model, rays, background, motion)
    changed, off = ((rgb - bent.rgb).abs() for rgb in (still.rgb, found.rgb))
    # The lattice is off by up to 0.004, where the field is noise; measured: a hundredth of what the warp changes, 0.0027 at
    # most, and 0.0004 of the opacity.
    assert changed.mean() > 0.005 and off.mean() < 0.02 * changed.mean() and off.max() < 5e-3
    torch.testing.assert_close(found.opacity, bent.opacity, atol=1e-3, rtol=0)
    exact = render_waves(model, rays, background, model.warp.bake(rays.warp[0]))
    assert all(torch.equal(a, b) for a, b in zip(exact, found))  # all cells are occupied


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_baked_translation_is_exact(backend):
    model = build(backend, contract=False, warp=WarpConfig("translation", 8, 1, 9, bands=1, code=3))
    with torch.no_grad():
        model.warp.network.weights[-1].zero_()
        model.warp.network.biases[-1].copy_(torch.tensor([0.1, -0.2, 0.15]))
    rays, background = make_rays(model, 0.0), torch.tensor([[0.2, 0.9, 0.4]])
    bent = render_waves(model, rays, background)
    found = render_waves(model, rays, background, model.motion(0.0))
    # 4e-7 was measured on the reference; bfloat16 products differ by 9e-5.
    torch.testing.assert_close(found.rgb, bent.rgb, atol=3e-4, rtol=0)
    torch.testing.assert_close(found.opacity, bent.opacity, atol=1e-4, rtol=0)
    assert (bent.rgb - render_waves(model, rays._replace(warp=None), background).rgb).abs().mean() > 0.01


@pytest.mark.parametrize("contract", [False, True])
def test_empty_space_need_not_be_baked(contract):
    model = build("reference", contract)
    grid = model.occupancy
    grid.occupied.copy_(torch.rand(len(grid.occupied), generator=torch.Generator().manual_seed(5)) < 0.002)
    grid.dilated.copy_(grid._dilate(grid.occupied, grid.grow))
    rays, motion = make_rays(model, 0.3), model.motion(0.3)
    whole = model.warp.bake(rays.warp[0])
    assert (motion.lattice != 0).any(-1).float().mean() < 0.2 < (whole.lattice != 0).any(-1).float().mean()
    found, expected = (render_waves(model, rays, None, m) for m in (motion, whole))
    assert found.opacity.max() > 0.05
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_an_instant_has_its_own_motion_with_the_bands_of_training():
    model = build("reference")
    model.annealed.fill_(0.7)
    for time in (0.0, 0.2):
        expected = model.warp.bake(model.codes(torch.tensor([time]))[0][0], 0.7)
        torch.testing.assert_close(model.motion(time).lattice, expected.lattice)
    assert not torch.allclose(model.motion(0.0).lattice, model.motion(1.0).lattice)


def test_models_without_a_motion_say_so():
    assert build("reference", moving=False).motion(0.5) is None
    free = WarpConfig(width=16, depth=2, skip=9, bands=2, code=3)
    assert build("reference", warp=free).motion(0.5) is None
    assert build("reference", contract=False, warp=free).motion(0.5) is not None
    assert build("reference", field=NerfFieldConfig(width=8, depth=2, skip=1, color_width=4)).motion(0.5) is None
    assert build("reference", sampling=HierarchicalConfig(coarse=4, fine=4)).motion(0.5) is None
