"""Runs saved, broken and restored: the bits after a restart are the bits without one."""

from __future__ import annotations

import builtins
import dataclasses
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from nerf import checkpoint
from nerf.checkpoint import (
    CHECKPOINT,
    CONFIG,
    SaveError,
    load_model,
    read_config,
    read_state,
    restore,
    save,
    write_atomically,
)
from nerf.config import ConfigError, LossConfig, OptimizerConfig, TrainConfig
from nerf.field import HashFieldConfig, NerfFieldConfig
from nerf.model import Geometry, HierarchicalConfig, MarchConfig, ModelConfig
from nerf.occupancy import OccupancyConfig
from nerf.rays import Rays
from nerf.train import train
from nerf.trainer import Trainer
from nerf.volume import render_rays
from nerf.warp import WarpConfig
from tests.tiny import scene

WARP = WarpConfig(width=8, depth=2, skip=1, bands=2, code=3)
HASH = HashFieldConfig(levels=2, features=2, log2_rows=8, base_resolution=4, finest_resolution=12, width=16)
NERF = NerfFieldConfig(width=16, depth=3, skip=1, color_width=8, position_bands=2, direction_bands=1)
# Sweeps and updates fall both before and after the save.
MARCH = MarchConfig(steps=48, occupancy=OccupancyConfig(resolution=8, every=2, survey=64, settle=2))
MODELS = {
    "march": ModelConfig(HASH, MARCH),
    "march, moving": ModelConfig(HASH, MARCH, WARP, appearance=2),
    "hierarchical, moving": ModelConfig(NERF, HierarchicalConfig(6, 6), WARP, appearance=2),
}


def config(name: str = "march", **more) -> TrainConfig:
    loss = LossConfig(elastic=1e-2, elastic_points=16, background=0.1, background_points=8, distortion=1e-3, anneal=0.9)
    fields = {
        "steps": 20,
        "model": MODELS[name],
        "loss": loss,
        "optimizer": OptimizerConfig(),
        "rays": 64,
        "samples": 2000,
    }
    return TrainConfig("tiny", **(fields | {"chunk": 40} | more))


def world(moving: bool = True):
    return scene(3, moving=moving, points=torch.rand(20, 3, generator=torch.Generator().manual_seed(4)))


def trained(name: str = "march", steps: int = 5, **more) -> Trainer:
    trainer = Trainer(config(name, **more), world())
    for _ in range(steps):
        trainer.advance()
    return trainer


def bits(trainer: Trainer) -> dict[str, torch.Tensor]:
    state = {f"model.{k}": v.clone() for k, v in trainer.model.state_dict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        state |= {f"adam.{index}.{k}": v.clone() for k, v in values.items()}
    state["generator"] = trainer.generator.get_state()
    state["counters"] = torch.tensor([trainer.step, trainer.rays, trainer.visited, trainer.empty])
    return state


@pytest.mark.parametrize("name", MODELS)
def test_the_next_steps_are_the_same_bit_for_bit(name, tmp_path):
    trainer = trained(name)
    save(tmp_path, trainer)
    torch.manual_seed(99)  # nothing may come from the global generator
    again = Trainer(config(name), world())
    restore(tmp_path, again)
    assert again.seconds == trainer.seconds
    for _ in range(3):
        one, two = trainer.advance(), again.advance()
        assert one == two
        left, right = bits(trainer), bits(again)
        assert left.keys() == right.keys()
        assert [k for k in left if not torch.equal(left[k], right[k])] == []


def test_training_moved_something_at_all():
    fresh, later = bits(Trainer(config("march, moving"), world())), bits(trained("march, moving"))
    moved = [k for k in fresh if not torch.equal(fresh[k], later[k])]
    for name in (
        "field.grid.table",
        "warp.network.weights.0",
        "warp_codes.table",
        "appearance_codes.table",
        "occupancy.values",
    ):
        assert f"model.{name}" in moved
    assert "generator" in moved


def test_a_loaded_model_renders_what_the_trained_one_does(tmp_path):
    trainer = trained("march, moving")
    save(tmp_path, trainer)
    model, run = load_model(tmp_path, "reference")
    assert run.train == trainer.config and run.geometry == trainer.model.geometry == Geometry.of(world())
    d = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    pictures = []
    for m in (model, trainer.model):
        codes = m.codes(torch.linspace(0, 1, 50))
        rays = Rays(-2 * d, d, torch.full((50,), 0.5), torch.full((50,), 3.5), *codes)
        pictures.append(render_rays(m, rays).out.rgb)
    assert torch.equal(*pictures) and pictures[0].std() > 0
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@pytest.fixture
def run(tmp_path):
    save(tmp_path, trained("march, moving", 2))
    return tmp_path


def refused(folder, expected: str) -> str:
    """Loading and restoring both refuse, with the same kind of sentence; returns the first one's."""
    messages = []
    for attempt in (
        lambda: load_model(folder, "reference"),
        lambda: restore(folder, Trainer(config("march, moving"), world())),
    ):
        with pytest.raises(ConfigError) as caught:
            attempt()
        messages.append(str(caught.value))
        assert (
            str(folder) in messages[-1]
            and expected in messages[-1]
            and "expected" in messages[-1]
            and "found" in messages[-1]
        )
    return messages[0]


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(run, keep):
    path = run / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    assert CHECKPOINT in refused(run, "a whole safetensors file")


def test_a_checkpoint_of_something_else_is_refused(run):
    (run / CHECKPOINT).write_bytes(b"PK\3\4 a zip file, not tensors" * 20)
    refused(run, "a whole safetensors file")
    save_file({"weight": torch.zeros(3)}, run / CHECKPOINT)
    refused(run, "not a checkpoint of this project")


@pytest.mark.parametrize("change", ["shape", "missing", "extra"])
def test_tensors_that_the_config_does_not_know_are_named(run, change):
    tensors = load_file(run / CHECKPOINT)
    counters = {"counters": json.dumps(read_state(run)[1])}
    name = "model.warp.network.weights.0"
    if change == "shape":
        tensors[name] = torch.zeros(3, 5)
    elif change == "missing":
        del tensors[name]
    else:
        name = "model.field.third_eye"
        tensors[name] = torch.zeros(1)
    save_file(tensors, run / CHECKPOINT, counters)
    assert name.removeprefix("model.") in refused(run, "config and checkpoint disagree")


def test_a_damaged_random_generator_is_refused_and_another_devices_begins_anew(run):
    tensors, counters = load_file(run / CHECKPOINT), {"counters": json.dumps(read_state(run)[1])}
    kept = tensors["generator"]
    save_file(tensors | {"generator": torch.full_like(kept, 255)}, run / CHECKPOINT, counters)
    with pytest.raises(ConfigError, match="expected the random generator's state, found what is none"):
        restore(run, Trainer(config("march, moving"), world()))
    save_file(tensors | {"generator": kept[:16].clone()}, run / CHECKPOINT, counters)  # as long as a GPU's
    drawn = []
    for seed in (0, 0, 1):
        again = Trainer(dataclasses.replace(config("march, moving"), seed=seed), world())
        restore(run, again)
        drawn.append(torch.rand(3, generator=again.generator))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_another_configuration_is_noticed(run):
    saved = read_config(run)
    wider = dataclasses.replace(HASH, width=32)
    model = dataclasses.replace(saved.train.model, field=wider)
    other = dataclasses.replace(saved, train=dataclasses.replace(saved.train, model=model))
    (run / CONFIG).write_text(checkpoint.to_json(other))
    with pytest.raises(ConfigError, match="config and checkpoint disagree"):
        load_model(run, "reference")


def test_missing_files_are_named(tmp_path, run):
    with pytest.raises(
        ConfigError, match=r"expected a run with config.json, found none; train one with python -m nerf.train"
    ):
        load_model(tmp_path / "nowhere")
    (run / CHECKPOINT).unlink()
    refused(run, "has not saved its first checkpoint")


class DiskFull(OSError):
    pass


@pytest.mark.parametrize("step", ["write", "sync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "metrics.json"
    write_atomically(path, b"old")

    def fail(*_):
        raise DiskFull("no space left on device")

    where = {"write": (builtins, "open"), "sync": (os, "fsync"), "replace": (os, "replace")}[step]
    monkeypatch.setattr(*where, fail)
    with pytest.raises(DiskFull):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer" and [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_save_that_fails_leaves_a_run_that_loads(run, monkeypatch, step):
    before, counters = read_state(run)
    whole_open = builtins.open

    def half_open(file, mode="r", *rest, **more):
        opened = whole_open(file, mode, *rest, **more)
        if CHECKPOINT in str(file) and "w" in mode:
            opened.write(b"half")
            opened.close()
            raise DiskFull("no space left on device")
        return opened

    def fail_late(*_):
        raise DiskFull("no space left on device")

    if step == "write":
        monkeypatch.setattr(builtins, "open", half_open)
    else:
        monkeypatch.setattr(os, "fsync", fail_late)
    with pytest.raises(SaveError, match=r"no space left on device; checkpoint.safetensors of before stays"):
        save(run, trained("march, moving", 4))
    monkeypatch.undo()
    after, counted = read_state(run)
    assert counted == counters and all(torch.equal(before[k], after[k]) for k in before)
    load_model(run, "reference")


def test_a_finished_write_leaves_no_drafts(run):
    assert sorted(p.name for p in run.iterdir()) == [CHECKPOINT, CONFIG]


def test_what_reads_a_run_takes_the_state_before_a_damaged_one_and_says_so(run):
    later = trained("march, moving", 4)
    save(run, later)
    spoilt = bytearray((run / CHECKPOINT).read_bytes())
    spoilt[-5] ^= 1
    (run / CHECKPOINT).write_bytes(spoilt)
    (run / CONFIG).write_text((run / CONFIG).read_text()[:200])
    with pytest.warns(UserWarning) as caught:
        load_model(run, "reference")
    said = [str(warning.message) for warning in caught]
    assert [("config.json" in s, "of step 2" in s) for s in said] == [(True, False), (False, True)], said
    again = Trainer(config("march, moving"), world())
    assert restore(run, again) in said[1] and again.step == 2
    for _ in range(2):
        again.advance()
    left, right = bits(later), bits(again)
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_training_goes_on_where_nothing_can_be_saved_and_ends_in_a_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise SaveError("x: expected a place for 1.0 MB, found: No space left on device")

    monkeypatch.setattr("nerf.train.SAVE_EVERY", 0.0)
    monkeypatch.setattr("nerf.checkpoint.write_state", full)
    monkeypatch.setattr("nerf.train.ROOM", 1 << 62)  # no disk has so much left: the curves end
    notes, steps = [], train(config(steps=20, rays=16, samples=200), world(), tmp_path)
    with pytest.raises(SaveError, match="No space left"):
        for progress in steps:
            notes += progress.note.splitlines()
    assert progress.step == 20 and len([n for n in notes if n.startswith("not saved: x: expected a place")]) == 20
    assert len([n for n in notes if "TensorBoard's curves end at step 20: No space left" in n]) == 1
