"""MS-SSIM and the figures of co-visible pixels against slow loops in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from nerf.metrics import masked_ssim, ms_ssim, psnr, ssim

GAUSS = np.array([math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)])
GAUSS /= GAUSS.sum()


def pictures(h: int, w: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of colour with detail at several scales, and the same under noise."""
    draw = torch.Generator().manual_seed(3)
    b = torch.zeros(1, 3, h, w)
    for cells in (3, 11, 40):
        b += interpolate(torch.rand(1, 3, cells, cells, generator=draw), size=(h, w), mode="bilinear") / 3
    b = b[0].permute(1, 2, 0).contiguous()
    return (b + noise * torch.randn(h, w, 3, generator=draw)).clamp(0, 1), b


def pooled(picture: np.ndarray, take) -> np.ndarray:
    """`take` (mean, max) of 2 x 2 blocks; at the end of an odd side, of what is there."""
    rows, columns = (picture.shape[0] + 1) // 2, (picture.shape[1] + 1) // 2
    return np.array(
        [[take(picture[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]) for j in range(columns)] for i in range(rows)]
    )


def slow_ms_ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Wang et al. 2003, equation 7, with whole windows of 11 x 11 and centred moments."""
    g = GAUSS[:, None] * GAUSS
    total = 0.0
    for channel in range(3):
        p, q, inside = a[..., channel], b[..., channel], np.ones(a.shape[:2], bool) if mask is None else mask
        q = np.where(inside, q, p)
        product = 1.0
        for scale, power in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            if scale > 0:
                p, q, inside = pooled(p, np.mean), pooled(q, np.mean), pooled(inside, np.max)
            values = []
            for i in range(p.shape[0] - 10):
                windows = [np.lib.stride_tricks.sliding_window_view(v[i : i + 11], 11, axis=1) for v in (p, q)]
                u, v = (w.transpose(1, 0, 2) for w in windows)  # a row's windows: "n 11 11"
                mu, mv = ((g * w).sum((1, 2)) for w in (u, v))
                u, v = u - mu[:, None, None], v - mv[:, None, None]
                value = (2 * (g * u * v).sum((1, 2)) + 9e-4) / ((g * (u * u + v * v)).sum((1, 2)) + 9e-4)
                if scale == 4:
                    value = value * (2 * mu * mv + 1e-4) / (mu * mu + mv * mv + 1e-4)
                values.extend(value[inside[i + 5, 5:-5]])
            product *= max(0.0, np.mean(values)) ** power
        total += product / 3
    return total


@pytest.mark.parametrize("size", [(176, 192), (161, 187)], ids=["even", "odd"])
@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_ms_ssim_is_the_slow_loops(size, noise):
    a, b = pictures(*size, noise)
    assert ms_ssim(a, b) == pytest.approx(slow_ms_ssim(a.double().numpy(), b.double().numpy()), abs=1e-9)


def test_masked_ms_ssim_is_the_slow_loops():
    a, b = pictures(170, 181, 0.2)
    mask = torch.zeros(170, 181, dtype=torch.bool)
    mask[60:140, 31:101:3] = True
    expected = slow_ms_ssim(a.double().numpy(), b.double().numpy(), mask.numpy())
    assert ms_ssim(a, b, mask) == pytest.approx(expected, abs=1e-9) and abs(expected - ms_ssim(a, b)) > 0.01


def test_ms_ssim_of_equal_pictures_is_1_and_falls_with_noise():
    _, b = pictures(180, 176, 0.0)
    assert ms_ssim(b, b) == pytest.approx(1, abs=1e-12)
    found = [ms_ssim(pictures(180, 176, noise)[0], b) for noise in (0.0, 0.02, 0.1, 0.3, 1.0)]
    assert all(more > less for more, less in pairwise(found)) and found[-1] > 0


def test_ms_ssim_of_flat_pictures_is_the_luminance_at_the_coarsest_scale():
    a, b = torch.full((176, 176, 3), 0.25), torch.full((176, 176, 3), 0.75)
    luminance = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert ms_ssim(a, b) == pytest.approx(luminance**0.1333, abs=1e-9)


def test_ms_ssim_of_a_negative_is_0_not_a_root_of_less():
    _, b = pictures(176, 176, 0.0)
    assert ssim(1 - b, b) < ssim(b, b) and ms_ssim(1 - b, b) == 0


def test_ms_ssim_needs_five_scales():
    for size, fits in (((161, 161), True), ((160, 400), False), ((400, 160), False), ((11, 11), False)):
        a, b = pictures(*size, 0.1)
        assert (ms_ssim(a, b) is not None) == fits
    a, b = pictures(200, 200, 0.1)
    mask = torch.zeros(200, 200, dtype=torch.bool)
    assert ms_ssim(a, b, mask) is None
    mask[:20] = True
    assert ms_ssim(a, b, mask) is None  # at the coarsest, all windows' middles lie further in
    mask[100, 100] = True
    assert ms_ssim(a, b, mask) is not None


def test_masked_ms_ssim_ignores_what_lies_outside():
    _, b = pictures(180, 200, 0.0)
    mask = torch.zeros(180, 200, dtype=torch.bool)
    mask[:, :100] = True
    a = b.clone()
    a[:, 100:] = 0
    assert ms_ssim(a, b, mask) == pytest.approx(1, abs=1e-12) and ms_ssim(a, b) < 0.9
    a = b.clone()
    a[:, 60:100] = 0.5
    assert ms_ssim(a, b, mask) < ms_ssim(a, b)


def partial_sums(values: list[float | None]) -> float | None:
    """Liu et al. 2018, equation 1, of 11 numbers in a row; None: not seen."""
    seen = [(g, v) for g, v in zip(GAUSS, values) if v is not None]
    return sum(g * v for g, v in seen) * 11 / len(seen) if seen else None


def slow_masked_ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """SSIM window by window; each sum is taken of the window's rows, and then of the column of their sums."""

    def blurred(picture: np.ndarray, i: int, j: int) -> float:
        rows = [[picture[y, x] if mask[y, x] else None for x in range(j, j + 11)] for y in range(i, i + 11)]
        return partial_sums([partial_sums(row) for row in rows]) or 0.0

    values = []
    for u, v in zip(a.transpose(2, 0, 1), b.transpose(2, 0, 1)):
        for i in range(a.shape[0] - 10):
            for j in range(a.shape[1] - 10):
                p, q = blurred(u, i, j), blurred(v, i, j)
                vp, vq = max(0.0, blurred(u * u, i, j) - p * p), max(0.0, blurred(v * v, i, j) - q * q)
                cov = blurred(u * v, i, j) - p * q
                cov = math.copysign(min(abs(cov), math.sqrt(vp * vq)), cov)
                top, bottom = (2 * p * q + 1e-4) * (2 * cov + 9e-4), (p * p + q * q + 1e-4) * (vp + vq + 9e-4)
                values.append(top / bottom)
    return float(np.mean(values))


@pytest.mark.parametrize("kind", ["blob", "scattered", "corner"])
def test_masked_ssim_is_the_slow_loops(kind):
    a, b = pictures(17, 19, 0.2)
    y, x = np.mgrid[:17, :19]
    mask = {
        "blob": (y - 8) ** 2 + (x - 11) ** 2 < 30,
        "scattered": np.random.default_rng(0).random((17, 19)) < 0.3,
        "corner": (y < 4) & (x < 3),  # which most windows don't see
    }[kind]
    expected = slow_masked_ssim(a.double().numpy(), b.double().numpy(), mask)
    assert masked_ssim(a, b, torch.from_numpy(mask)) == pytest.approx(expected, abs=1e-9) and expected < 1


def test_masked_ssim_sees_the_mask_alone():
    a, b = pictures(40, 50, 0.1)
    mask = torch.zeros(40, 50, dtype=torch.bool)
    mask[5:30, 10:40] = True
    spoiled = torch.where(mask[..., None], a, 1 - a)
    assert masked_ssim(spoiled, b, mask) == masked_ssim(a, b, mask) < 1
    assert masked_ssim(a, a, mask) == pytest.approx(1, abs=1e-12)
    assert masked_ssim(a, b, torch.ones_like(mask)) == pytest.approx(ssim(a, b), abs=1e-12)
    assert math.isnan(masked_ssim(a, b, torch.zeros_like(mask)))


def test_psnr_of_scattered_pixels_is_the_slow_loop():
    a, b = pictures(20, 30, 0.2)
    mask = torch.rand(20, 30, generator=torch.Generator().manual_seed(1)) < 0.4
    squares = [
        float(a[y, x, c].double() - b[y, x, c].double()) ** 2 for y, x in mask.nonzero().tolist() for c in range(3)
    ]
    assert psnr(a, b, mask) == pytest.approx(-10 * math.log10(sum(squares) / len(squares)), abs=1e-5)
