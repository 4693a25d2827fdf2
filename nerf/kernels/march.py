"""March rays through an occupancy grid and keep the samples that lie in occupied cells (Mueller et al. 2022, appendix E)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerf.kernels.composite import offsets_of
from nerf.kernels.space import Space, to_unit

BLOCK = 8  # steps that the dilated grid can rule out at once


class Marched(NamedTuple):
    """Packed samples: distance of each interval's middle, its length, and where each ray's samples begin."""

    t: Float[Tensor, "p"]
    dt: Float[Tensor, "p"]
    offsets: Int[Tensor, "r1"]


def steps_to_distance(u: Float[Tensor, "..."], step: float, cone: float) -> Float[Tensor, "..."]:
    """Distance after `u` steps: steps are `step` long up to step / cone and grow as cone * t from there."""
    if cone <= 0:
        return u * step
    turn = 1 / cone  # steps taken at the distance step / cone, where the two rules meet
    return torch.where(u < turn, u * step, (step / cone) * torch.exp((u.clamp_min(turn) - turn) * cone))


def distance_to_steps(t: Float[Tensor, "..."], step: float, cone: float) -> Float[Tensor, "..."]:
    """The inverse of `steps_to_distance`."""
    if cone <= 0:
        return t / step
    turn = step / cone
    return torch.where(t < turn, t / step, 1 / cone + torch.log(t.clamp_min(turn) / turn) / cone)


def cell_index(x_unit: Float[Tensor, "p 3"], resolution: int) -> Int[Tensor, "p"]:
    """Row of the flat occupancy grid that holds each point, x fastest; points outside the cube go to the border."""
    cell = (x_unit * resolution).clamp_(0, resolution - 0.5).to(torch.int32)
    return (cell[:, 2] * resolution + cell[:, 1]) * resolution + cell[:, 0]


def dilation(step: float, cone: float, reach: float, space: Space, resolution: int) -> int:
    """Cells by which a grid must be dilated so that the middle of a block of steps speaks for all of it.

    `reach` is the largest distance at which a ray is still inside the inner cube; beyond it the contraction shrinks
    steps faster than the cone makes them grow.
    """
    half_block = BLOCK / 2 * max(step, cone * reach) * math.exp(cone * BLOCK / 2)
    cell = (4 if space.contract else 2) * space.half / resolution
    return math.ceil(half_block / cell)


def march(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    occupied: Bool[Tensor, "n3"],
    resolution: int,
    space: Space,
    step: float,
    cone: float = 0.0,
    jitter: Float[Tensor, "r"] | None = None,
    dilated: Bool[Tensor, "n3"] | None = None,
) -> Marched:
    """Samples of each ray between `near` and `far`, one a step, where the cell of the step's middle is occupied.

    Args:
        origins, directions: rays; directions of unit length.
        near, far: scene units; a ray with far <= near gets no sample.
        occupied: flat grid over the unit cube, x fastest.
        resolution: cells per side of the grid.
        space: how the world maps into the unit cube.
        step: shortest step, scene units.
        cone: steps grow to cone * t at the distance t; 0: all have the same length.
        jitter: offset of each ray's first step, in [0, 1) steps; None: 0.
        dilated: `occupied` dilated by `dilation(...)` cells: the same samples, found without visiting empty blocks.
    """
    start = distance_to_steps(near, step, cone) + (0 if jitter is None else jitter)
    count = (distance_to_steps(far, step, cone) - start).clamp_min(0)
    blocks = max(math.ceil(float(count.max()) / BLOCK), 0) if len(count) else 0
    first = torch.arange(blocks, device=near.device, dtype=near.dtype) * BLOCK
    inside = first < count[:, None]
    if dilated is not None:
        ray, block = inside.nonzero(as_tuple=True)
        t = steps_to_distance(start[ray] + first[block] + BLOCK / 2, step, cone)
        seen = dilated[cell_index(to_unit(origins[ray] + directions[ray] * t[:, None], space), resolution)]
        ray, block = ray[seen], block[seen]
    else:
        ray, block = inside.nonzero(as_tuple=True)
    u = ((start[ray] + first[block])[:, None] + torch.arange(BLOCK, device=near.device, dtype=near.dtype)).reshape(-1)
    ray = ray.repeat_interleave(BLOCK)
    kept = u + 0.5 < start[ray] + count[ray]
    t = steps_to_distance(u + 0.5, step, cone)
    kept &= occupied[cell_index(to_unit(origins[ray] + directions[ray] * t[:, None], space), resolution)]
    u, t, ray = u[kept], t[kept], ray[kept]
    dt = steps_to_distance(u + 1, step, cone) - steps_to_distance(u, step, cone)
    return Marched(t, dt, offsets_of(ray, len(near)))
