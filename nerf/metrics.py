"""How close a rendered picture is to the photo: PSNR, SSIM, FLIP, and LPIPS where its weights are on this machine.

Masks: where one is given, pixels outside of it count as equal and only pixels inside are averaged over.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # Wang et al. 2004, section III-B


def psnr(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None) -> float:
    """Peak signal-to-noise ratio, -10 log10(mean squared difference), in dB; infinite for equal pictures."""
    square = (_same_size(a, b) - b).double().square()
    mean = float((square if mask is None else square[mask]).mean())
    return -10 * math.log10(mean) if mean > 0 else math.inf if mean == 0 else math.nan


def ssim(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None) -> float:
    """Structural similarity (Wang et al. 2004): means, variances and covariance under a Gaussian window of 11 x 11 and
    sigma 1.5, for colours in [0, 1]; averaged over channels and all places where the window lies inside the picture.

    With a mask, over those whose middle is inside the mask. In pictures smaller than the window, it is cut to fit.
    """
    a = _same_size(a, b)
    b = b if mask is None else torch.where(mask[..., None], b, a)
    size = min(WINDOW, *((n - 1) // 2 * 2 + 1 for n in a.shape[:2]))
    weights = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / SIGMA) ** 2)
    weights /= weights.sum()
    x, y = (picture.double().permute(2, 0, 1)[:, None] for picture in (a, b))

    def blur(picture: Tensor) -> Tensor:
        return conv2d(conv2d(picture, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, both = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    value = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    value = value.mean((0, 1))
    if mask is None:
        return float(value.mean())
    edge = size // 2
    inside = mask[edge : mask.shape[0] - edge, edge : mask.shape[1] - edge]
    return float(value[inside].mean()) if inside.any() else math.nan


def flip(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None) -> float:
    """NVIDIA's FLIP (Andersson et al. 2020): how much a person sees change when flipping from photo `b` to `a`, 0 to 1.

    Lower is better. For a viewer at 67 pixels per degree (0.7 m from a 4K screen of 0.7 m).
    """
    error = flip_map(a, b, mask)
    return float((error if mask is None else error[mask]).double().mean())


def flip_map(
    a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> Float[Tensor, "h w"]:
    """FLIP of every pixel, in [0, 1]; `b` is the photo."""
    import flip_evaluator

    a = _same_size(a, b)
    a = a if mask is None else torch.where(mask[..., None], a, b)
    photo, test = (np.ascontiguousarray(p.detach().cpu().float().clamp(0, 1).numpy()) for p in (b, a))
    error = flip_evaluator.evaluate(photo, test, "LDR", inputsRGB=True, applyMagma=False, computeMeanError=False)[0]
    return torch.from_numpy(np.array(error)).reshape(*a.shape[:2], -1)[..., 0]


def lpips(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"]) -> float | None:
    """LPIPS with AlexNet (Zhang et al. 2018), lower is better. None where the package `lpips` or its weights are not on
    this machine: nothing is downloaded."""
    network = _lpips_network()
    if network is None:
        return None
    x, y = (p.float().permute(2, 0, 1)[None] * 2 - 1 for p in (_same_size(a, b), b))
    with torch.no_grad():
        return float(network(x, y))


@cache
def _lpips_network() -> Any:
    try:
        import lpips as package
        from torchvision.models import AlexNet_Weights
    except ImportError:
        return None
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(AlexNet_Weights.IMAGENET1K_V1.url).path).name
    return package.LPIPS(net="alex", verbose=False).eval() if file.is_file() else None


def _same_size(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape or a.ndim != 3 or a.shape[-1] != 3:
        raise ValueError(
            f"metrics: expected two pictures of one shape 'h w 3', found {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a
