"""How close a rendered picture is to the photo: PSNR, SSIM, MS-SSIM, FLIP, and LPIPS where its weights are on this
machine; and DyCheck's mSSIM and mLPIPS.

Masks: where one is given, pixels outside of it count as equal and only pixels inside are averaged over. Only
`masked_ssim` and `masked_lpips` have rules of their own, DyCheck's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # Wang et al. 2004, section III-B
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2: exponents, the finest scale's first


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
    x, y = _channels(a), _channels(b if mask is None else torch.where(mask[..., None], b, a))
    luminance, contrast = _similarity(x, y, partial(_blur, window=_window(x)))
    return float(_average(luminance * contrast, mask).mean())


def ms_ssim(
    a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float | None:
    """SSIM over five scales (Wang et al. 2003, equation 7), which HyperNeRF reports: each scale's mean over windows, to
    its power of `SCALES`, multiplied; then the mean over channels. Of windows, contrast times structure counts, at the
    coarsest scale times luminance. Means below 0 count as 0.

    From scale to scale, 2 x 2 pixels are averaged (at the end of an odd side, those that are there). With a mask, means
    are over windows whose middle is inside it; a coarser pixel is inside where one of its four is.

    None where five scales don't fit, rather than a figure over fewer that compares with no other: with a side under
    161 pixels no window of 11 x 11 is left at the coarsest, nor may one be inside a mask along the picture's edges.
    """
    a = _same_size(a, b)
    x, y = _channels(a), _channels(b if mask is None else torch.where(mask[..., None], b, a))
    halvings = len(SCALES) - 1
    if min(a.shape[:2]) <= (WINDOW - 1) << halvings:
        return None
    powers = []
    for scale, exponent in enumerate(SCALES):
        luminance, contrast = _similarity(x, y, partial(_blur, window=_window(x)))
        terms = luminance * contrast if scale == halvings else contrast
        if mask is not None and not _middles(mask, terms).any():
            return None
        powers.append(_average(terms, mask).clamp(min=0) ** exponent)
        x, y = avg_pool2d(x, 2, ceil_mode=True), avg_pool2d(y, 2, ceil_mode=True)
        mask = None if mask is None else max_pool2d(mask[None].float(), 2, ceil_mode=True)[0] > 0
    return float(torch.stack(powers).prod(0).mean())


def masked_ssim(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"]) -> float:
    """DyCheck's mSSIM (Gao et al. 2022, section 4): SSIM whose windows see the mask's pixels alone.

    Its sums are partial convolutions (Liu et al. 2018, equation 1): over pixels inside the mask, times the window's
    pixels over their number, along rows and then along columns. As in DyCheck's program, which its tables come from,
    all windows are averaged over, and those that see nothing count as equal: a small mask's figure is near 1.

    NaN where the mask is empty.
    """
    x, y = _channels(_same_size(a, b)), _channels(b)
    luminance, contrast = _similarity(x, y, partial(_partial_blur, window=_window(x), mask=mask))
    return float((luminance * contrast).mean()) if mask.any() else math.nan


def _channels(picture: Float[Tensor, "h w 3"]) -> Float[Tensor, "3 h w"]:
    return picture.double().permute(2, 0, 1).contiguous()


def _window(x: Float[Tensor, "3 h w"]) -> Float[Tensor, "taps"]:
    """The Gaussian along one axis; in pictures smaller than it, cut to fit."""
    taps = min(WINDOW, *((n - 1) // 2 * 2 + 1 for n in x.shape[1:]))
    weights = torch.exp(-0.5 * ((torch.arange(taps, dtype=torch.float64) - taps // 2) / SIGMA) ** 2)
    return weights / weights.sum()


def _similarity(
    x: Float[Tensor, "3 h w"], y: Float[Tensor, "3 h w"], blur: Callable[[Tensor], Tensor]
) -> tuple[Float[Tensor, "3 i j"], Float[Tensor, "3 i j"]]:
    """Of all windows that lie inside the pictures, what they say of luminance, and of contrast and structure
    (Wang et al. 2004, equations 6 and 13).

    Variances are at least 0 and bound the covariance: no more than rounding, but where a partial blur's sums aren't
    means, in which DyCheck does the same.
    """
    mean_x, mean_y, square_x, square_y, product = blur(torch.stack([x, y, x * x, y * y, x * y]))
    var_x, var_y = (square_x - mean_x**2).clamp(min=0), (square_y - mean_y**2).clamp(min=0)
    most = (var_x * var_y).sqrt()
    both = torch.minimum(torch.maximum(product - mean_x * mean_y, -most), most)
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * both + c2) / (var_x + var_y + c2)


def _blur(x: Float[Tensor, "... h w"], window: Float[Tensor, "taps"]) -> Float[Tensor, "... i j"]:
    return _slide(_slide(x, window, -1), window, -2)


def _partial_blur(
    x: Float[Tensor, "... h w"], window: Float[Tensor, "taps"], mask: Bool[Tensor, "h w"]
) -> Float[Tensor, "... i j"]:
    known = mask.to(x.dtype)
    for dim in (-1, -2):
        count = _slide(known, torch.ones_like(window), dim)
        x = _slide(x * known, window, dim) * (len(window) / count.clamp(min=1))
        known = count.clamp(max=1)
    return x


def _slide(x: Tensor, weights: Float[Tensor, "taps"], dim: int) -> Tensor:
    """Weighted sums along `dim`, where all taps lie inside. (torch's convolutions of float64 take ten times as long.)"""
    count = x.shape[dim] - len(weights) + 1
    total = torch.zeros_like(x.narrow(dim, 0, count))
    for i, weight in enumerate(weights.tolist()):
        total.add_(x.narrow(dim, i, count), alpha=weight)
    return total


def _average(values: Float[Tensor, "3 i j"], mask: Bool[Tensor, "h w"] | None) -> Float[Tensor, "3"]:
    """Each channel's mean over all windows, or over those whose middle the mask holds; NaN where it holds none."""
    return values.mean((1, 2)) if mask is None else values[:, _middles(mask, values)].mean(1)


def _middles(mask: Bool[Tensor, "h w"], values: Float[Tensor, "3 i j"]) -> Bool[Tensor, "i j"]:
    edge = (mask.shape[0] - values.shape[1]) // 2
    return mask[edge : mask.shape[0] - edge, edge : mask.shape[1] - edge]


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


def masked_lpips(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"]) -> float | None:
    """DyCheck's mLPIPS (Gao et al. 2022, section 4): LPIPS pixel by pixel of two pictures that are black outside of the
    mask, averaged inside it. None as `lpips`; NaN where the mask is empty."""
    network = _lpips_network(spatial=True)
    if network is None:
        return None
    x, y = ((p * mask[..., None]).float().permute(2, 0, 1)[None] * 2 - 1 for p in (_same_size(a, b), b))
    with torch.no_grad():
        return float(network(x, y)[0, 0][mask].mean())


@cache
def _lpips_network(spatial: bool = False) -> Any:
    try:
        import lpips as package
        from torchvision.models import AlexNet_Weights
    except ImportError:
        return None
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(AlexNet_Weights.IMAGENET1K_V1.url).path).name
    return package.LPIPS(net="alex", spatial=spatial, verbose=False).eval() if file.is_file() else None


def _same_size(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape or a.ndim != 3 or a.shape[-1] != 3:
        raise ValueError(
            f"metrics: expected two pictures of one shape 'h w 3', found {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a
