"""Files that are never half written, and the state of an optimiser among their tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads `path`, even after a power cut, finds the old content or the new."""
    draft = path.with_name(path.name + ".tmp")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def file_stem(name: str) -> str:
    """A photo's name, which may have folders and an ending, as that of a file made of it, without an ending."""
    return re.sub(r"[^\w.-]+", "_", Path(name).with_suffix("").as_posix()).strip("._") or "photo"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, as `write_atomically` does."""
    write_atomically(path, save({name: value.detach().contiguous() for name, value in tensors.items()}, metadata))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, as "optimizer.<index>.<name>"."""
    states = optimizer.state_dict()["state"].items()
    return {f"optimizer.{index}.{name}": value for index, state in states for name, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a fresh optimiser what `optimizer_tensors` took from another; other tensors are left alone."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
