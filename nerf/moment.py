"""A trained scene as it stands at one instant: what density and colour it has at places, and where along rays light ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerf.kernels.march import cell_index
from nerf.kernels.space import Space, to_unit
from nerf.model import HierarchicalConfig, SceneModel
from nerf.rays import Rays, between, clip
from nerf.volume import march, render_rays

CHUNK = 1 << 16  # places asked at once
RAYS = 4096  # rays at once
WAVE = 16  # samples that every ray still under way is given at once
DARK = 9.0  # optical depth behind which there is no light to speak of, a ten-thousandth


Wrap = Callable[[Sequence[Any], str], Iterable[Any]]  # shows progress through a list, under a name


def quiet(steps: Sequence[Any], _: str) -> Iterable[Any]:
    """No progress shown."""
    return steps


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
    def slow(self) -> bool:
        """Whether rays take their time: through a warp, or a network that no grid spares anything."""
        return self.code is not None or self.model.occupancy is None

    @property
    def stride(self) -> float:
        """How far apart samples of a ray are at the scene's middle (scene units): what light tells apart."""
        model, space = self.model, self.space
        if isinstance(model.config.sampling, HierarchicalConfig):
            return 2 * space.half / (model.config.sampling.coarse + model.config.sampling.fine)
        return max(model.step, model.cone * (model.geometry.reach - 3**0.5 * space.half))

    def codes(self, count: int) -> tuple[Tensor | None, Tensor | None]:
        """The instant's deformation and appearance codes, for `count` rays or places."""
        warp, look = (None if code is None else code.expand(count, -1) for code in (self.code, self.look))
        return warp, look

    @torch.no_grad()
    def density(self, x_world: Float[Tensor, "p 3"]) -> Float[Tensor, "p"]:
        """Density at places, 1 / scene unit."""
        there = x_world.device
        return torch.cat([self._ask(part)[0].to(there) for part in x_world.split(CHUNK)] or [x_world[:, 0]])

    @torch.no_grad()
    def shaded(
        self, x_world: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"]
    ) -> tuple[Float[Tensor, "p"], Float[Tensor, "p 3"]]:
        """Density at places, and their colour as seen along unit directions."""
        densities, colors = [x_world[:0, 0]], [x_world[:0]]
        for x, d in zip(x_world.split(CHUNK), directions.split(CHUNK)):
            density, features = self._ask(x)
            densities.append(density.to(x.device))
            view = self.model.view(d.to(density.device), self.codes(len(x))[1])
            colors.append(self.model.field.color(features, view).to(x.device))
        return torch.cat(densities), torch.cat(colors)

    def _ask(self, x_world: Tensor) -> tuple[Tensor, Tensor]:
        x_world = x_world.to(self.model.device)
        code, _ = self.codes(len(x_world))
        x = self.model.to_canonical(x_world, code)
        return self.model.field.density(x, ambient=self.model.ambient(x_world, code))

    @torch.no_grad()
    def known(self, x_world: Float[Tensor, "p 3"]) -> Bool[Tensor, "p"]:
        """Whether photos say anything of places: light reached them, or their neighbours, in training. Elsewhere, behind
        surfaces and out of every photo, the field's density is whatever it happens to be, and renderings skip it."""
        space, grid = self.space, self.model.occupancy
        x_unit = to_unit(x_world, space)
        inside = ((x_unit >= 0) & (x_unit <= 1)).all(-1)
        if grid is None:
            return inside
        return inside & grid.occupied.to(x_unit.device)[cell_index(x_unit, grid.config.resolution)]


class Ends(NamedTuple):
    """Where the light of rays ends.

    Args:
        near, median, far: distances at which a quarter, half and three quarters of the light that is stopped have been; 0
            where none is.
        opacity: share of the ray's light that is stopped.
    """

    near: Float[Tensor, "r"]
    median: Float[Tensor, "r"]
    far: Float[Tensor, "r"]
    opacity: Float[Tensor, "r"]


class Profile(NamedTuple):
    """Samples of rays, packed: where the field was asked, where each one's interval begins and how long it is, its density,
    its ray, and where each ray's samples begin."""

    t: Float[Tensor, "p"]
    start: Float[Tensor, "p"]
    dt: Float[Tensor, "p"]
    density: Float[Tensor, "p"]
    ray: Int[Tensor, "p"]
    offsets: Int[Tensor, "r1"]


@torch.no_grad()
def looks(
    moment: Moment,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    low: Float[Tensor, "3"],
    high: Float[Tensor, "3"],
    progress: Wrap = quiet,
) -> Iterator[tuple[Ends, Profile]]:
    """Where the light of rays ends on its way to the far side of the box from `low` to `high`, and what it went through,
    RAYS rays at a time. Rays that miss the box end nowhere."""
    model = moment.model
    low, high = low.to(model.device), high.to(model.device)
    for o, d in progress([*zip(origins.split(RAYS), directions.split(RAYS))], "rays"):
        o, d = o.to(model.device), d.to(model.device)
        near, far = clip(o, d, model.geometry)
        enter, leave = between(o, d, near, far, low, high)
        rays = Rays(o, d, near, torch.where(leave > enter, leave, near), *moment.codes(len(o)))
        if model.occupancy is None:
            t, dt, offsets, ray = render_rays(model, rays).samples
            start = t
        else:
            t, dt, offsets, ray = march(model, rays, model.occupancy.occupied, float(model.occupancy.coarsen))
            start = t - dt / 2
        profile = Profile(t, start, dt, _densities(moment, o, d, t, dt, offsets, ray), ray, offsets)
        ends = _ends(profile)
        yield Ends(*(mark.to(origins.device) for mark in ends)), Profile(*(part.to(origins.device) for part in profile))


def ends_of(
    moment: Moment,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    low: Float[Tensor, "3"],
    high: Float[Tensor, "3"],
    progress: Wrap = quiet,
) -> Ends:
    """Where the light of rays ends, as `looks` says."""
    parts = [ends for ends, _ in looks(moment, origins, directions, low, high, progress)]
    return Ends(*(torch.cat(part) for part in zip(*parts)))


def inside(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    ends: Ends,
    low: Float[Tensor, "3"],
    high: Float[Tensor, "3"],
) -> Bool[Tensor, "r"]:
    """Which rays' light ends, by half, within the box."""
    x = origins + directions * ends.median[:, None]
    return ((x >= low) & (x <= high)).all(-1)


def _densities(
    moment: Moment, origins: Tensor, directions: Tensor, t: Tensor, dt: Tensor, offsets: Tensor, ray: Tensor
) -> Float[Tensor, "p"]:
    """Densities front to back, WAVE samples of each ray at a time; 0 where no light arrives, which isn't asked for."""
    density, passed = torch.zeros_like(t), t.new_zeros(len(origins))
    left = torch.arange(len(ray), device=t.device)
    place = left - offsets[ray]
    for first in range(0, int(place.max()) + 1 if len(place) else 0, WAVE):
        left = left[(passed[ray[left]] < DARK) & (place[left] >= first)]
        now = left[place[left] < first + WAVE]
        density[now] = moment.density(origins[ray[now]] + directions[ray[now]] * t[now, None])
        passed.index_add_(0, ray[now], density[now] * dt[now])
    return density


def _ends(profile: Profile) -> Ends:
    """The marks of rays whose light is exp(-optical depth): within a sample, density is the same all along."""
    _, start, dt, density, ray, offsets = profile
    thickness = (density * dt).double()
    whole = torch.cat([thickness.new_zeros(1), thickness.cumsum(0)])
    first = whole[offsets[:-1].long()]
    before, total = whole[:-1] - first[ray], whole[offsets[1:].long()] - first
    opacity = -torch.expm1(-total)
    marks = []
    for share in (0.25, 0.5, 0.75):
        wanted = -torch.log1p(-share * opacity)  # the optical depth at which that much of the light has been stopped
        mark = start.new_zeros(len(first))
        hit = ((before <= wanted[ray]) & (before + thickness > wanted[ray])).nonzero().squeeze(1)
        mark[ray[hit]] = (start[hit] + (wanted[ray[hit]] - before[hit]) / density[hit]).float()
        marks.append(mark)
    return Ends(marks[0], marks[1], marks[2], opacity.float())
