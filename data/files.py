"""Files that are never half written, and the state of an optimiser among their tensors."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

CHECKSUM = "sha256"  # the metadata's entry


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads `path`, even after a power cut, finds the old content or the new."""
    draft = write_draft(path, data)
    try:
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def write_draft(path: Path, data: bytes) -> Path:
    """Write all of a file beside its place, on the disk itself when this returns; returns where. Nothing stays of a failure."""
    draft = path.with_name(path.name + ".tmp")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):  # what went wrong first is what is said
            draft.unlink(missing_ok=True)
        raise
    return draft


def file_stem(name: str) -> str:
    """A photo's name, which may have folders and an ending, as that of a file made of it, without an ending."""
    return re.sub(r"[^\w.-]+", "_", Path(name).with_suffix("").as_posix()).strip("._") or "photo"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file with its checksum, as `write_atomically` does."""
    write_atomically(path, packed(tensors, metadata))


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file's bytes, with its `checksum` among the metadata."""
    whole = {name: value.detach().contiguous() for name, value in tensors.items()}
    rest = {name: text for name, text in metadata.items() if name != CHECKSUM}
    return save(whole, rest | {CHECKSUM: checksum(whole, rest)})


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of all tensors, with their names, types and shapes, and of the metadata but for the checksum itself."""
    digest = hashlib.sha256()
    rest = {name: text for name, text in metadata.items() if name != CHECKSUM}
    digest.update(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
