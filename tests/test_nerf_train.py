"""Training: golden first losses, resume equals uninterrupted, collapse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.scene import load_scene
from nerf import checkpoint
from nerf.config import ConfigError, TrainConfig
from nerf.field import HashFieldConfig, NerfFieldConfig
from nerf.kernels import choose
from nerf.model import HierarchicalConfig, MarchConfig
from nerf.occupancy import OccupancyConfig
from nerf.presets import posed, preset, registered
from nerf.train import train
from nerf.trainer import Collapse, Trainer
from tests.ball import write_ball

SMALL = {"rays": 256, "samples": 0, "chunk": 256, "steps": 20, "backend": "reference"}


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A textured ball seen by a ring of cameras, ray traced in closed form."""
    return write_ball(tmp_path_factory.mktemp("ball"), moving=False)


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """The same ball going up and down between photos, before a static wall."""
    return write_ball(tmp_path_factory.mktemp("moving"), moving=True)


def small(config: TrainConfig, **changes) -> TrainConfig:
    """A preset with networks and batches that a test can afford, everything else left alone."""
    model = config.model
    match model.field:
        case HashFieldConfig():
            field = dataclasses.replace(model.field, log2_rows=12, finest_resolution=64)
            sampling = MarchConfig(steps=64, occupancy=OccupancyConfig(resolution=16, settle=4))
        case NerfFieldConfig():
            field = dataclasses.replace(model.field, width=32)
            sampling = HierarchicalConfig(coarse=8, fine=8)
    warp = None if model.warp is None else dataclasses.replace(model.warp, width=16)
    loss = dataclasses.replace(config.loss, elastic_points=64, background_points=16)
    model = dataclasses.replace(model, field=field, sampling=sampling, warp=warp)
    config = dataclasses.replace(config, model=model, loss=loss)
    return dataclasses.replace(config, **(SMALL | changes))


def color_losses(config: TrainConfig, scene, steps: int) -> list[float]:
    trainer = Trainer(config, scene)
    return [trainer.advance()["color"] for _ in range(steps)]


# The first ten losses of each preset at test size on the reference backend. They change when, and only when, what is
# computed changes: a new number here needs a reason in the commit.
GOLDEN: dict[str, list[float]] = json.loads((Path(__file__).parent / "golden_losses.json").read_text())


@pytest.mark.parametrize("name", ["instant", "nerf", "nerfies", "instant moving"])
def test_first_ten_losses_are_golden(name, still, moving):
    folder = moving if name in ("nerfies", "instant moving") else still
    scene = load_scene(folder)
    config = small(preset(name.split()[0], scene.moving, scene.background is not None))
    found = color_losses(config, scene, 10)
    assert found == pytest.approx(GOLDEN[name], rel=2e-3), f"{name}: {[round(x, 6) for x in found]}"


@pytest.mark.parametrize("name", ["instant", "nerfies", "instant posed"])
def test_resume_equals_uninterrupted(name, moving, tmp_path, monkeypatch):
    monkeypatch.setattr("nerf.train.PREVIEWS", (0.3, 0.8))  # one before the restart and one after it
    monkeypatch.setattr("nerf.train.PREVIEW_WIDTH", 12)
    scene = load_scene(moving)
    config = small(preset(name.split()[0], scene.moving, False), steps=9, rays=16)
    if "posed" in name:
        config = dataclasses.replace(posed(config, len(scene.train)), optimizer=config.optimizer)  # poses move at once
    for progress in (whole := train(config, scene, tmp_path / "whole")):
        if progress.step == 9:
            whole.close()
    for progress in (part := train(config, scene, tmp_path / "part")):
        if progress.step == 5:
            part.close()
    for progress in (rest := train(config, scene, tmp_path / "part", resume=True)):
        assert progress.step > 5
        if progress.step == 9:
            rest.close()
    expected, found = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "part"))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key


def test_a_run_closed_before_its_first_step_registers_when_it_goes_on(moving, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("nerf.trainer.register", lambda *_: calls.append(1) or "photos registered")
    monkeypatch.setattr("nerf.train.PREVIEWS", ())
    scene = load_scene(moving)
    config = small(registered(preset("instant", True, False)), steps=3, rays=16)
    for progress in (first := train(config, scene, tmp_path)):
        assert progress.step == 0 and progress.note.startswith("following points")
        first.close()
    assert not calls
    for progress in (second := train(config, scene, tmp_path, resume=True)):
        if progress.note.startswith("photos registered"):
            second.close()
    notes = [p.note for p in train(config, scene, tmp_path, resume=True)]
    assert len(calls) == 1 and not any("register" in note for note in notes)


def test_training_learns_the_ball(still):
    scene = load_scene(still)
    config = small(preset("instant", False, True), rays=512, steps=250, backend=choose("auto")[0])
    last = list(train(config, scene))[-1]
    # White everywhere gives the baseline; a third of its squared error left would be 4.8 dB more.
    white = np.mean([-10 * np.log10(((f.image.float() / 255 - 1) ** 2).mean()) for f in scene.test])
    assert last.metrics["psnr"] > white + 8
    # The last Progress is the last step's, with the metrics: the figures of training stay what they were.
    assert last.step == 250 and white < last.psnr < 40 and last.rays_per_second > 0


def test_an_unfinished_run_is_shown_with_the_bands_that_it_has(moving, tmp_path):
    scene = load_scene(moving)
    config = small(preset("nerfies", True, False), steps=40)
    trainer = Trainer(config, scene)
    for _ in range(5):
        trainer.advance()
    # 8 bands come in over 0.8 of 40 steps: before the fifth step 4 were done.
    assert float(trainer.model.annealed) == pytest.approx(8 * 4 / 32)
    x, code = torch.rand(20, 3), torch.rand(20, 8)
    with torch.no_grad():
        trainer.model.warp.network.weights[-1].normal_()
        shown, trained = trainer.model.to_canonical(x, code), trainer.model.warp(x, code, 1.0)
        assert torch.equal(shown, trained) and not torch.allclose(shown, trainer.model.warp(x, code, 8.0))
    checkpoint.save(tmp_path, trainer)
    assert float(checkpoint.load_model(tmp_path, "reference")[0].annealed) == pytest.approx(1.0)


def test_rates_fall_and_sheen_comes_in_as_the_config_says(moving):
    config = small(preset("instant", True, False), steps=10, rays=32)
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, warmup=4, warp_hold=2))
    chosen, (start, end) = config.optimizer, config.loss.plain
    trainer = Trainer(config, load_scene(moving))
    field, slow = trainer.optimizer.param_groups
    assert field["betas"] == (chosen.beta1, chosen.beta2) and slow["betas"] == (chosen.warp_beta1, chosen.beta2)
    seen = []
    for step in range(10):
        trainer.advance()
        warmth = [0.25, 0.5, 0.75][step] if step < 3 else 1
        assert field["lr"] == pytest.approx(chosen.rate * chosen.final ** (step / 10) * warmth)
        later = [0, 0, 0.25, 0.5, 0.75][step] if step < 5 else 1
        assert slow["lr"] == pytest.approx(chosen.warp_rate * chosen.warp_final ** (step / 10) * later)
        seen.append(float(trainer.model.sheen))
    assert seen == pytest.approx([min(max((s / 10 - start) / (end - start), 0), 1) for s in range(10)], abs=1e-6)
    assert seen[0] == 0 and 0 < seen[7] < 1 and seen[9] == 1
    slow_ones = {id(p) for p in slow["params"]}
    assert slow_ones == {id(p) for n, p in trainer.model.named_parameters() if "warp" in n or "appearance" in n}


def test_the_fields_rate_stays_before_it_falls(still):
    config = small(preset("instant", False, True), steps=10, rays=32)
    chosen = dataclasses.replace(config.optimizer, warmup=0, flat=0.4, final=0.01)
    trainer = Trainer(dataclasses.replace(config, optimizer=chosen), load_scene(still))
    field, table = trainer.optimizer.param_groups
    assert table["params"] == [trainer.model.field.grid.table] and table["tables"] and not field["tables"]
    rates = []
    for _ in range(10):
        trainer.advance()
        assert table["lr"] == field["lr"]
        rates.append(field["lr"] / chosen.rate)
    assert rates == pytest.approx([1, 1, 1, 1] + [0.01 ** (k / 6) for k in range(6)])


def test_cut_out_photos_are_shown_before_any_background(still):
    scene = load_scene(still)
    assert scene.masks_are_alpha and scene.background == (1.0, 1.0, 1.0)
    trainer = Trainer(small(preset("instant", False, True)), scene)
    batch = trainer.sampler.sample(4000, trainer.generator)
    behind, target = trainer._background(batch)
    empty, full = batch.opacity == 0, batch.opacity == 1
    assert empty.sum() > 100 and full.sum() > 100
    torch.testing.assert_close(target[empty], behind[empty])  # the photo is white there, the target is not
    torch.testing.assert_close(target[full], batch.rgb[full])
    assert behind.std() > 0.2
    half = batch._replace(opacity=torch.full_like(batch.opacity, 0.25), rgb=torch.full_like(batch.rgb, 0.9))
    behind, target = trainer._background(half)
    torch.testing.assert_close(target, 0.15 + 0.75 * behind)  # 0.25 c + 0.75 * 1 = 0.9, so 0.25 c = 0.15
    paper = Trainer(small(preset("nerf", False, True)), scene)
    assert paper._background(batch)[0] is None


def test_a_collapse_restarts_once_from_another_seed(still, monkeypatch):
    scene = load_scene(still)
    config = small(preset("instant", False, True), steps=4)
    advance, seeds = Trainer.advance, []

    def poisoned(self):
        seeds.append(self.config.seed)
        if self.config.seed == 0 and self.step == 2:
            with torch.no_grad():
                next(iter(self.model.parameters())).fill_(float("nan"))
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", poisoned)
    notes = [p.note for p in train(config, scene) if p.note]
    assert len(notes) == 1 and "no number" in notes[0] and "seed 1" in notes[0]
    assert seeds == [0, 0, 0, 1, 1, 1, 1]

    monkeypatch.setattr(
        Trainer, "advance", lambda self: (_ for _ in ()).throw(Collapse("the loss is no number at step 0"))
    )
    with pytest.raises(Collapse):
        list(train(config, scene))


def test_register_without_opencv_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--register: expected OpenCV, found none; pip install"):
        registered(preset("instant", True, False))
