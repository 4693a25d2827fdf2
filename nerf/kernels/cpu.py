"""The `cpu` backend: C++ kernels (cuda/cpu) on torch's memory.

Every op has the name, the arguments and the meaning of its `reference`, which has a file of its own beside this one.
Gradients are first derivatives only. Results don't depend on the number of threads, which is torch's, and a repeated
call gives the same bits.

Set OMP_WAIT_POLICY=PASSIVE before torch is imported: by default its idle threads spin, on the cores that these want.
"""

from __future__ import annotations

import ctypes
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerf.kernels import harmonics as sphere
from nerf.kernels.composite import Composited
from nerf.kernels.cpu_frame import frame, look
from nerf.kernels.cpu_library import (
    KernelError,
    call,
    check_offsets,
    first_derivatives,
    grid_arguments,
    level,
    march_arguments,
    suffix,
    why_not,
)
from nerf.kernels.cpu_mlp import mlp, mlp_jet, mlp_squared_error
from nerf.kernels.cpu_shade import shade
from nerf.kernels.cpu_warp import warp
from nerf.kernels.frame import Course
from nerf.kernels.harmonics import COUNT
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.march import Marched
from nerf.kernels.space import Space

__all__ = [
    "KernelError", "adam", "composite", "frame", "harmonics", "hash_encode", "level", "look", "march", "mlp", "mlp_jet",
    "mlp_squared_error", "shade", "transmittance", "warp", "why_not",
]  # fmt: skip


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_unit, table, geometry):
        ctx.save_for_backward(x_unit, table)
        ctx.geometry = geometry
        out = x_unit.new_empty(len(x_unit), geometry.width)
        name = f"nerf_hash_encode_{suffix('hash_encode', x_unit, table)}"
        call(name, len(x_unit), *grid_arguments(geometry), x_unit, table, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        x_unit, table = (tensor.detach() for tensor in ctx.saved_tensors)
        grad, kind = grad.detach().contiguous(), suffix("hash_encode", x_unit, grad)
        shape = (len(x_unit), *grid_arguments(ctx.geometry), x_unit)
        grad_x = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x_unit)
            call(f"nerf_hash_encode_x_{kind}", *shape, table, grad, grad_x)
        if ctx.needs_input_grad[1]:
            grad_table = torch.empty_like(table)
            call(f"nerf_hash_encode_table_{kind}", *shape, grad, grad_table)
        return *first_derivatives("hash_encode", grad_x, grad_table), None


def hash_encode(
    x_unit: Float[Tensor, "p 3"], table: Float[Tensor, "n f"], geometry: GridGeometry
) -> Float[Tensor, "p lf"]:
    """`nerf.kernels.hash_encode.hash_encode`."""
    expected = (geometry.offsets[-1], geometry.features)
    if table.shape != expected:
        raise ValueError(f"hash_encode: expected a table of shape {expected}, found {tuple(table.shape)}")
    if x_unit.ndim != 2 or x_unit.shape[1] != 3:
        raise ValueError(f"hash_encode: expected points of shape (p, 3), found {tuple(x_unit.shape)}")
    return _HashEncode.apply(x_unit.contiguous(), table.contiguous(), geometry)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, rgb, background, t, dt, offsets):
        rays = len(offsets) - 1
        out = [rgb.new_empty(rays, 3), rgb.new_empty(rays), rgb.new_empty(rays), rgb.new_empty(len(density))]
        rows = 0 if background is None else len(background)
        kind = suffix("composite", density, rgb, t, dt)
        call(f"nerf_composite_{kind}", rays, rows, offsets, density, rgb, t, dt, background, *out)
        ctx.save_for_backward(density, rgb, background, t, dt, offsets, out[2], out[3])
        ctx.set_materialize_grads(False)
        return tuple(out)

    @staticmethod
    def backward(ctx, *incoming):
        if all(grad is None for grad in incoming):
            return (None,) * 6
        density, rgb, background, t, dt, offsets, opacity, weights = ctx.saved_tensors
        rays, rows = len(offsets) - 1, 0 if background is None else len(background)
        grads = [None if grad is None else grad.detach().contiguous() for grad in incoming]
        grad_out = torch.zeros(rays, 3, dtype=rgb.dtype) if grads[0] is None else grads[0]
        grad_density, grad_rgb, grad_background = torch.empty_like(density), torch.empty_like(rgb), None
        name = f"nerf_composite_backward_{suffix('composite', density, grad_out)}"
        arguments = (rays, rows, offsets, density, rgb, t, dt, background, weights)
        call(name, *arguments, grad_out, *grads[1:], grad_density, grad_rgb)
        if ctx.needs_input_grad[2]:
            with torch.no_grad():
                grad_background = (1 - opacity)[:, None] * grad_out
                grad_background = grad_background.sum(0, keepdim=True) if rows == 1 else grad_background
        return *first_derivatives("composite", grad_density, grad_rgb, grad_background), None, None, None


def composite(
    density: Float[Tensor, "p"],
    rgb: Float[Tensor, "p 3"],
    t: Float[Tensor, "p"],
    dt: Float[Tensor, "p"],
    offsets: Int[Tensor, "r1"],
    background: Float[Tensor, "#r 3"] | None = None,
) -> Composited:
    """`nerf.kernels.composite.composite`. Differentiable in density, rgb and background."""
    if torch.is_grad_enabled() and (t.requires_grad or dt.requires_grad):
        raise ValueError("composite: the cpu backend has no gradient to t and dt; use backend reference")
    p = len(density)
    if not (density.shape == t.shape == dt.shape == (p,) and rgb.shape == (p, 3)):
        found = [tuple(tensor.shape) for tensor in (density, rgb, t, dt)]
        raise ValueError(f"composite: expected density, rgb, t, dt of shapes (p), (p, 3), (p), (p), found {found}")
    offsets = check_offsets("composite", offsets, p)
    if background is not None:
        if background.shape not in ((1, 3), (len(offsets) - 1, 3)):
            raise ValueError(f"composite: expected one background or one a ray, found shape {tuple(background.shape)}")
        suffix("composite", density, background)
        background = background.contiguous()
    tensors = (density.contiguous(), rgb.contiguous(), background, t.contiguous(), dt.contiguous(), offsets)
    return Composited(*_Composite.apply(*tensors))


@torch.no_grad()
def transmittance(
    density: Float[Tensor, "p"], dt: Float[Tensor, "p"], offsets: Int[Tensor, "r1"]
) -> Float[Tensor, "p"]:
    """`nerf.kernels.composite.transmittance`, without gradients."""
    if density.ndim != 1 or density.shape != dt.shape:
        raise ValueError(f"transmittance: expected density and dt of one length, found {density.shape}, {dt.shape}")
    offsets = check_offsets("transmittance", offsets, len(density))
    density, dt, out = density.contiguous(), dt.contiguous(), torch.empty(len(density), dtype=density.dtype)
    call(f"nerf_transmittance_{suffix('transmittance', density, dt)}", len(offsets) - 1, offsets, density, dt, out)
    return out


@torch.no_grad()
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
    """`nerf.kernels.march.march`: the same samples; with a `cone`, up to the exponential's rounding."""
    course = Course(occupied, resolution, space, step, cone, jitter, dilated)
    tensors, settings = march_arguments("march", origins, directions, near, far, course)
    rays, numbers = len(near), (ctypes.c_double * 6)(*settings)
    offsets = torch.empty(rays + 1, dtype=torch.int64)
    marched = ctypes.c_void_p()
    call("nerf_march", rays, *tensors, numbers, offsets, ctypes.addressof(marched))
    t = dt = None
    try:
        t, dt = torch.empty(2, int(offsets[-1])).unbind()
    finally:
        call("nerf_march_take", marched, t, dt)
    return Marched(t, dt, offsets)


@torch.no_grad()
def adam(
    parameter: Float[Tensor, "..."],
    gradient: Float[Tensor, "..."],
    mean: Float[Tensor, "..."],
    square: Float[Tensor, "..."],
    step: int,
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """`nerf.kernels.adam.adam`, float32."""
    tensors = (parameter, gradient, mean, square)
    if suffix("adam", *tensors) != "f32" or not all(tensor.is_contiguous() for tensor in tensors):
        raise TypeError("adam: the cpu backend takes contiguous float32 tensors; use backend reference for others")
    if any(tensor.shape != parameter.shape for tensor in tensors):
        raise ValueError(f"adam: expected tensors of one shape, found {[tuple(tensor.shape) for tensor in tensors]}")
    rate, unbias = rate / (1 - betas[0] ** step), 1 / math.sqrt(1 - betas[1] ** step)
    call("nerf_adam", parameter.numel(), *tensors, *betas, eps, rate, unbias)


def harmonics(d: Float[Tensor, "p 3"]) -> Float[Tensor, "p 16"]:
    """`nerf.kernels.harmonics.harmonics`; `reference`'s where directions have gradients, as learned poses' have."""
    if d.ndim != 2 or d.shape[1] != 3:
        raise ValueError(f"harmonics: expected directions of shape (p, 3), found {tuple(d.shape)}")
    if suffix("harmonics", d) != "f32" or (torch.is_grad_enabled() and d.requires_grad):
        return sphere.harmonics(d)
    out = d.new_empty(len(d), COUNT)
    call("nerf_harmonics", len(d), d.detach().contiguous(), out)
    return out
