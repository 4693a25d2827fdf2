"""Pictures without gradients: rays advance in waves, and those that are opaque drop out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.kernels.composite import offsets_of
from nerf.kernels.frame import Motion, Seen
from nerf.model import MarchConfig, SceneModel
from nerf.rays import Rays
from nerf.samples import Samples
from nerf.volume import course, gather, march, warping_of

WAVE = 24  # samples that every ray still under way is given at once
FAINT = 1e-4  # share of a ray below which a sample's colour isn't asked for


@torch.no_grad()
def render_waves(
    model: SceneModel, rays: Rays, background: Float[Tensor, "1 3"] | None, motion: Motion | None = None
) -> Seen:
    """The picture of `render_rays` for a marched model, but for light behind MarchConfig.stop and samples below FAINT.

    Args:
        motion: what the warp does at the instant of all rays (`SceneModel.motion`): a hash grid's field is then asked at
            once, behind it, rather than wave by wave behind the warp itself.

    Returns:
        what rays see, with the background behind it.
    """
    config, grid = model.config.sampling, model.occupancy
    assert isinstance(config, MarchConfig) and grid is not None
    plain = model.field.grid_field()
    if plain is None:
        seen = _bent(model, config, rays)
    else:
        along = course(model, rays, grid.occupied, float(grid.coarsen))
        view = model.view(rays.directions, rays.appearance)
        ends, warping = (rays.origins, rays.directions, rays.near, rays.far), None
        if motion is None:
            warping = warping_of(model, rays)
        seen = model.ops.frame(*ends, along, plain, view, config.stop, FAINT, motion, warping)
    return seen if background is None else seen._replace(rgb=seen.rgb + (1 - seen.opacity)[:, None] * background)


def _bent(model: SceneModel, config: MarchConfig, rays: Rays) -> Seen:
    """What rays see, black behind it, through any field and any warp.

    The march is cheap and done at once; density, the warp before it and colour are asked for front to back,
    WAVE samples of each ray at a time, so neither fog behind a surface nor memory for it is paid for.
    """
    grid = model.occupancy
    assert grid is not None
    t, dt, offsets, ray = march(model, rays, grid.occupied, float(grid.coarsen))
    count, place = len(rays.near), torch.arange(len(ray), device=t.device) - offsets[ray]
    view = model.view(rays.directions, rays.appearance)
    light, sums = t.new_ones(count), t.new_zeros(count, 5)
    for first in range(0, int(place.max()) + 1 if len(place) else 0, WAVE):
        due = ((place >= first) & (light[ray] > config.stop)).nonzero().squeeze(1)
        if not len(due):
            break
        now = due[place[due] < first + WAVE]
        samples = Samples(t[now], dt[now], offsets_of(ray[now], count), ray[now])
        x_world, code = samples.points(rays.origins, rays.directions), gather(rays.warp, samples)
        x = model.to_canonical(x_world, code)
        density, features = model.field.density(x, ambient=model.ambient(x_world, code))
        thickness = density * samples.dt
        through = model.ops.transmittance(density, samples.dt, samples.offsets)
        weights = light[samples.ray] * through * -torch.expm1(-thickness)
        light *= torch.exp(-t.new_zeros(count).index_add_(0, samples.ray, thickness))
        seen = (weights > FAINT).nonzero().squeeze(1)
        share = weights[seen, None]
        rgb = model.field.color(features[seen], view.index_select(0, samples.ray[seen]))
        sums.index_add_(0, samples.ray[seen], torch.cat([rgb * share, samples.t[seen, None] * share, share], dim=1))
        t, dt, ray, place = t[due], dt[due], ray[due], place[due]
    return Seen(sums[:, :3], sums[:, 3], sums[:, 4])
