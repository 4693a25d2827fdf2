"""The prior's networks against single ones, loops and finite differences; what it learns against the mean image."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.autograd import gradcheck

from siren.loop import FitError, Schedule, fit
from siren.network import Siren
from siren.prior_data import made, signals
from siren.prior_files import MODEL, load_prior, save_prior, shapes
from siren.prior_fit import (
    UPPER_HALF,
    Learning,
    at,
    cases,
    code,
    complete,
    grid,
    linear,
    measure,
    nearest,
    objective,
    observe,
    observed,
    psnr,
)  # fmt: skip
from siren.prior_model import ImagePrior, PriorConfig, regularized

SMALL = PriorConfig(size=16, latent=12, encoder_width=16, encoder_features=16, hyper_width=16, width=8, layers=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=seeded(seed)) * 2 - 1


def small(channels: int = 1) -> ImagePrior:
    return ImagePrior(replace(SMALL, channels=channels), generator=seeded())


def test_the_order_of_observations_does_not_matter_and_their_doubles_neither():
    prior, x, values = small(3), random(4, 9, 2), random(4, 9, 3, seed=1)
    z = prior.encode(x, values)
    order = torch.randperm(9, generator=seeded())
    assert torch.allclose(prior.encode(x[:, order], values[:, order]), z, atol=1e-6)
    assert torch.allclose(prior.encode(x.repeat(1, 2, 1), values.repeat(1, 2, 1)), z, atol=1e-6)
    changed = values.clone()
    changed[:, 3] += 0.5
    assert (prior.encode(x, changed) - z).abs().max() > 1e-4


def test_sets_on_a_grid_and_sets_of_pixels_have_the_same_codes():
    prior, places, truth = small(3), grid(16), random(5, 256, 3)
    share = torch.zeros(5, 256)
    picked = [torch.randperm(256, generator=seeded(i))[: 3 + 20 * i] for i in range(5)]
    for i, seen in enumerate(picked):
        share[i, seen] = 1 / len(seen)
    together = prior.encoder.on_grid(places, truth, share)
    for i, seen in enumerate(picked):
        assert torch.allclose(prior.encode(places[seen][None], truth[i, seen][None])[0], together[i], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_of_written_sirens_draws_what_each_draws_alone(channels):
    prior, z, x = small(channels), 5 * random(3, SMALL.latent), random(3, 50, 2, seed=2)
    together = prior(z, x)
    for i in range(3):
        alone = prior.siren(z[i])
        assert isinstance(alone, Siren)
        assert torch.allclose(alone(x[i]), together[i], atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_before_training_every_code_writes_the_papers_initialisation():
    config = PriorConfig(width=64, layers=3)
    siren = ImagePrior(config, generator=seeded()).siren(random(config.latent))
    bounds = [1 / 2, *[math.sqrt(6 / 64) / config.omega] * 3]
    for weight, bound in zip(siren.weights, bounds):
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert weight.abs().max() < 1.2 * bound


def test_gradients_are_those_of_finite_differences():
    prior = ImagePrior(PriorConfig(size=8, latent=3, encoder_width=4, encoder_features=6, hyper_width=5, width=4, layers=2, omega=3.0,
                                   encoder_omega=2.0), generator=seeded()).double()  # fmt: skip
    x, values, places = random(2, 4, 2).double(), random(2, 4, 1, seed=1).double(), random(2, 6, 2, seed=2).double()
    names = ["encoder.read.weights.0", "encoder.hidden.0.weight", "hyper.last", "hyper.start"]
    given = [prior.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def loss(*tensors):
        def forward():
            z = prior.encode(x, values)
            theta = prior.hyper(z)
            return regularized(prior.draw(theta, places), places[..., :1], z, theta, 0.1, 0.2)

        return torch.func.functional_call(Around(prior, forward), {f"prior.{n}": t for n, t in zip(names, tensors)}, ())

    assert gradcheck(loss, given)


class Around(torch.nn.Module):
    def __init__(self, prior, run):
        super().__init__()
        self.prior, self.run = prior, run

    def forward(self):
        return self.run()


def test_the_loss_is_the_sum_that_the_paper_writes():
    values, truth, z, theta = random(3, 4, 2), random(3, 4, 2, seed=1), random(3, 5, seed=2), random(3, 7, seed=3)
    expected = 0.0
    for i in range(3):
        expected += sum((values[i, p, c] - truth[i, p, c]).item() ** 2 for p in range(4) for c in range(2)) / 8
        expected += 0.3 * sum(v**2 for v in z[i].tolist()) / 5 + 0.7 * sum(v**2 for v in theta[i].tolist()) / 7
    assert regularized(values, truth, z, theta, 0.3, 0.7).item() == pytest.approx(expected / 3)


def test_training_shows_different_pixels_of_all_counts_and_sometimes_half_planes():
    places = grid(16)
    share = observe(400, places, seeded())
    counts = (share > 0).sum(1)
    assert torch.allclose(share.sum(1), torch.ones(400)) and torch.allclose(share.amax(1), 1 / counts)
    assert counts.min() >= 10 and 120 <= counts.max() <= 128
    assert counts.float().log().mean().exp().item() == pytest.approx(math.sqrt(10 * 128), rel=0.1)  # log-uniform
    many = share[counts > 40]
    lopsided = (many @ places).norm(dim=1) > 0.3
    assert 0.15 < lopsided.float().mean() < 0.35
    assert (share > 0).float().mean(0).std() < 0.06  # no place is preferred


def test_plain_methods_on_planes_and_single_pixels():
    x, places = random(30, 2), 0.3 * random(100, 2, seed=1)
    plane = torch.stack([x @ torch.tensor([0.3, -0.2]) + 0.1, x @ torch.tensor([-0.5, 0.1])], dim=1)
    expected = torch.stack([places @ torch.tensor([0.3, -0.2]) + 0.1, places @ torch.tensor([-0.5, 0.1])], dim=1)
    assert torch.allclose(linear(x, plane, places), expected, atol=1e-5)
    for row, place in zip(nearest(x, plane, places), places):
        assert torch.equal(row, plane[min(range(30), key=lambda i: math.dist(x[i].tolist(), place.tolist()))])
    line = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]])
    assert torch.equal(linear(line, plane[:3], places), nearest(line, plane[:3], places))
    assert torch.equal(linear(x[:1], plane[:1], places), plane[:1].expand(100, -1))


def test_psnr_by_value():
    truth = torch.zeros(2, 4, 1)
    values = torch.stack([torch.full((4, 1), 0.2), torch.full((4, 1), 7.0)])  # 7 is shown as 1
    assert psnr(values, truth).tolist() == pytest.approx([20.0, 10 * math.log10(4)])


def test_what_is_observed():
    assert cases(32) == ["10", "100", "512", UPPER_HALF]
    seen, places = observed("100", 3, 32), grid(32)
    assert seen.shape == (3, 100) and not torch.equal(seen[0], seen[1])
    assert places[0].tolist() == [-1 + 1 / 32] * 2 and (places[observed(UPPER_HALF, 1, 32)[0]][:, 1] < 0).all()
    assert len(observed(UPPER_HALF, 1, 32)[0]) == 512


@pytest.fixture(scope="module")
def learned():
    """A small prior after a few seconds, and its images."""
    images = made(16, 1000, 60)
    prior = ImagePrior(PriorConfig(size=16, latent=64, encoder_width=64, encoder_features=64, hyper_width=64, width=24, layers=2),
                       generator=seeded())  # fmt: skip
    schedule = Schedule(steps=400, rate=2e-3, final=0.1, warmup=20)
    first = last = None
    for progress in fit(prior, objective(prior, images.train, Learning(batch=48, queries=128)), schedule):
        first, last = first or progress, progress
    assert last.loss < 0.7 * first.loss
    return prior.requires_grad_(False), images


def test_a_short_training_beats_the_mean_image_and_the_nearest_pixel(learned):
    prior, images = learned
    scores = measure(prior, images.train, images.held_out)
    for case in ("10", "100", UPPER_HALF):
        assert scores[case]["prior"] > scores[case]["mean image"] + 0.4, scores
    assert scores["10"]["prior"] > scores["10"]["nearest"] + 1
    truth = signals(images.held_out)
    average = signals(images.train).mean(0)
    expected = sum(10 * math.log10(4 / ((average - one) ** 2).mean().item()) for one in truth) / len(truth)
    assert scores["10"]["mean image"] == pytest.approx(expected, abs=1e-3)


def test_refining_a_code_explains_the_observed_pixels_better_and_each_image_by_itself(learned):
    prior, images = learned
    truth, places = signals(images.held_out[:4]), grid(16)
    seen = observed("100", 4, 16)
    x, values = places[seen], at(truth, seen)
    errors = []
    for refine in (0, 30):
        z = code(prior, x, values, refine)
        errors.append((prior(z, x) - values).square().mean().item())
    assert errors[1] < 0.95 * errors[0]
    alone = complete(prior, x[2:3], values[2:3], places, refine=5)
    assert torch.allclose(alone[0], complete(prior, x, values, places, refine=5)[2], atol=1e-4)


def test_nothing_observed_is_a_sentence():
    with pytest.raises(FitError, match="at least one"):
        complete(small(), torch.zeros(1, 0, 2), torch.zeros(1, 0, 1), grid(16))
    with pytest.raises(FitError, match="images: expected"):
        objective(small(), torch.zeros(3, 8, 8, 1, dtype=torch.uint8), Learning())


def test_a_prior_comes_back_from_its_file_and_a_spoiled_file_is_a_sentence(tmp_path):
    prior = small(3)
    path = save_prior(prior, tmp_path)
    back, z, x = load_prior(tmp_path), random(2, SMALL.latent), random(2, 9, 2)
    assert torch.equal(back(z, x), prior(z, x)) and back.config == prior.config
    assert shapes(prior.config) == {name: tuple(value.shape) for name, value in prior.state_dict().items()}
    whole = path.read_bytes()
    with pytest.raises(FitError, match="expected a trained prior, found none"):
        load_prior(tmp_path / "nowhere")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FitError, match="broken"):
        load_prior(tmp_path)
    for old, new, said in (
        (b'\\"size\\": 16', b'\\"size\\": -1', "size"),
        (b'\\"width\\": 8,', b'\\"width\\": 9,', "shapes"),
        (b'\\"latent\\"', b'\\"latexx\\"', "expected the fields"),
        (b'\\"layers\\": 2,', b'\\"layers\\": x,', "expected the fields"),
    ):
        path.write_bytes(whole.replace(old, new) if old in whole else b"")
        with pytest.raises(FitError, match=said):
            load_prior(tmp_path)
    path.write_bytes(whole)
    tensors = load_file(path)
    tensors["hyper.start"][0] = math.nan
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, path, metadata)
    with pytest.raises(FitError, match=r"hyper.start.*NaN"):
        load_prior(tmp_path / MODEL)
