"""Everything a run is told, as frozen dataclasses: saved as JSON with its checkpoint and read back field by field."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from dataclasses import field as given
from pathlib import Path
from typing import Any

from data.errors import shown
from nerf.model import ModelConfig
from nerf.register import RegisterConfig


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
        pose_rate, pose_final, pose_hold: the same of the photos' poses, where they are learned; the rate is in radians by
            which what a photo shows turns (`nerf.poses.whitening`).
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
    pose_rate: float = 1e-3
    pose_final: float = 0.01
    pose_hold: int = 0
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
        anneal_levels: shares of the run between which the field's detail comes in, a grid's levels or NeRF's frequency bands,
            from the coarsest (as BARF does, Lin et al. 2021, equation 14); None: all from the start.
        anneal_levels_from: levels that are there from the start.
        anneal_slices: shares of the run between which the template comes to see ambient coordinates (HyperNeRF, section 5);
            None: from the start.
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
    anneal_levels: tuple[float, float] | None = None
    anneal_levels_from: float = 0.0
    anneal_slices: tuple[float, float] | None = None
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
    except (ValueError, RecursionError) as error:  # a number of 5000 digits; a thousand brackets
        raise ConfigError(f"{where}: expected JSON, found what can't be read: {shown(str(error))}") from None
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
        raise ConfigError(f"{where}: expected class {names}, found {shown(repr(value.get('class')))}")
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(value, list):
            inner = typing.get_args(option)
            if inner[-1] is not ... and len(inner) != len(value):
                raise ConfigError(f"{where}: expected {len(inner)} values, found {shown(repr(value))}")
            return tuple(
                _decode(inner[0] if inner[-1] is ... else inner[i], v, f"{where}[{i}]") for i, v in enumerate(value)
            )
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:  # an integer of 400 digits
                number = math.inf
            if not math.isfinite(number):
                raise ConfigError(f"{where}: expected a finite number, found {shown(repr(value))}")
            return number
        if isinstance(option, type) and isinstance(value, option) and not (option is int and isinstance(value, bool)):
            low = -(2**53) if where.endswith("seed") else 0
            if option is int and isinstance(value, int) and not low <= value <= _most(where):
                raise ConfigError(
                    f"{where}: expected a whole number from {low} to {_most(where)}, found {shown(repr(value))}"
                )
            return value
    raise ConfigError(f"{where}: expected {kind}, found {shown(repr(value))}")


def _most(where: str) -> int:
    """The largest whole number of a field: what is made one by one, layers and levels, ends soon."""
    return 1024 if where.endswith(("depth", "levels")) else 2**53


def _decode_class(kind: type, value: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    given = {key: item for key, item in value.items() if key != "class"}
    if set(given) != set(hints):
        odd = sorted(set(given) ^ set(hints))
        raise ConfigError(f"{where}: expected the fields of {kind.__name__}, found {shown(odd)} unknown or missing")
    return kind(**{key: _decode(hints[key], item, f"{where}: {key}") for key, item in given.items()})
