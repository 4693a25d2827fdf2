"""`shade` of the `cpu` backend: the kernels of a training step one after another, with nothing of torch's between them."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerf.kernels.composite import Composited
from nerf.kernels.cpu_library import call, check_offsets, first_derivatives, grid_arguments, suffix
from nerf.kernels.cpu_mlp import addresses, network_arguments
from nerf.kernels.frame import GridField
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.shade import Shaded, networks_of
from nerf.kernels.space import Space


class _Plan(NamedTuple):
    """A call's arguments that are no tensors to be differentiated."""

    samples: tuple[Tensor, ...]  # t, dt, offsets, ray
    rays: tuple[Tensor, Tensor]
    space: Space
    geometry: GridGeometry
    background: Tensor | None
    near: float | None
    bias: float
    scale: float
    layers: tuple[int, int]  # of the density and of the colour network
    networks: tuple[tuple, tuple]  # what their kernels take before the tensors


class _Shade(torch.autograd.Function):
    @staticmethod
    def forward(ctx, plan, x_canonical, view, table, *parameters):
        (t, dt, offsets, ray), (origins, directions), p = plan.samples, plan.rays, len(plan.samples[0])
        density_net, color_net = networks_of(plan.layers, parameters)
        features, seen = len(density_net[1][-1]), view.shape[1]
        x, density = t.new_empty(p, 3), t.new_empty(p)
        numbers = (ctypes.c_double * 4)(*plan.space.center, plan.space.half)
        if x_canonical is None:
            call("nerf_unit_points", p, origins, directions, ray, t, plan.space.contract, numbers, x)
        else:
            call("nerf_to_unit", p, x_canonical, plan.space.contract, numbers, x)
        encoded, given = t.new_empty(p, plan.geometry.width), t.new_empty(p, features)
        call("nerf_hash_encode_f32", p, *grid_arguments(plan.geometry), x, table, encoded)
        _forward(plan.networks[0], density_net, encoded, given)
        inputs, rgb = t.new_empty(p, features + seen), t.new_empty(p, 3)
        call("nerf_color_inputs", p, ray, features, given, seen, view, plan.bias, plan.scale, density, inputs)
        _forward(plan.networks[1], color_net, inputs, rgb)
        rays = len(offsets) - 1
        out = [t.new_empty(rays, 3), t.new_empty(rays), t.new_empty(rays), t.new_empty(p)]
        rows = 0 if plan.background is None else len(plan.background)
        call("nerf_composite_f32", rays, rows, offsets, density, rgb, t, dt, plan.background, *out)
        ctx.save_for_backward(x_canonical, table, *parameters, x, encoded, given, inputs, density, rgb, out[3])
        ctx.plan, ctx.seen = plan, seen
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(density)
        return *out, density

    @staticmethod
    def backward(ctx, *incoming):
        plan, seen, (x_canonical, table, *saved) = ctx.plan, ctx.seen, ctx.saved_tensors
        parameters, (x, encoded, given, inputs, density, rgb, weights) = tuple(saved[:-7]), saved[-7:]
        if all(grad is None for grad in incoming[:4]):
            return (None,) * (4 + len(parameters))
        (t, dt, offsets, _), p = plan.samples, len(x)
        rays, rows = len(offsets) - 1, 0 if plan.background is None else len(plan.background)
        grads = [None if grad is None else grad.detach().contiguous() for grad in incoming[:4]]
        to_out = torch.zeros(rays, 3) if grads[0] is None else grads[0]
        to_density, to_rgb = torch.empty_like(density), torch.empty_like(rgb)
        arguments = (rays, rows, offsets, density, rgb, t, dt, plan.background, weights)
        call("nerf_composite_backward_f32", *arguments, to_out, *grads[1:], to_density, to_rgb)
        if plan.near is not None:
            call("nerf_near_gradient", p, t, plan.near, to_density, to_rgb)
        density_net, color_net = networks_of(plan.layers, parameters)
        to_inputs, to_color = _backward(plan.networks[1], color_net, inputs, to_rgb)
        to_given, features = torch.empty_like(given), given.shape[1]
        numbers = (plan.bias, plan.scale)
        call("nerf_feature_gradient", p, features, given, seen, to_inputs, *numbers, to_density, to_given)
        to_encoded, to_network = _backward(plan.networks[0], density_net, encoded, to_given)
        to_view = to_x = None
        if ctx.needs_input_grad[2]:
            to_view = t.new_empty(rays, seen)
            call("nerf_view_gradient", rays, offsets, features, seen, to_inputs, to_view)
        grid, to_table = grid_arguments(plan.geometry), torch.empty_like(table)
        if ctx.needs_input_grad[1]:
            to_x, to_unit = torch.empty_like(x), torch.empty_like(x)
            call("nerf_hash_encode_x_f32", p, *grid, x, table, to_encoded, to_unit)
            cube = (ctypes.c_double * 4)(*plan.space.center, plan.space.half)
            call("nerf_to_unit_gradient", p, x_canonical, plan.space.contract, cube, to_unit, to_x)
        call("nerf_hash_encode_table_f32", p, *grid, x, to_encoded, to_table)
        made = (to_x, to_view, to_table, *to_network, *to_color)
        kept = (grad if needed else None for grad, needed in zip(made, ctx.needs_input_grad[1:]))
        return None, *first_derivatives("shade", *kept)


def _forward(shape: tuple, network: tuple[list[Tensor], list[Tensor]], x: Tensor, out: Tensor) -> None:
    weights, biases = network
    call("nerf_mlp", shape[0], len(x), *shape[1:], addresses(weights), addresses(biases), x, out)


def _backward(
    shape: tuple, network: tuple[list[Tensor], list[Tensor]], x: Tensor, grad: Tensor
) -> tuple[Tensor, list[Tensor]]:
    weights, biases = network
    to_x, made = torch.empty_like(x), [torch.empty_like(parameter) for parameter in (*weights, *biases)]
    by_weight, by_bias = addresses(made[: len(weights)]), addresses(made[len(weights) :])
    arguments = (addresses(weights), addresses(biases), x, grad, to_x, by_weight, by_bias)
    call("nerf_mlp_backward", shape[0], len(x), *shape[1:], *arguments)
    return to_x, made


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
    """`nerf.kernels.shade.shade`."""
    given = [tensor for tensor in (origins, directions, t, dt, background) if tensor is not None]
    asked = [] if x_canonical is None else [x_canonical]
    if suffix("shade", *given, *asked, view, field.table) != "f32":
        raise TypeError("shade: the cpu backend takes float32 tensors; use backend reference for float64")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        raise ValueError(
            "shade: the cpu backend has gradients to the field, to view and to x_canonical alone; use backend reference"
        )
    p, rays = len(t), len(origins)
    offsets = check_offsets("shade", offsets, p)
    if len(offsets) != rays + 1 or len(view) != rays or len(ray) != p or (p and int(ray.max()) >= rays):
        found = [tuple(tensor.shape) for tensor in (origins, view, t, offsets, ray)]
        raise ValueError(f"shade: expected a row of view a ray, and samples' rays among {rays}, found shapes {found}")
    if x_canonical is not None and x_canonical.shape != (p, 3):
        raise ValueError(f"shade: expected x_canonical of shape ({p}, 3), found {tuple(x_canonical.shape)}")
    if background is not None and background.shape not in ((1, 3), (rays, 3)):
        raise ValueError(f"shade: expected one background or one a ray, found shape {tuple(background.shape)}")
    expected = (field.geometry.offsets[-1], field.geometry.features)
    if field.table.shape != expected:
        raise ValueError(f"shade: expected a table of shape {expected}, found {tuple(field.table.shape)}")
    networks, parameters = [], []
    for inputs, weights, biases, last in (
        (field.geometry.width, field.density_weights, field.density_biases, "none"),
        (len(field.density_weights[-1]) + view.shape[1], field.color_weights, field.color_biases, "sigmoid"),
    ):
        shape, flat = network_arguments("shade", t.new_empty(0, inputs), weights, biases, ("relu", last), 0.0, "auto")
        networks.append(shape)
        parameters += flat
    plan = _Plan(
        tuple(tensor.contiguous() for tensor in (t, dt, offsets, ray)), (origins.contiguous(), directions.contiguous()),
        space, field.geometry, None if background is None else background.contiguous(), near,
        field.density_bias, field.density_scale, (len(field.density_weights), len(field.color_weights)),
        (networks[0], networks[1]),
    )  # fmt: skip
    x_canonical = None if x_canonical is None else x_canonical.contiguous()
    *out, density = _Shade.apply(plan, x_canonical, view.contiguous(), field.table.contiguous(), *parameters)
    return Shaded(Composited(*out), density)
