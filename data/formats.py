"""Which reader a folder of posed photos is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data import blender, colmap, llff, nerfies, phones
from data.errors import mismatch
from data.shots import Capture

_FORMATS: tuple[tuple[Callable[[Path], object], Callable[[Path, int, int], Capture]], ...] = (
    (nerfies.recognises, nerfies.read),
    (blender.recognises, blender.read),
    (lambda path: (path / "precomputed.json").is_file(), llff.read_nrnerf),
    (lambda path: (path / "poses_bounds.npy").is_file(), llff.read),
    (colmap.find_model, colmap.read),
    (phones.recognises_polycam, phones.read_polycam),
    (phones.recognises_record3d, phones.read_record3d),
)


def find_reader(path: Path) -> Callable[[Path, int, int], Capture]:
    """The format's `read(path, downscale, split_every)`. A folder that holds several formats gets the first of this
    order. Raises SceneError for a folder of none."""
    for recognises, read in _FORMATS:
        if recognises(path):
            return read
    wanted = "transforms*.json, dataset.json with camera/, precomputed.json, poses_bounds.npy or sparse/0"
    found = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "an empty folder"
    raise mismatch(path, "format", f"{wanted} (python -m data.capture poses photos)", found)
