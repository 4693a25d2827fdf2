"""Networks wider than 128 on the `cuda` backend: cuBLAS's products, and kernels for what follows them (mlp_epilogue.cu)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_arguments import fields, place
from nerf.kernels.cuda_mlp_shape import FORMATS, Settings, blocks_at_once, exact_first
from nerf.kernels.mlp import ACTIVATIONS

_CHUNK = 1 << 16  # rows at a time: what is kept of them is at most a few hundred MB
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class _Arguments(ctypes.Structure):
    """mlp::EpilogueArgs."""

    _fields_ = fields(p="sums bias grad largest steep out value slope", l="count", i="columns kind", f="omega")


def _run(name: str, settings: Settings, activation: str, sums: Tensor, **tensors: Tensor | None) -> None:
    """One of mlp_epilogue.cu's kernels over all numbers of a product."""
    arguments = _Arguments(sums=sums.data_ptr(), **{key: place(tensor) for key, tensor in tensors.items()})
    arguments.count, arguments.columns = sums.numel(), sums.shape[1]
    arguments.kind, arguments.omega = ACTIVATIONS.index(activation), settings.omega
    kernel = cuda_driver.kernel("mlp_epilogue.cu", name, sums.device, (("MLP_FORMAT", FORMATS[settings.dtype]),))
    blocks = min(-(-sums.numel() // 256), 4 * blocks_at_once(sums.device, 256, 0))
    cuda_driver.launch(kernel, blocks, 256, 0, arguments)


@cache
def _gives_float32(device: torch.device) -> bool:
    """Whether products of 16-bit matrices can be had as they are summed, in float32 (PyTorch 2.8 on CUDA)."""
    if device.type != "cuda":
        return False
    try:
        torch.mm(*(torch.zeros(16, 16, dtype=torch.float16, device=device),) * 2, out_dtype=torch.float32)
    except (TypeError, RuntimeError):
        return False
    return True


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of 16-bit matrices, in float32; rounded once more where PyTorch can't give that."""
    if a.device.type != "cuda":
        return a.float() @ b.float()
    return torch.mm(a, b, out_dtype=torch.float32) if _gives_float32(a.device) else (a @ b).float()


def _forward_chunk(
    x: Tensor, rounded: Sequence[Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor], settings: Settings,
    backward: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """The last layer's sums; what entered each layer, rounded, and each activation's slopes where they're for `backward`."""
    coarse = x.to(_DTYPES[settings.dtype])
    rows, entered, slopes, sums = coarse, [], [], x
    for layer, weight in enumerate(rounded):
        rows = torch.cat([rows, coarse], dim=1) if layer in settings.skips else rows
        entered.append(rows)
        exact = layer == 0 and exact_first(x.shape[1], settings.activation, len(weights), settings.skips)
        sums = F.linear(x, weights[0]) if exact else _product(rows, weight.T)
        if layer < len(rounded) - 1:
            rows = torch.empty_like(sums, dtype=coarse.dtype)
            slope = torch.empty_like(rows) if backward else None
            bias = biases[layer] if biases else None
            _run("mlp_epilogue", settings, settings.activation, sums, bias=bias, value=rows, slope=slope)
            slopes += [slope] if slope is not None else []
    return sums, entered, slopes


def forward(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], settings: Settings) -> Tensor:
    """`nerf.kernels.mlp.mlp`."""
    rounded = [weight.to(_DTYPES[settings.dtype]) for weight in weights]
    out = x.new_empty(len(x), len(weights[-1]))
    for first in range(0, len(x), _CHUNK):
        rows = slice(first, first + _CHUNK)
        sums, _, _ = _forward_chunk(x[rows], rounded, weights, biases, settings, False)
        last = biases[-1] if biases else None
        _run("mlp_epilogue", settings, settings.output_activation, sums, bias=last, out=out[rows])
    return out


def _down(largest: Tensor | None) -> Tensor | float:
    """mlp::Scale::down, on the device."""
    if largest is None:
        return 1.0
    up = (254 - (largest.view(torch.int32) >> 23)).clamp(2, 252)
    return ((254 - up) << 23).view(torch.float32)


def backward(
    grad: Tensor, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], settings: Settings,
    largest: Tensor | None, given: Tensor | None, made: Sequence[Tensor],
) -> None:  # fmt: skip
    """Gradients: given to x where it is wanted, and added to what is made of the parameters'."""
    rounded = [weight.to(_DTYPES[settings.dtype]) for weight in weights]
    for first in range(0, len(x), _CHUNK):
        rows = slice(first, first + _CHUNK)
        to_x = None if given is None else given[rows]
        _backward_chunk(grad[rows], x[rows], rounded, weights, biases, settings, largest, to_x, made)
    for tensor in (*made, *(() if given is None else (given,))):
        tensor *= _down(largest)


def _backward_chunk(
    grad: Tensor, x: Tensor, rounded: Sequence[Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor],
    settings: Settings, largest: Tensor | None, given: Tensor | None, made: Sequence[Tensor],
) -> None:  # fmt: skip
    """Gradients of some rows, before they are divided by what scales them."""
    sums, entered, slopes = _forward_chunk(x, rounded, weights, biases, settings, True)
    depth, bias = len(rounded), biases[-1] if biases else None
    above = torch.empty_like(sums, dtype=_DTYPES[settings.dtype])
    kind = settings.output_activation
    _run("mlp_epilogue_last", settings, kind, sums, bias=bias, grad=grad, largest=largest, value=above)
    to_x = torch.zeros_like(x)
    for layer in reversed(range(depth)):
        exact = layer == 0 and exact_first(x.shape[1], settings.activation, depth, settings.skips)
        made[layer].add_(above.T.float() @ x if exact else _product(above.T, entered[layer]))
        if biases:
            made[depth + layer].add_(above.sum(0, dtype=torch.float32))
        if layer == 0 and given is None:
            return
        below = _product(above, rounded[layer])
        if layer in settings.skips:
            to_x += below[:, -x.shape[1] :]
            below = below[:, : -x.shape[1]].contiguous()
        if layer == 0:
            torch.add(to_x, below, out=given)
            return
        above = torch.empty_like(below, dtype=above.dtype)
        _run("mlp_epilogue_back", settings, "none", below, steep=slopes[layer - 1], value=above)
