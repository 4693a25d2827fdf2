"""The fused network of the `cpu` backend: value, squared error, and derivatives by the inputs."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.kernels.cpu_library import call, first_derivatives, multiplies_bfloat16, suffix
from nerf.kernels.mlp import ACTIVATIONS, check_network
from nerf.kernels.mlp_jet import Jet

FORMATS = ("float32", "bfloat16", "float64")  # `Format` in cuda/cpu/mlp_driver.h


def addresses(tensors: Sequence[Tensor] | None) -> object:
    """Where each tensor's numbers begin, as the kernels take it."""
    return None if tensors is None else (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def network_arguments(
    op: str,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    activations: tuple[str, str],
    omega: float,
    dtype: str,
    skips: Sequence[int] = (),
) -> tuple[tuple[object, ...], list[Tensor]]:
    """What the kernels take before the tensors (format, depth, widths, inputs again, activations, omega), and all
    parameters; checked."""
    check_network(op, x, weights, biases, activations, skips)
    again, widths = [index in skips for index in range(len(weights))], [x.shape[-1], *map(len, weights)]
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"{op}: expected dtype auto, float32 or bfloat16, found {dtype!r}")
    parameters = [tensor.contiguous() for tensor in (*weights, *(biases or ()))]
    if dtype == "auto":
        dtype = "bfloat16" if multiplies_bfloat16() and "sine" not in activations else "float32"
    number = "float64" if suffix(op, x, *parameters) == "f64" else dtype
    kinds = [ACTIVATIONS.index(name) for name in activations]
    numbers = (ctypes.c_int32 * len(widths))(*widths), (ctypes.c_uint8 * len(again))(*again)
    return (FORMATS.index(number), len(weights), *numbers, *kinds, omega), parameters


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, shape, depth, *parameters):
        ctx.save_for_backward(x, *parameters)
        ctx.shape, ctx.depth = shape, depth
        weights, biases = parameters[:depth], parameters[depth:] or None
        out = x.new_empty(len(x), weights[-1].shape[0])
        call("nerf_mlp", shape[0], len(x), *shape[1:], addresses(weights), addresses(biases), x, out)
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
        arguments = (ctx.shape[0], len(x), *ctx.shape[1:], addresses(weights), addresses(biases), x, grad, grad_x)
        call("nerf_mlp_backward", *arguments, addresses(grad_weights), addresses(grad_biases))
        made = [*(grad_weights or ()), *(grad_biases or ())] or [None] * len(parameters)
        kept = [value if needed else None for value, needed in zip(made, ctx.needs_input_grad[3:])]
        grad_x, *grads = first_derivatives("mlp", grad_x, *kept)
        return grad_x, None, None, *grads


def mlp(
    x: Float[Tensor, "p i"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    activation: str = "relu",
    output_activation: str = "none",
    omega: float = 30.0,
    dtype: str = "auto",
    skips: Sequence[int] = (),
) -> Float[Tensor, "p o"]:
    """`nerf.kernels.mlp.mlp`, all layers in one pass.

    Args:
        dtype: what the products are of; sums are float32 in any case. "bfloat16" takes a processor that multiplies it.
            "auto": bfloat16 there, and float32 elsewhere and for sines, whose phases it rounds; the first layer of a sine
            network is float32 in any case.
    """
    activations = (activation, output_activation)
    shape, parameters = network_arguments("mlp", x, weights, biases, activations, omega, dtype, skips)
    return _Mlp.apply(x.contiguous(), shape, len(weights), *parameters)


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, target, shape, depth, *parameters):
        weights, biases = parameters[:depth], parameters[depth:] or None
        loss = x.new_empty(())
        wanted = any(ctx.needs_input_grad[4:])
        grads = [torch.empty_like(parameter) for parameter in parameters] if wanted else None
        by_weight = None if grads is None else addresses(grads[:depth])
        by_bias = None if grads is None or biases is None else addresses(grads[depth:])
        where = (addresses(weights), addresses(biases), x, target, loss)
        call("nerf_mlp_squared_error", shape[0], len(x), *shape[1:], *where, by_weight, by_bias)
        ctx.save_for_backward(*(grads or ()))
        return loss

    @staticmethod
    def backward(ctx, grad):
        made = [grad.detach() * value for value in ctx.saved_tensors]
        kept = [value if needed else None for value, needed in zip(made, ctx.needs_input_grad[4:])]
        return None, None, None, None, *first_derivatives("mlp_squared_error", *kept)


def mlp_squared_error(
    x: Float[Tensor, "p i"],
    target: Float[Tensor, "p o"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    activation: str = "sine",
    omega: float = 30.0,
    dtype: str = "auto",
) -> Float[Tensor, ""]:
    """`nerf.kernels.mlp.mlp_squared_error`: loss and gradients from one forward and one backward pass over the points.

    Args:
        dtype: as `mlp` takes it.
    """
    shape, parameters = network_arguments("mlp_squared_error", x, weights, biases, (activation, "none"), omega, dtype)
    if target.shape != (len(x), len(weights[-1])):
        expected = (len(x), len(weights[-1]))
        raise ValueError(f"mlp_squared_error: expected a target of shape {expected}, found {tuple(target.shape)}")
    suffix("mlp_squared_error", x, target)
    if torch.is_grad_enabled() and (x.requires_grad or target.requires_grad):
        raise ValueError("mlp_squared_error: the cpu backend has no gradient to x and target; use mlp")
    return _SquaredError.apply(x.contiguous(), target.contiguous(), shape, len(weights), *parameters)


class _Jet(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, tangents, forms, shape, depth, *parameters):
        ctx.save_for_backward(x, tangents, forms, *parameters)
        ctx.shape, ctx.depth = shape, depth
        weights, biases = parameters[:depth], parameters[depth:] or None
        dims = x.shape[1] if tangents is None else len(tangents)
        out = x.new_empty(1 + dims + len(forms), len(x), len(weights[-1]))
        where = (addresses(weights), addresses(biases), x, dims, tangents, len(forms), forms, out)
        call("nerf_mlp_jet", shape[0], len(x), *shape[1:], *where)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, tangents, forms, *parameters = ctx.saved_tensors
        x, parameters = x.detach(), [tensor.detach() for tensor in parameters]
        weights, biases = parameters[: ctx.depth], parameters[ctx.depth :] or None
        grad = grad.detach().contiguous()
        dims = x.shape[1] if tangents is None else len(tangents)
        grad_x, grad_tangents = (
            torch.empty_like(tensor) if needed else None for tensor, needed in zip((x, tangents), ctx.needs_input_grad)
        )
        grads = [torch.empty_like(parameter) for parameter in parameters] if any(ctx.needs_input_grad[5:]) else None
        by_weight = None if grads is None else addresses(grads[: ctx.depth])
        by_bias = None if grads is None or biases is None else addresses(grads[ctx.depth :])
        where = (addresses(weights), addresses(biases), x, dims, tangents, len(forms), forms, grad)
        to = (grad_x, grad_tangents, by_weight, by_bias)
        call("nerf_mlp_jet_backward", ctx.shape[0], len(x), *ctx.shape[1:], *where, *to)
        made: list[Tensor | None] = [*grads] if grads else [None] * len(parameters)
        kept = [value if needed else None for value, needed in zip(made, ctx.needs_input_grad[5:])]
        grad_x, grad_tangents, *kept = first_derivatives("mlp_jet", grad_x, grad_tangents, *kept)
        return grad_x, grad_tangents, None, None, None, *kept


def mlp_jet(
    x: Float[Tensor, "p i"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    forms: Float[Tensor, "m d d"],
    activation: str = "sine",
    omega: float = 30.0,
    dtype: str = "float32",
    tangents: Float[Tensor, "d p i"] | None = None,
    skips: Sequence[int] = (),
) -> Jet:
    """`nerf.kernels.mlp_jet.mlp_jet`, all layers in one pass; the backward pass keeps nothing but the inputs.

    Args:
        dtype: as `mlp` takes it, but float32 unless asked: a second derivative is a difference of large numbers.
    """
    shape, parameters = network_arguments("mlp_jet", x, weights, biases, (activation, "none"), omega, dtype, skips)
    if tangents is not None and (tangents.ndim != 3 or tangents.shape[1:] != x.shape):
        expected = ("d", *x.shape)
        raise ValueError(f"mlp_jet: expected tangents of shape {expected}, found {tuple(tangents.shape)}")
    dims = x.shape[1] if tangents is None else len(tangents)
    expected = (len(forms), dims, dims)
    if forms.shape != expected or not torch.equal(forms, forms.mT):
        raise ValueError(f"mlp_jet: expected symmetric forms of shape {expected}, found shape {tuple(forms.shape)}")
    suffix("mlp_jet", x, forms, *(() if tangents is None else (tangents,)))
    flows = None if tangents is None else tangents.contiguous()
    streams = _Jet.apply(x.contiguous(), flows, forms.contiguous(), shape, len(weights), *parameters)
    value, gradient, second = streams.split([1, dims, len(forms)])
    return Jet(value[0], gradient.permute(1, 2, 0), second.permute(1, 2, 0))
