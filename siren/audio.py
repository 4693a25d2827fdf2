"""A sound as a network (Sitzmann et al. 2020, section 4.2): `python -m siren.audio CLIP.wav --out DIR`.

The network maps time, [-1, 1] over the clip, to the pressure of every channel, scaled so that the loudest sample is 1.
PSNR is 10 log10(4 / mean squared error) of that scaled signal (peak to peak 2, as the paper's); SNR is
10 log10(sum of signal^2 / sum of error^2), which for music and voices is some 20 dB less, and no scale changes it.

The first layer's random frequencies stay as they were drawn: one step of Adam would turn its phases by `rate` times
`first_omega`, several radians, which the other layers can't follow. On 2.5 s of the made voice, that costs 12 dB.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from nerf.kernels import Ops
from siren.audio_plot import plot_sound
from siren.command import backend, decibels, follow, length, run, write_metrics
from siren.loop import FitError, Objective, Progress, Schedule, fit
from siren.made import make_sound
from siren.network import Siren, SirenConfig
from siren.signal_io import make_folder
from siren.store import NETWORK, load_network, save_network
from siren.wav import RATE as HIGHEST_RATE
from siren.wav import Sound, read_wav, write_wav

RATE = 3e-4  # Adam's; twice as much diverges on some clips
VISITS, FEWEST_STEPS = 20, 500  # default length: this many looks at every sample
REACH = 1000.0  # Hz that the first layer spans; deeper layers multiply them
LONGEST = 1 << 22  # samples; beyond, neighbours are too close in float32's [-1, 1]
MOST = 1 << 26  # samples that are written
CHUNK = 1 << 16  # instants evaluated at once


@dataclass(frozen=True)
class Options:
    """Fit a SIREN to a sound.

    Example: python -m siren.audio example:music --out runs/music
    """

    sound: tyro.conf.Positional[str]
    """FILE.wav, or a sound that this project makes: example:music, example:voice."""
    out: Path | None = None
    """Folder of the results. Default: runs/<the sound's name>."""
    steps: int | None = None
    """Fit for this many steps. Default: enough to see every sample 20 times."""
    budget: str | None = None
    """Fit for this long instead: 90s, 5m."""
    seconds: float | None = None
    """Fit the clip's beginning only."""
    resample: int | None = None
    """Write the reconstruction at this many samples a second. Default: the clip's."""
    first_omega: float | None = None
    """Frequency of the first layer. Default: by length and rate, so that it spans a quarter of the band, 1 kHz at most."""
    train_first: bool = False
    """Also train the first layer, as the paper does (at a rate of 1e-4 or less, over many more steps)."""
    width: int = 256
    """Of the layers."""
    layers: int = 4
    """Layers that end in a sine."""
    batch: int = 1024
    """Samples in a step."""
    rate: float = RATE
    """Learning rate."""
    store: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the network's file."""
    resume: bool = False
    """Go on with the fit in that folder."""
    backend: str = "auto"
    """Kernels: auto, reference or cpu."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True)
class Clip:
    """A sound as the network sees it.

    Attributes:
        targets: samples divided by `scale`, so that the largest magnitude is 1.
        scale, rate: to turn them back into a sound.
    """

    targets: Float[Tensor, "n c"]
    scale: float
    rate: int

    @staticmethod
    def of(sound: Sound) -> Clip:
        """Raises FitError for a sound that is empty, too long, silent or not finite."""
        count = len(sound.samples)
        if not 2 <= count <= LONGEST:
            wanted = f"2 to {LONGEST} samples"
            raise FitError(f"sound: expected {wanted}, found {count}; --seconds takes the beginning of a long one")
        scale = float(np.abs(sound.samples).max())
        if not 0 < scale < math.inf:
            raise FitError(f"sound: expected samples other than 0, all finite, found a largest magnitude of {scale}")
        return Clip(torch.from_numpy(np.asarray(sound.samples, np.float32) / scale), scale, sound.rate)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.targets) / self.rate

    def about(self) -> dict[str, Any]:
        """What `sample_sound` has to know."""
        return {"kind": "sound", "scale": self.scale, "rate": self.rate, "samples": len(self.targets)}


def default_first_omega(seconds: float, rate: float) -> float:
    """The first layer's frequency for a clip: pi * seconds * Hz, so that weights of U(-1, 1) and time in [-1, 1] span the
    frequencies up to min(1000, rate / 8) Hz: a quarter of the band that the sample rate can hold, where it is narrow,
    and otherwise what did best, or nearly, on voices and notes at 8 to 44.1 kHz. A sound that is as loud at 10 kHz takes
    more (--first-omega). The paper's 3000, for 7 s, spans 136 Hz.
    """
    return math.pi * seconds * min(REACH, rate / 8)


def times(start: int, stop: int, rate: float, seconds: float) -> Float[Tensor, "n 1"]:
    """The network's coordinate of samples start, ..., stop - 1: -1 where the clip begins, 1 where it ends."""
    return (2 * torch.arange(start, stop, dtype=torch.float64) / (rate * seconds) - 1).float()[:, None]


def objective(siren: Siren, clip: Clip, batch: int) -> Objective:
    """Mean squared error (section 4.2) at `batch` random samples, or at all where there are no more."""
    if batch < 1:
        raise FitError(f"--batch: expected at least 1, found {batch}")
    count = len(clip.targets)
    every = times(0, count, clip.rate, clip.seconds)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        picked = slice(None) if batch >= count else torch.randint(count, (batch,), generator=generator)
        error = siren.squared_error(every[picked], clip.targets[picked])
        return error, {"psnr": decibels(error.detach())}

    return loss


def fit_sound(
    sound: Sound,
    config: SirenConfig | None = None,
    schedule: Schedule | None = None,
    ops: Ops | None = None,
    batch: int = 1024,
    train_first: bool = False,
    out: Path | None = None,
    resume: bool = False,
) -> tuple[Siren, Clip, Generator[Progress, None, None]]:
    """A network for a sound, the clip that it learns, and the fit, which runs as it is iterated.

    Args:
        config: its shape, one input and as many outputs as channels; None: 4 layers of 256 and `default_first_omega`.
        schedule: None: `default_schedule`.
        out, resume: as `siren.loop.fit` takes them.

    Example:
        >>> siren, clip, steps = fit_sound(read_wav(Path("clip.wav")))  # doctest: +SKIP
        >>> for progress in steps: ...  # doctest: +SKIP
        >>> slow = sample_sound(siren, clip.about(), rate=96000)  # doctest: +SKIP
    """
    clip = Clip.of(sound)
    channels = clip.targets.shape[1]
    config = config or SirenConfig(1, channels, first_omega=default_first_omega(clip.seconds, clip.rate))
    if (config.inputs, config.outputs) != (1, channels):
        found = f"{config.inputs} and {config.outputs}"
        raise FitError(f"network: expected 1 input and {channels} outputs, found {found}")
    schedule = schedule or default_schedule(len(clip.targets), batch)
    siren = Siren(config, ops, torch.Generator().manual_seed(schedule.seed))
    siren.weights[0].requires_grad_(train_first)
    siren.biases[0].requires_grad_(train_first)
    return siren, clip, fit(siren, objective(siren, clip, batch), schedule, out, resume)


def default_schedule(samples: int, batch: int, seed: int = 0) -> Schedule:
    """Every sample 20 times, and at least 500 steps."""
    return Schedule(max(FEWEST_STEPS, -(-VISITS * samples // max(batch, 1))), rate=RATE, final=0.05, seed=seed)


def resampled(about: dict[str, Any], rate: int) -> int:
    """The number of samples that the clip has at another rate. Raises FitError for a rate that can't be."""
    count = max(1, round(about["samples"] / about["rate"] * rate))
    if not 1 <= rate <= HIGHEST_RATE or count > MOST:
        wanted = f"1 to {HIGHEST_RATE} samples a second and {MOST} in all"
        raise FitError(f"--resample: expected {wanted}, found {rate} a second and {count} in all")
    return count


@torch.no_grad()
def sample_sound(siren: Siren, about: dict[str, Any], rate: int | None = None) -> Sound:
    """A network as a sound of the clip's length.

    Args:
        about: `Clip.about`, as `load_sound` returns it.
        rate: samples a second; None: the clip's. There is no filter: at a lower rate, frequencies above half of it
            fold back.
    """
    new = about["rate"] if rate is None else rate
    count, seconds = resampled(about, new), about["samples"] / about["rate"]
    chunks = [siren(times(a, min(a + CHUNK, count), new, seconds)) for a in range(0, count, CHUNK)]
    return Sound((torch.cat(chunks) * about["scale"]).numpy(), new)


def load_sound(path: Path, ops: Ops | None = None) -> tuple[Siren, dict[str, Any]]:
    """A network that this command saved, for `sample_sound`. Raises FitError for a file that holds no sound."""
    siren, about = load_network(path, ops)
    numbers = {name: about.get(name) for name in ("rate", "samples", "scale")}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, float if name == "scale" else int) or not 0 < value < 1e18:
            raise FitError(f"{path}: about: {name}: expected a positive number of a sound, found {value!r}")
    if about.get("kind") != "sound" or siren.config.inputs != 1:
        found = f"{about.get('kind')!r} with {siren.config.inputs} inputs"
        raise FitError(f"{path}: about: kind: expected a 'sound' with 1 input, found {found}")
    return siren, about


def measure(clip: Clip, fitted: Sound) -> dict[str, float]:
    """psnr and snr in dB, over all samples and channels (definitions: this module's head)."""
    truth = clip.targets.double()
    error = (torch.from_numpy(fitted.samples).double() / clip.scale - truth).square().mean().item()
    power = truth.square().mean().item()
    return {"psnr": decibels(error), "snr": 10 * math.log10(power / max(error, 1e-20))}


def read(name: str, seconds: float | None, seed: int) -> Sound:
    """The sound that a command line names, or its beginning."""
    if name.startswith("example:"):
        sound = make_sound(name.removeprefix("example:"), seed=seed)
    else:
        sound = read_wav(Path(name))
    if seconds is not None:
        if not seconds > 0:
            raise FitError(f"--seconds: expected a positive number, found {seconds}")
        sound = Sound(sound.samples[: max(1, round(min(seconds, sound.seconds) * sound.rate))], sound.rate)
    return sound


def command(options: Options) -> None:
    """Fit, measure, write."""
    ops = backend(options.backend)
    sound = read(options.sound, options.seconds, options.seed)
    channels = sound.samples.shape[1]
    print(f"{options.sound}: {sound.seconds:.2f} s, {sound.rate} Hz, {channels} channel{'s' * (channels > 1)}")
    out = options.out or Path("runs") / options.sound.replace("example:", "").removesuffix(".wav").split("/")[-1]
    if options.resample is not None:
        resampled(Clip.of(sound).about(), options.resample)  # before the fit, not after it
    omega = default_first_omega(sound.seconds, sound.rate) if options.first_omega is None else options.first_omega
    config = SirenConfig(1, channels, options.width, options.layers, first_omega=omega)
    default = default_schedule(len(sound.samples), options.batch)
    steps, budget = length(options.steps, options.budget, default)
    schedule = Schedule(steps, budget, options.rate, default.final, seed=options.seed)
    make_folder(out)
    siren, clip, progress = fit_sound(
        sound, config, schedule, ops, options.batch, options.train_first, out, options.resume
    )
    again = f"Go on with: python -m siren.audio {options.sound} --out {out} --resume, and the same options"
    final = follow(progress, "sound", again)
    report(siren, clip, final, out, options)


def report(siren: Siren, clip: Clip, final: Progress, out: Path, options: Options) -> None:
    """Write the folder's files and say what is in them."""
    fitted = sample_sound(siren, clip.about())
    figures = measure(clip, fitted)
    written = fitted if options.resample is None else sample_sound(siren, clip.about(), options.resample)
    write_wav(out / "reconstruction.wav", written, 32 if clip.scale > 1 else 16, floating=clip.scale > 1)
    plot_sound(clip.targets.numpy() * clip.scale, fitted.samples, clip.rate, out / "waveform.png")
    size = save_network(out / NETWORK, siren, clip.about(), options.store)
    parameters = sum(value.numel() for value in siren.parameters())
    counted = {"steps": final.step, "steps_per_second": final.rate, "seconds": final.seconds, "parameters": parameters}
    write_metrics(out, {**figures, **counted, "first_omega": siren.config.first_omega, "network_bytes": size})
    print(
        f"PSNR {figures['psnr']:.2f} dB, SNR {figures['snr']:.2f} dB after {final.step} steps in {final.seconds:.0f} s; "
        f"{out}: reconstruction.wav, waveform.png, {NETWORK} ({size / 1e6:.2f} MB), metrics.json"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    run(Options, command, "siren.audio", arguments)


if __name__ == "__main__":
    main()
