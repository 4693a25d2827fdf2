"""Rays through a scene's model to colour: the one renderer of static and moving scenes, in training and after."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerf.field import HashField, NerfField
from nerf.kernels.composite import Composited, ray_of_sample
from nerf.kernels.frame import Course
from nerf.kernels.shade import NearGradients, Shaded
from nerf.kernels.space import constant
from nerf.kernels.warp import Warping
from nerf.model import HierarchicalConfig, MarchConfig, SceneModel
from nerf.rays import Rays
from nerf.samples import Samples, importance, lengths, pack, stratified

SURVEY = 8.0  # how much longer than their own length a survey's steps are


class Rendered(NamedTuple):
    """A batch of rendered rays with the samples behind it; `coarse` is the coarse field's picture, where there is one.

    `visited` counts the samples whose density was asked for and `kept` those that were then composited, as tensors on the
    device where they aren't known to the host (`nerf.kernels.frame.look`). `regularised` names the samples that a warp's regulariser
    should look at and their weights (the coarse ones in a hierarchical model, as Nerfies does).
    """

    out: Composited
    samples: Samples
    coarse: Composited | None
    visited: int | Tensor
    kept: int | Tensor
    regularised: tuple[Samples, Tensor]


def gather(table: Tensor | None, samples: Samples) -> Tensor | None:
    """A ray's code for each of its samples."""
    # index_select: its gradient is a plain sum of rows, where that of table[...] sorts them first.
    return None if table is None else table.index_select(0, samples.ray)


def shade(
    model: SceneModel,
    field: NerfField | HashField,
    rays: Rays,
    samples: Samples,
    bands: float | None,
    background: Tensor | None,
    generator: torch.Generator | None = None,
) -> Shaded:
    """Ask the field at every sample and composite. A generator draws the density noise of NeRF's real scenes."""
    plain = field.grid_field() if field is model.field else None
    if plain is not None:
        x, held, space = None, rays.held(), model.geometry.space
        posed = rays.origins.requires_grad or rays.directions.requires_grad
        if posed or rays.warp is not None:
            x = model.to_canonical(samples.points(rays.origins, rays.directions), rays.warp, bands, samples.ray)
        view, near = model.view(rays.directions, rays.appearance), model.near_scale
        packed = samples.t, samples.dt, samples.offsets, samples.ray
        return model.ops.shade(held.origins, held.directions, *packed, space, plain, view, background, near, x)
    x_world = samples.points(rays.origins, rays.directions)
    code = gather(rays.warp, samples)
    x = model.to_canonical(x_world, code, bands)
    noise = None
    if generator is not None and field.noise > 0:
        noise = torch.randn(len(x), generator=generator, device=x.device) * field.noise
    density, features = field.density(x, noise, model.ambient(x_world, code, bands))
    view = model.view(rays.directions, rays.appearance).index_select(0, samples.ray)
    rgb, seen = field.color(features, view), density.detach()
    if model.near_scale is not None:
        density, rgb = NearGradients.apply(density, rgb, (samples.t / model.near_scale).square().clamp(max=1.0))
    return Shaded(model.ops.composite(density, rgb, samples.t, samples.dt, samples.offsets, background), seen)


def render_rays(
    model: SceneModel,
    rays: Rays,
    generator: torch.Generator | None = None,
    bands: float | None = None,
    background: Float[Tensor, "#r 3"] | None = None,
    coarsen: float = 1.0,
    prune: bool = True,
    room: int | None = None,
) -> Rendered:
    """Render rays.

    Args:
        generator: jitters the samples (training); None: deterministic.
        bands: frequency bands that the warp has so far; None: those that training had last.
        background: colour behind the rays; None: the scene's own, black where it has none.
        coarsen: lengthens the march's steps (while there is fog, to see more rays for the same work).
        prune: a first look without gradients drops the samples that are faint or that no light reaches.
        room: how many samples that look may give (`nerf.kernels.frame.look`).
    """
    if background is None and model.geometry.background is not None:
        background = constant(model.geometry.background, rays.origins)[None]
    match model.config.sampling:
        case MarchConfig():
            return _marched(model, rays, generator, bands, background, coarsen, prune, room)
        case HierarchicalConfig() as config:
            return _hierarchical(model, config, rays, generator, bands, background)


def _marched(
    model: SceneModel,
    rays: Rays,
    generator: torch.Generator | None,
    bands: float | None,
    background: Tensor | None,
    coarsen: float,
    prune: bool,
    room: int | None,
) -> Rendered:
    grid = model.occupancy
    assert grid is not None
    held = rays.held()
    if prune:
        samples, visited, kept = sift(model, held, grid.occupied, coarsen, generator, bands, room=room)
    else:
        samples = march(model, held, grid.occupied, coarsen, generator)
        visited = kept = len(samples.t)
    shaded = shade(model, model.field, rays, samples, bands, background)
    if not prune and generator is not None:
        lit = _lit(model, shaded.density, samples)
        grid.observe(samples.points(held.origins, held.directions), torch.where(lit, shaded.density, 0.0))
    return Rendered(shaded.out, samples, None, visited, kept, (samples, shaded.out.weights))


def course(
    model: SceneModel, rays: Rays, occupied: Tensor, coarsen: float, generator: torch.Generator | None = None
) -> Course:
    """How `rays` march through occupied cells, steps `coarsen` times their own length; a generator jitters them."""
    grid = model.occupancy
    assert grid is not None
    jitter = None if generator is None else torch.rand(len(rays.near), generator=generator, device=rays.near.device)
    # Longer steps outrun the dilated grid's promise, so they do without it.
    dilated = grid.dilated if coarsen == 1 and occupied is grid.occupied else None
    step, cone = model.step * coarsen, model.cone * coarsen
    return Course(occupied, grid.config.resolution, grid.space, step, cone, jitter, dilated)


def march(
    model: SceneModel, rays: Rays, occupied: Tensor, coarsen: float, generator: torch.Generator | None = None
) -> Samples:
    """The samples of `rays` in occupied cells, as `course` says."""
    along = course(model, rays, occupied, coarsen, generator)
    marched = model.ops.march(rays.origins, rays.directions, rays.near, rays.far, *along)
    return Samples(marched.t, marched.dt, marched.offsets, ray_of_sample(marched.offsets, len(marched.t)))


def sift(
    model: SceneModel,
    rays: Rays,
    occupied: Tensor,
    coarsen: float,
    generator: torch.Generator | None,
    bands: float | None,
    faint: float | None = None,
    room: int | None = None,
) -> tuple[Samples, int | Tensor, int | Tensor]:
    """The samples that light reaches and that are not faint, how many were asked for their density, and how many there are.

    A generator means training: what was found is shown to the occupancy grid. faint: None: the configured limit.
    room: see `render_rays`.
    """
    config, grid = model.config.sampling, model.occupancy
    assert isinstance(config, MarchConfig) and grid is not None
    faint = config.faint if faint is None else faint
    plain = model.field.grid_field()
    if plain is not None:
        along = course(model, rays, occupied, coarsen, generator)
        values = None if generator is None else grid.values
        ends, warping = (rays.origins, rays.directions, rays.near, rays.far), warping_of(model, rays, bands)
        looked = model.ops.look(*ends, along, plain, config.stop, faint, values, grid.step, warping, room)
        return Samples(looked.t, looked.dt, looked.offsets, looked.ray), looked.lit, looked.kept
    samples = march(model, rays, occupied, coarsen, generator)
    look = look_along(model, rays, samples, bands)
    if generator is not None:
        grid.observe(look.x_world, torch.where(look.lit, look.density, 0.0))
    kept = samples.select(look.lit & (look.density * samples.dt > faint))
    return kept, len(samples.t), len(kept.t)


def warping_of(model: SceneModel, rays: Rays, bands: float | None = None) -> Warping | None:
    """The warp as the kernels without gradients take it; None: there is none.

    bands: frequency bands that it has so far; None: those that training had last.
    """
    if model.warp is None or rays.warp is None:
        return None
    return Warping(model.warp.field(float(model.annealed) if bands is None else bands), rays.warp)


class Look(NamedTuple):
    """Samples' points and densities, and whether light reaches them from the camera."""

    x_world: Float[Tensor, "p 3"]
    density: Float[Tensor, "p"]
    lit: Bool[Tensor, "p"]


@torch.no_grad()
def look_along(model: SceneModel, rays: Rays, samples: Samples, bands: float | None) -> Look:
    """Densities along rays, without gradients and colour."""
    x_world = samples.points(rays.origins, rays.directions)
    code = gather(rays.warp, samples)
    density, _ = model.field.density(
        model.to_canonical(x_world, code, bands), ambient=model.ambient(x_world, code, bands)
    )
    return Look(x_world, density, _lit(model, density, samples))


def _lit(model: SceneModel, density: Tensor, samples: Samples) -> Bool[Tensor, "p"]:
    assert isinstance(model.config.sampling, MarchConfig)
    return model.ops.transmittance(density.detach(), samples.dt, samples.offsets) > model.config.sampling.stop


def survey(model: SceneModel, rays: Rays, generator: torch.Generator, bands: float | None) -> None:
    """Show the occupancy grid what lies along `rays`, in cells that it holds for empty as well."""
    assert model.occupancy is not None
    everywhere = torch.ones_like(model.occupancy.occupied)
    sift(model, rays, everywhere, SURVEY, generator, bands, faint=math.inf, room=0)


def _hierarchical(
    model: SceneModel,
    config: HierarchicalConfig,
    rays: Rays,
    generator: torch.Generator | None,
    bands: float | None,
    background: Tensor | None,
) -> Rendered:
    assert model.coarse is not None
    # A ray that misses the scene keeps its samples, so that rays stay alike, but they are at its eye and 0 long.
    hit = rays.far > rays.near
    near, far = torch.where(hit, rays.near, 0.0), torch.where(hit, rays.far, 0.0)
    t = stratified(near, far, config.coarse, generator)
    first = pack(t, lengths(t, config.last) * hit[:, None])
    coarse = shade(model, model.coarse, rays, first, bands, background, generator).out
    with torch.no_grad():
        middles = (t[:, 1:] + t[:, :-1]) / 2
        weights = coarse.weights.view(t.shape)[:, 1:-1]
        union = torch.cat([t, importance(middles, weights, config.fine, generator)], dim=1).sort(dim=1).values
    second = pack(union, lengths(union, config.last) * hit[:, None])
    fine = shade(model, model.field, rays, second, bands, background, generator).out
    visited = len(first.t) + len(second.t)
    return Rendered(fine, second, coarse, visited, len(second.t), (first, coarse.weights))
