"""`shade` of the `cuda` backend: the kernels of a training step one after another, with nothing of torch's between them."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nerf.kernels import cuda_driver, cuda_grid, cuda_mlp, cuda_rays
from nerf.kernels.composite import Composited
from nerf.kernels.cuda_arguments import fields, place, ready
from nerf.kernels.frame import GridField
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.shade import Shaded, networks_of
from nerf.kernels.space import Space

_BLOCK = 256


class _Arguments(ctypes.Structure):
    """shade::ShadeArgs."""

    _fields_ = [
        ("center", ctypes.c_float * 3),
        *fields(f="half"),
        *fields(i="contract"),
        *fields(f="bias scale"),
        *fields(p="origins directions ray t features view to_inputs to_density x density inputs to_features"),
        *fields(l="samples", i="width seen"),
    ]


class Plan(NamedTuple):
    """A call's arguments that are no tensors to be differentiated.

    Attributes:
        samples: t, dt, offsets, ray.
        rays: origins, directions, view.
        near: 0: no gradients are scaled.
        layers: of the density and of the colour network.
        dtype: what their products are of.
    """

    samples: tuple[Tensor, Tensor, Tensor, Tensor]
    rays: tuple[Tensor, Tensor, Tensor]
    space: Space
    geometry: GridGeometry
    background: Tensor | None
    near: float
    density: tuple[float, float]
    layers: tuple[int, int]
    dtype: str

    def launch(self, kernel: str, width: int, threads: int, **where: Tensor) -> None:
        """Run one of shade.cu's kernels, `threads` of it; `width`: columns of the density network's outputs."""
        (t, _, _, ray), (origins, directions, view) = self.samples, self.rays
        space = ((ctypes.c_float * 3)(*self.space.center), self.space.half, self.space.contract)
        arguments = _Arguments(*space, *self.density)
        held = {"origins": origins, "directions": directions, "view": view, "ray": ray, "t": t, **where}
        for name, tensor in held.items():
            setattr(arguments, name, place(tensor))
        arguments.samples, arguments.width, arguments.seen = len(t), width, view.shape[1]
        found = cuda_driver.kernel("shade.cu", kernel, t.device)
        cuda_driver.launch(found, -(-threads // _BLOCK), _BLOCK, 0, arguments)


class _Shade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, table: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        (t, dt, offsets, _), p, seen = plan.samples, len(plan.samples[0]), plan.rays[2].shape[1]
        density_net, color_net = networks_of(plan.layers, parameters)
        x, density, width = t.new_empty(p, 3), torch.empty_like(t), len(density_net[1][-1])
        plan.launch("unit_points", width, p, x=x)
        encoded = cuda_grid.encode(x, table, plan.geometry)
        features = cuda_mlp.forward(encoded, *density_net, "relu", "none", 0.0, plan.dtype, ())
        inputs = t.new_empty(p, width + seen)
        plan.launch("color_inputs", width, p * (width + seen), features=features, density=density, inputs=inputs)
        rgb = cuda_mlp.forward(inputs, *color_net, "relu", "sigmoid", 0.0, plan.dtype, ())
        out = cuda_rays.composite(density, rgb, t, dt, offsets, plan.background)
        ctx.save_for_backward(table, *parameters, x, encoded, features, inputs, density, rgb, out[3])
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(density)
        return *out, density

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *incoming: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, (_, *saved) = ctx.plan, ctx.saved_tensors
        parameters, (x, encoded, features, inputs, density, rgb, weights) = tuple(saved[:-7]), saved[-7:]
        if all(grad is None for grad in incoming[:4]):
            return (None,) * (2 + len(parameters))
        (t, dt, offsets, _), p, width = plan.samples, len(x), features.shape[1]
        to_out, to_depth, to_opacity, to_weights = (g if g is None else g.contiguous() for g in incoming[:4])
        to_density, to_rgb = cuda_rays.composite_backward(
            density, rgb, t, dt, offsets, plan.background, weights, to_out, to_depth, to_opacity, to_weights, plan.near
        )
        density_net, color_net = networks_of(plan.layers, parameters)
        to_inputs, *to_color = cuda_mlp.backward(
            to_rgb, inputs, *color_net, "relu", "sigmoid", 0.0, plan.dtype, (), True
        )
        to_features = torch.empty_like(features)
        plan.launch(
            "feature_gradient", width, p * width, features=features, to_inputs=to_inputs, to_density=to_density,
            to_features=to_features,
        )  # fmt: skip
        to_encoded, *to_network = cuda_mlp.backward(
            to_features, encoded, *density_net, "relu", "none", 0.0, plan.dtype, (), True
        )
        to_table = cuda_grid.encode_table(x, to_encoded, plan.geometry) if ctx.needs_input_grad[1] else None
        made = (to_table, *to_network, *to_color)
        return None, *(grad if needed else None for grad, needed in zip(made, ctx.needs_input_grad[1:]))


def shade(
    rays: tuple[Tensor, Tensor, Tensor],
    samples: tuple[Tensor, Tensor, Tensor, Tensor],
    space: Space,
    field: GridField,
    background: Tensor | None,
    near: float | None,
    dtype: str,
) -> Shaded:
    """`nerf.kernels.shade.shade`, with gradients to the field alone; of checked tensors.

    Args:
        rays: origins, directions, view.
        samples: t, dt, offsets, ray.
        dtype: what the networks' products are of, one of cuda_mlp.FORMATS.
    """
    origins, directions, view = map(ready, rays)
    t, dt, offsets, ray = map(ready, samples)
    plan = Plan(
        (t, dt, offsets, ray), (origins, directions, view), space, field.geometry,
        None if background is None else ready(background), near or 0.0, (field.density_bias, field.density_scale),
        (len(field.density_weights), len(field.color_weights)), dtype,
    )  # fmt: skip
    networks = (field.density_weights, field.density_biases, field.color_weights, field.color_biases)
    parameters = [tensor.contiguous() for group in networks for tensor in group]
    *out, density = _Shade.apply(plan, field.table.contiguous(), *parameters)
    return Shaded(Composited(*out), density)
