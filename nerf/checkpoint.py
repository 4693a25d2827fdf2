"""A run's folder: its configuration as JSON, its state as safetensors, written so that nothing is ever half there."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data.errors import shown
from data.files import optimizer_tensors, restore_optimizer, write_atomically
from nerf.bounded import Bounded
from nerf.config import ConfigError, TrainConfig, from_json, to_json
from nerf.kernels.backends import Ops, choose, load
from nerf.model import Geometry, SceneModel
from nerf.states import CHECKPOINT, SaveError, State, read_newest, saved, write_state
from nerf.trainer import Trainer

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "RunConfig",
    "SaveError",
    "load_model",
    "read_config",
    "read_state",
    "restore",
    "save",
    "saved",
]

CONFIG = "config.json"
COUNTERS = {
    "step": int, "seconds": float, "registering": float, "rays": int, "visited": int, "empty": int, "kept_share": float,
}  # fmt: skip


@dataclass(frozen=True)
class RunConfig:
    """What config.json holds: how the run was trained and what its scene looked like from outside."""

    train: TrainConfig
    geometry: Geometry


def save(folder: Path, trainer: Trainer) -> None:
    """Write the run's whole state: weights, optimiser, occupancy, random numbers, clock. Raises SaveError where it can't be."""
    tensors = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= optimizer_tensors(trainer.optimizer)
    tensors["generator"] = trainer.generator.get_state()
    counters = {name: getattr(trainer, name) for name in COUNTERS}
    run = RunConfig(trainer.config, trainer.model.geometry)
    told = to_json(run)
    write_state(folder, tensors, {"counters": json.dumps(counters), "config": told})
    try:
        path = folder / CONFIG
        if not path.is_file() or path.read_bytes() != told.encode():
            write_atomically(path, told.encode())
    except OSError as error:
        raise SaveError(f"{path}: expected a place that can be written, found: {error.strerror or error}") from error


def try_save(folder: Path, trainer: Trainer) -> str:
    """`save`, where training can go on without: says what went wrong, or ""."""
    try:
        save(folder, trainer)
    except SaveError as error:
        return f"not saved: {error}; training goes on"
    return ""


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run in `folder`, every field checked: config.json's, and where that can't be read, the one
    kept with the checkpoint, with a warning."""
    path = folder / CONFIG
    try:
        return _read_config(path)
    except ConfigError as error:
        try:
            kept = read_newest(folder)
            found = from_json(RunConfig, kept.config, kept.path)
        except ConfigError:
            raise error from None
        warnings.warn(f"{error}; the configuration in {kept.path.name} is used instead", stacklevel=2)
        return found


def _read_config(path: Path) -> RunConfig:
    if not path.is_file():
        folder = path.parent
        raise ConfigError(
            f"{folder}: expected a run with {CONFIG}, found none; train one with python -m nerf.train --scene ... --out {folder}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected JSON text, found a file that can't be read: {error}") from None
    run: RunConfig = from_json(RunConfig, text, path)
    seen = run.geometry
    if not 0 < seen.near < seen.far or min(seen.space.half, seen.box.half, seen.reach) <= 0 or not seen.times:
        raise ConfigError(f"{path}: geometry: expected 0 < near < far, sizes above 0 and times, found {shown(seen)}")
    return run


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """All tensors of the run's newest whole checkpoint and its counters; a warning names those that were passed over."""
    state = _announced(read_newest(folder))
    return state.tensors, state.counters


def _announced(state: State) -> State:
    if state.note:
        warnings.warn(state.note, stacklevel=3)
    return state


def _built(run: RunConfig, ops: Ops, tensors: dict[str, Tensor], path: Path) -> SceneModel:
    """The model that a configuration describes. Raises ConfigError for one that is far larger than its checkpoint, before it
    is there, and for one that can't be."""
    most = 4 * sum(value.numel() for value in tensors.values()) + (1 << 22)
    try:
        with Bounded(most):
            return SceneModel(run.train.model, run.geometry, ops)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
        found = shown(str(error) or type(error).__name__)
        raise ConfigError(
            f"{path}: expected a model of the checkpoint's size, found one that can't be made: {found}"
        ) from None


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
    state = _announced(read_newest(folder))
    model = _built(run, load(choose(backend)[0]), state.tensors, folder / CONFIG)
    _fill(model, state.tensors, state.path)
    return model.at_home().eval().requires_grad_(False), run


def restore(folder: Path, trainer: Trainer) -> str:
    """Put a fresh trainer where the run in `folder` stopped: on a CPU, the next step gives the bits it would have given.

    Returns what a person should know, of checkpoints that were passed over for an older one, or "".
    """
    path, tensors, counters, _, note = read_newest(folder)
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
        return note
    try:
        trainer.generator.set_state(state)
    except RuntimeError as error:
        raise ConfigError(f"{path}: expected the random generator's state, found what is none: {error}") from None
    return note
