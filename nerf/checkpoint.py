"""A run's folder: its configuration as JSON, its state as safetensors, written so that nothing is ever half there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from data.files import optimizer_tensors, restore_optimizer, write_atomically, write_tensors
from nerf.config import ConfigError, TrainConfig, from_json, to_json
from nerf.kernels.backends import choose, load
from nerf.model import Geometry, SceneModel
from nerf.trainer import Trainer

CHECKPOINT, CONFIG = "checkpoint.safetensors", "config.json"
COUNTERS = {
    "step": int, "seconds": float, "registering": float, "rays": int, "visited": int, "empty": int, "kept_share": float,
}  # fmt: skip


@dataclass(frozen=True)
class RunConfig:
    """What config.json holds: how the run was trained and what its scene looked like from outside."""

    train: TrainConfig
    geometry: Geometry


def save(folder: Path, trainer: Trainer) -> None:
    """Write the run's whole state: weights, optimiser, occupancy, random numbers, clock."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= optimizer_tensors(trainer.optimizer)
    tensors["generator"] = trainer.generator.get_state()
    counters = {name: getattr(trainer, name) for name in COUNTERS}
    run = RunConfig(trainer.config, trainer.model.geometry)
    write_atomically(folder / CONFIG, to_json(run).encode())
    write_tensors(folder / CHECKPOINT, tensors, {"counters": json.dumps(counters)})


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run in `folder`, every field checked."""
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{folder}: expected a run with {CONFIG}, found none; train one with python -m nerf.train --scene ... --out {folder}"
        )
    return from_json(RunConfig, path.read_text(), path)


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """All tensors of the run's checkpoint and its counters."""
    path = folder / CHECKPOINT
    if not path.is_file():
        raise ConfigError(f"{folder}: expected {CHECKPOINT}, found none; the run has not saved its first checkpoint")
    try:
        with safe_open(path, "pt") as file:
            counters = json.loads((file.metadata() or {}).get("counters", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ConfigError(f"{path}: expected a whole safetensors file, found one that can't be read: {error}") from None
    if not isinstance(counters, dict):
        raise ConfigError(
            f"{path}: expected the run's counters in the metadata, found none; not a checkpoint of this project"
        )
    return tensors, counters


def _fill(model: SceneModel, tensors: dict[str, Tensor], path: Path) -> None:
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        name = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise ConfigError(
            f"{path}: {name}: expected shape {expected.get(name)}, found {found.get(name)}; config and checkpoint disagree"
        )
    model.load_state_dict(state)


def load_model(folder: Path | str, backend: str = "auto") -> tuple[SceneModel, RunConfig]:
    """The trained model of a run, ready to render, and how it was trained.

    Args:
        backend: kernels to render with; "auto" takes the fastest that this machine has.
    """
    folder = Path(folder)
    run = read_config(folder)
    tensors, _ = read_state(folder)
    model = SceneModel(run.train.model, run.geometry, load(choose(backend)[0]))
    _fill(model, tensors, folder / CHECKPOINT)
    return model.at_home().eval().requires_grad_(False), run


def restore(folder: Path, trainer: Trainer) -> None:
    """Put a fresh trainer where the run in `folder` stopped: on a CPU, the next step gives the bits it would have given."""
    tensors, counters = read_state(folder)
    path = folder / CHECKPOINT
    _fill(trainer.model, tensors, path)
    restore_optimizer(trainer.optimizer, tensors)
    if "generator" not in tensors:
        raise ConfigError(f"{path}: expected the random generator's state, found none")
    for name, kind in COUNTERS.items():
        if name not in counters:
            raise ConfigError(
                f"{path}: expected the counter {name!r}, found none; the run was saved by another release"
            )
        setattr(trainer, name, kind(counters[name]))
    state = tensors["generator"]
    if len(state) != len(trainer.generator.get_state()):
        # Another kind of device's: what it would have drawn can't be drawn here.
        trainer.generator.manual_seed(trainer.config.seed + trainer.step)
        return
    try:
        trainer.generator.set_state(state)
    except RuntimeError as error:
        raise ConfigError(f"{path}: expected the random generator's state, found what is none: {error}") from None
