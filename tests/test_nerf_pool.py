"""Training on photos that stay on the disk."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.errors import SceneError
from data.photos import PhotoOnDisk
from data.scene import Frame, load_scene
from nerf import pool
from nerf.config import TrainConfig
from nerf.presets import preset
from nerf.rays import PixelSampler
from nerf.train import train
from tests.examples import small
from tests.tiny import scene
from tests.trees import HEIGHT, WIDTH, WRITERS


def distant(frames: list[Frame], share: float) -> list[Frame]:
    """The same photos as if they lay on a disk."""
    for number, frame in enumerate(frames):
        held = frame.photo
        frame.photo = PhotoOnDisk(lambda held=held: held, number, share)
        frame.photo.remember(held)
    return frames


def config() -> TrainConfig:
    return replace(small(preset("instant", True, False)), steps=9, rays=16)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_a_batch_is_made_of_the_pixels_that_it_names() -> None:
    whole, few = PixelSampler(scene(4).train), PixelSampler(distant(scene(4).train, 0.3))
    batch = few.sample(500, generator())
    colours = (batch.rgb * 255).round().long()  # column, row, photo
    assert torch.equal(colours[:, 2], batch.photo)
    place = whole.starts[batch.photo] + colours[:, 1] * whole.widths[batch.photo] + colours[:, 0]
    assert whole.kept is not None
    local = whole.kept.local[whole.kept.starts[batch.photo] + place - whole.starts[batch.photo]]
    origins, directions = whole.cameras.turned(batch.photo, local)
    assert torch.equal(origins, batch.origins) and torch.equal(directions, batch.directions)


def test_over_all_turns_pixels_are_drawn_alike(monkeypatch) -> None:
    monkeypatch.setattr(pool, "SOONEST", 1)
    frames = scene(3).train
    total = sum(f.camera.width * f.camera.height for f in frames)
    sampler, seen, source = PixelSampler(distant(frames, 0.25)), Counter(), generator()
    turns, each = 1500, 50
    for step in range(turns):
        sampler.turn(step)
        seen.update(map(tuple, (sampler.sample(each, source).rgb * 255).round().int().tolist()))
    mean = turns * each / total
    chi = sum((n - mean) ** 2 / mean for n in seen.values())
    # Draws of one turn share its pixels, which spreads the counts: three turns of a quarter of the pixels each, 50 draws a turn.
    spread = 1 + 3 * each / (0.25 * total)
    assert len(seen) == total and abs(chi / spread - total) < 6 * math.sqrt(2 * total)


def test_masks_exclude_and_opacities_are_carried() -> None:
    frames = scene(2).train
    masks = [(torch.rand(f.image.shape[:2], generator=generator()) < 0.5).to(torch.uint8) * 255 for f in frames]
    for cut_out in (False, True):
        frames = scene(2).train
        for frame, mask in zip(frames, masks):
            frame.photo.mask, frame.photo.cut_out = mask, cut_out  # type: ignore[misc, union-attr]
        batch = PixelSampler(distant(frames, 0.9), cut_out).sample(2000, generator())
        column, row, _ = (batch.rgb * 255).round().long().unbind(-1)
        under = torch.stack([masks[p][r, c] for p, r, c in zip(batch.photo.tolist(), row.tolist(), column.tolist())])
        if cut_out:
            assert batch.opacity is not None and torch.equal(batch.opacity, under.float() / 255) and under.min() == 0
        else:
            assert batch.opacity is None and under.min() == 255


def test_the_pixels_follow_from_the_step_alone(monkeypatch) -> None:
    """Step by step, or at once as a run that is resumed, before and after all photos have had a turn."""
    monkeypatch.setattr(pool, "SOONEST", 4)
    stepped = PixelSampler(distant(scene(5).train, 0.2)).pool
    assert stepped is not None
    first = stepped.within.clone()
    for step in range(100):
        stepped.turn(step)
        if step in (3, 4, 11, 19, 21, 63, 99):
            jumped = PixelSampler(distant(scene(5).train, 0.2)).pool
            assert jumped is not None
            jumped.turn(step)
            assert torch.equal(jumped.within, stepped.within) and torch.equal(jumped.rgb, stepped.rgb), step
            assert torch.equal(jumped.within, first) == (step < 4)


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, int]:
    """A scene, and less memory than it takes."""
    WRITERS["nerfies"](tmp_path / "scene", count=64)
    return tmp_path / "scene", 120 * WIDTH * HEIGHT


def test_resume_equals_uninterrupted(large, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nerf.train.PREVIEWS", ())
    monkeypatch.setattr(pool, "SOONEST", 2)
    place, memory = large

    def run(out: Path, until: int, resume: bool = False) -> None:
        found = load_scene(place, memory=memory)
        assert isinstance(found.train[0].photo, PhotoOnDisk)
        for progress in (steps := train(config(), found, out, resume)):
            if progress.step == until:
                steps.close()

    run(tmp_path / "whole", 9)
    run(tmp_path / "part", 5)
    run(tmp_path / "part", 9, resume=True)
    expected, found = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "part"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_a_photo_that_goes_away_ends_the_run_in_a_sentence_with_the_run_saved(large, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("nerf.train.PREVIEWS", ())
    monkeypatch.setattr(pool, "SOONEST", 2)
    place, memory = large
    found = load_scene(place, memory=memory)
    for path in place.rglob("*.png"):
        path.unlink()
    with pytest.raises(SceneError, match=r"\.png: image: expected a file, found none"):
        for _ in train(config(), found, tmp_path / "run"):
            pass
    assert load_file(tmp_path / "run" / "checkpoint.safetensors")
