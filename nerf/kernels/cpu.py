"""The `cpu` backend: C++ kernels (cuda/cpu) on torch's memory.

Every op has the name, the arguments and the meaning of its `reference` (hash_encode.py, mlp.py, composite.py,
march.py). Gradients are first derivatives only. Results don't depend on the number of threads, which is torch's, and a
repeated call gives the same bits.

Set OMP_WAIT_POLICY=PASSIVE before torch is imported: by default its idle threads spin, on the cores that these want.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerf.kernels.composite import Composited
from nerf.kernels.cpu_library import KernelError, call, level, suffix, why_not
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.march import Marched, distance_to_steps
from nerf.kernels.mlp import ACTIVATIONS
from nerf.kernels.space import Space

__all__ = ["KernelError", "composite", "hash_encode", "level", "march", "mlp", "transmittance", "why_not"]

FORMATS = ("float32", "bfloat16", "float64")  # `Format` in cuda/cpu/mlp.cpp


class _FirstDerivative(torch.autograd.Function):
    """Passes gradients on, and says what to do where they are differentiated once more."""

    @staticmethod
    def forward(ctx, op, *grads):
        ctx.op = op
        return grads

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(f"{ctx.op}: the cpu backend has no second derivatives; use backend reference for them")


def _once(op: str, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients that an op's backward returns: each a fresh tensor, or None."""
    if not torch.is_grad_enabled():
        return grads
    given = iter(_FirstDerivative.apply(op, *(grad.requires_grad_() for grad in grads if grad is not None)))
    return tuple(None if grad is None else next(given) for grad in grads)


@cache
def _geometry_arguments(geometry: GridGeometry) -> tuple[object, ...]:
    levels = geometry.levels
    return (
        levels,
        geometry.features,
        (ctypes.c_int32 * levels)(*geometry.resolutions),
        (ctypes.c_uint8 * levels)(*geometry.dense),
        (ctypes.c_int64 * (levels + 1))(*geometry.offsets),
    )


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_unit, table, geometry):
        ctx.save_for_backward(x_unit, table)
        ctx.geometry = geometry
        out = x_unit.new_empty(len(x_unit), geometry.width)
        name = f"nerf_hash_encode_{suffix('hash_encode', x_unit, table)}"
        call(name, len(x_unit), *_geometry_arguments(geometry), x_unit, table, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        x_unit, table = (tensor.detach() for tensor in ctx.saved_tensors)
        grad, kind = grad.detach().contiguous(), suffix("hash_encode", x_unit, grad)
        shape = (len(x_unit), *_geometry_arguments(ctx.geometry), x_unit)
        grad_x = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x_unit)
            call(f"nerf_hash_encode_x_{kind}", *shape, table, grad, grad_x)
        if ctx.needs_input_grad[1]:
            grad_table = torch.empty_like(table)
            call(f"nerf_hash_encode_table_{kind}", *shape, grad, grad_table)
        return *_once("hash_encode", grad_x, grad_table), None


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


def _addresses(tensors: Sequence[Tensor] | None) -> object:
    return None if tensors is None else (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, shape, depth, *parameters):
        ctx.save_for_backward(x, *parameters)
        ctx.shape, ctx.depth = shape, depth
        weights, biases = parameters[:depth], parameters[depth:] or None
        out = x.new_empty(len(x), weights[-1].shape[0])
        call("nerf_mlp", shape[0], len(x), *shape[1:], _addresses(weights), _addresses(biases), x, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, *parameters = (tensor.detach() for tensor in ctx.saved_tensors)
        weights, biases = parameters[: ctx.depth], parameters[ctx.depth :] or None
        grad = grad.detach().contiguous()
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        wanted = any(ctx.needs_input_grad[3:])
        grad_weights = [torch.empty_like(weight) for weight in weights] if wanted else None
        grad_biases = [torch.empty_like(bias) for bias in biases] if wanted and biases else None
        arguments = (ctx.shape[0], len(x), *ctx.shape[1:], _addresses(weights), _addresses(biases), x, grad, grad_x)
        call("nerf_mlp_backward", *arguments, _addresses(grad_weights), _addresses(grad_biases))
        made = [*(grad_weights or ()), *(grad_biases or ())] or [None] * len(parameters)
        kept = [value if needed else None for value, needed in zip(made, ctx.needs_input_grad[3:])]
        grad_x, *grads = _once("mlp", grad_x, *kept)
        return grad_x, None, None, *grads


def mlp(
    x: Float[Tensor, "p i"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    activation: str = "relu",
    output_activation: str = "none",
    omega: float = 30.0,
    dtype: str = "auto",
) -> Float[Tensor, "p o"]:
    """`nerf.kernels.mlp.mlp`, all layers in one pass.

    Args:
        dtype: what the products are of; sums are float32 in any case. "bfloat16" takes a processor that multiplies it.
            "auto": bfloat16 there, and float32 elsewhere and for sines, which turn a rounded phase into noise.
    """
    for name in (activation, output_activation):
        if name not in ACTIVATIONS:
            raise ValueError(f"mlp: expected one of {', '.join(ACTIVATIONS)}, found {name!r}")
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    shapes = [(after, before) for before, after in pairwise(widths)]
    if x.ndim != 2 or x.shape[1] != widths[0] or [tuple(weight.shape) for weight in weights] != shapes:
        found = [tuple(weight.shape) for weight in weights]
        raise ValueError(f"mlp: inputs {tuple(x.shape)} and weights {found} don't follow one another")
    if biases is not None and [tuple(bias.shape) for bias in biases] != [(width,) for width in widths[1:]]:
        raise ValueError(f"mlp: expected biases of lengths {widths[1:]}, found {[tuple(b.shape) for b in biases]}")
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"mlp: expected dtype auto, float32 or bfloat16, found {dtype!r}")
    parameters = [tensor.contiguous() for tensor in (*weights, *(biases or ()))]
    if dtype == "auto":
        dtype = "bfloat16" if level() == "v4bf16" and "sine" not in (activation, output_activation) else "float32"
    number = "float64" if suffix("mlp", x, *parameters) == "f64" else dtype
    kinds = (ACTIVATIONS.index(activation), ACTIVATIONS.index(output_activation))
    shape = (FORMATS.index(number), len(weights), (ctypes.c_int32 * len(widths))(*widths), *kinds, omega)
    return _Mlp.apply(x.contiguous(), shape, len(weights), *parameters)


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
        return *_once("composite", grad_density, grad_rgb, grad_background), None, None, None


def _check_offsets(op: str, offsets: Tensor, samples: int) -> Tensor:
    """Offsets as the kernels read them; they'd write out of bounds where these are wrong."""
    offsets = offsets.to(torch.int64).contiguous()
    good = offsets.ndim == 1 and len(offsets) > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == samples
    if not good or bool((offsets.diff() < 0).any()):
        raise ValueError(f"{op}: expected offsets that rise from 0 to the {samples} samples, found {offsets}")
    return offsets


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
    offsets = _check_offsets("composite", offsets, p)
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
    offsets = _check_offsets("transmittance", offsets, len(density))
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
    if suffix("march", origins, directions, near, far) != "f32":
        raise TypeError("march: the cpu backend takes float32 rays; use backend reference for float64")
    rays = len(near)
    if not origins.shape == directions.shape == (rays, 3) or far.shape != (rays,):
        found = [tuple(tensor.shape) for tensor in (origins, directions, near, far)]
        raise ValueError(f"march: expected as many origins, directions, near and far, found {found}")
    for grid in (occupied,) if dilated is None else (occupied, dilated):
        if grid.shape != (resolution**3,) or grid.dtype != torch.bool:
            have = f"{grid.dtype} {tuple(grid.shape)}"
            raise ValueError(f"march: expected a flat bool grid of {resolution}^3, found {have}")
    start = (distance_to_steps(near, step, cone) + (0 if jitter is None else jitter)).contiguous()
    count = (distance_to_steps(far, step, cone) - start).clamp_min(0).contiguous()
    longest = float(count.max()) if rays else 0.0
    if not longest < 2**24:  # beyond it, float32 can't count
        raise ValueError(f"march: expected fewer than 2^24 steps between near and far, found {longest}")
    tensors = (origins.contiguous(), directions.contiguous(), start, count, occupied.contiguous())
    dilated = None if dilated is None else dilated.contiguous()
    numbers = (ctypes.c_double * 6)(*space.center, space.half, step, cone)
    offsets = torch.empty(rays + 1, dtype=torch.int64)
    marched = ctypes.c_void_p()
    call("nerf_march", rays, *tensors, dilated, resolution, space.contract, numbers, offsets, ctypes.addressof(marched))
    t = dt = None
    try:
        t, dt = torch.empty(2, int(offsets[-1])).unbind()
    finally:
        call("nerf_march_take", marched, t, dt)
    return Marched(t, dt, offsets)
