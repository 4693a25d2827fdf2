"""The last states of a run, each a safetensors file with a checksum: written whole or not at all, read newest first.

`checkpoint.safetensors` is the newest, `checkpoint.1.safetensors` the one before it, and so on up to `KEPT` in all. A file
that is cut short or has changed since it was written is passed over for the one before, and a sentence says so.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from data.files import CHECKSUM, checksum, packed, write_draft
from nerf.config import ConfigError

CHECKPOINT = "checkpoint.safetensors"
KEPT = 3  # states, the newest among them
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SaveError(OSError):
    """A run's state can't be written. One sentence: what was expected and found, and what stays."""


class State(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        counters: the run's, by name.
        config: its config.json; "": the file is of a release that kept none.
        note: what was passed over for it, a sentence, or "".
    """

    path: Path
    tensors: dict[str, Tensor]
    counters: dict[str, float]
    config: str
    note: str = ""


def places(folder: Path) -> list[Path]:
    """Where a run's states lie or would lie, newest first."""
    stem, end = CHECKPOINT.split(".")
    return [folder / CHECKPOINT, *(folder / f"{stem}.{age}.{end}" for age in range(1, KEPT))]


def saved(folder: Path) -> list[Path]:
    """The states that are there, newest first."""
    return [path for path in places(folder) if path.is_file()]


def write_state(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Make this the run's newest state; the oldest one goes.

    Whatever ends this early, all that were there stay or are one place older. A full disk costs the older ones first, and
    never the last that is whole. Raises SaveError where there is no place for it.
    """
    data = packed(tensors, metadata)
    path = folder / CHECKPOINT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                draft = write_draft(path, data)
                break
            except OSError as error:
                if error.errno not in _FULL or not _make_room(folder):
                    raise
        where = places(folder)
        for older, newer in zip(where[:0:-1], where[-2::-1]):
            if newer.is_file():
                os.replace(newer, older)
        os.replace(draft, path)
        _sync(folder)
    except OSError as error:
        left = saved(folder)
        stays = f"{left[0].name} of before stays" if left else "nothing of the run is saved"
        found = error.strerror or error
        raise SaveError(f"{path}: expected a place for {len(data) / 1e6:.1f} MB, found: {found}; {stays}") from error


def read_newest(folder: Path) -> State:
    """The newest state that is whole. Raises ConfigError, with the newest one's fault, where none is."""
    there = saved(folder)
    if not there:
        raise ConfigError(f"{folder}: expected {CHECKPOINT}, found none; the run has not saved its first checkpoint")
    faults: list[str] = []
    for path in there:
        try:
            state = read(path)
        except ConfigError as error:
            faults.append(str(error))
            continue
        if faults or path.name != CHECKPOINT:
            why = faults[0] if faults else f"{folder / CHECKPOINT}: expected the newest state, found none"
            step = int(state.counters.get("step", 0))
            return state._replace(note=f"{why}; {path.name} is used instead, of step {step}")
        return state
    more = f"; nor can the {len(there) - 1} before it be read" if len(there) > 1 else ""
    raise ConfigError(faults[0] + more)


def read(path: Path) -> State:
    """One state. Raises ConfigError for a file that isn't as it was written."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            counters = json.loads(metadata.get("counters", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{path}: expected a whole safetensors file, found one that can't be read: {error}") from None
    if not isinstance(counters, dict):
        raise ConfigError(
            f"{path}: expected the run's counters in the metadata, found none; not a checkpoint of this project"
        )
    # Releases before this one wrote none.
    if CHECKSUM in metadata and metadata[CHECKSUM] != (found := checksum(tensors, metadata)):
        raise ConfigError(
            f"{path}: expected a whole safetensors file with the checksum {metadata[CHECKSUM][:12]}, found {found[:12]}: "
            "it has changed since it was written"
        )
    return State(path, tensors, counters, metadata.get("config", ""))


def _make_room(folder: Path) -> bool:
    """Delete one state, a broken or the oldest one, as long as another one is whole. Whether there was one."""
    there = saved(folder)
    whole = next((path for path in there if _whole(path)), None)
    spare = [path for path in there if path != whole]
    if whole is None or not spare:
        return False
    spare[-1].unlink()
    return True


def _whole(path: Path) -> bool:
    try:
        read(path)
    except ConfigError:
        return False
    return True


def _sync(folder: Path) -> None:
    """Let the new names survive a power cut, where the system has a way to say so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
