"""The ops of the `cuda` backend that go through a hash grid's field: `look` and `frame`, each one kernel, and `shade`, which is several."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerf.kernels import cuda_driver, cuda_field_trial, cuda_frame, cuda_mlp, cuda_shade, cuda_trials
from nerf.kernels import frame as frames
from nerf.kernels import shade as shading
from nerf.kernels import warp as warps
from nerf.kernels.cuda import check_course, composite, hash_encode, march, mlp, transmittance
from nerf.kernels.cuda_arguments import check, together
from nerf.kernels.cuda_ops import grid_numbers
from nerf.kernels.frame import Course, GridField, Looked, Motion, Seen
from nerf.kernels.shade import Shaded
from nerf.kernels.space import Space
from nerf.kernels.warp import WarpField, Warping


def _format(op: str, field: GridField, seen: int, device: torch.device) -> str:
    """What the field's networks round to; "" where `reference` takes it."""
    networks = (*field.density_weights, *field.density_biases, *field.color_weights, *field.color_biases)
    check(op, field.table, *networks)
    expected = (field.geometry.offsets[-1], field.geometry.features)
    if field.table.shape != expected:
        raise ValueError(f"{op}: expected a table of shape {expected}, found {tuple(field.table.shape)}")
    if not cuda_frame.fits(field, seen, device):
        return ""
    format = cuda_mlp.format_of("auto", ("relu", "none"), cuda_driver.capability(device))
    density, color = (tuple(map(len, weights)) for weights in (field.density_weights, field.color_weights))
    shape = cuda_field_trial.Field(field.geometry, (density, color), seen, format)
    return format if cuda_field_trial.field(shape, device) else ""


def _shade_format(field: GridField, seen: int, device: torch.device) -> str:
    """What the networks of a training step in one go round to; "" where its ops go one by one."""
    format = cuda_mlp.format_of("auto", ("relu", "none"), cuda_driver.capability(device))
    density, color = (tuple(map(len, weights)) for weights in (field.density_weights, field.color_weights))
    for inputs, rows, last in ((field.geometry.width, density, "none"), (density[-1] + seen, color, "sigmoid")):
        network = cuda_trials.Network(inputs, rows, ("relu", last), 30.0, format, (), True, False)
        if not cuda_trials.mlp(network, device):
            return ""
    shape = cuda_field_trial.Field(field.geometry, (density, color), seen, format)
    good = cuda_trials.hash_encode(tuple(grid_numbers(field.geometry)), device) and cuda_trials.composite(device)
    return format if good and cuda_field_trial.shade(shape, device) else ""


def warp(
    x_world: Float[Tensor, "p 3"],
    code: Float[Tensor, "r k"],
    ray: Int[Tensor, "p"] | None,
    space: Space,
    field: WarpField,
) -> Float[Tensor, "p 3"]:
    """`nerf.kernels.warp.warp`: the networks are kernels, the motion is torch's."""
    return warps.warp(x_world, code, ray, space, field, mlp)


STEPS = frames.Steps(march, warp, hash_encode, mlp, composite, transmittance)  # for what moves: op by op


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
    """`nerf.kernels.frame.look`. Samples behind `stop` are not asked for. Waits once for the GPU, unless it is given room:
    how many samples were kept is the shape of the results. What is warped has no use for room."""
    rays = (origins, directions, near, far)
    check_course("look", rays, course)
    if values is not None:
        together("look", near, values)
        if values.shape != (course.resolution**3,) or not values.is_contiguous():
            found = tuple(values.shape)
            raise ValueError(f"look: expected values of a flat grid of {course.resolution}^3, found {found}")
    if warping is not None:
        asked = frames.asked(rays, course, field, None, warping, STEPS)
        return frames.looked(asked, len(near), course, stop, faint, values, value_scale)
    format = _format("look", field, 0, near.device)
    if not format:
        return frames.look(*rays, course, field, stop, faint, values, value_scale)
    return cuda_frame.look(rays, course, field, stop, faint, values, value_scale, format, room)


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
    """`nerf.kernels.frame.frame`; what moves goes op by op. Samples behind `stop` are not asked for."""
    rays = (origins, directions, near, far)
    check_course("frame", rays, course)
    check("frame", near, view)
    if len(view) != len(near):
        raise ValueError(f"frame: expected a row of view a ray, found {tuple(view.shape)} for {len(near)} rays")
    if motion is not None or warping is not None:
        asked = frames.asked(rays, course, field, motion, warping, STEPS)
        return frames.painted(asked, len(near), field, view, stop, faint, STEPS)
    format = _format("frame", field, view.shape[1], near.device)
    if not format:
        return frames.frame(*rays, course, field, view, stop, faint)
    return cuda_frame.frame(rays, course, field, view, stop, faint, format)


def shade(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    t: Float[Tensor, "p"],
    dt: Float[Tensor, "p"],
    offsets: Int[Tensor, "r1"],
    ray: Int[Tensor, "p"],
    space: Space,
    field: GridField,
    view: Float[Tensor, "r v"],
    background: Float[Tensor, "#r 3"] | None = None,
    near: float | None = None,
    x_canonical: Float[Tensor, "p 3"] | None = None,
) -> Shaded:
    """`nerf.kernels.shade.shade`: the backend's kernels one after another, and nothing between them; where rays or
    points have gradients, or a kernel can't be used, the backend's ops and torch's."""
    rays, samples = (origins, directions, view), (t, dt, offsets, ray)
    given = [tensor for tensor in (*rays, t, dt, background, x_canonical) if tensor is not None]
    check("shade", *given)
    together("shade", *given, offsets, ray)
    if len(offsets) != len(origins) + 1 or len(view) != len(origins) or not len(t) == len(dt) == len(ray):
        found = [tuple(tensor.shape) for tensor in (origins, view, t, dt, offsets, ray)]
        raise ValueError(f"shade: expected a row of view a ray, offsets of rays, rays of samples, found shapes {found}")
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    format = "" if wanted or x_canonical is not None else _shade_format(field, view.shape[1], t.device)
    if format:
        return cuda_shade.shade(rays, samples, space, field, background, near, format)
    return shading.shaded(rays, samples, space, field, background, near, x_canonical, STEPS)
