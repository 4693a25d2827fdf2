"""What is fuzzed: each target makes an input from a random source, hands it to the product and says how it was taken."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from apps.faults import seeds
from apps.faults.media import media
from apps.faults.mutate import OUTSIDE, spoilt, spoilt_bytes, spoilt_file, spoilt_json, spoilt_photo, zipped
from apps.faults.seeds import Files, as_json
from apps.faults.target import Target, Wrong, put
from apps.viewer.fit_photos import read_photo
from apps.viewer.inspection import inspect
from apps.viewer.stage import View
from apps.viewer.uploads import UploadError, Uploads
from data.errors import SceneError
from data.scene import Scene, load_scene
from nerf.checkpoint import load_model, read_config, read_state
from nerf.config import ConfigError
from nerf.keyframes import along, load_path
from nerf.keyframes import view as seen_from
from nerf.model import Geometry
from nerf.paths import PathError, Rig, path
from siren.loop import FitError


def _scene(name: str, make: Callable[[], Files]) -> Target:
    def prepare(folder: Path, random: Random) -> None:
        (folder / OUTSIDE).write_bytes(seeds.photo(0))
        put(folder / "scene", spoilt(make(), random))

    def take(folder: Path) -> None:
        scene = load_scene(folder / "scene", 1 + folder.stat().st_mtime_ns % 2)
        check_scene(scene)

    return Target(f"scene: {name}", prepare, take, (SceneError,), inner="scene")


def check_scene(scene: Scene) -> None:
    """Whether a scene that was read can be trained on: every number finite, every size that of its photo."""
    geometry, rig = Geometry.of(scene), Rig.of(scene)
    numbers = [scene.near, scene.far, geometry.near, geometry.far, geometry.reach, *geometry.space.center]
    numbers += [geometry.space.half, geometry.box.half, *rig.focus.tolist(), *rig.up.tolist(), *geometry.times]
    if not all(map(math.isfinite, numbers)) or not 0 < scene.near < scene.far or geometry.space.half <= 0:
        raise Wrong(f"expected finite bounds, found {numbers}")
    for frame in scene.train + scene.test:
        size = (frame.camera.height, frame.camera.width)
        if tuple(frame.image.shape) != (*size, 3) or (frame.mask is not None and tuple(frame.mask.shape) != size):
            raise Wrong(f"{frame.name}: expected a photo of {size}, found {tuple(frame.image.shape)}")
        corners = torch.tensor([[0.5, 0.5], [size[1] - 0.5, size[0] - 0.5]])
        if not all(t.isfinite().all() for t in (frame.camera.pose, *frame.camera.rays(corners))):
            raise Wrong(f"{frame.name}: expected a finite pose and rays, found others")
        if not 0 <= frame.time <= 1:
            raise Wrong(f"{frame.name}: expected a time in [0, 1], found {frame.time}")
    if scene.points is not None and not scene.points.isfinite().all():
        raise Wrong("expected finite points")
    scene.summary()


def _drop(folder: Path, random: Random) -> None:
    """A zip as a person drops it: of a scene, spoilt inside, by its names, or as a zip."""
    files = random.choice(list(seeds.SCENES.values()))()
    if random.random() < 0.5:
        files = spoilt(files, random)
    named: Files = {}
    for name, data in files.items():
        odd = random.choice(("../x", "/x", "a//b", "a\\b", "x" * 300, "a/" * 40 + "x", "é", "a\n", ".hidden/x.json"))
        named[odd if random.random() < 0.02 else name] = data
    if random.random() < 0.1:
        named["big.json"] = bytes(random.choice((10**6, 10**7)))
    try:
        data = zipped(named, random.choice((0, 8, 8, 8, 12, 14)))
    except (ValueError, OSError, UnicodeEncodeError):
        data = zipped(files)
    if random.random() < 0.4:
        data = _spoil_zip(data, random)
    (folder / "dropped.zip").write_bytes(data)


def _spoil_zip(data: bytes, random: Random) -> bytes:
    """Bytes of its directory overwritten, or any."""
    directory = data.rfind(b"PK\1\2")
    if directory < 0 or random.random() < 0.4:
        return spoilt_bytes(data, random)
    out = bytearray(data)
    at = directory + random.choice((6, 8, 10, 16, 20, 24, 28, 30, 32, 38, 42))
    out[at : at + 2] = random.randbytes(2)
    return bytes(out)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 16):
        yield data[at : at + (1 << 16)]


def _take_drop(folder: Path) -> None:
    uploads = Uploads(folder / "uploads", 4_000_000)
    token = uploads.begin()
    asyncio.run(uploads.receive(token, "dropped.zip", _pieces((folder / "dropped.zip").read_bytes())))
    root = uploads.finish(token)
    inspect(root)


def _photo(folder: Path, random: Random) -> None:
    form = random.choice(("PNG", "JPEG", "GIF", "BMP", "WEBP"))
    data = seeds.photo(1, "RGB", (24, 16), form)
    (folder / "photo").write_bytes(spoilt_photo(data, random))


def _take_photo(folder: Path) -> None:
    found = read_photo((folder / "photo").read_bytes(), 256)
    if found.pixels.dtype != np.uint8 or max(found.pixels.shape[:2]) > 256:
        raise Wrong(f"expected bytes of at most 256 pixels a side, found {found.pixels.dtype} {found.pixels.shape}")


def _keyframes() -> bytes:
    rows: list[dict[str, Any]] = [
        {"pose": seeds.whole(p), "fov": 50, "time": 0.2 * i} for i, p in enumerate(seeds.poses())
    ]
    return as_json({"units": "file", "loop": True, "keyframes": [*rows, {"photo": seeds.NAMES[1], "fov": 40}]})


def _view() -> bytes:
    pose = seeds.poses()[0].tolist()
    return as_json({"pose": pose, "fov": 50, "width": 64, "height": 48, "time": 0.5, "crop": [0, 0, 0, 1, 1, 1]})


def _take_view(folder: Path) -> None:
    view = View.model_validate_json((folder / "view.json").read_bytes())
    if not all(t.isfinite().all() for t in view.camera().rays(torch.tensor([[0.5, 0.5]]))):
        raise Wrong("expected finite rays")
    view.box()


def _json_target(
    name: str, file: str, make: Callable[[], bytes], take: Callable[[Path], None], *refusals: Any
) -> Target:
    def prepare(folder: Path, random: Random) -> None:
        change = spoilt_json if random.random() < 0.85 else spoilt_bytes
        (folder / file).write_bytes(change(make(), random))

    return Target(name, prepare, take, refusals)


def _runs(run: Path) -> list[Target]:
    """What is read from the folder of a run, made from the good one in `run`."""
    rig = Rig.load(run)
    files = {file.name: file.read_bytes() for file in run.iterdir() if file.suffix in (".json", ".safetensors")}

    def prepare(folder: Path, random: Random) -> None:
        put(folder, files)
        name = random.choice(sorted(files))
        (folder / name).write_bytes(spoilt_file(name, files[name], random))

    def take(folder: Path) -> None:
        read_config(folder)
        read_state(folder)
        load_model(folder, "reference")
        for name in ("orbit", "spiral"):
            path(Rig.load(folder), name, 3)

    def take_path(folder: Path) -> None:
        keyframes, loop = load_path(folder / "path.json", rig)
        for key in along(keyframes, 7, loop):
            pose = seen_from(rig, key.pose, key.fov).pose
            if not pose.isfinite().all():
                raise Wrong("expected finite cameras along the path")

    return [
        Target("a run's folder", prepare, take, (ConfigError, PathError)),
        _json_target("a camera path", "path.json", _keyframes, take_path, PathError),
    ]


def targets(run: Path) -> list[Target]:
    """All of them.

    Args:
        run: the folder of a good run.
    """
    return [
        *(_scene(name, make) for name, make in seeds.SCENES.items()),
        Target("viewer: a scene's zip", _drop, _take_drop, (UploadError,)),
        Target("viewer: a photo to fit", _photo, _take_photo, (FitError,)),
        _json_target("viewer: a view", "view.json", _view, _take_view, ValidationError),
        *_runs(run),
        *media(),
    ]
