"""`warp` of the `cpu` backend (cuda/cpu/warp.cpp): encoding, networks and motion of a block of points while it lies in cache."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerf.kernels import warp as reference
from nerf.kernels.cpu_library import call, first_derivatives
from nerf.kernels.cpu_mlp import addresses, mlp, network_arguments
from nerf.kernels.space import Space
from nerf.kernels.warp import WarpField, Warping

NO_WARP = (0, 0, None, 0, 0, 0.0, *(0, None, None, None, None), *(0, None, None, None), None)


class Prepared(NamedTuple):
    """What the kernels take of a warp.

    format: of the products. arguments: what stands for the warp, without the codes. code: a row a ray. parameters: all
    weights and biases, of the network and then of the parts'. depths: layers of both. alive: what the arguments point to.
    """

    format: int
    arguments: tuple[object, ...]
    code: Tensor
    parameters: list[Tensor]
    depths: tuple[int, int]
    alive: tuple[Tensor, ...]


def prepare(op: str, code: Tensor, field: WarpField) -> Prepared:
    """Check a warp, and lay it out for the kernels."""
    bands, width = len(field.window), code.shape[1]
    encoded, own = 3 + 6 * bands, width - 6 * field.parts
    outputs = 6 if field.turns else 3
    if own < 0 or len(field.biases[-1]) != outputs or (field.parts and not field.turns):
        found = f"{len(field.biases[-1])} outputs, {field.parts} parts and codes of {width}"
        raise ValueError(f"{op}: expected a warp of {outputs} outputs and codes with 6 numbers a part, found {found}")
    probe = field.weights[0].new_empty(0, encoded + own)
    names = ("relu", "none")
    first, own_parameters = network_arguments(op, probe, field.weights, field.biases, names, 0.0, "auto", field.skips)
    depth, depths = len(field.weights), (len(field.weights), len(field.share_weights))
    shares: tuple[object, ...] = (0, None, None, None)
    share_parameters: list[Tensor] = []
    if field.parts:
        second, share_parameters = network_arguments(
            op, probe[:, :encoded], field.share_weights, field.share_biases, names, 0.0, "auto"
        )
        by_layer = share_parameters[: depths[1]], share_parameters[depths[1] :]
        shares = (depths[1], second[2], *map(addresses, by_layer))
    window = field.window.detach().float().contiguous()
    network = (depth, first[2], first[3], *map(addresses, (own_parameters[:depth], own_parameters[depth:])))
    arguments = (field.turns, bands, window, width, field.parts, field.fade, *network, *shares)
    code, parameters = code.contiguous(), own_parameters + share_parameters
    return Prepared(int(first[0]), arguments, code, parameters, depths, (window,))  # type: ignore[call-overload]


def warp_arguments(op: str, warping: Warping | None, rays: int) -> tuple[tuple[object, ...], object]:
    """What `look` and `frame` take of a warp, or of none; and what must live while they run."""
    if warping is None:
        return NO_WARP, None
    if warping.code.shape[0] != rays or warping.code.dtype != torch.float32:
        found = f"{warping.code.dtype} {tuple(warping.code.shape)}"
        raise ValueError(f"{op}: expected float32 codes, a row for each of {rays} rays, found {found}")
    prepared = prepare(op, warping.code.detach(), warping.field)
    return (*prepared.arguments, prepared.code), prepared


class _Warp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, code, ray, numbers, field, *parameters):
        prepared = prepare("warp", code, field)
        out = torch.empty_like(x)
        call("nerf_warp", len(x), prepared.format, numbers, x, prepared.code, ray, *prepared.arguments, out)
        ctx.save_for_backward(x, code, ray)
        ctx.numbers, ctx.prepared = numbers, prepared
        return out

    @staticmethod
    def backward(ctx, grad):
        (x, code, ray), prepared = ctx.saved_tensors, ctx.prepared
        made = [torch.empty_like(parameter) for parameter in prepared.parameters]
        to_code, (depth, share_depth) = torch.empty_like(prepared.code), prepared.depths
        shares = made[2 * depth :]
        given = (made[:depth], made[depth : 2 * depth], shares[:share_depth], shares[share_depth:])
        points = (len(x), prepared.format, ctx.numbers, x, prepared.code, ray)
        grad = grad.detach().contiguous()
        to = (len(code), grad, to_code, *map(addresses, given))
        call("nerf_warp_backward", *points, *prepared.arguments, *to)
        needed = (ctx.needs_input_grad[1], *ctx.needs_input_grad[5:])
        grads = first_derivatives("warp", *(value if need else None for value, need in zip((to_code, *made), needed)))
        return None, grads[0], None, None, None, *grads[1:]


def warp(
    x_world: Float[Tensor, "p 3"],
    code: Float[Tensor, "r k"],
    ray: Int[Tensor, "p"] | None,
    space: Space,
    field: WarpField,
) -> Float[Tensor, "p 3"]:
    """`nerf.kernels.warp.warp`. Where the points get gradients too, and of float64, only the networks are fused."""
    if (torch.is_grad_enabled() and x_world.requires_grad) or x_world.dtype != torch.float32:
        return reference.warp(x_world, code, ray, space, field, mlp)
    rows, p = len(code), len(x_world)
    if ray is None and rows != p:
        raise ValueError(f"warp: expected a code for each of {p} points, found {rows}")
    if ray is not None and (len(ray) != p or (p and not 0 <= int(ray.min()) <= int(ray.max()) < rows)):
        raise ValueError(f"warp: expected the ray of each of {p} points, among {rows}, found {tuple(ray.shape)}")
    numbers = (ctypes.c_double * 4)(*space.center, space.half)
    ray = None if ray is None else ray.to(torch.int64).contiguous()
    parameters = (*field.weights, *field.biases, *field.share_weights, *field.share_biases)
    return _Warp.apply(x_world.contiguous(), code, ray, numbers, field, *parameters)
