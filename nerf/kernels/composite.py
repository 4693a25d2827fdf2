"""Volume rendering of packed samples (Mildenhall et al. 2020, equations 3 to 5; Max 1995)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Composited(NamedTuple):
    """What a ray sees. `weights` are the samples' shares of it; `opacity` is their sum."""

    rgb: Float[Tensor, "r 3"]
    depth: Float[Tensor, "r"]
    opacity: Float[Tensor, "r"]
    weights: Float[Tensor, "p"]


def ray_of_sample(offsets: Int[Tensor, "r1"], samples: int) -> Int[Tensor, "p"]:
    """Index of the ray that each packed sample belongs to."""
    rays = torch.arange(len(offsets) - 1, device=offsets.device)
    return torch.repeat_interleave(rays, offsets.diff(), output_size=samples)


def offsets_of(ray: Int[Tensor, "p"], rays: int) -> Int[Tensor, "r1"]:
    """Where each ray's samples begin, from the sorted ray index of every sample."""
    offsets = torch.zeros(rays + 1, dtype=torch.int64, device=ray.device)
    torch.cumsum(torch.bincount(ray, minlength=rays), 0, out=offsets[1:])
    return offsets


def transmittance(
    density: Float[Tensor, "p"], dt: Float[Tensor, "p"], offsets: Int[Tensor, "r1"]
) -> Float[Tensor, "p"]:
    """T_i = exp(-sum_{j<i} sigma_j delta_j): the light that reaches each sample (equation 3).

    The sum runs over the whole pack in float64 and each ray subtracts what had gathered before its first sample, so
    that one pass serves rays of any length without losing the small sums behind the large. Beyond a thickness of 1000
    nothing is left (exp(-1000) is 0 in float64), so more is not counted: NeRF's last samples, 1e10 long, would fill
    the sum's digits.
    """
    thickness = (density.double() * dt.double()).clamp(max=1e3)
    before = thickness.cumsum(0) - thickness
    starts = before.new_zeros(len(offsets) - 1)
    filled = offsets[:-1] < offsets[1:]
    starts[filled] = before[offsets[:-1][filled]]
    ray = ray_of_sample(offsets, len(density))
    return torch.exp(starts[ray] - before).to(density.dtype)


def composite(
    density: Float[Tensor, "p"],
    rgb: Float[Tensor, "p 3"],
    t: Float[Tensor, "p"],
    dt: Float[Tensor, "p"],
    offsets: Int[Tensor, "r1"],
    background: Float[Tensor, "#r 3"] | None = None,
) -> Composited:
    """Render rays from their samples: C = sum_i T_i (1 - exp(-sigma_i delta_i)) c_i (equation 3).

    Args:
        density: sigma, 1 / scene unit, at least 0.
        rgb: colour of each sample.
        t, dt: distance of each sample along its ray, and the length that it stands for; scene units.
        offsets: ray r owns samples offsets[r] to offsets[r + 1] - 1; int64, starts at 0, ends at p.
        background: colour behind the rays; None: black.

    Returns:
        rgb with the background behind it, depth = sum of weights * t, opacity = sum of weights, weights.
    """
    weights = transmittance(density, dt, offsets) * -torch.expm1(-density * dt)
    ray = ray_of_sample(offsets, len(density))
    columns = torch.cat([rgb * weights[:, None], (weights * t)[:, None], weights[:, None]], dim=-1)
    sums = columns.new_zeros(len(offsets) - 1, 5).index_add(0, ray, columns)
    colour, depth, opacity = sums[:, :3], sums[:, 3], sums[:, 4]
    if background is not None:
        colour = colour + (1 - opacity)[:, None] * background
    return Composited(colour, depth, opacity, weights)
