"""The `tcnn` backend: networks by tiny-cuda-nn (Mueller et al. 2021), where it is installed; rays' ops are `cuda`'s.

Its fused network has no biases, no sine, a softplus of another shape, one width of 16 to 128, and inputs enter it once; its
hash grid lays corners half a cell off the ones of Mueller et al. 2022, equation 4, that ours has. What it can't express is
an error that says so: the function computed is the same on every backend.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nerf.kernels import cuda_driver
from nerf.kernels import warp as warps
from nerf.kernels.backends import BackendError
from nerf.kernels.cuda_arguments import check
from nerf.kernels.mlp import check_network
from nerf.kernels.space import Space
from nerf.kernels.warp import WarpField

WIDTHS = (16, 32, 64, 128)
ACTIVATIONS = {"none": "None", "relu": "ReLU", "sigmoid": "Sigmoid", "exponential": "Exponential"}
_PADDED = 16  # inputs and outputs are filled up to a multiple of this


class TcnnError(BackendError):
    """tiny-cuda-nn can't express what was asked for. The message says which part."""


@cache
def _module() -> Any:
    return importlib.import_module("tinycudann")


def why_not() -> str:
    """Why tiny-cuda-nn can't be used, as a sentence; "" where it can."""
    if importlib.util.find_spec("tinycudann") is None:
        return "tiny-cuda-nn is not installed (pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch)"
    if missing := cuda_driver.why_not():
        return missing
    try:
        _module()
    except (ImportError, OSError) as error:  # it raises EnvironmentError where it finds no GPU that it was built for
        return f"tiny-cuda-nn does not load: {error}"
    return ""


def _refuse(part: str) -> TcnnError:
    return TcnnError(f"mlp: tiny-cuda-nn's fused network has {part}; use backend cuda")


def _expressible(
    x: Tensor, weights: Sequence[Tensor], biases: object, activations: tuple[str, str], dtype: str, skips: Sequence[int]
) -> None:
    """Raise a TcnnError, with the first part of a network that can't be expressed."""
    if biases is not None:
        raise _refuse("no biases")
    if skips:
        raise _refuse(f"no layers that inputs enter again, such as {list(skips)}")
    widths = {len(weight) for weight in weights[:-1]}
    if len(widths) != 1 or not widths <= set(WIDTHS):
        raise _refuse(f"hidden layers of one width among {WIDTHS}, not {[len(weight) for weight in weights[:-1]]}")
    for name in activations:
        if name not in ACTIVATIONS:
            raise _refuse(f"the activations {', '.join(ACTIVATIONS)}, not {name!r}")
    if dtype not in ("auto", "float16"):
        raise _refuse(f"products of float16, not {dtype}")
    check_network("mlp", x, weights, None, activations, skips)


@cache
def _network(inputs: int, width: int, hidden: int, outputs: int, activation: str, output_activation: str) -> Any:
    config = {
        "otype": "FullyFusedMLP",
        "activation": ACTIVATIONS[activation],
        "output_activation": ACTIVATIONS[output_activation],
        "n_neurons": width,
        "n_hidden_layers": hidden,
    }
    return _module().Network(inputs, outputs, config)


def _packed(weights: Sequence[Tensor]) -> Tensor:
    """All matrices as tiny-cuda-nn holds them: row after row, inputs and outputs filled up to multiples of 16."""
    first, last = weights[0], weights[-1]
    filled = [F.pad(first, (0, -first.shape[1] % _PADDED)), *weights[1:-1]]
    filled.append(F.pad(last, (0, 0, 0, -last.shape[0] % _PADDED)))
    return torch.cat([weight.reshape(-1) for weight in filled])


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
    """`nerf.kernels.mlp.mlp`, products of float16; a `TcnnError` where tiny-cuda-nn's network is another function."""
    check("mlp", x, *weights)
    _expressible(x, weights, biases, (activation, output_activation), dtype, skips)
    shape = x.shape[1], len(weights[0]), len(weights) - 1, len(weights[-1])
    network = _network(*shape, activation, output_activation)
    return torch.func.functional_call(network, {"params": _packed(weights)}, (x,)).float()


def mlp_squared_error(
    x: Float[Tensor, "p i"],
    target: Float[Tensor, "p o"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    activation: str = "sine",
    omega: float = 30.0,
    dtype: str = "auto",
) -> Float[Tensor, ""]:
    """`nerf.kernels.mlp.mlp_squared_error`, where `mlp` can."""
    return F.mse_loss(mlp(x, weights, biases, activation, "none", omega, dtype), target)


def _no_grid(op: str) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise TcnnError(f"{op}: tiny-cuda-nn's hash grid has its corners half a cell off; use backend cuda")

    return refuse


hash_encode, look, frame, shade = (_no_grid(op) for op in ("hash_encode", "look", "frame", "shade"))


def warp(
    x_world: Float[Tensor, "p 3"], code: Float[Tensor, "r k"], ray: Tensor | None, space: Space, field: WarpField
) -> Float[Tensor, "p 3"]:
    """`nerf.kernels.warp.warp`, where `mlp` can: a `TcnnError` for ours, whose layers have biases."""
    return warps.warp(x_world, code, ray, space, field, mlp)
