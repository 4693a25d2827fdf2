"""Sounds fitted: the time axis, the figures by their definitions, saved networks, and the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nerf.kernels import choose, load
from siren.audio import Clip, default_first_omega, fit_sound, load_sound, main, measure, objective, sample_sound, times
from siren.audio_plot import spectrogram
from siren.loop import FitError, Schedule
from siren.made import SOUNDS, make_sound
from siren.network import Siren, SirenConfig
from siren.store import load_network, save_network
from siren.wav import Sound, read_wav, write_wav

ROOT = Path(__file__).parent.parent


def tones(seconds: float = 0.25, rate: int = 4000) -> Sound:
    """Two channels with closed forms."""
    t = np.arange(round(seconds * rate)) / rate
    left, right = np.sin(2 * np.pi * 220 * t), 0.5 * np.cos(2 * np.pi * 330 * t + 1)
    return Sound(np.stack((left, right), 1).astype(np.float32) * 0.6, rate)


class Formula(Siren):
    """Stands in for a network: a known function of the clip's time in [-1, 1]."""

    def __init__(self, function) -> None:
        super().__init__(SirenConfig(1, 2, 4, 1))
        self.function = function

    def forward(self, x):
        return self.function(x)

    def squared_error(self, x, target):
        return (self.function(x) - target).square().mean()


def test_time_runs_from_minus_one_to_one_over_the_clip_at_any_rate():
    for rate in (10, 40, 7):
        found = times(0, round(2.0 * rate), rate, 2.0)[:, 0].tolist()
        assert found == pytest.approx([2 * (k / rate) / 2.0 - 1 for k in range(2 * rate)], abs=1e-6)
    assert torch.equal(times(3, 5, 10, 2.0), times(0, 20, 10, 2.0)[3:5])


@pytest.mark.parametrize("rate", [4000, 8000, 3000, 44100])
def test_a_known_function_is_sampled_where_it_should_be(rate):
    clip = Clip.of(tones())
    siren = Formula(lambda x: torch.cat((torch.sin(2 * math.pi * 220 * (x + 1) / 8), x), 1))
    found = sample_sound(siren, clip.about(), rate)
    t = np.arange(round(0.25 * rate)) / rate
    assert found.rate == rate and found.samples.shape == (len(t), 2)
    np.testing.assert_allclose(found.samples[:, 0], clip.scale * np.sin(2 * np.pi * 220 * t), atol=2e-4)


def test_psnr_and_snr_by_their_definitions():
    sound = tones()
    noise = np.random.default_rng(0).normal(0, 0.003, sound.samples.shape).astype(np.float32)
    fitted = Sound(sound.samples + noise, sound.rate)
    figures = measure(Clip.of(sound), fitted)
    squared = truth = 0.0
    peak = max(abs(value) for row in sound.samples.tolist() for value in row)
    for a, b in zip(sound.samples.flatten().tolist(), fitted.samples.flatten().tolist()):
        squared += (a - b) ** 2
        truth += a**2
    assert figures["snr"] == pytest.approx(10 * math.log10(truth / squared), abs=1e-4)
    mean = squared / sound.samples.size / peak**2
    assert figures["psnr"] == pytest.approx(10 * math.log10(4 / mean), abs=1e-4)


def test_the_objective_is_the_mean_square_of_the_scaled_sound():
    clip = Clip.of(tones())
    assert clip.targets.abs().max() == 1
    zero = Formula(lambda x: torch.zeros(len(x), 2))
    whole, figures = objective(zero, clip, 10**6)(torch.Generator())
    assert whole.item() == pytest.approx((clip.targets.double() ** 2).mean().item(), rel=1e-5)
    assert figures["psnr"] == pytest.approx(10 * math.log10(4 / whole.item()))
    # Batches are fair: their mean is the whole's.
    generator = torch.Generator().manual_seed(0)
    part = np.mean([objective(zero, clip, 64)(generator)[0].item() for _ in range(400)])
    assert part == pytest.approx(whole.item(), rel=0.03)
    truth = Formula(lambda x: clip.targets[((x[:, 0] + 1) * len(clip.targets) / 2).round().long()])
    assert objective(truth, clip, 64)(generator)[0].item() == 0  # each target at its own time


def test_the_default_frequency_spans_what_it_says():
    for seconds, rate in ((7, 44100), (2.5, 8000), (10, 400)):
        omega = default_first_omega(seconds, rate)
        # sin(omega w t) with w = 1 and t in [-1, 1] turns so often in so many seconds:
        assert omega * 2 / (2 * math.pi) / seconds == pytest.approx(min(1000, rate / 8))


def test_a_fit_reaches_thirty_decibels_of_noise_ratio():
    sound = tones()
    config = SirenConfig(1, 2, 64, 2, first_omega=default_first_omega(sound.seconds, sound.rate))
    siren, clip, steps = fit_sound(sound, config, Schedule(400, rate=2e-3, final=0.02), load(choose()[0]), batch=1000)
    before = siren.weights[0].clone()
    for _ in steps:
        pass
    figures = measure(clip, sample_sound(siren, clip.about()))
    assert figures["snr"] > 30 and torch.equal(before, siren.weights[0])
    # Between the samples it learned, too: the tones go on at four times the rate.
    fine = sample_sound(siren, clip.about(), 16000).samples
    t = np.arange(len(fine)) / 16000
    error = fine[:, 0] - 0.6 * np.sin(2 * np.pi * 220 * t)
    assert 10 * math.log10(np.mean((0.6 * np.sin(2 * np.pi * 220 * t)) ** 2) / np.mean(error[:-8] ** 2)) > 25


def test_the_first_layer_learns_where_asked():
    siren, _, steps = fit_sound(tones(), SirenConfig(1, 2, 8, 2), Schedule(2), train_first=True)
    before = siren.weights[0].detach().clone()
    for _ in steps:
        pass
    assert not torch.equal(before, siren.weights[0])


def test_a_resumed_fit_has_the_bits_of_one_that_was_not_interrupted(tmp_path):
    found = []
    for stops in ((6,), (2, 4)):
        for index, stop in enumerate(stops):
            config, out = SirenConfig(1, 2, 8, 2, first_omega=50.0), tmp_path / str(len(stops))
            siren, _, steps = fit_sound(tones(), config, Schedule(6), batch=64, out=out, resume=index > 0)
            for _ in range(stop):
                next(steps)
            steps.close()
        found.append(torch.cat([value.flatten() for value in siren.state_dict().values()]))
    assert torch.equal(*found)


def test_saved_sounds_come_back_and_other_networks_are_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    clip, siren = Clip.of(tones()), Siren(SirenConfig(1, 2, 8, 2))
    save_network(path, siren, clip.about())
    found, about = load_sound(path)
    assert np.array_equal(sample_sound(found, about).samples, sample_sound(siren, clip.about()).samples)
    for change, word in (
        ({"rate": 0}, "rate"), ({"rate": "8000"}, "rate"), ({"samples": True}, "samples"), ({"scale": None}, "scale"),
        ({"kind": "film"}, "kind"),
    ):  # fmt: skip
        save_network(path, siren, clip.about() | change)
        with pytest.raises(FitError, match=word):
            load_sound(path)


def test_sounds_and_settings_that_can_not_be_fitted():
    with pytest.raises(FitError, match="other than 0"):
        Clip.of(Sound(np.zeros((10, 1), np.float32), 8000))
    with pytest.raises(FitError, match="finite"):
        Clip.of(Sound(np.full((10, 1), np.nan, np.float32), 8000))
    for count in (0, 1, (1 << 22) + 1):
        with pytest.raises(FitError, match="samples"):
            Clip.of(Sound(np.ones((count, 1), np.float32), 8000))
    with pytest.raises(FitError, match="2 outputs"):
        fit_sound(tones(), SirenConfig(1, 1))
    with pytest.raises(FitError, match="--batch"):
        fit_sound(tones(), SirenConfig(1, 2), Schedule(1), batch=0)
    with pytest.raises(FitError, match="--resample"):
        sample_sound(Siren(SirenConfig(1, 2)), Clip.of(tones()).about(), 0)


@pytest.mark.parametrize("name", SOUNDS)
def test_made_sounds_are_the_same_every_time_and_fill_a_band(name):
    sound = make_sound(name, 1.0, 8000, seed=3)
    assert np.array_equal(sound.samples, make_sound(name, 1.0, 8000, seed=3).samples)
    assert not np.array_equal(sound.samples, make_sound(name, 1.0, 8000, seed=4).samples)
    assert np.abs(sound.samples).max() == pytest.approx(0.9) and sound.seconds == 1
    power = np.abs(np.fft.rfft(sound.samples[:, 0])) ** 2
    assert np.cumsum(power)[1000] / power.sum() > 0.5  # most of it below 1 kHz
    assert power[1000:].sum() / power.sum() > 1e-4  # and yet not a hum
    with pytest.raises(FitError, match="example"):
        make_sound("noise")


def test_the_spectrogram_shows_a_tone_at_its_frequency():
    t = np.arange(8000) / 8000
    shown = spectrogram(np.sin(2 * np.pi * 1000 * t))
    assert (shown.argmax(0) == round(1000 / 8000 * 512)).all()


def test_the_command_line(tmp_path, capsys):
    write_wav(tmp_path / "in.wav", tones(), 24)
    out = tmp_path / "out"
    small = ("--out", str(out), "--width", "16", "--layers", "2", "--resample", "6000", "--backend", "reference")
    main([str(tmp_path / "in.wav"), *small, "--steps", "12"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"psnr", "snr", "steps", "steps_per_second", "seconds", "parameters"} <= metrics.keys()
    assert metrics["steps"] == 12 and f"SNR {metrics['snr']:.2f} dB" in capsys.readouterr().out
    siren, about = load_sound(out / "network.safetensors")
    assert measure(Clip.of(tones()), sample_sound(siren, about))["psnr"] == pytest.approx(metrics["psnr"], abs=0.01)
    written = read_wav(out / "reconstruction.wav")
    assert written.rate == 6000 and len(written.samples) == 1500
    assert np.abs(written.samples - sample_sound(siren, about, 6000).samples.clip(-1, 1)).max() < 2**-15
    assert (out / "waveform.png").read_bytes()[:4] == b"\x89PNG"
    assert load_network(out / "network.safetensors")[0].config.first_omega == metrics["first_omega"]


def test_errors_are_a_sentence_and_exit_code_2(capsys):
    for arguments, word in (
        (["none.wav"], "none.wav"), (["example:noise"], "example"), (["example:voice", "--seconds", "0"], "--seconds"),
        (["example:voice", "--width", "0"], "width"), (["example:voice", "--resample", "-1"], "--resample"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and said.startswith("error: ") and word in said and said.count("\n") == 1
