"""What training minimises."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.strain import log_strain


def photometric(predicted: Float[Tensor, "r 3"], target: Float[Tensor, "r 3"]) -> Float[Tensor, ""]:
    """Mean squared error of the colours (NeRF, equation 6)."""
    return (predicted - target).square().mean()


def geman_mcclure(squared: Float[Tensor, "..."], scale: float = 0.03) -> Float[Tensor, "..."]:
    """rho(x, c) = 2 (x/c)^2 / ((x/c)^2 + 4), from the squared residual x^2 (Nerfies, equation 7; Geman and McClure 1985)."""
    ratio = squared / scale**2
    return 2 * ratio / (ratio + 4)


def elastic(
    jacobian: Float[Tensor, "p 3 3"], weights: Float[Tensor, "p"], rays: int, scale: float = 0.03, floor: float = 1e-6
) -> Float[Tensor, ""]:
    """Elastic loss: how far the warp is from a local rotation (Nerfies, equations 6 and 7).

    ||log Sigma||_F^2 of the Jacobian's singular values Sigma through the robust Geman-McClure function, weighted by
    the share that each sample has of its ray (no gradient through it), summed over samples, averaged over rays.
    """
    residual = log_strain(jacobian, floor)
    return scale * (weights.detach() * geman_mcclure(residual, scale)).sum() / max(rays, 1)


def background(moved: Float[Tensor, "p 3"], points: Float[Tensor, "p 3"], scale: float = 0.03) -> Float[Tensor, ""]:
    """Static points stay where they are: mean of the robust squared motion of background points (Nerfies, section 3.4)."""
    return scale * geman_mcclure((moved - points).square().sum(-1), scale).mean()


def distortion(
    weights: Float[Tensor, "p"], s0: Float[Tensor, "p"], s1: Float[Tensor, "p"], offsets: Tensor
) -> Float[Tensor, ""]:
    """Weights of a ray gather in one place (Barron et al. 2022, equation 15), mean over rays, in linear time.

    sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 (s1_i - s0_i), with m the middles of the normalised intervals; the
    double sum is 2 sum_i w_i (m_i W_<i - M_<i), with W and M the running sums of w and w m along the ray.
    """
    rays = max(len(offsets) - 1, 1)
    middle = (s0 + s1) / 2
    moment = weights * middle
    ray = torch.repeat_interleave(
        torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff(), output_size=len(weights)
    )

    def before(x: Tensor) -> Tensor:
        x = x.double()
        running = x.cumsum(0) - x
        padded = torch.cat([running, x.sum()[None]])
        return (running - padded[offsets[:-1]][ray]).to(weights.dtype)

    between = 2 * (weights * (middle * before(weights) - before(moment))).sum()
    within = (weights.square() * (s1 - s0)).sum() / 3
    return (between + within) / rays
