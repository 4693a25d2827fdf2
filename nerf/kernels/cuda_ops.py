"""The `cuda` backend's kernels as ops of torch's library `nerf`, so that autograd and torch.compile know them.

Each op here has an implementation (launch code in the files cuda_grid and cuda_rays), a fake one that tells the
results' shapes, and a gradient that is made of other ops here (cuda_mlp_ops has those of networks). They take checked,
contiguous tensors of one device; the functions of `nerf.kernels.cuda` see to that and are what to call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nerf.kernels import cuda_grid, cuda_rays
from nerf.kernels.harmonics import COUNT
from nerf.kernels.hash_encode import GridGeometry

LIBRARY = torch.library.Library("nerf", "DEF")
_NETWORK = (
    "Tensor[] weights, Tensor[] biases, str activation, str output_activation, float omega, str dtype, int[] skips"
)
_SAMPLES = "Tensor density, Tensor rgb, Tensor t, Tensor dt, Tensor offsets, Tensor? background"


def define(schema: str, run: Callable, fake: Callable) -> Any:
    """Define an op and what it does, on whatever device its tensors are; the op."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    torch.library.impl(f"nerf::{name}", "default", run, lib=LIBRARY)
    torch.library.register_fake(f"nerf::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.nerf, name).default


def gradient(op: str, keep: Callable, backward: Callable) -> None:
    """Give an op its backward pass; `keep` says what of the forward one it needs."""
    torch.library.register_autograd(f"nerf::{op}", backward, setup_context=keep, lib=LIBRARY)


def once_only(op: str) -> None:
    """Give an op that is itself a gradient one that says what to do."""

    def refuse(ctx: Any, *_: Any) -> None:
        raise RuntimeError(f"{op}: the cuda backend has no second derivatives; use backend reference for them")

    gradient(op, lambda ctx, inputs, output: None, refuse)


# --- hash_encode: geometry is (levels, features, log2_rows, base_resolution, finest_resolution)


@cache
def _geometry(*numbers: int) -> GridGeometry:
    return GridGeometry(*numbers)


def grid_numbers(geometry: GridGeometry) -> list[int]:
    """A grid's geometry as the ops take it."""
    numbers = geometry.levels, geometry.features, geometry.log2_rows
    return [*numbers, geometry.base_resolution, geometry.finest_resolution]


def _rows_of(x: Tensor, geometry: list[int]) -> Tensor:
    return x.new_empty(_geometry(*geometry).offsets[-1], geometry[1])


hash_encode = define(
    "hash_encode(Tensor x, Tensor table, int[] geometry) -> Tensor",
    lambda x, table, geometry: cuda_grid.encode(x, table, _geometry(*geometry)),
    lambda x, table, geometry: x.new_empty(x.shape[0], geometry[0] * geometry[1]),
)
hash_encode_table = define(
    "hash_encode_table(Tensor x, Tensor grad, int[] geometry) -> Tensor",
    lambda x, grad, geometry: cuda_grid.encode_table(x, grad, _geometry(*geometry)),
    lambda x, grad, geometry: _rows_of(x, geometry),
)
hash_encode_x = define(
    "hash_encode_x(Tensor x, Tensor table, Tensor grad, int[] geometry) -> Tensor",
    lambda x, table, grad, geometry: cuda_grid.encode_x(x, table, grad, _geometry(*geometry)),
    lambda x, table, grad, geometry: torch.empty_like(x),
)


def _keep_encoded(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, table, ctx.geometry = inputs
    ctx.save_for_backward(x, table)


def _encoded_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x, table), grad = ctx.saved_tensors, grad.contiguous()
    to_x = hash_encode_x(x, table, grad, ctx.geometry) if ctx.needs_input_grad[0] else None
    to_table = hash_encode_table(x, grad, ctx.geometry) if ctx.needs_input_grad[1] else None
    return to_x, to_table, None


gradient("hash_encode", _keep_encoded, _encoded_backward)
once_only("hash_encode_table")
once_only("hash_encode_x")

# --- composite and transmittance


composite = define(
    f"composite({_SAMPLES}) -> (Tensor, Tensor, Tensor, Tensor)",
    lambda *given: cuda_rays.composite(*given),
    lambda density, rgb, t, dt, offsets, background: (
        rgb.new_empty(offsets.shape[0] - 1, 3),
        *(rgb.new_empty(offsets.shape[0] - 1) for _ in range(2)),
        torch.empty_like(density),
    ),
)
# weights: what composite gave; the gradients of its results may be None.
composite_backward = define(
    f"composite_backward({_SAMPLES}, Tensor weights, Tensor? to_out, Tensor? to_depth, Tensor? to_opacity,"
    " Tensor? to_weights, float near) -> (Tensor, Tensor)",
    lambda *given: cuda_rays.composite_backward(*given),
    lambda density, rgb, *_: (torch.empty_like(density), torch.empty_like(rgb)),
)
transmittance = define(
    "transmittance(Tensor density, Tensor dt, Tensor offsets) -> Tensor",
    lambda *given: cuda_rays.transmittance(*given),
    lambda density, dt, offsets: torch.empty_like(density),
)
transmittance_backward = define(
    "transmittance_backward(Tensor density, Tensor dt, Tensor offsets, Tensor light, Tensor grad) -> (Tensor, Tensor)",
    lambda *given: cuda_rays.transmittance_backward(*given),
    lambda density, dt, *_: (torch.empty_like(density), torch.empty_like(dt)),
)


def _keep_composite(ctx: Any, inputs: tuple, output: tuple) -> None:
    density, rgb, t, dt, offsets, background = inputs
    ctx.save_for_backward(density, rgb, t, dt, offsets, background, output[2], output[3])
    ctx.set_materialize_grads(False)


def _composite_gradient(ctx: Any, *incoming: Tensor | None) -> tuple[Tensor | None, ...]:
    if all(grad is None for grad in incoming):
        return (None,) * 6
    density, rgb, t, dt, offsets, background, opacity, weights = ctx.saved_tensors
    grads = [None if grad is None else grad.contiguous() for grad in incoming]
    to_density, to_rgb = composite_backward(density, rgb, t, dt, offsets, background, weights, *grads, 0.0)
    to_background = None
    if ctx.needs_input_grad[5] and grads[0] is not None:
        to_background = (1 - opacity)[:, None] * grads[0]
        if background.shape[0] == 1:
            to_background = to_background.sum(0, keepdim=True)
    return to_density, to_rgb, None, None, None, to_background


def _keep_light(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _light_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *transmittance_backward(*ctx.saved_tensors, grad.contiguous()), None


gradient("composite", _keep_composite, _composite_gradient)
gradient("transmittance", _keep_light, _light_gradient)
once_only("composite_backward")
once_only("transmittance_backward")

# --- march, adam and harmonics: no gradients


def _fake_march(origins: Tensor, directions: Tensor, near: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    samples = torch.library.get_ctx().new_dynamic_size()
    t = near.new_empty(samples)
    return t, torch.empty_like(t), near.new_empty(near.shape[0] + 1, dtype=torch.int64)


march = define(
    "march(Tensor origins, Tensor directions, Tensor near, Tensor far, Tensor occupied, int resolution, float[] center,"
    " float half, bool contract, float step, float cone, Tensor? jitter, Tensor? dilated) -> (Tensor, Tensor, Tensor)",
    lambda *given: cuda_rays.march(*given),
    _fake_march,
)
adam = define(
    "adam(Tensor(a!) parameter, Tensor gradient, Tensor(b!) mean, Tensor(c!) square, int step, float rate, float beta1,"
    " float beta2, float eps) -> ()",
    lambda *given: cuda_rays.adam(*given),
    lambda *given: None,
)
harmonics = define(
    "harmonics(Tensor d) -> Tensor",
    lambda d: cuda_rays.harmonics(d),
    lambda d: d.new_empty(d.shape[0], COUNT),
)
