"""Scenes of odd numbers, trained for a moment each: NaN and infinity wherever a file can hold them, extreme exposure, too few photos,
places that are one, worlds far too large, too small and far away. Each is refused in a sentence, warned of, or trained to what an
ordinary scene is; what is silently wrong is a fault."""

from __future__ import annotations

import io
import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from apps.faults import seeds
from apps.faults.clock import Clock
from apps.faults.crash import small
from apps.faults.seeds import Files, array, as_json
from apps.faults.target import put
from data.errors import SceneError
from data.scene import Scene, load_scene
from nerf import train as training
from nerf.presets import preset

WIDTH, HEIGHT, FOCAL, COUNT = 24, 18, 22.0, 6
STEPS, RAYS = 80, 128
CLOSE = 1.5  # dB by which a scene's PSNR may differ from that of the same one of ordinary size
REFUSED, WARNED, TRAINED, SAME = "refused", "trained, with a warning", "trained", "trained to the ordinary scene's PSNR"


@dataclass(frozen=True)
class Case:
    """A scene's files, and what may come of them."""

    make: Callable[[], Files]
    accepted: Sequence[str]


def poses() -> list[np.ndarray]:
    """Cameras around the origin, three units from it, that look at it."""
    found = []
    for i in range(COUNT):
        eye = np.array([3 * math.cos(i), 3 * math.sin(i), 0.8 * math.sin(2 * i)])
        back = eye / np.linalg.norm(eye)
        right = np.cross([0, 0, 1.0], back)
        right /= np.linalg.norm(right)
        found.append(np.stack((right, np.cross(back, right), back, eye), 1))
    return found


def photo(pose: np.ndarray) -> np.ndarray:
    """A ball of radius 1, coloured by its normals, before a sky coloured by direction; "h w 3" in [0, 1]."""
    x = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL
    y = -(np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / FOCAL
    lens = np.stack([*np.meshgrid(x, y), -np.ones((HEIGHT, WIDTH))], -1)
    rays = (lens / np.linalg.norm(lens, axis=-1, keepdims=True)) @ pose[:, :3].T
    middle = rays @ pose[:, 3]
    inside = middle**2 - pose[:, 3] @ pose[:, 3] + 1
    hit = pose[:, 3] + (-middle - np.sqrt(np.maximum(inside, 0)))[..., None] * rays
    return np.where((inside > 0)[..., None], 0.5 + 0.45 * hit, 0.3 + 0.2 * rays)


def png(picture: np.ndarray) -> bytes:
    """As a file."""
    out = io.BytesIO()
    Image.fromarray(np.clip(np.rint(255 * picture), 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def scene(
    at: Callable[[np.ndarray], np.ndarray] = lambda pose: pose,
    shown: Callable[[int, np.ndarray], bytes] = lambda i, picture: png(picture),
    change: Callable[[dict[str, Any]], object] = lambda record: None,
    kept: Sequence[int] = range(COUNT),
) -> Files:
    """A `transforms.json` and its photos.

    Args:
        at: moves a camera after its photo was taken.
        shown: a photo's file.
        change: spoils what stands in the JSON.
        kept: which cameras there are.
    """
    files: Files = {}
    record: dict[str, Any] = {
        "fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT, "frames": [],
    }  # fmt: skip
    for place, i in enumerate(kept):
        name = f"images/{place}.png"
        files[name] = shown(place, photo(poses()[i]))
        record["frames"].append({"file_path": name, "transform_matrix": seeds.whole(at(poses()[i]))})
    change(record)
    return {**files, "transforms.json": as_json(record)}


def _moved(scale: float, shift: float = 0.0) -> Callable[[], Files]:
    def at(pose: np.ndarray) -> np.ndarray:
        return np.concatenate((pose[:, :3], scale * pose[:, 3:] + shift), 1)

    return lambda: scene(at)


def _lit(change: Callable[[int, np.ndarray], np.ndarray]) -> Callable[[], Files]:
    return lambda: scene(shown=lambda i, picture: png(change(i, picture)))


def _number(value: float, *keys: str | int) -> Callable[[], Files]:
    """A number of the JSON replaced."""

    def change(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return lambda: scene(change=change)


def _other(files: Callable[[], Files], name: str, value: float, key: tuple[Any, ...] = ()) -> Callable[[], Files]:
    """A number of an array, or of a JSON, in a seed of another format replaced."""

    def make() -> Files:
        found = dict(files())
        if name.endswith(".npy"):
            table = np.load(io.BytesIO(found[name]))
            table.flat[-1] = value
            found[name] = array(table)
        else:
            tree = place = json.loads(found[name])
            for part in key[:-1]:
                place = place[part]
            place[key[-1]] = value
            found[name] = as_json(tree)
        return found

    return make


def _sixteen(i: int, picture: np.ndarray) -> bytes:
    """16 bits of gray, nothing but the lowest and the highest number in it."""
    out = io.BytesIO()
    gray = np.where(picture.mean(-1) > 0.4, 65535, 0).astype(np.uint16)
    Image.fromarray(gray).save(out, "PNG")
    return out.getvalue()


def _floating(value: float) -> Callable[[int, np.ndarray], bytes]:
    """A photo in floating point by a PNG's name, with a number that is none."""

    def shown(i: int, picture: np.ndarray) -> bytes:
        gray = picture.mean(-1).astype(np.float32)
        gray[0, 0] = value
        out = io.BytesIO()
        Image.fromarray(gray).save(out, "TIFF")
        return out.getvalue()

    return shown


def _tiny() -> Files:
    def change(record: dict[str, Any]) -> None:
        record |= {"w": 1, "h": 1, "cx": 0.5, "cy": 0.5, "fl_x": 1.0, "fl_y": 1.0}

    return scene(shown=lambda i, picture: png(picture.mean((0, 1), keepdims=True)), change=change)


def _split(train: int, test: int) -> Files:
    """Blender's files, with so many photos in each."""
    good, angle = scene(), 2 * math.atan(0.5 * WIDTH / FOCAL)
    rows = [{"file_path": f"./images/{i}", "transform_matrix": seeds.whole(pose)} for i, pose in enumerate(poses())]
    files = {name: data for name, data in good.items() if name.endswith(".png")}
    for name, chosen in (("train", rows[:train]), ("test", rows[train : train + test])):
        files[f"transforms_{name}.json"] = as_json({"camera_angle_x": angle, "frames": chosen})
    return files


def _noise(i: int, picture: np.ndarray) -> np.ndarray:
    return picture + 0.5 * np.random.default_rng(i).normal(size=picture.shape)


NAN, POSE = math.nan, ("frames", 2, "transform_matrix", 1, 3)
LEARNT, SAID = (TRAINED, SAME), (REFUSED, WARNED)
CASES: dict[str, Case] = {
    "as it should be": Case(scene, (SAME,)),
    "a million units wide": Case(_moved(1e6), (SAME,)),
    "a millionth of a unit wide": Case(_moved(1e-6), (SAME,)),
    "a trillion units wide": Case(_moved(1e12), (SAME, REFUSED)),
    "a million units from the origin": Case(_moved(1.0, 1e6), (SAME,)),
    "NaN in a pose": Case(_number(NAN, *POSE), (REFUSED,)),
    "infinity in a pose": Case(_number(math.inf, *POSE), (REFUSED,)),
    "a focal length of NaN": Case(_number(NAN, "fl_x"), (REFUSED,)),
    "a focal length of infinity": Case(_number(math.inf, "fl_y"), (REFUSED,)),
    "NaN in the distortion": Case(_number(NAN, "k1"), (REFUSED,)),
    "an instant of NaN": Case(_number(NAN, "frames", 1, "time"), (REFUSED,)),
    "NaN among the points": Case(_other(seeds.nerfies, "points.npy", NAN), (REFUSED,)),
    "infinity among the points": Case(_other(seeds.nerfies, "points.npy", math.inf), (REFUSED,)),
    "a depth of NaN": Case(_other(seeds.llff, "poses_bounds.npy", NAN), (REFUSED,)),
    "a depth of infinity": Case(_other(seeds.llff, "poses_bounds.npy", math.inf), (REFUSED,)),
    "an exposure's number of NaN": Case(
        _other(seeds.nerfies, "metadata.json", NAN, (seeds.NAMES[1], "appearance_id")), (REFUSED,)
    ),
    "NaN in the unit of length": Case(_other(seeds.nerfies, "scene.json", NAN, ("scale",)), (REFUSED,)),
    "NaN in a pixel": Case(lambda: scene(shown=_floating(NAN)), (REFUSED,)),
    "infinity in a pixel": Case(lambda: scene(shown=_floating(math.inf)), (REFUSED,)),
    "16 bits, 0 and 65535 alone": Case(lambda: scene(shown=_sixteen), LEARNT),
    "all photos black": Case(_lit(lambda i, picture: 0 * picture), SAID),
    "all photos white": Case(_lit(lambda i, picture: 0 * picture + 1), SAID),
    "one white photo among black ones": Case(_lit(lambda i, picture: 0 * picture + (i == 2)), LEARNT),
    "one photo ten times as bright": Case(_lit(lambda i, picture: picture * (10 if i == 2 else 1)), LEARNT),
    "photos of noise": Case(_lit(_noise), LEARNT),
    "one photo": Case(lambda: scene(kept=(0,)), SAID),
    "two photos from one place": Case(lambda: scene(kept=(0, 0)), SAID),
    "two of the photos from one place": Case(lambda: scene(kept=(0, 0, 1, 2, 3, 4)), LEARNT),
    "all photos from one place": Case(lambda: scene(at=lambda pose: poses()[0]), SAID),
    "photos of one pixel": Case(_tiny, (REFUSED, WARNED, *LEARNT)),
    "no photo to train on, one held out": Case(lambda: _split(0, 1), (REFUSED,)),
    "one photo held out": Case(lambda: _split(COUNT - 1, 1), LEARNT),
}  # fmt: skip


def numbers(home: Path, clock: Clock) -> dict[str, Any]:
    """Try all of `CASES`: what came of each, and which of it is wrong."""
    results: dict[str, str] = {}
    bad: list[str] = []
    ordinary = math.nan
    for name, case in CASES.items():
        if Clock.stopped:
            break
        clock.tell(f"{len(results)} of {len(CASES)} scenes")
        folder = home / "numbers"
        shutil.rmtree(folder, ignore_errors=True)
        put(folder, case.make())
        came, found = outcome(folder)
        if isinstance(found, float):
            ordinary = found if name == "as it should be" else ordinary
            if came == TRAINED and abs(found - ordinary) <= CLOSE:
                came = SAME
            said = f"{came}: {found:.1f} dB"
        else:
            said = came
        results[name] = said if came in case.accepted else f"**wrong**: {said}"
        if came not in case.accepted:
            bad.append(f"{name}: expected {' or '.join(case.accepted)}, found {said} ({found})")
    return {"results": results, "wrong": bad}


def outcome(folder: Path) -> tuple[str, float | str]:
    """What comes of a scene, and its training PSNR in dB or what was said.

    Anything else than finite numbers or a sentence is named as it is found.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = load_scene(folder)
            said = [str(warning.message) for warning in caught if str(folder) in str(warning.message)]
            decibels, finite = learned(found)
    except SceneError as error:
        return (REFUSED if "\n" not in str(error) else "a sentence of several lines"), str(error)
    except Exception as error:
        return f"{type(error).__name__}", str(error)[:200]
    if not finite or not math.isfinite(decibels):
        return "numbers that are not finite", f"{decibels}"
    return (WARNED if said else TRAINED), decibels


def learned(found: Scene) -> tuple[float, bool]:
    """Train for a moment: the PSNR over the training rays, and whether all parameters are finite."""
    torch.set_num_threads(1)
    config = small(preset("instant", found.moving, found.background is not None))
    config = replace(config, steps=STEPS, rays=RAYS, samples=4 * RAYS)
    decibels, finite = math.nan, False
    for progress in training.train(config, found, None):
        if progress.note.startswith("collapsed"):
            return math.nan, False
        if progress.step == STEPS and progress.model is not None:
            decibels = progress.psnr
            finite = all(bool(value.isfinite().all()) for value in progress.model.parameters())
            break
    return decibels, finite
