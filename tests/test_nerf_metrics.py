"""Figures against slow loops and closed forms."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
import torch

from nerf import metrics
from nerf.metrics import flip, flip_map, lpips, masked_lpips, psnr, ssim


def pictures(h=19, w=23, noise=0.1):
    draw = torch.Generator().manual_seed(5)
    a = torch.rand(h, w, 3, generator=draw)
    return (a + noise * torch.randn(h, w, 3, generator=draw)).clamp(0, 1), a


def test_psnr_of_a_known_difference():
    a = torch.full((4, 5, 3), 0.5)
    assert psnr(a, a + 0.1) == pytest.approx(20, abs=1e-5)
    assert psnr(a, a + 0.01) == pytest.approx(40, abs=1e-4)
    assert psnr(a, a) == math.inf
    checker = torch.zeros(4, 4, 3)
    checker[::2] = 1
    assert psnr(checker, torch.zeros(4, 4, 3)) == pytest.approx(10 * math.log10(2))


def test_psnr_counts_only_what_the_mask_keeps():
    a, b = torch.zeros(6, 6, 3), torch.zeros(6, 6, 3)
    b[:3], b[3:] = 0.1, 0.9
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:3] = True
    assert psnr(a, b, mask) == pytest.approx(20, abs=1e-5)


def slow_ssim(a, b):
    """Wang et al. 2004, equation 13, window by window: skimage's with gaussian_weights and no sample covariance."""
    size, total, count = 11, 0.0, 0
    g = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(size)] for i in range(size)])
    g /= g.sum()
    for channel in range(3):
        for y in range(a.shape[0] - size + 1):
            for x in range(a.shape[1] - size + 1):
                p, q = (v[y : y + size, x : x + size, channel] for v in (a, b))
                mp, mq = (g * p).sum(), (g * q).sum()
                vp, vq = (g * (p - mp) ** 2).sum(), (g * (q - mq) ** 2).sum()
                cov = (g * (p - mp) * (q - mq)).sum()
                total += (2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
                count += 1
    return total / count


@pytest.mark.parametrize("noise", [0.02, 0.2, 1.0])
def test_ssim_is_the_slow_loops(noise):
    a, b = pictures(noise=noise)
    assert ssim(a, b) == pytest.approx(slow_ssim(a.double().numpy(), b.double().numpy()), abs=1e-9)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12) and ssim(a, a) == pytest.approx(1)


def test_ssim_of_flat_pictures_in_closed_form():
    a, b = torch.full((12, 15, 3), 0.25), torch.full((12, 15, 3), 0.75)
    assert ssim(a, b) == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4), abs=1e-6)


def test_masked_ssim_ignores_what_lies_outside_and_sees_what_lies_inside():
    a, b = pictures(40, 40, 0.0)
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[:, :20] = True
    spoiled = a.clone()
    spoiled[:, 20:] = 0
    assert ssim(spoiled, b, mask) == pytest.approx(1)
    spoiled = a.clone()
    spoiled[:, :14] = 0.5
    assert ssim(spoiled, b, mask) < ssim(spoiled, b)
    assert math.isnan(ssim(a, b, torch.zeros_like(mask)))


def test_ssim_of_pictures_smaller_than_the_window():
    a, b = pictures(4, 9)
    assert ssim(a, a) == pytest.approx(1) and 0 < ssim(a, b) < 1


def test_flip_of_equal_and_opposite_pictures():
    a, _ = pictures()
    assert flip(a, a) == pytest.approx(0, abs=1e-6)
    black, white = torch.zeros(32, 32, 3), torch.ones(32, 32, 3)
    # Only the blue and green that FLIP normalises by differ more.
    assert 0.9 < flip(black, white) <= 1
    mild, wild = (flip((a + amount * (0.5 - a)).contiguous(), a) for amount in (0.1, 0.6))
    assert 0 < mild < wild < 1


def test_flip_is_of_srgb_colours_whose_mean_the_tool_itself_gives():
    import flip_evaluator

    a, b = pictures(32, 40)
    error, mean, _ = flip_evaluator.evaluate(b.numpy(), a.numpy(), "LDR", applyMagma=False)
    assert flip(a, b) == pytest.approx(mean, abs=1e-5)
    assert np.allclose(flip_map(a, b).numpy(), np.asarray(error)[..., 0], atol=1e-6)


def test_masked_flip_ignores_what_lies_outside():
    a, b = pictures(30, 30, 0.0)
    mask = torch.zeros(30, 30, dtype=torch.bool)
    mask[:10] = True
    a[10:] = 1 - a[10:]
    assert flip(a, b, mask) == pytest.approx(0, abs=1e-6) and flip(a, b) > 0.1


def test_lpips_never_downloads(monkeypatch, tmp_path):
    """With the package but without the weights: None, and its network, which would fetch them, isn't built."""

    class Weights:
        IMAGENET1K_V1 = types.SimpleNamespace(url="https://example.org/models/alexnet-1234.pth")

    class Network:
        def __init__(self, net, spatial, verbose):
            assert (tmp_path / "checkpoints" / "alexnet-1234.pth").is_file(), "would download"
            self.spatial = spatial

        def eval(self):
            return self

        def __call__(self, x, y):
            assert x.shape == (1, 3, 19, 23) and float(x.min()) >= -1 and float(x.max()) <= 1
            error = (x - y).abs().mean(1, keepdim=True)
            return error if self.spatial else error.mean((2, 3), keepdim=True)

    vision = types.ModuleType("torchvision.models")
    vision.AlexNet_Weights = Weights
    package = types.ModuleType("lpips")
    package.LPIPS = Network
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", vision)
    monkeypatch.setitem(sys.modules, "lpips", package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    a, b = pictures()
    metrics._lpips_network.cache_clear()
    mask = torch.zeros(19, 23, dtype=torch.bool)
    mask[3:9, 5:] = True
    assert lpips(a, b) is None and masked_lpips(a, b, mask) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-1234.pth").write_bytes(b"")
    metrics._lpips_network.cache_clear()
    assert lpips(a, b) == pytest.approx(float(2 * (a - b).abs().mean()), rel=1e-5)
    assert masked_lpips(a, b, mask) == pytest.approx(float(2 * (a - b).abs()[3:9, 5:].mean()), rel=1e-5)
    a[~mask], b[~mask] = 0.3, 0.9
    assert masked_lpips(a, a, mask) == 0 and lpips(b, a) != lpips(b, b) == 0
    metrics._lpips_network.cache_clear()


def test_lpips_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    metrics._lpips_network.cache_clear()
    assert lpips(*pictures()) is None
    metrics._lpips_network.cache_clear()
