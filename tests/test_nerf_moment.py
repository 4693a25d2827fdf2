"""A scene at an instant: densities through the warp, and rays whose light ends where integrals in closed form say."""

from __future__ import annotations

import math

import pytest
import torch

from nerf.level import find_threshold
from nerf.model import HierarchicalConfig
from nerf.moment import Moment, ends_of, inside, looks
from nerf.sculpt import rays_of
from nerf.surface import MeshError
from tests.solids import LEVEL, SHARP, Solid, model_of, paint

LOW, HIGH = torch.full((3,), -1.0), torch.full((3,), 1.0)


def depth_at(share: float, slope: float = 1.0) -> float:
    """How deep in a solid `share` of a ray's light has been stopped. Density LEVEL exp(s / SHARP) adds up to LEVEL SHARP
    exp(s / SHARP) along a ray that goes straight in; along one whose depth grows by `slope` a unit, to 1 / slope of it."""
    return SHARP * math.log(-math.log(1 - share) * slope / (LEVEL * SHARP))


def straight(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays from all around at the middle, 2.5 away."""
    out = torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    return 2.5 * out, -out


def test_light_ends_where_the_integral_says():
    model, _ = model_of(Solid())
    ends = ends_of(Moment(model, 0.5), *straight(), LOW, HIGH)
    for found, share in ((ends.near, 0.25), (ends.median, 0.5), (ends.far, 0.75)):
        assert (found - (2.0 + depth_at(share))).abs().max() < 0.3 * model.step
    assert (ends.opacity > 0.999).all()


def test_what_a_profile_holds_is_the_density_where_it_was_asked():
    model, _ = model_of(Solid())
    origins, directions = straight(5)
    ((_, profile),) = looks(Moment(model, 0.5), origins, directions, LOW, HIGH)
    x = origins[profile.ray] + directions[profile.ray] * profile.t[:, None]
    met = profile.density > 0
    torch.testing.assert_close(profile.density[met], Solid().at(x[met]))
    optical = torch.zeros(5).index_add_(0, profile.ray.long(), (profile.density * profile.dt))
    assert (optical > 9).all() and met.float().mean() < 0.8  # behind that, nothing was asked


def test_rays_that_miss_the_box_end_nowhere_and_its_far_side_hides_what_lies_behind():
    model, _ = model_of(Solid())
    aside = torch.tensor([[2.5, 0.9, 0.0]]), torch.tensor([[-1.0, 0.0, 0.0]])
    ends = ends_of(Moment(model, 0.5), *aside, LOW, torch.tensor([1.0, 0.8, 1.0]))
    assert ends.opacity.tolist() == [0.0] and ends.median.tolist() == [0.0]
    assert not inside(*aside, ends, LOW, HIGH).any()
    ahead = torch.tensor([[2.5, 0.0, 0.0]]), torch.tensor([[-1.0, 0.0, 0.0]])
    front = ends_of(Moment(model, 0.5), *ahead, torch.tensor([0.7, -1, -1]), HIGH)
    assert front.opacity < 0.01
    # What stands before a box still hides what is in it.
    behind = ends_of(Moment(model, 0.5), *ahead, LOW, torch.tensor([-0.2, 1.0, 1.0]))
    assert not inside(*ahead, behind, LOW, torch.tensor([-0.2, 1.0, 1.0])).any()


def test_a_hierarchical_model_is_looked_through_as_well():
    model, _ = model_of(Solid())
    from dataclasses import replace

    model.config = replace(model.config, sampling=HierarchicalConfig(64, 128))
    model.coarse, model.occupancy = model.field, None
    moment = Moment(model, 0.5)
    ends = ends_of(moment, *straight(16), LOW, HIGH)
    assert (ends.median - (2.0 + depth_at(0.5))).abs().max() < 0.02
    assert moment.space == model.geometry.box and 0.005 < moment.stride < 0.02
    assert moment.known(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.2, 0.0]])).tolist() == [True, False]


def test_the_threshold_is_the_density_at_which_half_of_the_light_is_gone():
    model, rig = model_of(Solid())
    moment, rays = Moment(model, 0.5), rays_of([p.camera for p in rig.trained], 4000)
    found = find_threshold(moment, *rays, LOW, HIGH)
    # A ray that meets the ball at an angle of cosine c loses half of its light where the density is c ln 2 / SHARP. Over a
    # disc c^2 is even; distances along rays are 1 / c of depths: the weighted median of c is 1 / 2.
    assert found == pytest.approx(0.5 * math.log(2) / SHARP, rel=0.25)


def test_the_threshold_goes_by_what_lies_in_the_box():
    model, rig = model_of(Solid())
    rays = rays_of([p.camera for p in rig.trained], 500)
    with pytest.raises(MeshError, match=r"expected a surface in the box, found 0 of 496 of the photos' rays"):
        find_threshold(Moment(model, 0.5), *rays, torch.full((3,), 0.7), HIGH)


def test_a_moving_scene_is_asked_through_its_warp_and_canonically_without():
    model, _ = model_of(Solid(), moving=True)
    model.warp.requires_grad_(False)
    with torch.no_grad():
        for parameter in model.warp.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) - 0.5
    moved = model.warp(x, model.codes(torch.tensor([0.25]))[0].expand(50, -1), float(model.annealed))
    assert (moved - x).norm(dim=1).mean() > 0.01
    torch.testing.assert_close(Moment(model, 0.25).density(x), Solid().at(moved))
    torch.testing.assert_close(Moment(model, None).density(x), Solid().at(x))
    density, rgb = Moment(model, 0.25).shaded(x, x)
    torch.testing.assert_close(density, Solid().at(moved))
    torch.testing.assert_close(rgb, paint(moved))
    assert Moment(model, 0.25).density(x[:0]).shape == (0,)


def test_what_is_known_is_what_the_grid_holds():
    model, _ = model_of(Solid(), resolution=4)
    model.occupancy.occupied.zero_()
    model.occupancy.occupied[(2 * 4 + 1) * 4 + 3] = True  # z 2, y 1, x 3 of 4 cells over [-1, 1]
    x = torch.tensor([[0.75, -0.25, 0.25], [0.25, -0.25, 0.75], [1.2, -0.25, 0.25]])
    assert Moment(model, 0.5).known(x).tolist() == [True, False, False]
