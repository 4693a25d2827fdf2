"""Films fitted: coordinates, figures by their definitions, films read back, limits, and the command line."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from data.films import VideoError, write_video
from nerf.kernels import choose, load
from siren.loop import FitError, Schedule
from siren.made import make_film
from siren.network import Siren, SirenConfig
from siren.signal_io import check_memory, read_film
from siren.store import save_network
from siren.video import coordinates, fit_film, load_film, main, measure, objective, sample_film

ROOT = Path(__file__).parent.parent


class Formula(Siren):
    """Stands in for a network: a known function of (x, y, t)."""

    def __init__(self, function) -> None:
        super().__init__(SirenConfig(3, 3, 4, 1))
        self.function = function

    def forward(self, x):
        return self.function(x)

    def squared_error(self, x, target):
        return (self.function(x) - target).square().mean()


def pixels(frames: int, height: int, width: int) -> list[tuple[float, float, float]]:
    """Every (x, y, t) by hand: centres, the longer side from -1 to 1."""
    half = max(height, width) / 2
    return [
        ((column + 0.5 - width / 2) / half, (row + 0.5 - height / 2) / half, (frame + 0.5) / frames * 2 - 1)
        for frame in range(frames)
        for row in range(height)
        for column in range(width)
    ]


@pytest.mark.parametrize("shape", [(3, 4, 6), (2, 5, 3), (1, 1, 1)])
def test_coordinates_are_the_centres_of_pixels_and_frames(shape):
    found = coordinates(torch.arange(math.prod(shape)), *shape)
    np.testing.assert_allclose(found.numpy(), pixels(*shape), atol=1e-6)


def test_sampling_asks_at_these_places_and_maps_to_colours():
    frames = list(sample_film(Formula(lambda x: 1.5 * x), 3, 4, 6))
    expected = (np.clip(1.5 * np.array(pixels(3, 4, 6)), -1, 1) / 2 + 0.5).reshape(3, 4, 6, 3)
    np.testing.assert_allclose(np.stack(frames), expected, atol=1e-6)


def test_frames_larger_than_a_chunk_are_whole():
    wide = next(sample_film(Formula(lambda x: x), 1, 300, 400))
    np.testing.assert_allclose(wide[:, 0, 1], 0.5 + (np.arange(300) - 149.5) / 400, atol=1e-6)


def test_the_objective_compares_each_pixel_with_its_own_colour():
    film = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
    places = {tuple(np.round(place, 4)): colour for place, colour in zip(pixels(3, 4, 6), film.reshape(-1, 3))}

    def lookup(x):
        return torch.tensor(np.array([places[tuple(np.round(row, 4))] for row in x.tolist()])).float() / 127.5 - 1

    generator = torch.Generator().manual_seed(0)
    assert objective(Formula(lookup), film, 50)(generator)[0].item() == 0
    zero = objective(Formula(lambda x: torch.zeros(len(x), 3)), film, 5000)(generator)[0].item()
    assert zero == pytest.approx(np.mean((film / 127.5 - 1) ** 2), rel=0.05)


def test_psnr_by_its_definition():
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (5, 4, 3), np.uint8)
    fitted = random.uniform(0, 1, (5, 4, 3)).astype(np.float32)
    mean = sum((a / 255 - b) ** 2 for a, b in zip(truth.flatten().tolist(), fitted.flatten().tolist())) / 60
    assert measure(truth, fitted) == pytest.approx(-10 * math.log10(mean), abs=1e-4)


def test_a_fit_of_a_film():
    film = make_film(8, 24, 32)
    config = SirenConfig(3, 3, 64, 3, first_omega=20.0)
    siren, steps = fit_film(film, config, Schedule(600, rate=1e-3, final=0.02), load(choose()[0]), batch=1024)
    for _ in steps:
        pass
    psnr = np.mean([measure(a, b) for a, b in zip(film, sample_film(siren, 8, 24, 32))])
    still = np.mean([measure(a, film.mean(0) / 255) for a in film])  # what no motion at all would get
    assert psnr > 28 and psnr > still + 5


def test_made_films_are_the_same_every_time_and_move():
    film = make_film(6, 40, 60, seed=2)
    assert film.shape == (6, 40, 60, 3) and film.dtype == np.uint8
    assert np.array_equal(film, make_film(6, 40, 60, seed=2))
    assert not np.array_equal(film, make_film(6, 40, 60, seed=3))
    assert all(np.abs(a.astype(int) - b).mean() > 1 for a, b in pairwise(film))
    large = make_film(6, 80, 120, seed=2)  # the same scene, finer
    reduced = large.reshape(6, 40, 2, 60, 2, 3).mean((2, 4))
    assert np.abs(reduced - film).mean() < 2
    with pytest.raises(FitError, match="example"):
        make_film(0)


def smooth(count: int = 12, height: int = 32, width: int = 48) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    picture = np.stack((30 + 190 * x / width, 30 + 190 * y / height, 0 * x), -1)
    return np.stack([picture + np.array([0, 0, 20 + 200 * k / count]) for k in range(count)]).round().astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 48), (31, 47)])
def test_a_film_written_and_read_back(tmp_path, size):
    film, path = smooth(12, *size), tmp_path / "new" / "a.mp4"
    assert write_video(path, film, 12) == 12
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]
    found = read_film(path)
    assert len(found.frames) == 12 and found.fps == 12
    h, w = size
    # Colours are halved in resolution and compressed; a wrong matrix is off by 10 and more.
    assert np.abs(found.frames[:, :h, :w].astype(int) - film).mean() < 3
    part = read_film(path, frames=5, downscale=4)
    assert part.frames.shape == (5, 8, -(-w // 2) * 2 // 4, 3)
    whole = found.frames[:5, :32, : part.frames.shape[2] * 4]
    expected = whole.reshape(5, 8, 4, part.frames.shape[2], 4, 3).mean((2, 4))
    assert np.abs(part.frames - expected).max() <= 0.5


def test_what_is_no_film_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    for data in (b"", b"text" * 100):
        path.write_bytes(data)
        with pytest.raises(FitError, match="ffmpeg can read"):
            read_film(path)
    with pytest.raises(FitError, match="found none"):
        read_film(tmp_path / "none.mp4")
    with pytest.raises(FitError, match="a folder"):
        read_film(tmp_path)
    random = np.random.default_rng(0)
    write_video(path, random.integers(0, 256, (30, 32, 48, 3), np.uint8), 12)
    with pytest.raises(FitError, match="--downscale"):
        read_film(path, downscale=33)
    for name, value in (("frames", 0), ("downscale", 0)):
        with pytest.raises(FitError, match=f"--{name}"):
            read_film(path, **{name: value})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FitError, match="cut short") as error:
        read_film(path)
    there = int(str(error.value).split("--frames ")[1].split()[0])
    assert 0 < there < 30 and len(read_film(path, frames=there).frames) == there
    for frames, fps, word in ((smooth(), 0, "fps"), ([], 12, "at least one")):
        with pytest.raises(VideoError, match=word):
            write_video(tmp_path / "b.mp4", frames, fps)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_too_much_memory_is_refused_with_what_helps(tmp_path):
    assert check_memory("x", 2, 3, 4) == 72
    path = tmp_path / "a.mp4"
    write_video(path, smooth(), 12)
    for extra in ({}, {"frames": 11}, {"downscale": 2, "frames": 12}):
        with pytest.raises(FitError, match=r"--frames .* --downscale"):
            read_film(path, memory=12 * 32 * 48 * 3 // 8, **extra)
    assert len(read_film(path, frames=2, memory=2 * 32 * 48 * 3).frames) == 2


def test_saved_films_come_back_and_other_networks_are_refused(tmp_path):
    path, siren = tmp_path / "network.safetensors", Siren(SirenConfig(3, 3, 8, 2))
    about = {"kind": "film", "frames": 4, "height": 5, "width": 6, "fps": 12.5}
    save_network(path, siren, about)
    found, said = load_film(path)
    assert said == about
    for a, b in zip(sample_film(found, 4, 5, 6), sample_film(siren, 4, 5, 6)):
        assert np.array_equal(a, b)
    for change in (
        {"frames": 0},
        {"height": 1.5},
        {"width": "6"},
        {"fps": None},
        {"kind": "sound"},
        {"frames": 10**30},
    ):
        save_network(path, siren, about | change)
        with pytest.raises(FitError, match=next(iter(change))):
            load_film(path)


def test_settings_that_can_not_be():
    film = smooth(2)
    with pytest.raises(FitError, match="3 inputs"):
        fit_film(film, SirenConfig(2, 3))
    with pytest.raises(FitError, match="--batch"):
        fit_film(film, batch=0)
    with pytest.raises(FitError, match="at least one pixel"):
        fit_film(film[:0])
    with pytest.raises(FitError, match="at least 1 frame"):
        next(sample_film(Siren(SirenConfig(3, 3)), 0, 1, 1))


def test_the_command_line(tmp_path):
    write_video(tmp_path / "in.mp4", smooth(), 12)
    out = tmp_path / "out"
    command = [str(tmp_path / "in.mp4"), "--out", str(out), "--frames", "6"]
    command += ["--downscale", "2", "--width", "16", "--layers", "2", "--steps", "20", "--fps", "24", "--scale", "2"]
    main([*command, "--backend", "reference"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 20 and len(metrics["psnr_frames"]) == 6
    assert metrics["psnr"] == pytest.approx(np.mean(metrics["psnr_frames"]))
    truth = read_film(tmp_path / "in.mp4", 6, 2).frames
    siren, about = load_film(out / "network.safetensors")
    fitted = list(sample_film(siren, about["frames"], about["height"], about["width"]))
    assert [measure(a, b) for a, b in zip(truth, fitted)] == pytest.approx(metrics["psnr_frames"], abs=0.01)
    both = read_film(out / "reconstruction.mp4").frames
    assert both.shape == (6, 16, 24 + 4 + 24, 3) and np.abs(both[:, :, :24].astype(int) - truth).mean() < 4
    sampled = read_film(out / "sampled.mp4")
    assert sampled.frames.shape == (12, 32, 48, 3) and sampled.fps == 24
    assert (out / "frame.png").read_bytes()[:4] == b"\x89PNG"


def test_errors_are_a_sentence_and_exit_code_2(capsys):
    for arguments, word in (
        (["none.mp4"], "none.mp4"),
        (["example", "--fps", "0"], "--fps"),
        (["example", "--width", "0"], "width"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and said.startswith("error: ") and word in said and said.count("\n") == 1


def test_playlists_and_films_beyond_measure_are_refused(tmp_path, monkeypatch):
    write_video(tmp_path / "good.mp4", [np.zeros((32, 32, 3), np.uint8)] * 6, 10)
    (tmp_path / "film.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    with pytest.raises(FitError, match=r"film.mp4: expected a film that ffmpeg can read"):
        read_film(tmp_path / "film.mp4")
    monkeypatch.setattr("siren.signal_io.FRAMES", 5)
    with pytest.raises(FitError, match=r"good.mp4: expected at most 5 frames, found more"):
        read_film(tmp_path / "good.mp4")
    assert len(read_film(tmp_path / "good.mp4", frames=5).frames) == 5
    monkeypatch.setattr("siren.signal_io.PIXELS", 1000)
    with pytest.raises(FitError, match=r"good.mp4: .* megapixels, found 32 x 32"):
        read_film(tmp_path / "good.mp4", frames=5)
