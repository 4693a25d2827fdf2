"""`look` and `frame` of the `cpu` backend (cuda/cpu/frame.cpp)."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.kernels.cpu_library import call, grid_arguments, march_arguments
from nerf.kernels.cpu_mlp import addresses, network_arguments
from nerf.kernels.cpu_warp import warp_arguments
from nerf.kernels.frame import Course, GridField, Looked, Motion, Seen
from nerf.kernels.warp import Warping


def _arguments(
    op: str, rays: tuple[Tensor, Tensor, Tensor, Tensor], course: Course, field: GridField, limits: tuple[float, ...]
) -> tuple[tuple[object, ...], list[object]]:
    """What both kernels take first, and what must live while they run."""
    ahead, numbers = march_arguments(op, *rays, course)
    geometry, (table, weights, biases) = field.geometry, (field.table, field.density_weights, field.density_biases)
    if table.shape != (geometry.offsets[-1], geometry.features) or table.dtype != torch.float32:
        expected = (geometry.offsets[-1], geometry.features)
        raise ValueError(
            f"{op}: expected a float32 table of shape {expected}, found {table.dtype} {tuple(table.shape)}"
        )
    probe = table.new_empty(0, geometry.width)
    depth = len(weights)
    (number, _, widths, *_), parameters = network_arguments(op, probe, weights, biases, ("relu", "none"), 0.0, "auto")
    all_numbers = (ctypes.c_double * 11)(*numbers, field.density_bias, field.density_scale, *limits)
    table = table.detach().contiguous()
    network = (number, depth, widths, addresses(parameters[:depth]), addresses(parameters[depth:]))
    return (*ahead, all_numbers, *grid_arguments(geometry), table, *network), [parameters, *ahead]


def _motion_arguments(motion: Motion | None) -> tuple[Tensor | None, int]:
    """The lattice, or null, and its points along an axis."""
    if motion is None:
        return None, 0
    lattice, size = motion.lattice, len(motion.lattice)
    if lattice.shape != (size, size, size, 3) or size < 2 or lattice.dtype != torch.float32:
        found = f"{lattice.dtype} {tuple(lattice.shape)}"
        raise ValueError(f"frame: expected a float32 lattice (n, n, n, 3) of 2 points or more an axis, found {found}")
    return lattice.detach().contiguous(), size


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
    """`nerf.kernels.frame.look`. Samples behind `stop` are not asked for. It has no use for `room`."""
    rays = (origins, directions, near, far)
    arguments, alive = _arguments("look", rays, course, field, (stop, faint, value_scale))
    if values is not None and (values.shape != (course.resolution**3,) or not values.is_contiguous()):
        raise ValueError(f"look: expected values of a flat grid of {course.resolution}^3, found {tuple(values.shape)}")
    warp, prepared = warp_arguments("look", warping, len(near))
    offsets, lit = torch.empty(len(near) + 1, dtype=torch.int64), ctypes.c_int64()
    found = ctypes.c_void_p()
    ends = (values, offsets, ctypes.addressof(lit), ctypes.addressof(found))
    call("nerf_look", len(near), *arguments, *warp, *ends)
    del alive, prepared
    t = dt = ray = None
    try:
        t, dt = torch.empty(2, int(offsets[-1])).unbind()
        ray = torch.empty(len(t), dtype=torch.int64)
    finally:
        call("nerf_look_take", found, t, dt, ray)
    return Looked(t, dt, offsets, ray, lit.value, len(t))


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
    """`nerf.kernels.frame.frame`, in waves: samples behind `stop` are not asked for."""
    rays = (origins, directions, near, far)
    arguments, alive = _arguments("frame", rays, course, field, (stop, faint, 0.0))
    outputs, width = len(field.density_weights[-1]), view.shape[1]
    if view.shape != (len(near), width) or view.dtype != torch.float32:
        raise ValueError(f"frame: expected a float32 row of view a ray, found {view.dtype} {tuple(view.shape)}")
    probe = view.new_empty(0, outputs + width)
    activations = ("relu", "sigmoid")
    (_, _, widths, *_), parameters = network_arguments(
        "frame", probe, field.color_weights, field.color_biases, activations, 0.0, "auto"
    )
    depth = len(field.color_weights)
    if len(field.color_weights[-1]) != 3:
        raise ValueError(f"frame: expected a colour network of 3 outputs, found {len(field.color_weights[-1])}")
    color = (depth, widths, addresses(parameters[:depth]), addresses(parameters[depth:]))
    seen = Seen(view.new_empty(len(near), 3), view.new_empty(len(near)), view.new_empty(len(near)))
    if motion is not None and warping is not None:
        raise ValueError("frame: expected a motion or a warping, found both")
    warp, prepared = warp_arguments("frame", warping, len(near))
    call("nerf_frame", len(near), *arguments, *warp, *_motion_arguments(motion), *color, view.contiguous(), *seen)
    del alive, prepared
    return seen
