"""Which reader a folder of posed photos is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data import blender, colmap, llff, nerfies
from data.errors import mismatch
from data.shots import Capture


def find_reader(path: Path) -> Callable[[Path, int, int], Capture]:
    """The format's reader. A folder that holds several formats gets the first of this order."""
    if nerfies.recognises(path):
        return nerfies.read
    if blender.recognises(path):
        return blender.read
    if (path / "precomputed.json").is_file():
        return llff.read_nrnerf
    if (path / "poses_bounds.npy").is_file():
        return llff.read
    if colmap.find_model(path) is not None:
        return colmap.read
    wanted = "transforms*.json, dataset.json with camera/, precomputed.json, poses_bounds.npy or sparse/0"
    found = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "an empty folder"
    raise mismatch(path, "format", wanted, found)
