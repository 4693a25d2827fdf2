"""Pictures in waves: the closed form of a ball of fog, and the training renderer's own picture."""

from __future__ import annotations

import pytest
import torch

from nerf.volume import render_rays
from nerf.waves import render_waves
from tests.test_nerf_volume import build, expected, make_rays


@pytest.mark.parametrize("sigma", [1.7, 40.0])
@pytest.mark.parametrize("contract", [False, True])
def test_waves_show_the_fog_that_beer_and_lambert_do(sigma, contract):
    model = build(contract=contract, sigma=sigma)
    rays = make_rays(model)
    opacities, colours = expected(rays, sigma)
    seen = render_waves(model, rays, torch.tensor([[0.2, 0.9, 0.4]]))
    assert (seen.opacity - torch.tensor(opacities)).abs().max() < 0.05
    assert (seen.opacity - torch.tensor(opacities)).abs().mean() < 0.01
    assert (seen.rgb - torch.tensor(colours)).abs().max() < 0.05


@pytest.mark.parametrize("moving", [False, True])
def test_waves_and_the_training_renderer_agree(moving):
    model = build(moving=moving, sigma=9.0)
    rays = make_rays(model)
    out = render_rays(model, rays, prune=False).out
    seen = render_waves(model, rays, torch.tensor([[0.2, 0.9, 0.4]]))
    # What differs: the light behind MarchConfig.stop = 1e-4 and samples of a share below 1e-4, some dozens a ray; 2.9e-3
    # was measured.
    torch.testing.assert_close(seen.rgb, out.rgb, atol=4e-3, rtol=0)
    torch.testing.assert_close(seen.opacity, out.opacity, atol=4e-3, rtol=0)
    torch.testing.assert_close(seen.depth, out.depth, atol=1e-2, rtol=0)


def test_rays_that_miss_show_the_background_alone():
    model = build()
    rays = make_rays(model, 5)
    rays = rays._replace(far=rays.near - 1)
    seen = render_waves(model, rays, torch.tensor([[0.1, 0.2, 0.3]]))
    assert torch.equal(seen.rgb, torch.tensor([[0.1, 0.2, 0.3]]).expand(5, 3))
    assert seen.opacity.max() == 0
