"""Samples along rays: packed, stratified, and drawn where a first look found something."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerf.kernels.composite import offsets_of, ray_of_sample


class Samples(NamedTuple):
    """Packed samples of r rays: ray i owns samples offsets[i] to offsets[i + 1] - 1.

    t is the distance at which the field is asked, dt the length of ray that the answer stands for.
    """

    t: Float[Tensor, "p"]
    dt: Float[Tensor, "p"]
    offsets: Int[Tensor, "r1"]
    ray: Int[Tensor, "p"]

    def points(self, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]) -> Float[Tensor, "p 3"]:
        """x_world of each sample."""
        return origins.index_select(0, self.ray) + directions.index_select(0, self.ray) * self.t[:, None]

    def select(self, kept: Tensor) -> Samples:
        """The samples for which `kept` ("p", bool) holds; the lengths of the others are lost, not shared out."""
        rays = len(self.offsets) - 1
        index = kept.nonzero().squeeze(1)
        ray = self.ray[index]
        return Samples(self.t[index], self.dt[index], offsets_of(ray, rays), ray)


def pack(t: Float[Tensor, "r s"], dt: Float[Tensor, "r s"]) -> Samples:
    """Rays with the same number of samples each, packed."""
    rays, count = t.shape
    offsets = torch.arange(rays + 1, device=t.device) * count
    return Samples(t.reshape(-1), dt.reshape(-1), offsets, ray_of_sample(offsets, rays * count))


def lengths(t: Float[Tensor, "r s"], last: float) -> Float[Tensor, "r s"]:
    """delta_i = t_{i+1} - t_i (NeRF, below equation 3); the last sample stands for `last`, 1e10 in the authors' code."""
    return torch.cat([t.diff(dim=1), torch.full_like(t[:, :1], last)], dim=1)


def stratified(
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    count: int,
    generator: torch.Generator | None = None,
    disparity: bool = False,
) -> Float[Tensor, "r s"]:
    """One distance in each of `count` equal bins between near and far (NeRF, equation 2).

    Args:
        generator: draws the place in each bin; None takes the middle.
        disparity: bins equal in 1 / t instead of t.
    """
    edges = torch.linspace(0, 1, count + 1, device=near.device, dtype=near.dtype)
    if generator is None:
        place = torch.full((len(near), count), 0.5, device=near.device, dtype=near.dtype)
    else:
        place = torch.rand(len(near), count, generator=generator, dtype=near.dtype, device=near.device)
    share = edges[:-1] + place / count
    if disparity:
        return 1 / ((1 - share) / near[:, None] + share / far[:, None])
    return near[:, None] + (far - near)[:, None] * share


def importance(
    edges: Float[Tensor, "r e"], weights: Float[Tensor, "r b"], count: int, generator: torch.Generator | None = None
) -> Float[Tensor, "r s"]:
    """Distances drawn from the piecewise constant density that `weights` give the bins between `edges` (NeRF, section 5.2).

    The inverse of the cumulative distribution is evaluated at uniform numbers, drawn one in each of `count` strata
    with a generator and at the strata's middles without. A small floor keeps every bin in play where all weights are 0.

    Args:
        edges: ascending; e = b + 1.
        weights: at least 0; need not add to 1.
    """
    density = weights + 1e-5
    cumulative = torch.cat([torch.zeros_like(density[:, :1]), density.cumsum(1)], dim=1)
    cumulative = cumulative / cumulative[:, -1:]
    rays = len(edges)
    if generator is None:
        place = torch.full((rays, count), 0.5, device=edges.device, dtype=edges.dtype)
    else:
        place = torch.rand(rays, count, generator=generator, dtype=edges.dtype, device=edges.device)
    u = (torch.arange(count, device=edges.device, dtype=edges.dtype) + place) / count
    upper = torch.searchsorted(cumulative, u.contiguous(), right=True).clamp(1, edges.shape[1] - 1)
    low, high = cumulative.gather(1, upper - 1), cumulative.gather(1, upper)
    share = ((u - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    left, right = edges.gather(1, upper - 1), edges.gather(1, upper)
    return left + share * (right - left)
