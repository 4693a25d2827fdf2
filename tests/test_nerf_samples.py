"""Samples along rays: bins, distributions, packing."""

from __future__ import annotations

import bisect
import math

import numpy as np
import pytest
import scipy.stats
import torch

from nerf.samples import Samples, importance, lengths, offsets_of, pack, stratified

NEAR, FAR = torch.tensor([0.5, 2.0, 1.0]).double(), torch.tensor([4.0, 2.5, 1.0]).double()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def edges_slowly(near: float, far: float, count: int, disparity: bool) -> list[float]:
    if disparity:
        return [1 / (1 / near + (1 / far - 1 / near) * i / count) for i in range(count + 1)]
    return [near + (far - near) * i / count for i in range(count + 1)]


@pytest.mark.parametrize("disparity", [False, True])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_one_sample_lies_in_each_bin(seed, disparity):
    t = stratified(NEAR, FAR, 16, None if seed is None else generator(seed), disparity)
    for row, near, far in zip(t.tolist(), NEAR.tolist(), FAR.tolist()):
        edges = edges_slowly(near, far, 16, disparity)
        for i, v in enumerate(row):
            assert edges[i] - 1e-12 <= v <= edges[i + 1] + 1e-12


def test_without_a_generator_samples_are_the_bins_middles():
    middles = [0.5 + 3.5 * (i + 0.5) / 7 for i in range(7)]
    assert stratified(NEAR[:1], FAR[:1], 7)[0].tolist() == pytest.approx(middles)
    inverse = [1 / (2 + (0.25 - 2) * (i + 0.5) / 7) for i in range(7)]
    assert stratified(NEAR[:1], FAR[:1], 7, disparity=True)[0].tolist() == pytest.approx(inverse)


def test_the_place_in_a_bin_is_uniform_and_its_own():
    count = 8
    t = stratified(torch.zeros(3000).double(), torch.full((3000,), float(count)).double(), count, generator())
    place = (t - torch.arange(count)).numpy()
    assert scipy.stats.kstest(place.ravel(), "uniform").pvalue > 0.01
    correlation = np.corrcoef(place.T) - np.eye(count)
    assert np.abs(correlation).max() < 0.08  # 4.4 standard deviations of 1 / sqrt(3000)


def cdf_slowly(t: float, edges: list[float], weights: list[float]) -> float:
    """Cumulative distribution of a piecewise constant density, from its integral."""
    total, below = sum(weights), 0.0
    for left, right, weight in zip(edges, edges[1:], weights):
        below += weight * min(max((t - left) / (right - left), 0), 1)
    return below / total


BINS = [0.0, 0.5, 0.6, 2.0, 2.25, 5.0]
WEIGHTS = [0.1, 0.4, 0.0, 2.0, 0.25]


def test_drawn_distances_follow_the_weights():
    rays, count = 400, 25
    edges = torch.tensor(BINS, dtype=torch.float64).expand(rays, -1).contiguous()
    weights = torch.tensor(WEIGHTS, dtype=torch.float64).expand(rays, -1)
    t = importance(edges, weights, count, generator(2))
    floored = [w + 1e-5 for w in WEIGHTS]
    # Mapped through the distribution, one number lies in each of `count` strata, uniformly.
    u = np.array([[cdf_slowly(v, BINS, floored) for v in row] for row in t[:60].tolist()])
    strata = u * count - np.arange(count)
    assert strata.min() > -1e-6 and strata.max() < 1 + 1e-6
    assert scipy.stats.kstest(strata.ravel(), "uniform").pvalue > 0.01
    share = np.histogram(t.numpy(), BINS)[0] / t.numel()
    assert share == pytest.approx(np.array(floored) / sum(floored), abs=2e-3)


def test_without_a_generator_importance_inverts_the_distribution_at_the_strata_middles():
    edges, weights = (torch.tensor(v, dtype=torch.float64) for v in ([BINS, BINS], [WEIGHTS, WEIGHTS[::-1]]))
    for row, given in zip(importance(edges, weights, 33).tolist(), weights.tolist()):
        floored = [w + 1e-5 for w in given]
        assert [cdf_slowly(v, BINS, floored) for v in row] == pytest.approx(
            [(i + 0.5) / 33 for i in range(33)], abs=1e-9
        )


def test_without_weights_importance_is_uniform_over_the_bins():
    edges = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    t = importance(edges, torch.zeros(1, 4), 8)
    assert t[0].tolist() == pytest.approx([1.25 + 0.5 * i for i in range(8)], abs=1e-5)


def test_one_heavy_bin_gathers_all_samples():
    edges = torch.linspace(0, 1, 65).expand(2, -1).contiguous()
    weights = torch.zeros(2, 64)
    weights[0, 20], weights[1, 63] = 1e4, 1e4
    t = importance(edges, weights, 64, generator(4))
    for row, cell in zip(t.tolist(), (20, 63)):
        inside = sum(cell / 64 <= v <= (cell + 1) / 64 for v in row)
        assert inside >= 63
        assert row == sorted(row)


def test_the_last_sample_stands_for_the_rest():
    t = torch.tensor([[1.0, 1.5, 4.0], [0.0, 1.0, 1.25]])
    assert lengths(t, 1e10).tolist() == [[0.5, 2.5, 1e10], [1.0, 0.25, 1e10]]


def ragged() -> Samples:
    ray = torch.tensor([0, 0, 2, 2, 2, 5])
    return Samples(torch.arange(6.0), torch.arange(6.0) / 10, offsets_of(ray, 7), ray)


def test_offsets_are_where_a_sorted_index_changes():
    ray = [0, 0, 2, 2, 2, 5]
    assert ragged().offsets.tolist() == [bisect.bisect_left(ray, r) for r in range(8)]
    assert offsets_of(torch.zeros(0, dtype=torch.int64), 3).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("kept", [[1, 0, 1, 1, 0, 0], [0] * 6, [1] * 6, [0, 0, 0, 0, 0, 1]], ids=str)
def test_selection_keeps_each_samples_ray(kept):
    samples = ragged()
    left = samples.select(torch.tensor(kept, dtype=torch.bool))
    expected = [(t, r) for t, r, k in zip(samples.t.tolist(), samples.ray.tolist(), kept) if k]
    assert list(zip(left.t.tolist(), left.ray.tolist())) == expected
    for r in range(7):
        own = left.t[int(left.offsets[r]) : int(left.offsets[r + 1])].tolist()
        assert own == [t for t, of in expected if of == r]


def test_points_lie_on_their_rays():
    origins, directions = torch.randn(7, 3, generator=generator(1)), torch.randn(7, 3, generator=generator(2))
    samples = ragged()
    for i, point in enumerate(samples.points(origins, directions).tolist()):
        r, t = int(samples.ray[i]), float(samples.t[i])
        expected = [o + t * d for o, d in zip(origins[r].tolist(), directions[r].tolist())]
        assert point == pytest.approx(expected, abs=1e-5)


def test_packing_is_row_by_row():
    t = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    samples = pack(t, t / 10)
    assert samples.t.tolist() == [1, 2, 3, 4, 5, 6]
    assert samples.dt.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert samples.offsets.tolist() == [0, 2, 4, 6] and samples.ray.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_analytic_density_is_recovered():
    # Bins that sample an exponential density: its quantiles are -ln(1 - u) / rate.
    edges = torch.linspace(0, 12, 4001, dtype=torch.float64)[None]
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    t = importance(edges, 1e4 * torch.exp(-1.7 * middles), 50)
    expected = [-math.log(1 - (i + 0.5) / 50) / 1.7 for i in range(50)]
    assert t[0].tolist() == pytest.approx(expected, rel=1e-3)
