"""A run's last states: damaged, crowded out, cut off at every moment; what was whole before is never lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nerf import states
from nerf.config import ConfigError
from nerf.states import CHECKPOINT, KEPT, SaveError, read_newest, saved, write_state

NAMES = [CHECKPOINT, "checkpoint.1.safetensors", "checkpoint.2.safetensors"]


def content(step: int) -> dict[str, torch.Tensor]:
    """Tensors of all the kinds that a run has."""
    return {
        "model.table": torch.arange(40.0).reshape(8, 5) + step,
        "model.half": torch.full((6,), step).to(torch.bfloat16),
        "model.flags": torch.arange(9) % 2 == 0,
        "optimizer.0.step": torch.tensor(float(step)),
        "generator": torch.full((16,), step, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
    }


def write(folder: Path, step: int) -> None:
    write_state(folder, content(step), {"counters": json.dumps({"step": step}), "config": "{}"})


def step_of(folder: Path) -> int:
    """The step of the state that is read, all of whose numbers are checked against those that were written."""
    state = read_newest(folder)
    step = state.counters["step"]
    assert state.tensors.keys() == content(step).keys()
    assert all(torch.equal(value, state.tensors[name]) for name, value in content(step).items())
    return step


def test_the_last_few_are_kept_newest_first(tmp_path):
    for step in range(6):
        write(tmp_path, step)
        assert step_of(tmp_path) == step and read_newest(tmp_path).note == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(NAMES) and len(NAMES) == KEPT
    assert [states.read(tmp_path / name).counters["step"] for name in NAMES] == [5, 4, 3]


def test_every_flipped_bit_is_noticed(tmp_path):
    write(tmp_path, 0)
    write(tmp_path, 1)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        try:
            state = states.read(path)
        except ConfigError:
            continue
        # What is left are other spellings of the same (such as of the checksum's own name): no number may differ.
        assert all(torch.equal(value, state.tensors[name]) for name, value in content(1).items()), place
        assert state.counters == {"step": 1}, place


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 0.5, 0.999])
def test_a_truncated_one_is_passed_over_in_a_sentence(tmp_path, keep):
    write(tmp_path, 0)
    write(tmp_path, 1)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    assert step_of(tmp_path) == 0
    note = read_newest(tmp_path).note
    assert "\n" not in note and f"{path}: expected a whole safetensors file, found" in note
    assert note.endswith("checkpoint.1.safetensors is used instead, of step 0")
    path.unlink()
    assert step_of(tmp_path) == 0 and "expected the newest state, found none" in read_newest(tmp_path).note


def test_a_changed_number_is_told_by_its_checksum(tmp_path):
    write(tmp_path, 3)
    tensors = load_file(tmp_path / CHECKPOINT)
    tensors["model.table"][2, 1] += 1e-3
    metadata = {"counters": '{"step": 3}', "config": "{}"}
    old = states.checksum(content(3), metadata)
    save_file(tensors, tmp_path / CHECKPOINT, metadata | {"sha256": old})
    with pytest.raises(ConfigError, match=rf"the checksum {old[:12]}, found .*changed since it was written"):
        read_newest(tmp_path)
    save_file(tensors, tmp_path / CHECKPOINT, metadata)  # as earlier releases wrote them
    assert read_newest(tmp_path).counters == {"step": 3}


def test_where_none_is_whole_the_newest_ones_fault_is_told(tmp_path):
    for step in range(3):
        write(tmp_path, step)
    for path in saved(tmp_path):
        path.write_bytes(b"x" * 50)
    with pytest.raises(ConfigError, match=rf"{CHECKPOINT}: expected a whole .* nor can the 2 before it be read"):
        read_newest(tmp_path)


def test_killed_at_any_moment(tmp_path, monkeypatch):
    """The folder as it is before every call that changes it: each holds the state before or the one that was coming."""
    run, moments, step = tmp_path / "run", [], 1
    write(run, step)
    for name in ("replace", "fsync", "open"):
        real = getattr(os, name)

        def seen(*given, real=real, **more):
            copy = tmp_path / f"moment{len(moments)}"
            shutil.copytree(run, copy)
            moments.append((copy, step))
            return real(*given, **more)

        monkeypatch.setattr(os, name, seen)
    for step in range(2, 5):
        write(run, step)
    monkeypatch.undo()
    assert len(moments) >= 3 * 4
    for folder, coming in moments:
        assert step_of(folder) in (coming - 1, coming), folder


def full_disk(monkeypatch, room: int) -> None:
    """A disk that holds no more than `room` states, counted as they lie in the folder."""
    real = states.write_draft

    def write_draft(path, data):
        if len(saved(path.parent)) >= room:
            path.with_name(path.name + ".tmp").write_bytes(data[: len(data) // 2])
            path.with_name(path.name + ".tmp").unlink()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, data)

    monkeypatch.setattr(states, "write_draft", write_draft)


@pytest.mark.parametrize("room", [1, 2])
def test_a_full_disk_costs_the_older_ones_and_never_the_last(tmp_path, monkeypatch, room):
    for step in range(3):
        write(tmp_path, step)
    full_disk(monkeypatch, room)
    if room > 1:
        write(tmp_path, 3)
        assert step_of(tmp_path) == 3 and len(saved(tmp_path)) == 2
        return
    with pytest.raises(SaveError, match=r"expected a place for .* MB, found: No space left.*checkpoint.* stays"):
        write(tmp_path, 3)
    assert step_of(tmp_path) == 2 and len(saved(tmp_path)) == 1


def test_a_full_disk_takes_a_broken_one_before_a_whole_one(tmp_path, monkeypatch):
    write(tmp_path, 0)
    write(tmp_path, 1)
    (tmp_path / CHECKPOINT).write_bytes(b"broken")
    full_disk(monkeypatch, 1)
    with pytest.raises(SaveError):
        write(tmp_path, 2)
    assert step_of(tmp_path) == 0


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_written_keeps_all(tmp_path, monkeypatch, code):
    write(tmp_path, 0)
    write(tmp_path, 1)
    monkeypatch.setattr(states, "write_draft", lambda *_: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
    with pytest.raises(SaveError, match=os.strerror(code)):
        write(tmp_path, 2)
    assert step_of(tmp_path) == 1 and len(saved(tmp_path)) == 2
