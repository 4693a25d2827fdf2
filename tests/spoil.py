"""Ways to spoil a good tree of posed photos, and the check that reading it then ends in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import SceneError
from data.scene import load_scene
from tests import trees
from tests.trees import WRITERS

Spoil = Callable[[Path], None]


def json_edit(file: str, change: Callable[[dict], object]) -> Spoil:
    return lambda path: trees.edit_json(path / file, change)


def set_at(*keys: str | int, to: object) -> Callable[[dict], None]:
    def change(value: dict) -> None:
        inner = value
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to

    return change


def cut(file: str, part: float = 0.5) -> Spoil:
    def spoil(path: Path) -> None:
        raw = (path / file).read_bytes()
        (path / file).write_bytes(raw[: int(len(raw) * part)])

    return spoil


def drop(file: str) -> Spoil:
    return lambda path: (path / file).unlink()


def resized(file: str, size: tuple[int, int]) -> Spoil:
    return lambda path: Image.new("RGB", size).save(path / file)


def bounds_edit(change: Callable[[np.ndarray], np.ndarray | None]) -> Spoil:
    def spoil(path: Path) -> None:
        rows = np.load(path / "poses_bounds.npy")
        result = change(rows)
        np.save(path / "poses_bounds.npy", rows if result is None else result)

    return spoil


def text_edit(file: str, old: str, new: str) -> Spoil:
    def spoil(path: Path) -> None:
        text = (path / file).read_text()
        assert old in text
        (path / file).write_text(text.replace(old, new, 1))

    return spoil


def check(name: str, spoil: Spoil, words: tuple[str, ...], folder: Path) -> None:
    """Write a good tree, spoil it, and read what `load_scene` says."""
    WRITERS[name](folder)
    spoil(folder)
    with pytest.raises(SceneError) as error:
        load_scene(folder)
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 400
    assert "expected" in sentence and "found" in sentence and str(folder) in sentence
    for part in words:
        assert part in sentence
