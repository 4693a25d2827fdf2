"""Small fully connected networks: the layers of every field, warp and SIREN."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS = ("none", "relu", "sine", "softplus", "sigmoid", "exponential")


def activate(x: Float[Tensor, "..."], activation: str, omega: float = 30.0) -> Float[Tensor, "..."]:
    """Apply one of `ACTIVATIONS`; `omega` is the frequency of "sine" (Sitzmann et al. 2020, section 3.2)."""
    match activation:
        case "none":
            return x
        case "relu":
            return F.relu(x)
        case "sine":
            return torch.sin(omega * x)
        case "softplus":
            return F.softplus(x)
        case "sigmoid":
            return torch.sigmoid(x)
        case "exponential":
            return torch.exp(x)
    raise ValueError(f"activate: expected one of {', '.join(ACTIVATIONS)}, found {activation!r}")


def check_network(
    op: str,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    activations: tuple[str, str],
    skips: Sequence[int],
) -> None:
    """Raise ValueError unless a network's tensors belong together: a kernel would read beyond them."""
    for name in activations:
        if name not in ACTIVATIONS:
            raise ValueError(f"{op}: expected one of {', '.join(ACTIVATIONS)}, found {name!r}")
    if not set(skips) <= set(range(len(weights))):
        raise ValueError(f"{op}: expected skips among the {len(weights)} layers, found {list(skips)}")
    widths = [x.shape[-1], *(weight.shape[0] for weight in weights)]
    shapes = [(after, before + widths[0] * (layer in skips)) for layer, (before, after) in enumerate(pairwise(widths))]
    found = [tuple(weight.shape) for weight in weights]
    if x.ndim != 2 or not weights or found != shapes:
        raise ValueError(f"{op}: inputs {tuple(x.shape)} and weights {found} don't follow one another")
    if biases is not None and [tuple(bias.shape) for bias in biases] != [(width,) for width in widths[1:]]:
        raise ValueError(f"{op}: expected biases of lengths {widths[1:]}, found {[tuple(b.shape) for b in biases]}")


def unrounded(op: str, dtype: str) -> None:
    """Raise ValueError where this backend is asked to round."""
    if dtype not in ("auto", "float32"):
        raise ValueError(f"{op}: dtype: expected auto or float32 on backend reference, found {dtype!r}")


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
    """A perceptron: every layer is x W^T + b; `activation` follows all but the last, `output_activation` the last.

    Args:
        x: inputs.
        weights: one matrix a layer, outputs by inputs, as torch.nn.Linear holds them.
        biases: one vector a layer, or None for a network without biases.
        omega: frequency of the sine activation, of every layer that has it.
        dtype: what a backend may round the products' operands to; this one rounds nothing, and takes "auto" or "float32".
        skips: indices of layers that x enters again: their matrices' columns are of the layer before, then of x.
    """
    unrounded("mlp", dtype)
    inputs = x
    for index, weight in enumerate(weights):
        if index in skips:
            x = torch.cat([x, inputs], dim=-1)
        x = F.linear(x, weight, None if biases is None else biases[index])
        x = activate(x, output_activation if index == len(weights) - 1 else activation, omega)
    return x


def mlp_squared_error(
    x: Float[Tensor, "p i"],
    target: Float[Tensor, "p o"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    activation: str = "sine",
    omega: float = 30.0,
    dtype: str = "auto",
) -> Float[Tensor, ""]:
    """Mean squared difference of `mlp` (without an output activation) from `target`, over all points and outputs."""
    unrounded("mlp_squared_error", dtype)
    return F.mse_loss(mlp(x, weights, biases, activation, "none", omega), target)
