"""Adam where there is a gradient (Mueller et al. 2022, section 4: entries that no sample touched are left alone)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


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
    """One step of Adam (Kingma & Ba 2015, algorithm 1), in place, on the entries whose gradient is not exactly zero.

    The others keep their value and both running means, which a plain step would let fade. In a hash table most rows are
    read by no sample of a step: skipping them saves most of the step's memory traffic.

    Args:
        parameter, gradient: of any shape.
        mean, square: running means of the gradient and of its square, m and v.
        step: how many steps there have been with this one, t.
    """
    touched = gradient != 0
    g = gradient[touched]
    m = mean[touched].lerp(g, 1 - betas[0])
    v = square[touched] * betas[1] + (1 - betas[1]) * g * g
    denominator = v.sqrt() / math.sqrt(1 - betas[1] ** step) + eps
    mean[touched], square[touched] = m, v
    parameter[touched] -= rate / (1 - betas[0] ** step) * m / denominator
