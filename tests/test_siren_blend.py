"""Blending in the gradient domain, inpainting, and the networks that a SIREN is compared with."""

from __future__ import annotations

import importlib
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from nerf.kernels import load
from siren.baselines import KINDS, Encoding, FourierFeatures, build, derivatives
from siren.image import Grid, to_signal
from siren.inpaint import InpaintObjective
from siren.network import Siren, SirenConfig
from siren.objectives import GradientObjective
from siren.poisson import BlendObjective, compose


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth colour picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.cos(2 * np.pi * (a * x + b * y) + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    return np.clip(127 + 60 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def test_gradients_are_composed_pixel_by_pixel():
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 6, 3, 2).unbind()
    inside = torch.rand(5, 6) < 0.4
    summed, cloned, mixed = compose(a, b, None, 0.3), compose(a, b, inside), compose(a, b, inside, mixed=True)
    for i in range(5):
        for j in range(6):
            torch.testing.assert_close(summed[i, j], 0.7 * a[i, j] + 0.3 * b[i, j])
            torch.testing.assert_close(cloned[i, j], b[i, j] if inside[i, j] else a[i, j])
            longer = b if float(b[i, j].norm()) > float(a[i, j].norm()) else a
            torch.testing.assert_close(mixed[i, j], longer[i, j] if inside[i, j] else a[i, j])


def siren_of(outputs: int = 1, seed: int = 0) -> Siren:
    config = SirenConfig(outputs=outputs, width=24, layers=2, first_omega=8.0)
    return Siren(config, generator=torch.Generator().manual_seed(seed))


def test_the_blends_loss_is_its_sums():
    torch.manual_seed(1)
    siren, gradient, values = siren_of(3), torch.randn(4, 6, 3, 2), torch.rand(4, 6, 3)
    known = torch.rand(4, 6) < 0.5
    objective = BlendObjective(siren, gradient, values, known, batch=50)
    loss, figures = objective(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    places = torch.rand(50, 2, generator=generator) * 2 - 1
    points = (places * torch.tensor([1.0, 4 / 6])).requires_grad_()
    out = siren(points)
    slopes = torch.stack([torch.autograd.grad(out[:, c].sum(), points, retain_graph=True)[0] for c in range(3)], 1)
    total = 0.0
    for (x, y), slope in zip(places.tolist(), slopes):
        column, row = min(max((x + 1) * 3 - 0.5, 0), 5), min(max((y + 1) * 2 - 0.5, 0), 3)
        j, i = min(int(column), 4), min(int(row), 2)
        a, b = column - j, row - i
        above = (1 - a) * gradient[i, j] + a * gradient[i, j + 1]
        below = (1 - a) * gradient[i + 1, j] + a * gradient[i + 1, j + 1]
        total = total + (slope - (1 - b) * above - b * below).square().mean() / 50
    slope = total / (gradient**2).mean()
    held = known.flatten().nonzero()[:, 0]
    drawn = held[torch.randint(len(held), (50,), generator=generator)]
    value = ((siren(Grid(4, 6).points(drawn)) - values.reshape(24, 3)[drawn]) ** 2).mean()
    torch.testing.assert_close(loss, slope + 10 * value, rtol=1e-4, atol=1e-6)
    assert figures["value"] == pytest.approx(float(value.detach()), rel=1e-4)


@pytest.mark.parametrize("jump", [0.0, 5.0])
def test_spans_add_up_the_gradient(jump):
    # u = 0.3 x - 0.2 y + x y: a network that is u has no error; one with a jump has, though its gradient is u's.
    class Jumping(Siren):
        def forward(self, x):
            return 0.3 * x[:, :1] - 0.2 * x[:, 1:] + x[:, :1] * x[:, 1:] + jump * (x[:, :1] > 0.1)

    x, y = Grid(20, 40).all_points().unbind(-1)
    gradient = torch.stack([0.3 + y, -0.2 + x], -1).reshape(20, 40, 1, 2)
    objective = GradientObjective(Jumping(SirenConfig(width=2, layers=1)), gradient, 1, 1.0)
    error = float(objective._spans(500, torch.Generator().manual_seed(0)).detach())
    assert error < 1e-6 if jump == 0 else error > 1


@pytest.mark.parametrize("prior", ["tv", "hessian"])
def test_priors_are_the_mean_size_of_derivatives(prior):
    siren = siren_of(2).double()
    objective = InpaintObjective(siren, torch.zeros(4, 4, 2), torch.ones(4, 4, dtype=torch.bool), prior, 1.0)
    x = (torch.rand(6, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1).double()
    total = 0.0
    for point in x:
        for channel in range(2):
            scalar = lambda p, c=channel: siren(p[None])[0, c]  # noqa: E731
            if prior == "tv":
                total += float(torch.autograd.functional.jacobian(scalar, point).norm())
            else:
                total += float(torch.autograd.functional.hessian(scalar, point).norm())
    assert float(objective.roughness(x).detach()) == pytest.approx(total / 12, rel=1e-6)


def test_inpainting_sees_known_pixels_alone():
    values, known = torch.rand(6, 7, 1), torch.zeros(6, 7, dtype=torch.bool)
    known[2, 3] = known[5, 0] = True
    siren = siren_of()
    first, _ = InpaintObjective(siren, values, known, "none", 0.0)(torch.Generator().manual_seed(0))
    changed = torch.where(known[..., None], values, values + 5)
    second, _ = InpaintObjective(siren, changed, known, "none", 0.0)(torch.Generator().manual_seed(0))
    assert torch.equal(first, second)


def test_encodings_are_their_formulas():
    x = torch.tensor([[0.3, -0.8]])
    out = Encoding(2, 3)(x)[0].tolist()
    expected = [0.3, -0.8]
    phases = [float(v) * math.pi * 2**k for v in x[0] for k in range(3)]
    expected += [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
    assert out == pytest.approx(expected, abs=1e-6)
    fourier = FourierFeatures(2, 400, 7.0, torch.Generator().manual_seed(0))
    assert float(fourier.frequencies.std()) == pytest.approx(2 * math.pi * 7, rel=0.1)
    phase = float(x[0] @ fourier.frequencies[5])
    assert fourier(x)[0, [5, 205]].tolist() == pytest.approx([math.sin(phase), math.cos(phase)], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_derivatives_by_differences(kind):
    config = SirenConfig(width=16, layers=2, outputs=2, omega=3.0, first_omega=3.0)
    network = build(kind, config, 16, load("reference"), torch.Generator().manual_seed(0)).double()
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(2)).double() * 1.6 - 0.8
    gradient, laplacian = derivatives(network, x)
    step, bends = 1e-4, 0.0
    for axis in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = step
        with torch.no_grad():
            low, mid, high = network(x - shift), network(x), network(x + shift)
        torch.testing.assert_close(gradient[..., axis], (high - low) / (2 * step), rtol=1e-4, atol=1e-4)
        bends = bends + (high - 2 * mid + low) / step**2
    torch.testing.assert_close(laplacian.double(), bends, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns(kind):
    values = to_signal(picture(20, 24, 1)[..., :1])
    config = SirenConfig(width=32, layers=2, first_omega=10.0)
    network = build(kind, config, 24, load("reference"), torch.Generator().manual_seed(0))
    points, target = Grid(20, 24).all_points(), values.reshape(-1, 1)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    first = float(network.squared_error(points, target).detach())
    for _ in range(120):
        optimizer.zero_grad()
        network.squared_error(points, target).backward()
        optimizer.step()
    assert float(network.squared_error(points, target).detach()) < (0.35 if kind == "relu" else 0.05) * first


def test_the_commands_clone_sum_and_fill_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = picture(32, 48, 1), picture(16, 16, 2)
    Image.fromarray(first).save(tmp_path / "first.png")
    Image.fromarray(second).save(tmp_path / "second.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    size, briefly = ["--width", "48", "--steps", "200"], ["--width", "48", "--steps", "10"]
    placed = ["--mask", "mask.png", "--at", "20", "8"]
    importlib.import_module("siren.poisson").main(
        ["first.png", "second.png", *placed, *size[:-1], "600", "--out", "clone"]
    )
    metrics = json.loads((tmp_path / "clone/metrics.json").read_text())
    assert metrics["psnr_outside"] > 25 and metrics["gradient_error"] < 0.5
    blend = np.asarray(Image.open(tmp_path / "clone/blend.png")).astype(float)
    # Inside, the second picture's shape on the first one's level: differences from cell to cell are the second one's.
    inside = blend[12:20, 24:32] - second[4:12, 4:12]
    assert (
        inside.std(axis=(0, 1)).max()
        < 0.8 * (first[12:20, 24:32].astype(float) - second[4:12, 4:12]).std(axis=(0, 1)).max()
    )
    # The discrete solution (Perez et al. 2003): the pasted part plus a harmonic function that closes the gap at its border.
    gap = first[11:21, 23:33].astype(float) - second[3:13, 3:13]
    gap[1:9, 1:9] = 0
    for _ in range(500):
        gap[1:9, 1:9] = (gap[:8, 1:9] + gap[2:, 1:9] + gap[1:9, :8] + gap[1:9, 2:]) / 4
    exact, found = second[4:12, 4:12] + gap[1:9, 1:9], blend[12:20, 24:32]
    assert np.abs(found - exact).mean() < 0.4 * np.abs(second[4:12, 4:12] - exact).mean()
    assert np.abs(found - exact).mean() < 0.4 * np.abs(first[12:20, 24:32] - exact).mean()
    importlib.import_module("siren.poisson").main(["first.png", "second.png", *briefly, "--out", "sum"])
    Image.fromarray(255 - mask).resize((48, 32)).save(tmp_path / "hole.png")
    importlib.import_module("siren.inpaint").main(["first.png", "--keep", "0.3", *size, "--out", "fill"])
    filled = json.loads((tmp_path / "fill/metrics.json").read_text())
    assert filled["psnr_missing"] > 24 and abs(filled["known"] - 0.3) < 0.05
    importlib.import_module("siren.inpaint").main(
        ["first.png", "--mask", "hole.png", *briefly, "--prior", "hessian", "--out", "hole"]
    )
    whole = np.asarray(Image.open(tmp_path / "hole/inpainted.png")).astype(int)
    known = np.asarray(Image.open(tmp_path / "hole.png")) < 128
    assert np.abs(whole - first)[known].max() <= 1


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("poisson", ["a.png", "b.png", "--weight", "2"], "--weight: expected a number between 0 and 1, found 2"),
        ("poisson", ["a.png", "b.png", "--mask", "mask.png"], "mask.png: size: expected 5 x 6, as b.png, found 3 x 3"),
        ("poisson", ["a.png", "b.png", "--at", "90", "0"], "--at: expected a place within 8 x 8 pixels, found 90 0"),
        ("poisson", ["a.png", "none.png"], "none.png: image: expected a file, found none"),
        ("inpaint", ["a.png"], "--mask, --keep: expected one of them"),
        ("inpaint", ["a.png", "--keep", "1.5"], "--keep: expected a share between 0 and 1"),
        ("inpaint", ["a.png", "--mask", "mask.png"], "mask.png: size: expected 8 x 8, as a.png, found 3 x 3"),
        ("sample", ["a.png"], "a.png: expected a whole safetensors file"),
        ("sample", ["a.png", "--scale", "0"], "--scale: expected a number above 0"),
        ("sample", ["a.png", "--crop", "0.5", "0", "0.2", "1"], "--crop: expected left < right"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, command, arguments, message):
    Image.fromarray(picture(8, 8, 0)).save(tmp_path / "a.png")
    Image.fromarray(picture(6, 5, 0)).save(tmp_path / "b.png")
    Image.fromarray(np.full((3, 3), 255, np.uint8)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"siren.{command}").main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
