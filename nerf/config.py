"""Everything a run is told, as frozen dataclasses: saved as JSON with its checkpoint and read back field by field."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import types
import typing
from dataclasses import dataclass, replace
from dataclasses import field as given
from pathlib import Path
from typing import Any

from nerf.field import HashFieldConfig, NerfFieldConfig
from nerf.model import HierarchicalConfig, MarchConfig, ModelConfig
from nerf.register import RegisterConfig
from nerf.warp import WarpConfig

PRESETS = ("auto", "instant", "nerf", "nerfies")


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, with a learning rate that falls exponentially from `rate` to `rate * final` over the run.

    Attributes:
        rate, final: of the field.
        flat: share of the run over which the field's rate stays where it is before it falls.
        warp_rate, warp_final: the same of the warp network and all latent codes.
        beta1, beta2, eps: Adam's.
        warp_beta1: beta1 of the warp network and the codes.
        warmup: steps over which the rates rise from nothing.
        touched_only: hash tables move only where a step has a gradient (nerf/kernels/adam.py), instead of drifting on.
        warp_hold: steps before which the warp and all codes stand still, while a field forms around them.
    """

    rate: float = 2e-2
    final: float = 0.03
    flat: float = 0.0
    warp_rate: float = 5e-4
    warp_final: float = 0.03
    beta1: float = 0.9
    warp_beta1: float = 0.9
    warmup: int = 0
    warp_hold: int = 0
    touched_only: bool = False
    beta2: float = 0.99
    eps: float = 1e-15


@dataclass(frozen=True)
class LossConfig:
    """Regularisers beside the photometric loss; a weight of 0 switches one off.

    Attributes:
        elastic: weight of the elastic loss (Nerfies, section 3.3).
        elastic_decay: shares of the run between which its weight decays to nothing along a cosine; None: constant.
        elastic_points: samples a step whose Jacobian is taken, drawn at random; 0: all of them.
        background: weight of the background loss (section 3.4).
        background_points: static points a step.
        warp_every: steps between those at which the two are taken, with as many times their weight.
        distortion: weight of mip-NeRF 360's distortion loss.
        anneal: share of the run over which the warp's frequency bands come in.
        anneal_from: bands that are there from the start.
        plain: shares of the run between which colour comes to depend on the direction and on the photo; before the first
            it depends on the place alone. None: all from the start.
    """

    elastic: float = 0.0
    elastic_decay: tuple[float, float] | None = None
    elastic_points: int = 0
    background: float = 0.0
    background_points: int = 16384
    warp_every: int = 1
    distortion: float = 0.0
    anneal: float = 0.32
    anneal_from: float = 0.0
    plain: tuple[float, float] | None = None


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
        scene, downscale: the photos.
        preset: what the rest was taken from.
        register: how the photos are brought into register before the first step; None: they aren't.
        steps: optimiser steps, or None where `budget` rules.
        budget: seconds of training, or None where `steps` rules.
        rays: rays a step (where the sampling is hierarchical), and the first step's otherwise.
        samples: marched samples a step: the number of rays follows it. 0: the number of rays is fixed.
        crowd: samples of a ray that are trained on; steps are made longer until no more are left.
        chunk: rays that go through the network at once; gradients of a step's chunks add up.
        seed: of everything random.
        backend: kernels, as chosen.
    """

    scene: str
    downscale: int = 1
    preset: str = "instant"
    steps: int | None = None
    budget: float | None = None
    model: ModelConfig = given(default_factory=ModelConfig)
    optimizer: OptimizerConfig = given(default_factory=OptimizerConfig)
    loss: LossConfig = given(default_factory=LossConfig)
    register: RegisterConfig | None = None
    rays: int = 4096
    samples: int = 1 << 15
    crowd: int = 24
    chunk: int = 1 << 16
    seed: int = 0
    backend: str = "reference"


def preset(name: str, moving: bool, background: bool) -> TrainConfig:
    """The configuration called `name`; `auto` is `instant`.

    Args:
        moving: whether the photos show different instants: `instant` then has a warp.
        background: whether the photos have a plain background, as synthetic ones do; NeRF adds density noise where not.
    """
    if name not in PRESETS:
        raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}, found {name!r}")
    if name == "nerf":
        return _nerf(background)
    if name == "nerfies":
        return _nerfies()
    return _instant(moving, background)


def _instant(moving: bool, background: bool) -> TrainConfig:
    """Hash grid and occupancy (Mueller et al. 2022), with a small warp where the scene moves."""
    # Before a plain background the picture itself says where nothing is; in a photo fog is a solution, so there is little
    # of it at first, and it costs.
    field = HashFieldConfig(density_bias=0.0 if background else -1.5)
    config = TrainConfig(
        "", model=ModelConfig(field), loss=LossConfig(distortion=0.0 if background else 0.01),
        # Dark photos lost their colour for good where the first steps were taken at the full rate.
        optimizer=OptimizerConfig(warmup=100),
    )  # fmt: skip
    if not moving:
        return _before_a_plain_background(config) if background else config
    fade = 0.0 if background else 0.25
    return replace(
        config,
        model=replace(
            config.model, warp=WarpConfig(width=64, depth=3, skip=3, bands=6, code=12, start="time", fade=fade),
            appearance=4,
        ),
        # Each photo pulls its own part of the warp with a few rays a step: the mean of many steps says where to.
        optimizer=replace(config.optimizer, warp_rate=2e-3, warp_final=0.3, warp_beta1=0.97),
        # A colour that may depend on the camera explains a moving person as a still one with a strange sheen, and the warp
        # then has nothing left to explain.
        loss=replace(
            config.loss,
            elastic=1e-3, elastic_points=1024, background=0.1, background_points=1024, warp_every=4,
            anneal=0.6, anneal_from=2.0, plain=(0.6, 0.8),
        ),
        # Photos come into register by the number of rays rather than by samples along each.
        crowd=8,
    )  # fmt: skip


def _before_a_plain_background(config: TrainConfig) -> TrainConfig:
    """What paid on cut-out and synthetic objects, and cost photographs 0 to 2 dB (docs/tuning.md)."""
    field, sampling = config.model.field, config.model.sampling
    assert isinstance(field, HashFieldConfig) and isinstance(sampling, MarchConfig)
    model = replace(config.model, field=replace(field, log2_rows=19), sampling=replace(sampling, stop=1e-3))
    return replace(config, model=model, optimizer=replace(config.optimizer, flat=0.4, final=0.05, touched_only=True))


def registered(config: TrainConfig) -> TrainConfig:
    """An `instant` run on moving photos whose warp starts from points followed through them.

    Rigid parts are fitted to the points first. Then the warp waits until a field has formed around it, and moves slowly:
    at the rate of a warp that starts from nothing the fit was lost within a hundred steps.
    """
    warp = config.model.warp
    if config.preset != "instant" or warp is None or not warp.fade:
        raise ConfigError(
            "--register: expected the instant preset and photos of something that moves, before no plain colour"
        )
    if importlib.util.find_spec("cv2") is None:
        raise ConfigError("--register: expected OpenCV, found none; pip install opencv-python-headless")
    return replace(
        config,
        model=replace(config.model, warp=replace(warp, parts=4)),
        optimizer=replace(config.optimizer, warp_rate=5e-4, warp_hold=300),
        loss=replace(config.loss, anneal=0.8),
        register=RegisterConfig(),
    )


def _nerf(background: bool) -> TrainConfig:
    """Mildenhall et al. 2020: section 5.3 (4096 rays, N_c = 64, N_f = 128, Adam 5e-4 to 5e-5, betas 0.9 and 0.999,
    eps 1e-7, 100 to 300 thousand iterations), figure 7 (network), appendix A (density noise on real scenes)."""
    field = NerfFieldConfig(noise=0.0 if background else 1.0)
    return TrainConfig(
        "", preset="nerf", steps=200_000, model=ModelConfig(field, HierarchicalConfig()),
        optimizer=OptimizerConfig(rate=5e-4, final=0.1, beta2=0.999, eps=1e-7),
        rays=4096, samples=0, chunk=512,
    )  # fmt: skip


def _nerfies() -> TrainConfig:
    """Park et al. 2021, section 4 and google/nerfies' gpu_vrig_paper.gin: 100 thousand steps of 6144 rays, 128 + 128
    samples, 8 position bands, softplus density, SE(3) warp with 8 bands annealed over the first 80 thousand steps,
    codes of 8, elastic weight 1e-3 (cosine decay from step 50 to 150 thousand), background weight 1 on 16384 points,
    Adam 1e-3 falling to 1e-4 over 200 thousand steps."""
    field = NerfFieldConfig(skip=4, position_bands=8, density_activation="softplus")
    model = ModelConfig(field, HierarchicalConfig(coarse=128, fine=128), WarpConfig(), appearance=8)
    loss = LossConfig(elastic=1e-3, elastic_decay=(0.5, 1.5), background=1.0, anneal=0.8)
    return TrainConfig(
        "", preset="nerfies", steps=100_000, model=model, loss=loss,
        optimizer=OptimizerConfig(
            rate=1e-3, final=0.1**0.5, warp_rate=1e-3, warp_final=0.1**0.5, beta2=0.999, eps=1e-8
        ),
        rays=6144, samples=0, chunk=384,
    )  # fmt: skip


class ConfigError(ValueError):
    """A saved configuration can't be read. The message names the file, the field, what was expected and what came."""


def to_json(config: Any) -> str:
    """A config as JSON; unions carry the name of the class that was chosen."""

    def encode(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {item.name: encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
            return {"class": type(value).__name__, **fields}
        if hasattr(value, "_asdict"):
            return {"class": type(value).__name__, **{key: encode(item) for key, item in value._asdict().items()}}
        return list(map(encode, value)) if isinstance(value, tuple) else value

    return json.dumps(encode(config), indent=2)


def from_json(kind: type, text: str, where: Path | str) -> Any:
    """The inverse of `to_json`: every field must be known, present and of its type."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: expected JSON, found a fault at line {error.lineno}: {error.msg}") from None
    return _decode(kind, value, str(where))


def _decode(kind: Any, value: Any, where: str) -> Any:
    options = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    if value is None and type(None) in options:
        return None
    if isinstance(value, dict):
        for option in options:
            if isinstance(option, type) and option.__name__ == value.get("class"):
                return _decode_class(option, value, where)
        names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
        raise ConfigError(f"{where}: expected class {names}, found {value.get('class')!r}")
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(value, list):
            inner = typing.get_args(option)
            if inner[-1] is not ... and len(inner) != len(value):
                raise ConfigError(f"{where}: expected {len(inner)} values, found {value!r}")
            return tuple(
                _decode(inner[0] if inner[-1] is ... else inner[i], v, f"{where}[{i}]") for i, v in enumerate(value)
            )
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(option, type) and isinstance(value, option) and not (option is int and isinstance(value, bool)):
            return value
    raise ConfigError(f"{where}: expected {kind}, found {value!r}")


def _decode_class(kind: type, value: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    given = {key: item for key, item in value.items() if key != "class"}
    if set(given) != set(hints):
        odd = sorted(set(given) ^ set(hints))
        raise ConfigError(f"{where}: expected the fields of {kind.__name__}, found {odd} unknown or missing")
    return kind(**{key: _decode(hints[key], item, f"{where}: {key}") for key, item in given.items()})
