"""What a run remembers of its cameras, so that new ones can be placed without the photos: `cameras.json`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from data import bounds
from data.camera import Camera
from data.errors import shown
from data.files import write_atomically
from data.scene import Frame, Scene

FILE = "cameras.json"
WIDEST = 100.0  # degrees; a virtual pinhole of a fisheye's focal length would see more and look stretched


class PathError(ValueError):
    """A camera path can't be had. The message is one sentence: what was expected and what was found."""


@dataclass(frozen=True)
class Photo:
    """One photo's place: its name, its camera, its instant in [0, 1], and whether it was held out from training."""

    name: str
    camera: Camera
    time: float
    held_out: bool


@dataclass(frozen=True, eq=False)
class Rig:
    """All photos' cameras, and where they look, in scene units.

    Attributes:
        photos: in order of time.
        focus: the point that the capture is about: nearest to all optical axes, else at a depth between near and far.
        up: the vertical, unit length.
        near, far: distances along rays.
        transform: takes the poses' file's world to the scene's.
        moving: photos show different instants.
    """

    photos: tuple[Photo, ...]
    focus: Float[ndarray, "3"]
    up: Float[ndarray, "3"]
    near: float
    far: float
    transform: Float[ndarray, "4 4"]
    moving: bool

    @staticmethod
    def of(scene: Scene) -> Rig:
        """Read it off a scene."""
        photos = [_photo(frame, False) for frame in scene.train] + [_photo(frame, True) for frame in scene.test]
        photos.sort(key=lambda photo: (photo.time, photo.name))
        poses, transform = _poses([p for p in photos if not p.held_out]), scene.transform.double().numpy()
        up, focus = find_up(poses, scene.up.double().numpy()), find_focus(poses, scene.near, scene.far)
        return Rig(tuple(photos), focus, up, scene.near, scene.far, transform, scene.moving)

    @property
    def trained(self) -> tuple[Photo, ...]:
        """The photos that were learnt from: new cameras stay among them."""
        return tuple(photo for photo in self.photos if not photo.held_out)

    @property
    def poses(self) -> Float[ndarray, "n 3 4"]:
        """Camera-to-world of the training photos, in order of time."""
        return _poses(self.trained)

    @property
    def lens(self) -> Camera:
        """A pinhole of the photos' usual size and focal length, with its axis in the middle; at the world's origin."""
        cameras = [photo.camera for photo in self.trained]
        width, height = Counter((c.width, c.height) for c in cameras).most_common(1)[0][0]
        focal = float(np.median([c.fy / c.height for c in cameras])) * height
        focal = max(focal, 0.5 * max(width, height) / np.tan(np.radians(WIDEST / 2)))
        return Camera(torch.eye(3, 4), width, height, focal, focal, width / 2, height / 2)

    def photo(self, name: str) -> Photo:
        """The photo called `name`: its name, or any end of it, with or without the extension."""
        keys = [(photo, photo.name, photo.name.removesuffix(Path(photo.name).suffix)) for photo in self.photos]
        exact = [photo for photo, *spelt in keys if name in spelt]
        ends = [photo for photo, *spelt in keys if any(f"/{text}".endswith(f"/{name}") for text in spelt)]
        loose = [photo for photo, *spelt in keys if any(text.endswith(name) for text in spelt)]
        found = exact or ends or loose
        if len(found) == 1:
            return found[0]
        some = ", ".join(p.name for p in (found or self.photos)[:4]) + " ..."
        raise PathError(
            f"--photo {shown(name)}: expected a photo's name, found {len(found) or 'none'} called so among {shown(some, 200)}"
        )

    def save(self, folder: Path) -> None:
        """Write cameras.json into a run's folder."""
        photos = [
            {
                "name": photo.name, "time": photo.time, "held_out": photo.held_out,
                "pose": photo.camera.pose.double().tolist(), "distortion": list(photo.camera.distortion),
                **{name: getattr(photo.camera, name) for name in _LENS},
            }
            for photo in self.photos
        ]  # fmt: skip
        whole = {
            "focus": self.focus.tolist(), "up": self.up.tolist(), "near": self.near, "far": self.far,
            "transform": self.transform.tolist(), "moving": self.moving, "photos": photos,
        }  # fmt: skip
        write_atomically(folder / FILE, json.dumps(whole, indent=1).encode())

    @staticmethod
    def load(folder: Path | str) -> Rig:
        """The rig of the run in `folder`. Raises PathError where there is none, or a broken one."""
        path = Path(folder) / FILE
        if not path.is_file():
            hint = f"train one with python -m nerf.train --scene ... --out {folder}"
            raise PathError(f"{folder}: expected a run with {FILE}, found none; {hint}")
        try:
            saved = json.loads(path.read_text())
            photos = tuple(_read_photo(entry) for entry in saved["photos"])
            focus, up, transform = (np.array(saved[name], dtype=float) for name in ("focus", "up", "transform"))
            rig = Rig(photos, focus, up, float(saved["near"]), float(saved["far"]), transform, bool(saved["moving"]))
        except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError, AttributeError) as error:
            raise PathError(
                f"{path}: expected the cameras of a run, found what can't be read: {shown(error)}"
            ) from None
        if not rig.trained or (focus.shape, up.shape, transform.shape) != ((3,), (3,), (4, 4)):
            raise PathError(f"{path}: expected photos, focus (3), up (3) and transform (4x4), found none or odd shapes")
        numbers = np.concatenate([focus, up, transform.ravel(), [rig.near, rig.far], _poses(photos).ravel()])
        if not np.isfinite(numbers).all() or not 0 < rig.near < rig.far or not all(0 <= p.time <= 1 for p in photos):
            raise PathError(f"{path}: expected finite places, 0 < near < far and times from 0 to 1, found others")
        return rig


_LENS = ("width", "height", "fx", "fy", "cx", "cy", "model", "skew")


def _photo(frame: Frame, held_out: bool) -> Photo:
    return Photo(frame.name, frame.camera, frame.time, held_out)


def _read_photo(entry: dict[str, Any]) -> Photo:
    pose = torch.tensor(entry["pose"], dtype=torch.float32)
    if pose.shape != (3, 4):
        raise ValueError(f"{entry['name']}: a pose of shape {tuple(pose.shape)}")
    if not all(isinstance(entry[name], int) for name in ("width", "height")):
        raise ValueError(f"{entry['name']}: a width or height that is no whole number")
    camera = Camera(pose, **{name: entry[name] for name in _LENS}, distortion=tuple(entry["distortion"]))
    return Photo(str(entry["name"]), camera, float(entry["time"]), bool(entry["held_out"]))


def _poses(photos: list[Photo] | tuple[Photo, ...]) -> ndarray:
    return np.stack([photo.camera.pose.double().numpy() for photo in photos])


def find_up(poses: Float[ndarray, "n 3 4"], guess: Float[ndarray, "3"]) -> Float[ndarray, "3"]:
    """The vertical: the direction most nearly across all cameras' x axes, since people hold cameras level.

    The `guess`, the mean of their y axes, leans where they look down from uneven sides; it stays where the x axes
    don't span a plane clearly, or where the two are more than 25 degrees apart.
    """
    across = poses[:, :, 0]
    size, axes = np.linalg.eigh(across.T @ across / len(across))
    up = axes[:, 0] * np.sign(axes[:, 0] @ guess)
    return up if size[1] > 0.02 and size[1] > 4 * size[0] and up @ guess > np.cos(np.radians(25)) else guess


def find_focus(poses: Float[ndarray, "n 3 4"], near: float, far: float) -> Float[ndarray, "3"]:
    """The point that the photos are about.

    Where the optical axes meet well, the point nearest to all of them. Axes that are nearly parallel, or that turn
    about the camera itself, say nothing of depth: then a point ahead of the middle camera, at the depth
    whose disparity lies a quarter of the way from far's to near's (LLFF's choice).
    """
    eye, ahead = poses[:, :, 3].mean(0), -poses[:, :, 2].mean(0)
    found = bounds.focus(poses)
    if found is not None:
        depth = np.median(np.einsum("ni,ni->n", found - poses[:, :, 3], -poses[:, :, 2]))
        if near < depth < far:
            return found
    main = ahead / max(float(np.linalg.norm(ahead)), 1e-9)
    return eye + main / (0.75 / far + 0.25 / near)
