"""Launches the kernels along rays (cuda/gpu/march.cu, composite.cu, harmonics.cu) and Adam's: checked tensors in, results out."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_arguments import fields, place, ready
from nerf.kernels.frame import Course
from nerf.kernels.harmonics import COUNT
from nerf.kernels.space import Space

_WARPS = 4  # a block; a warp takes a ray
UNCOUNTABLE = 1 << 36  # marching::uncountable


class CourseArguments(ctypes.Structure):
    """marching::Course."""

    _fields_ = [
        *fields(p="origins directions near far jitter occupied dilated", l="rays"),
        ("center", ctypes.c_float * 3),
        *fields(f="half"),
        *fields(i="contract resolution"),
        *fields(f="step cone turn_steps turn_distance"),
    ]


class _MarchArguments(ctypes.Structure):
    """marching::MarchArgs."""

    _fields_ = [("course", CourseArguments), *fields(p="counts offsets t dt")]


class _CompositeArguments(ctypes.Structure):
    """rendering::CompositeArgs."""

    _fields_ = fields(
        p="offsets density rgb t dt background weights grad_rgb grad_depth grad_opacity grad_weights"
        " out_rgb out_depth out_opacity out_weights to_density to_rgb to_dt",
        l="rays", i="background_rows", f="near",
    )  # fmt: skip


class _HarmonicsArguments(ctypes.Structure):
    """HarmonicsArgs."""

    _fields_ = fields(p="directions out", l="rows")


class _AdamArguments(ctypes.Structure):
    """AdamArgs."""

    _fields_ = fields(p="parameter gradient mean square", l="count", i="aligned", f="beta1 beta2 eps rate unbias")


def course_arguments(rays: Sequence[Tensor], course: Course) -> tuple[CourseArguments, list[Tensor | None]]:
    """A march as the kernels take it, and what has to live until they are launched.

    Args:
        rays: origins, directions, near, far.
    """
    given = (*rays, course.jitter, course.occupied, course.dilated)
    tensors = [None if tensor is None else ready(tensor) for tensor in given]
    turn = (1 / course.cone, course.step / course.cone) if course.cone > 0 else (0.0, 0.0)
    space = ((ctypes.c_float * 3)(*course.space.center), course.space.half, course.space.contract)
    numbers = (len(rays[2]), *space, course.resolution, course.step, course.cone, *turn)
    return CourseArguments(*map(place, tensors), *numbers), tensors


def _launch(source: str, name: str, rays: int, arguments: ctypes.Structure, device: torch.device) -> None:
    kernel = cuda_driver.kernel(source, name, device)
    cuda_driver.launch(kernel, -(-rays // _WARPS), 32 * _WARPS, 0, arguments)


def offsets_from(counts: Int[Tensor, "r"]) -> Int[Tensor, "r1"]:
    """Where each ray's samples begin, from how many each has."""
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


def march(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    occupied: Bool[Tensor, "n3"],
    resolution: int,
    center: Sequence[float],
    half: float,
    contract: bool,
    step: float,
    cone: float,
    jitter: Float[Tensor, "r"] | None,
    dilated: Bool[Tensor, "n3"] | None,
) -> tuple[Float[Tensor, "p"], Float[Tensor, "p"], Int[Tensor, "r1"]]:
    """`nerf.kernels.march.march`: t, dt and offsets; the same samples, with a `cone` up to the exponential's rounding.

    Waits once for the device: how many samples there are is the shape of the results.
    """
    space = Space((center[0], center[1], center[2]), half, contract)
    course = Course(occupied, resolution, space, step, cone, jitter, dilated)
    along, _alive = course_arguments((origins, directions, near, far), course)
    counts = torch.empty(len(near), dtype=torch.int64, device=near.device)
    arguments = _MarchArguments(along, place(counts))
    _launch("march.cu", "march_count", len(near), arguments, near.device)
    offsets = offsets_from(counts)
    samples = int(offsets[-1])
    if samples >= UNCOUNTABLE:
        raise ValueError("march: expected fewer than 2^24 steps between near and far, found a ray with more")
    t, dt = near.new_empty(samples), near.new_empty(samples)
    arguments.offsets, arguments.t, arguments.dt = place(offsets), place(t), place(dt)
    if samples:
        _launch("march.cu", "march_take", len(near), arguments, near.device)
    return t, dt, offsets


def _composite(offsets: Tensor, **where: Tensor | None) -> _CompositeArguments:
    places = {name: place(tensor) for name, tensor in where.items()}
    background = where.get("background")
    rows = 0 if background is None else len(background)
    return _CompositeArguments(offsets=place(offsets), rays=len(offsets) - 1, background_rows=rows, **places)


def composite(
    density: Float[Tensor, "p"],
    rgb: Float[Tensor, "p 3"],
    t: Float[Tensor, "p"],
    dt: Float[Tensor, "p"],
    offsets: Int[Tensor, "r1"],
    background: Float[Tensor, "#r 3"] | None,
) -> tuple[Float[Tensor, "r 3"], Float[Tensor, "r"], Float[Tensor, "r"], Float[Tensor, "p"]]:
    """`nerf.kernels.composite.composite`."""
    rays = len(offsets) - 1
    out_rgb, out_depth, out_opacity = rgb.new_empty(rays, 3), rgb.new_empty(rays), rgb.new_empty(rays)
    weights = torch.empty_like(density)
    arguments = _composite(
        offsets, density=density, rgb=rgb, t=t, dt=dt, background=background,
        out_rgb=out_rgb, out_depth=out_depth, out_opacity=out_opacity, out_weights=weights,
    )  # fmt: skip
    _launch("composite.cu", "composite", rays, arguments, density.device)
    return out_rgb, out_depth, out_opacity, weights


def composite_backward(
    density: Float[Tensor, "p"],
    rgb: Float[Tensor, "p 3"],
    t: Float[Tensor, "p"],
    dt: Float[Tensor, "p"],
    offsets: Int[Tensor, "r1"],
    background: Float[Tensor, "#r 3"] | None,
    weights: Float[Tensor, "p"],
    to_out: Float[Tensor, "r 3"] | None,
    to_depth: Float[Tensor, "r"] | None,
    to_opacity: Float[Tensor, "r"] | None,
    to_weights: Float[Tensor, "p"] | None,
    near: float,
) -> tuple[Float[Tensor, "p"], Float[Tensor, "p 3"]]:
    """Gradients of density and rgb from those of what `composite` gave.

    Args:
        weights: what `composite` gave.
        near: gradients of samples closer than this are scaled by (t / near)^2 (nerf.kernels.shade.NearGradients); 0: none.
    """
    to_density, to_rgb = torch.empty_like(density), torch.empty_like(rgb)
    arguments = _composite(
        offsets, density=density, rgb=rgb, t=t, dt=dt, background=background, weights=weights, grad_rgb=to_out,
        grad_depth=to_depth, grad_opacity=to_opacity, grad_weights=to_weights, to_density=to_density, to_rgb=to_rgb,
    )  # fmt: skip
    arguments.near = near
    _launch("composite.cu", "composite_backward", len(offsets) - 1, arguments, density.device)
    return to_density, to_rgb


def transmittance(
    density: Float[Tensor, "p"], dt: Float[Tensor, "p"], offsets: Int[Tensor, "r1"]
) -> Float[Tensor, "p"]:
    """`nerf.kernels.composite.transmittance`."""
    light = torch.empty_like(density)
    arguments = _composite(offsets, density=density, dt=dt, out_weights=light)
    _launch("composite.cu", "transmittance", len(offsets) - 1, arguments, density.device)
    return light


def transmittance_backward(
    density: Float[Tensor, "p"],
    dt: Float[Tensor, "p"],
    offsets: Int[Tensor, "r1"],
    light: Float[Tensor, "p"],
    grad: Float[Tensor, "p"],
) -> tuple[Float[Tensor, "p"], Float[Tensor, "p"]]:
    """Gradients of density and dt.

    Args:
        light: what `transmittance` gave.
        grad: its gradient.
    """
    to_density, to_dt = torch.empty_like(density), torch.empty_like(dt)
    arguments = _composite(
        offsets, density=density, dt=dt, weights=light, grad_weights=grad, to_density=to_density, to_dt=to_dt
    )
    _launch("composite.cu", "transmittance_backward", len(offsets) - 1, arguments, density.device)
    return to_density, to_dt


def adam(
    parameter: Float[Tensor, "..."],
    gradient: Float[Tensor, "..."],
    mean: Float[Tensor, "..."],
    square: Float[Tensor, "..."],
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """`nerf.kernels.adam.adam`, on contiguous tensors."""
    count = parameter.numel()
    where = [tensor.data_ptr() for tensor in (parameter, gradient, mean, square)]
    aligned = not any(address % 16 for address in where)
    corrected = rate / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    arguments = _AdamArguments(*where, count, aligned, beta1, beta2, eps, *corrected)
    kernel = cuda_driver.kernel("adam.cu", "adam", parameter.device)
    cuda_driver.launch(kernel, -(-count // 1024), 256, 0, arguments)


def harmonics(d: Float[Tensor, "p 3"]) -> Float[Tensor, "p 16"]:
    """`nerf.kernels.harmonics.harmonics`."""
    out = d.new_empty(len(d), COUNT)
    kernel = cuda_driver.kernel("harmonics.cu", "harmonics_rows", d.device)
    cuda_driver.launch(kernel, -(-len(d) // 256), 256, 0, _HarmonicsArguments(place(d), place(out), len(d)))
    return out
