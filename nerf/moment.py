"""A trained scene as it stands at one instant: what density and colour it has at places, and where along rays light ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerf.kernels.march import cell_index
from nerf.kernels.space import Space, to_unit
from nerf.model import HierarchicalConfig, SceneModel
from nerf.rays import Rays, clip
from nerf.volume import render_rays

CHUNK = 1 << 16  # places asked at once
RAYS = 4096  # rays rendered at once


class Moment:
    """A model at one instant, without gradients.

    Args:
        time: the instant, in [0, 1], at which places are meant: they are taken through the warp. None: the canonical scene.
    """

    def __init__(self, model: SceneModel, time: float | None) -> None:
        self.model, self.time = model, time
        self.code = None if time is None else model.codes(torch.tensor([time]))[0]
        self.look = model.codes(torch.tensor([0.5 if time is None else time]))[1]

    @property
    def space(self) -> Space:
        """The cube that the scene's fields are laid over."""
        geometry = self.model.geometry
        return geometry.box if isinstance(self.model.config.sampling, HierarchicalConfig) else geometry.space

    @property
    def stride(self) -> float:
        """How far apart samples of a ray are at the scene's middle (scene units): what light tells apart."""
        model, space = self.model, self.space
        if isinstance(model.config.sampling, HierarchicalConfig):
            return 2 * space.half / (model.config.sampling.coarse + model.config.sampling.fine)
        return max(model.step, model.cone * (model.geometry.reach - 3**0.5 * space.half))

    @torch.no_grad()
    def density(self, x_world: Float[Tensor, "p 3"]) -> Float[Tensor, "p"]:
        """Density at places, 1 / scene unit."""
        return torch.cat([self._ask(part)[0] for part in x_world.split(CHUNK)] or [x_world[:, 0]])

    @torch.no_grad()
    def shaded(
        self, x_world: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"]
    ) -> tuple[Float[Tensor, "p"], Float[Tensor, "p 3"]]:
        """Density at places, and their colour as seen along unit directions."""
        densities, colors = [x_world[:0, 0]], [x_world[:0]]
        for x, d in zip(x_world.split(CHUNK), directions.split(CHUNK)):
            density, features = self._ask(x)
            look = None if self.look is None else self.look.expand(len(x), -1)
            densities.append(density)
            colors.append(self.model.field.color(features, self.model.view(d, look)))
        return torch.cat(densities), torch.cat(colors)

    def _ask(self, x_world: Tensor) -> tuple[Tensor, Tensor]:
        code = None if self.code is None else self.code.expand(len(x_world), -1)
        x = self.model.to_canonical(x_world, code)
        return self.model.field.density(x, ambient=self.model.ambient(x_world, code))

    @torch.no_grad()
    def known(self, x_world: Float[Tensor, "p 3"]) -> Bool[Tensor, "p"]:
        """Whether photos say anything of places: light reached them, or their neighbours, in training. Elsewhere, behind
        surfaces and out of every photo, the field's density is whatever it happens to be, and renderings skip it."""
        space, grid = self.space, self.model.occupancy
        x_unit = to_unit(x_world, space)
        inside = ((x_unit >= 0) & (x_unit <= 1)).all(-1)
        return inside if grid is None else inside & grid.occupied[cell_index(x_unit, grid.config.resolution)]


class Ends(NamedTuple):
    """Where the light of rays ends.

    Args:
        near, median, far: distances at which a quarter, half and three quarters of the light that doesn't come from the
            background have been met; 0 where none was.
        opacity: share of the ray's light that doesn't come from the background.
        rgb: colour of what is seen, without the background.
    """

    near: Float[Tensor, "r"]
    median: Float[Tensor, "r"]
    far: Float[Tensor, "r"]
    opacity: Float[Tensor, "r"]
    rgb: Float[Tensor, "r 3"]


class Profile(NamedTuple):
    """Samples of rays, packed: where the field was asked, where each one's interval begins and how long it is, its optical
    thickness, its share of the light, its ray, and where each ray's samples begin."""

    t: Float[Tensor, "p"]
    start: Float[Tensor, "p"]
    dt: Float[Tensor, "p"]
    thickness: Float[Tensor, "p"]
    weights: Float[Tensor, "p"]
    ray: Int[Tensor, "p"]
    offsets: Int[Tensor, "r1"]


@torch.no_grad()
def looks(
    moment: Moment, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]
) -> Iterator[tuple[Ends, Profile]]:
    """Where the light of rays ends, and what they went through, RAYS rays at a time."""
    black = torch.zeros(1, 3)
    middle = 0.0 if isinstance(moment.model.config.sampling, HierarchicalConfig) else 0.5  # of an interval, is asked
    for o, d in zip(origins.split(RAYS), directions.split(RAYS)):
        codes = (None if c is None else c.expand(len(o), -1) for c in (moment.code, moment.look))
        rays = Rays(o, d, *clip(o, d, moment.model.geometry), *codes)
        rendered = render_rays(moment.model, rays, background=black)
        (t, dt, offsets, ray), weights = rendered.samples, rendered.out.weights
        before, total = _sums(weights, offsets, ray)
        # A weight is light * (1 - exp(-thickness)), with the light that is left before the sample.
        light = (1 - before).clamp_min(1e-9)
        thickness = -torch.log1p(-(weights.double() / light).clamp(0, 1 - 1e-9))
        profile = Profile(t, t - middle * dt, dt, thickness.float(), weights, ray, offsets)
        marks = [_reached(profile, before, light, share * total) for share in (0.25, 0.5, 0.75)]
        opacity = rendered.out.opacity
        yield Ends(*marks, opacity, (rendered.out.rgb / opacity.clamp_min(1e-6)[:, None]).clamp(0, 1)), profile


def ends_of(moment: Moment, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]) -> Ends:
    """Where the light of rays ends."""
    parts = [ends for ends, _ in looks(moment, origins, directions)]
    return Ends(*(torch.cat(part) for part in zip(*parts)))


def _sums(weights: Tensor, offsets: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """The weights before each sample of its ray, and each ray's sum, in double precision."""
    whole = torch.cat([torch.zeros(1, dtype=torch.float64), weights.double().cumsum(0)])
    first = whole[offsets[:-1].long()]
    return (whole[:-1] - first[ray]).clamp_min(0), whole[offsets[1:].long()] - first


def _reached(profile: Profile, before: Tensor, light: Tensor, share: Tensor) -> Float[Tensor, "r"]:
    """The distance at which the sum of a ray's weights reaches `share`: within a sample, density is the same all along."""
    ray, weights = profile.ray, profile.weights
    result = torch.zeros(len(profile.offsets) - 1)
    hit = ((before <= share[ray]) & (before + weights > share[ray])).nonzero().squeeze(1)
    missing = ((share[ray[hit]] - before[hit]) / light[hit]).clamp(0, 1 - 1e-9)
    depth = (-torch.log1p(-missing) / profile.thickness[hit].double().clamp_min(1e-12)).clamp(0, 1)
    result[ray[hit]] = (profile.start[hit] + profile.dt[hit] * depth).float()
    return result
