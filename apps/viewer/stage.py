"""What is on show: one scene for everybody, seen by each through a camera of their own."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from data.camera import Camera
from data.images import area_average
from data.scene import Frame, Scene
from nerf.evaluate import instant, open_scene
from nerf.kernels.frame import Motion
from nerf.metrics import psnr
from nerf.model import SceneModel
from nerf.modes import Mode, Ranges, drawing, probe
from nerf.paths import Rig, central, field_of_view, kind, orbit
from nerf.picture import Box, rendering
from nerf.video import colormap, to_bytes

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Row = Annotated[list[Finite], Field(min_length=4, max_length=4)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=2048)]

BACKGROUNDS: dict[str, tuple[float, float, float] | None] = {
    "scene": None, "black": (0.0, 0.0, 0.0), "gray": (0.5, 0.5, 0.5), "white": (1.0, 1.0, 1.0),
}  # fmt: skip
PACE = 0.03  # seconds of a picture's slices
RANGES_HOLD = 5.0  # seconds for which a mode's ranges hold while the scene still changes
MOTIONS = 8  # instants whose motion is kept


class StageError(ValueError):
    """Something that can't be shown. The message is one sentence."""


class View(BaseModel):
    """What a page asks for: a camera, an instant, and what to show.

    Attributes:
        pose: camera-to-world, 3 rows of 4 (OpenGL axes, scene units).
        fov: vertical field of view in degrees.
        time, look: instants in [0, 1] of the person and of the exposure; None: the middle.
        crop: opposite corners of the box to show, x y z x y z; None: everything.
    """

    pose: Annotated[list[Row], Field(min_length=3, max_length=3)]
    fov: Annotated[float, Field(ge=1, le=170)]
    width: Side
    height: Side
    time: Share | None = None
    look: Share | None = None
    mode: Literal["color", "depth", "opacity", "canonical", "warp"] = "color"
    background: Literal["scene", "black", "gray", "white"] = "scene"
    crop: Annotated[list[Finite], Field(min_length=6, max_length=6)] | None = None

    @model_validator(mode="after")
    def _rotates(self) -> View:
        turn = np.array(self.pose)[:, :3]
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-2) or np.linalg.det(turn) < 0:
            raise ValueError("pose: expected a rotation and a position, found another matrix")
        return self

    def camera(self) -> Camera:
        """The pinhole that it describes."""
        focal = 0.5 * self.height / math.tan(math.radians(self.fov) / 2)
        pose = torch.tensor(self.pose, dtype=torch.float32)
        return Camera(pose, self.width, self.height, focal, focal, self.width / 2, self.height / 2)

    def box(self) -> Box | None:
        """The part of the scene to show."""
        if self.crop is None:
            return None
        low, high = np.minimum(self.crop[:3], self.crop[3:]), np.maximum(self.crop[:3], self.crop[3:])
        return Box(tuple(low.tolist()), tuple(high.tolist()))


class Stage:
    """The scene on show, and what is kept of it between pictures.

    Attributes:
        scene_id: another number for another scene; pages then start afresh.
        version: another number for another state of its weights.
    """

    def __init__(self) -> None:
        self.name = ""
        self.run: Path | None = None
        self.model: SceneModel | None = None
        self.rig: Rig | None = None
        self.scene: Scene | None = None
        self.scene_id = self.version = 0
        self._motions: OrderedDict[tuple[int, float], Motion | None] = OrderedDict()
        self._ranges: dict[str, tuple[int, float, Ranges]] = {}
        self._opening = threading.Lock()

    def show(self, name: str, run: Path | None, model: SceneModel | None, rig: Rig, scene: Scene | None = None) -> None:
        """Put another scene on show; model None: it isn't there yet."""
        self.name, self.run, self.model, self.rig, self.scene = name, run, model, rig, scene
        self.scene_id += 1
        self._ranges.clear()
        self.moved()

    def moved(self, model: SceneModel | None = None) -> None:
        """Its weights are others now, or it is another model of the same scene."""
        self.model = self.model if model is None else model
        self.version += 1
        self._motions.clear()

    def ready(self) -> tuple[SceneModel, Rig]:
        """The model and its cameras. Raises StageError where there are none yet."""
        if self.model is None and self.rig is not None:
            raise StageError(f"{self.name}: it is being read and started; try again in a moment")
        if self.model is None or self.rig is None:
            raise StageError("no scene is on show yet: train one, or start the viewer with --run")
        return self.model, self.rig

    def picture(self, view: View) -> Generator[float, None, np.ndarray]:
        """Draw a view in slices; returns its bytes, "h w 3"."""
        model, _ = self.ready()
        if view.mode in ("canonical", "warp") and model.warp is None:
            raise StageError(f"{view.mode}: expected a scene that moves, found one without a warp")
        time = (0.5 if view.time is None else view.time) if model.warp is not None else None
        look = 0.5 if view.look is None else view.look
        motion = None if time is None or view.mode == "canonical" else self._motion(model, time)
        how: dict[str, Any] = {
            "background": BACKGROUNDS[view.background], "crop": view.box(), "motion": motion, "pace": PACE,
        }  # fmt: skip
        ranges = self._range(model, view.mode)
        drawn = yield from drawing(model, (view.camera(), time), view.mode, ranges, look, **how)
        return to_bytes(drawn)

    def _motion(self, model: SceneModel, time: float) -> Motion | None:
        key = self.version, time
        if key not in self._motions:
            self._motions[key] = model.motion(time)
            while len(self._motions) > MOTIONS:
                self._motions.popitem(last=False)
        return self._motions[key]

    def _range(self, model: SceneModel, mode: Mode) -> Ranges:
        """The ranges of a mode's colours: read once, and while the scene changes again every few seconds."""
        version, since, ranges = self._ranges.get(mode, (-1, 0.0, Ranges()))
        now = time.monotonic()
        if version != self.version and (version < 0 or now - since > RANGES_HOLD):
            assert self.rig is not None
            times = [photo.time if model.warp is not None else None for photo in self.rig.photos]
            ranges = probe(model, [(p.camera, t) for p, t in zip(self.rig.photos, times)], mode)
            self._ranges[mode] = self.version, now, ranges
        return ranges

    def describe(self) -> dict[str, Any]:
        """What a page must know of the scene; JSON."""
        if self.rig is None:
            return {"scene": self.scene_id, "version": self.version, "name": self.name, "ready": False}
        rig, lens = self.rig, self.rig.lens
        space = None if self.model is None else self.model.geometry.space
        home = orbit(rig, 1)[0][0] if kind(rig) == "around" else central(rig)
        photos = [
            {
                "name": photo.name, "time": photo.time, "held_out": photo.held_out, "pose": _rows(photo.camera),
                "fov": field_of_view(photo.camera), "aspect": photo.camera.width / photo.camera.height,
            }
            for photo in rig.photos
        ]  # fmt: skip
        return {
            "scene": self.scene_id, "version": self.version, "name": self.name, "ready": self.model is not None,
            "moving": self.model is not None and self.model.warp is not None, "kind": kind(rig),
            "looks": self.model is not None and self.model.appearance_codes is not None,
            "focus": rig.focus.tolist(), "up": rig.up.tolist(), "near": rig.near, "far": rig.far,
            "width": lens.width, "height": lens.height, "fov": field_of_view(lens), "home": _rows(home),
            "plain": self.model is not None and self.model.geometry.background is not None,
            "center": None if space is None else list(space.center), "half": None if space is None else space.half,
            "photos": photos,
        }  # fmt: skip

    def frame_of(self, index: int) -> Frame:
        """The photo of that number, with its pixels. Raises StageError, SceneError or ConfigError where they are gone."""
        _, rig = self.ready()
        if not 0 <= index < len(rig.photos):
            raise StageError(f"photo: expected a number below {len(rig.photos)}, found {index}")
        with self._opening:
            if self.scene is None:
                assert self.run is not None
                self.scene = open_scene(self.run)
        name = rig.photos[index].name
        return next(frame for frame in self.scene.train + self.scene.test if frame.name == name)

    def compare(self, frame: Frame, longest: int) -> Generator[float, None, tuple[np.ndarray, float]]:
        """A photo, the scene from its place at its instant, and their difference, side by side "h 3w 3"; the PSNR (dB)."""
        model, _ = self.ready()
        assert self.scene is not None
        photo, camera = _reduced(frame, longest)
        time = instant(model, self.scene, frame) if model.warp is not None else None
        picture = yield from rendering(model, camera, time, pace=PACE)
        error = colormap((picture.rgb - photo).abs().mean(-1) * 4)
        return to_bytes(torch.cat([photo, picture.rgb, error], dim=1)), psnr(picture.rgb, photo)


def _rows(camera: Camera) -> list[list[float]]:
    return camera.pose.double().tolist()


def _reduced(frame: Frame, longest: int) -> tuple[Tensor, Camera]:
    """A photo in [0, 1] and its camera, reduced to at most `longest` pixels."""
    camera = frame.camera
    factor = min(1.0, longest / max(camera.width, camera.height))
    camera = camera.scaled(factor)
    pixels = area_average(frame.image.numpy(), camera.width, camera.height)
    return torch.from_numpy(pixels) / 255, camera
