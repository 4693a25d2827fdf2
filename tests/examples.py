"""What the documentation's commands find: a folder with scenes and runs, all tiny, and presets as small; and their programs."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.scene import load_scene
from nerf import checkpoint, cli, cloud, presets, sculpt
from nerf.config import TrainConfig
from nerf.kernels import choose
from nerf.rig import Rig
from nerf.trainer import Trainer
from tests.ball import FOCAL, look_at, photo, write_ball
from tests.test_nerf_render import tiny


def write_examples(folder: Path, steps: int) -> Path:
    """`data/selfie`, `data/me` (a ball that moves), `lego` (one that doesn't), `data/mine`, and runs of so many steps.

    A hundred steps are enough for a surface.
    """
    for name, moving in (("data/selfie", True), ("lego", False)):
        (folder / name).mkdir(parents=True)
        write_ball(folder / name, moving)
        if moving:
            _as_the_selfie_names_them(folder / name)
        scene = load_scene(folder / name)
        trainer = Trainer(replace(tiny(str(folder / name), moving, steps), backend=choose()[0]), scene)
        while trainer.fraction < 1:
            trainer.advance()
        run = folder / "runs" / Path(name).name
        checkpoint.save(run, trainer)
        Rig.of(scene).save(run)
    shutil.copytree(folder / "data/selfie", folder / "data/me")
    _write_mine(folder / "data/mine")
    (folder / "photos").mkdir()
    (folder / "clip.mp4").touch()
    return folder


def _as_the_selfie_names_them(scene: Path) -> None:
    """Its photos are called 000000_left ..., not 000000_0 ..."""
    for file in [*scene.rglob("*.png"), *scene.rglob("*.json")]:
        if file.suffix == ".json":
            file.write_text(
                re.sub(r"(\d{6})_([01])", lambda m: f"{m[1]}_{('left', 'right')[int(m[2])]}", file.read_text())
            )
        file.rename(file.with_name(re.sub("_0(?=[.])", "_left", re.sub("_1(?=[.])", "_right", file.name))))


def _write_mine(folder: Path) -> None:
    """Photos with poses.csv, the format that extend.md reads."""
    folder.mkdir()
    lines = []
    for k in range(8):
        pose = look_at(np.array([2.5 * np.cos(k), 2.5 * np.sin(k), 0.8]))
        Image.fromarray(photo(pose, np.zeros(3), wall=True)[..., :3]).save(folder / f"{k}.png")
        lines.append(",".join([f"{k}.png", str(FOCAL), *(f"{v:.9f}" for v in pose[:3].ravel())]))
    (folder / "poses.csv").write_text("\n".join(lines) + "\n")


def small(config: TrainConfig) -> TrainConfig:
    """A preset with few rows, narrow networks, few rays."""
    least = tiny("", config.model.warp is not None)
    return replace(config, model=least.model, rays=least.rays, samples=least.samples)


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the folder, with small presets and few rays for exports."""
    monkeypatch.chdir(folder)
    whole = presets.preset
    for module in (presets, cli):
        monkeypatch.setattr(module, "preset", lambda name, moving, background: small(whole(name, moving, background)))
    for module, name, value in (
        (sculpt, "PROBES", 2000), (sculpt, "RENDERED", 2000), (sculpt, "SLOW", 500), (cloud, "PIXELS", 8000), (cloud, "SLOW", 2000),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    return folder


def main_of(module: str):
    """The function behind `python -m MODULE`."""
    if module == "nerf.train":
        module = "nerf.cli"
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{module}: no such module"
    return importlib.import_module(f"{module}.__main__" if spec.submodule_search_locations else module).main


def call(main, arguments: list[str]):
    """Run it as its module does; some take no arguments."""
    return main(arguments) if inspect.signature(main).parameters else main()
