"""Rays through an occupancy grid and a hash grid's field, without gradients: a training step's first look, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerf.kernels import composite
from nerf.kernels.hash_encode import GridGeometry, hash_encode
from nerf.kernels.march import Marched, cell_index, march
from nerf.kernels.mlp import mlp
from nerf.kernels.space import Space, constant, to_unit
from nerf.kernels.warp import Warping, warp

HIGHEST_RAW = 60.0  # exp of more is no float32
STEEPEST_RAW = 15.0  # beyond it the exponential's gradient grows no more


class TruncatedExp(torch.autograd.Function):
    """exp whose gradient stops growing at exp(15), so that one wild sample can't end a run."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.exp(x.clamp(max=HIGHEST_RAW))

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * torch.exp(x.clamp(-STEEPEST_RAW, STEEPEST_RAW))


class Course(NamedTuple):
    """Where rays look: the arguments of `march` that say how it steps and what is occupied."""

    occupied: Bool[Tensor, "n3"]
    resolution: int
    space: Space
    step: float
    cone: float = 0.0
    jitter: Float[Tensor, "r"] | None = None
    dilated: Bool[Tensor, "n3"] | None = None


class GridField(NamedTuple):
    """A field of a hash grid and two perceptrons with rectified hidden layers (Mueller et al. 2022, section 5.4).

    The first network's first output is the raw density: density = density_scale * exp(raw + density_bias). All its
    outputs, and after them what colour depends on beside the place, go into the second one, which ends in a sigmoid.
    """

    table: Float[Tensor, "n f"]
    geometry: GridGeometry
    density_weights: list[Tensor]
    density_biases: list[Tensor]
    color_weights: list[Tensor]
    color_biases: list[Tensor]
    density_bias: float
    density_scale: float


class Motion(NamedTuple):
    """How far points of a space's cube move at one instant, told on a lattice and mixed linearly between its points.

    Args:
        lattice: displacement of the points of the cube [-1, 1]^3, both walls included; x runs fastest. The cube is the
            space's, y = (x_world - center) / half, and displacements are in units of its half side. What isn't inside,
            on the walls or beyond, stays where it is.
    """

    lattice: Float[Tensor, "n n n 3"]


class Looked(NamedTuple):
    """The packed samples that a look kept, the ray of each, how many light reached, and how many were kept.

    The two numbers are tensors on the device, float32, where `look` was given room and so didn't wait for them.
    """

    t: Float[Tensor, "p"]
    dt: Float[Tensor, "p"]
    offsets: Int[Tensor, "r1"]
    ray: Int[Tensor, "p"]
    lit: int | Float[Tensor, ""]
    kept: int | Float[Tensor, ""]


class Seen(NamedTuple):
    """What rays see, black behind it: colour, depth = sum of weights * t, opacity = sum of weights."""

    rgb: Float[Tensor, "r 3"]
    depth: Float[Tensor, "r"]
    opacity: Float[Tensor, "r"]


class Steps(NamedTuple):
    """The ops that a look, a picture or a training step is made of where no kernel does it in one go."""

    march: Callable[..., Marched]
    warp: Callable[..., Tensor]
    hash_encode: Callable[..., Tensor]
    mlp: Callable[..., Tensor]
    composite: Callable[..., composite.Composited]
    transmittance: Callable[..., Tensor]


def reference_steps() -> Steps:
    """The reference's."""
    return Steps(march, warp, hash_encode, mlp, composite.composite, composite.transmittance)


def ask(
    x_unit: Float[Tensor, "p 3"], field: GridField, steps: Steps
) -> tuple[Float[Tensor, "p"], Float[Tensor, "p g"]]:
    """Density and the density network's outputs at points of the unit cube, differentiable in the field."""
    encoded = steps.hash_encode(x_unit, field.table, field.geometry)
    features = steps.mlp(encoded, field.density_weights, field.density_biases)
    return TruncatedExp.apply(features[:, 0] + field.density_bias) * field.density_scale, features


def moved(x_world: Float[Tensor, "p 3"], space: Space, motion: Motion) -> Float[Tensor, "p 3"]:
    """Points of the world, those inside the space's cube moved."""
    y = (x_world - constant(space.center, x_world)) / space.half
    inside = (y.abs() < 1).all(-1).nonzero().squeeze(1)
    cells = len(motion.lattice) - 1
    place = (y[inside] + 1) * (cells / 2)
    cell = place.long().clamp(max=cells - 1)
    (low_x, low_y, low_z), (high_x, high_y, high_z) = (1 - (place - cell)).unbind(-1), (place - cell).unbind(-1)
    displacement = torch.zeros_like(place)
    for k, weight_z in ((0, low_z), (1, high_z)):
        for j, weight_y in ((0, low_y), (1, high_y)):
            for i, weight_x in ((0, low_x), (1, high_x)):
                corner = motion.lattice[cell[:, 2] + k, cell[:, 1] + j, cell[:, 0] + i]
                displacement += (weight_x * weight_y * weight_z)[:, None] * corner
    return x_world.index_add(0, inside, displacement * space.half)


class Asked(NamedTuple):
    """All samples of a march, where they are before they are moved, and what the field and the light say of them."""

    t: Tensor
    dt: Tensor
    ray: Tensor
    place: Tensor
    features: Tensor
    density: Tensor
    light: Tensor


def asked(
    rays: tuple[Tensor, Tensor, Tensor, Tensor],
    course: Course,
    field: GridField,
    motion: Motion | None,
    warping: Warping | None,
    steps: Steps,
) -> Asked:
    """March origins, directions, near and far, and ask the field at every sample."""
    origins, directions, _, _ = rays
    t, dt, offsets = steps.march(*rays, *course)
    ray = composite.ray_of_sample(offsets, len(t))
    x_world = origins[ray] + directions[ray] * t[:, None]
    x = x_world if motion is None else moved(x_world, course.space, motion)
    if warping is not None:
        x = steps.warp(x, warping.code, ray, course.space, warping.field)
    density, features = ask(to_unit(x, course.space), field, steps)
    light = steps.transmittance(density, dt, offsets)
    return Asked(t, dt, ray, to_unit(x_world, course.space), features, density, light)


@torch.no_grad()
def look(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    course: Course,
    field: GridField,
    stop: float,
    faint: float,
    values: Float[Tensor, "n3"] | None = None,
    value_scale: float = 1.0,
    warping: Warping | None = None,
    room: int | None = None,
) -> Looked:
    """The samples of rays that light reaches and that are not faint.

    Args:
        origins, directions, near, far: as `march` takes them.
        stop: light reaches a sample if the transmittance before it is above this.
        faint: a sample is kept if its density * dt is above this.
        values: the occupancy grid's cells. Each is raised, in place, to the largest density * value_scale of the samples
            in it that light reaches, kept or not.
        warping: samples are warped before the field is asked at them; cells are raised where they were marched to.
        room: leave to give exactly that many samples, for a backend that would have to wait for its device to know how
            many there are. Those beyond what was found are copies of others without their length, spread over the rays, of
            which they change nothing; what is found beyond them is left out. No such backend: this one.
    """
    found = asked((origins, directions, near, far), course, field, None, warping, reference_steps())
    return looked(found, len(near), course, stop, faint, values, value_scale)


def looked(
    found: Asked, rays: int, course: Course, stop: float, faint: float, values: Tensor | None, value_scale: float
) -> Looked:
    """`look`, of samples that the field was asked at."""
    t, dt, ray, place, _, density, light = found
    lit = light > stop
    if values is not None:
        cell = cell_index(place[lit], course.resolution).long()
        values.scatter_reduce_(0, cell, density[lit] * value_scale, "amax")
    kept = lit & (density * dt > faint)
    return Looked(t[kept], dt[kept], composite.offsets_of(ray[kept], rays), ray[kept], int(lit.sum()), int(kept.sum()))


@torch.no_grad()
def frame(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    course: Course,
    field: GridField,
    view: Float[Tensor, "r v"],
    stop: float,
    faint: float,
    motion: Motion | None = None,
    warping: Warping | None = None,
) -> Seen:
    """Rays to colour (Mildenhall et al. 2020, equations 3 to 5), but for what can't be seen.

    Args:
        view: what colour depends on beside the place, a row a ray.
        stop: as in `look`; nothing is seen of samples behind it.
        faint: share of a ray from which a sample is seen.
        motion, warping: samples are moved, or warped, before the field is asked at them; they are marched to unmoved.
            One of the two at most.
    """
    steps = reference_steps()
    found = asked((origins, directions, near, far), course, field, motion, warping, steps)
    return painted(found, len(near), field, view, stop, faint, steps)


def painted(found: Asked, rays: int, field: GridField, view: Tensor, stop: float, faint: float, steps: Steps) -> Seen:
    """`frame`, of samples that the field was asked at."""
    t, dt, ray, _, features, density, light = found
    weights = light * -torch.expm1(-density * dt)
    seen = (light > stop) & (weights > faint)
    ray, share = ray[seen], weights[seen][:, None]
    inputs = torch.cat([features[seen], view[ray]], dim=1)
    rgb = steps.mlp(inputs, field.color_weights, field.color_biases, "relu", "sigmoid")
    columns = torch.cat([rgb * share, t[seen][:, None] * share, share], dim=1)
    sums = columns.new_zeros(rays, 5).index_add_(0, ray, columns)
    return Seen(sums[:, :3], sums[:, 3], sums[:, 4])
