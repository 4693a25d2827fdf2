"""Images as signals: coordinates, reading, targets, tiles, and the command."""

from __future__ import annotations

import importlib
import json
import math
import struct
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import SceneError
from nerf.kernels.mlp_jet import Jet
from siren.differences import image_gradient, image_laplacian, mean_rise, without_constant, without_plane
from siren.fit import main
from siren.image import Grid, read_image, sample, to_pixels, to_signal
from siren.loop import FitError, Schedule, fit
from siren.network import Siren, SirenConfig
from siren.objectives import GradientObjective, ImageObjective, LaplacianObjective, objective
from siren.pde import read_slowness
from siren.store import NETWORK
from siren.tiles import Mosaic, folder_of, save_tile, windows


def smooth(height: int, width: int, channels: int = 1) -> torch.Tensor:
    """A picture that is a few cosines, with its values in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    waves = [torch.cos(math.pi * (k + 1) * x / width) * torch.cos(math.pi * k * y / height) for k in range(1, 4)]
    return torch.stack([0.3 * sum(waves) + 0.05 * c for c in range(channels)], -1)


def test_pixel_centres_lie_where_they_should():
    grid = Grid(2, 4)
    expected = [[-0.75, -0.25], [-0.25, -0.25], [0.25, -0.25], [0.75, -0.25]]
    expected += [[x, 0.25] for x, _ in expected]
    assert grid.all_points().tolist() == expected and grid.pitch == 0.5


def test_sampling_in_blocks_is_sampling_at_once(monkeypatch):
    wave = lambda x: torch.stack([torch.sin(9 * x[:, 0]) + x[:, 1], x.prod(-1)], -1)  # noqa: E731
    grid = Grid(37, 23)
    whole = sample(wave, grid)
    torch.testing.assert_close(whole, wave(grid.all_points()).reshape(37, 23, 2))
    monkeypatch.setattr("siren.image.BLOCK", 50)
    torch.testing.assert_close(sample(wave, grid), whole)


def test_derivatives_of_cosines_are_sines():
    height, width, pitch = 24, 40, 2 / 40
    x, y = ((torch.arange(n).double() + 0.5) * pitch for n in (width, height))
    a, b = math.pi * 5 / (width * pitch), math.pi * 3 / (height * pitch)
    image = (torch.cos(b * y)[:, None] * torch.cos(a * x))[..., None]
    gradient = image_gradient(image, pitch)[..., 0, :]
    torch.testing.assert_close(gradient[..., 0], -a * torch.cos(b * y)[:, None] * torch.sin(a * x))
    torch.testing.assert_close(gradient[..., 1], -b * torch.sin(b * y)[:, None] * torch.cos(a * x))
    torch.testing.assert_close(image_laplacian(image, pitch), -(a * a + b * b) * image)


@pytest.mark.parametrize("finer", [1, 2, 3])
def test_finer_derivatives_are_those_of_the_same_cosines(finer):
    height, width, pitch = 14, 20, 2 / 20
    small = pitch / finer
    x, y = ((torch.arange(n * finer).double() + 0.5) * small for n in (width, height))
    a, b = math.pi * 7 / (width * pitch), math.pi * 3 / (height * pitch)
    wave = lambda x, y: (torch.cos(b * y)[:, None] * torch.cos(a * x))[..., None]  # noqa: E731
    coarse = wave(*((torch.arange(n).double() + 0.5) * pitch for n in (width, height)))
    found = image_gradient(coarse, pitch, finer)[..., 0, :]
    torch.testing.assert_close(found[..., 0], -a * torch.cos(b * y)[:, None] * torch.sin(a * x))
    torch.testing.assert_close(image_laplacian(coarse, pitch, finer), -(a * a + b * b) * wave(x, y))
    distance = 0.37
    around = sum(wave(x + i * distance, y + j * distance) for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))) / 4
    rise = mean_rise(image_laplacian(coarse, pitch, finer), small, distance)
    torch.testing.assert_close(rise, around - wave(x, y))


def test_a_constant_and_a_plane_are_what_is_taken_away():
    truth = smooth(20, 30, 3)
    torch.testing.assert_close(without_constant(truth - 0.7, truth), truth)
    ramp = torch.linspace(0, 1, 30)[None, :, None] - 2 * torch.linspace(0, 1, 20)[:, None, None]
    torch.testing.assert_close(without_plane(truth + ramp + 3, truth), truth, rtol=1e-4, atol=1e-5)


class Known(Siren):
    """The network that an objective is perfectly fitted by: u = cos(a (x + 1)) cos(b (y + 0.6))."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__(SirenConfig(width=2, layers=1))
        self.a, self.b = a, b

    def forward(self, x):
        return torch.cos(self.a * (x[:, :1] + 1)) * torch.cos(self.b * (x[:, 1:] + 0.6))

    def squared_error(self, x, target):
        return (self(x) - target).square().mean()

    def jet(self, x, forms=None):
        u, v = self.a * (x[:, :1] + 1), self.b * (x[:, 1:] + 0.6)
        slope = torch.stack([-self.a * u.sin() * v.cos(), -self.b * u.cos() * v.sin()], -1)
        second = -(self.a**2 + self.b**2) * (u.cos() * v.cos())[..., None]
        return Jet(u.cos() * v.cos(), slope, second if forms is not None else second[..., :0])


@pytest.mark.parametrize("kind", [ImageObjective, GradientObjective, LaplacianObjective])
@pytest.mark.parametrize("batch", [None, 100])
@pytest.mark.parametrize("spans", [0.0, 1.0])
def test_objectives_are_zero_at_their_solution_and_nowhere_else(kind, batch, spans):
    grid = Grid(30, 50)  # y from -0.6 to 0.6: both waves are level at the border
    known, wrong = Known(math.pi * 2, math.pi * 2.5), Known(math.pi * 2.2, math.pi * 2.5)
    values = known(grid.all_points()).reshape(30, 50, 1)
    target = {
        ImageObjective: values,
        GradientObjective: image_gradient(values, grid.pitch),
        LaplacianObjective: image_laplacian(values, grid.pitch),
    }[kind]
    generator = torch.Generator().manual_seed(0)
    more = () if kind is ImageObjective else (spans,)
    assert float(kind(known, target, batch, *more)(generator)[0]) < (1e-8 if spans == 0 else 1e-4)  # the trapezoids
    assert float(kind(wrong, target, batch, *more)(generator)[0]) > 1e-2


@pytest.mark.parametrize("settings", [(1, 0.0), (2, 1.0)])
@pytest.mark.parametrize("target", ["image", "gradient", "laplacian"])
def test_a_small_siren_recovers_a_smooth_picture(target, settings):
    values = smooth(24, 32)
    siren = Siren(SirenConfig(width=48, layers=2, first_omega=10.0), generator=torch.Generator().manual_seed(0))
    schedule = Schedule(400, rate=2e-3, final=0.01, warmup=10)
    last = list(fit(siren, objective(siren, values, target, 256, *settings), schedule))[-1]
    found = sample(siren, Grid(24, 32))
    found = {"image": lambda a, b: a, "gradient": without_constant, "laplacian": without_plane}[target](found, values)
    psnr = 10 * math.log10(4 / float((found - values).square().mean()))
    assert psnr > 35 and last.step == 400


def test_images_are_read_in_every_kind(tmp_path):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), rgb)
    Image.fromarray(rgb[..., 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), rgb[..., :1])
    luma = np.clip(np.rint(rgb @ [0.299, 0.587, 0.114]), 0, 255)
    assert np.abs(read_image(tmp_path / "rgb.png", gray=True)[..., 0] - luma).max() <= 1
    alpha = np.concatenate([rgb, np.full((9, 14, 1), 51, np.uint8)], -1)
    Image.fromarray(alpha).save(tmp_path / "rgba.png")
    assert np.abs(read_image(tmp_path / "rgba.png") - (0.2 * rgb + 0.8 * 255)).max() <= 0.51
    np.save(tmp_path / "mapped.npy", rgb)
    mapped = read_image(tmp_path / "mapped.npy")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, rgb)
    assert read_image(tmp_path / "rgb.png", size=7).shape == (4, 7, 3)  # 4.5 rows: to the even one
    np.testing.assert_array_equal(to_pixels(to_signal(rgb)), rgb)


def test_images_that_are_none_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    with pytest.raises(SceneError, match=r"broken.png: image: expected a"):
        read_image(tmp_path / "broken.png")
    with pytest.raises(SceneError, match=r"none.png: image: expected a file, found none"):
        read_image(tmp_path / "none.png")
    np.save(tmp_path / "float.npy", np.zeros((3, 3)))
    with pytest.raises(FitError, match=r"float.npy: expected uint8 of shape"):
        read_image(tmp_path / "float.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "float.npy").read_bytes()[:20])
    with pytest.raises(FitError, match=r"cut.npy: expected an array of pixels"):
        read_image(tmp_path / "cut.npy")


@pytest.mark.parametrize(("length", "side"), [(100, 32), (33, 32), (1000, 256), (64, 64), (65, 64)])
def test_tiles_cover_everything_and_overlap(length, side):
    found = windows(length, 40, side)
    rows = sorted({(w.top, w.bottom) for w in found})
    assert rows[0][0] == 0 and rows[-1][1] == length
    assert all(end - start <= side + 1 for start, end in rows)
    assert all(next_[0] < this[1] for this, next_ in pairwise(rows))
    assert windows(length, 40, None) == windows(length, 40, 2000)
    with pytest.raises(FitError, match="--tile: expected at least 32"):
        windows(length, 40, 5)


class Ramp(Siren):
    """A "network" that knows the whole picture: u = 0.01 column - 0.02 row of the photo's pixels."""

    def place(self, window):
        self.window = window
        return self

    def forward(self, x):
        w = self.window
        column, row = (
            (x[:, i] / w.grid.pitch + (a + b) / 2) for i, a, b in ((0, w.left, w.right), (1, w.top, w.bottom))
        )
        return (0.01 * column - 0.02 * row)[:, None]


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 4.0])
def test_a_mosaic_has_no_seams_and_one_coordinate_system(scale):
    tiles = [(w, Ramp(SirenConfig(width=2, layers=1)).place(w)) for w in windows(90, 130, 40)]
    assert len(tiles) > 6
    mosaic = Mosaic(90, 130, tiles)
    found = mosaic.all(scale)
    height, width = found.shape[:2]
    column = (torch.arange(width) + 0.5) * 130 / width
    row = (torch.arange(height) + 0.5) * 90 / height
    torch.testing.assert_close(found[..., 0], 0.01 * column - 0.02 * row[:, None], rtol=1e-4, atol=1e-5)


def test_a_mosaic_comes_back_from_its_files(tmp_path):
    parts = windows(60, 50, 40)
    tiles = [(w, Siren(SirenConfig(width=8, layers=1))) for w in parts]
    for window, siren in tiles:
        save_tile(folder_of(tmp_path, window, False), siren, window, 60, 50, "float32")
    torch.testing.assert_close(Mosaic.load(tmp_path).all(), Mosaic(60, 50, tiles).all())
    truth = np.random.default_rng(0).integers(0, 256, (60, 50, 1), dtype=np.uint8)
    square = float((Mosaic(60, 50, tiles).all() - to_signal(truth)).square().mean())
    assert Mosaic.load(tmp_path).squared_error(truth) == pytest.approx(square, rel=1e-5)
    (folder_of(tmp_path, parts[1], False) / NETWORK).unlink()
    with pytest.raises(FitError, match="expected tiles that cover 50 x 60 pixels, found a gap"):
        Mosaic.load(tmp_path)
    with pytest.raises(FitError, match="expected a fitted network"):
        Mosaic.load(tmp_path / "nowhere")


def command(*arguments: str, folder) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, timeout=200)


def test_the_command_fits_stores_and_draws(tmp_path, monkeypatch):
    Image.fromarray(to_pixels(smooth(40, 56, 3))).save(tmp_path / "photo.png")
    size = ["--width", "32", "--layers", "2", "--steps", "60"]
    done = command("siren.fit", "photo.png", *size, "--out", "run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["steps"] == 60 and metrics["psnr"] > 25 and abs(metrics["psnr"] - metrics["psnr_file"]) < 1
    curve = metrics["curve"]
    assert curve[0][0] == 1 and curve[-1][0] == 60 and curve[-1][2] == pytest.approx(metrics["psnr"], abs=2)
    assert all(a[1] < b[1] for a, b in pairwise(curve))
    assert {"network", "png", "jpeg"} == set(metrics["bytes"]) and metrics["steps_per_second"] > 0
    fitted = np.asarray(Image.open(tmp_path / "run/fitted.png")).astype(float)
    truth = np.asarray(Image.open(tmp_path / "photo.png")).astype(float)
    assert 20 * math.log10(255 / np.sqrt(np.mean((fitted - truth) ** 2))) == pytest.approx(metrics["psnr"], abs=0.5)
    assert (tmp_path / "run/figure.png").stat().st_size > 10000
    drawn = command("siren.sample", "run", "--scale", "2", "--out", "large.png", folder=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    large = Image.open(tmp_path / "large.png")
    assert large.size == (112, 80)
    small = np.asarray(large.resize((56, 40), Image.Resampling.BOX)).astype(float)
    assert np.sqrt(np.mean((small - fitted) ** 2)) < 4
    monkeypatch.chdir(tmp_path)
    importlib.import_module("siren.sample").main(["run", "--crop", "0.5", "0", "1", "0.5", "--out", "part.npy"])
    assert np.abs(np.load(tmp_path / "part.npy") - fitted[:20, 28:]).max() <= 2  # through the file's float16
    main(["photo.png", *size[:-1], "80", "--out", "run", "--resume"])
    assert json.loads((tmp_path / "run/metrics.json").read_text())["steps"] == 80


def test_the_command_fits_tiles_derivatives_and_compares(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(to_pixels(smooth(48, 64))[..., 0]).save(tmp_path / "photo.png")
    size = ["--width", "16", "--layers", "2", "--steps", "8"]
    main(["photo.png", *size, "--tile", "36", "--out", "tiled"])
    assert json.loads((tmp_path / "tiled/metrics.json").read_text())["tiles"] == 4
    for target in ("gradient", "laplacian"):
        main(["photo.png", *size, "--target", target, "--out", target])
        assert json.loads((tmp_path / target / "metrics.json").read_text())["target"] == target
    main(["photo.png", *size, "--compare", "--out", "all"])
    found = json.loads((tmp_path / "all/metrics.json").read_text())["compare"]
    assert set(found) == {"siren", "relu", "encoding", "fourier", "hash"} and all(
        f["steps"] > 0 for f in found.values()
    )
    assert (tmp_path / "all/compare.png").exists() and (tmp_path / "all/compare_psnr.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png: image: expected a file, found none"),
        (["photo.png", "--steps", "0"], "--steps: expected at least 1, found 0"),
        (["photo.png", "--budget", "soon"], "--budget: expected a time such as 15s, 5m or 1h, found 'soon'"),
        (["photo.png", "--width", "0"], "width: expected at least 1, found 0"),
        (["photo.png", "--tile", "40", "--target", "gradient"], "--tile: expected --target image"),
        (["photo.png", "--resume", "--out", "none"], "--resume: expected"),
        (["photo.png", "--size", "0"], "--size: expected 1 to"),
        (["wide.npy", "--target", "gradient"], "expected at most 4194304 pixels for derivatives, found 5000 x 1000"),
        (["photo.png", "--batch", "0"], "--batch: expected at least 1 pixel"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    Image.fromarray(to_pixels(smooth(16, 16))[..., 0]).save(tmp_path / "photo.png")
    np.save(tmp_path / "wide.npy", np.zeros((1000, 5000, 1), np.uint8))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


@pytest.mark.parametrize(
    "shape", ["(" * 40, "(-1, 3)", "(1000000000, 1000000000, 3)"], ids=["open", "negative", "vast"]
)
def test_arrays_whose_header_lies_are_refused(shape, tmp_path):
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64))
    with pytest.raises(FitError, match=r"x.npy: expected an array of pixels") as caught:
        read_image(tmp_path / "x.npy")
    assert "\n" not in str(caught.value)
    with pytest.raises(FitError, match=r"x.npy: expected an array") as caught:
        read_slowness(tmp_path / "x.npy")
    assert "\n" not in str(caught.value)
