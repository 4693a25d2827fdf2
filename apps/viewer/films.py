"""Films that a page asks for: paths laid, drawn as a line, rendered beside everything else, kept in the run's folder."""

from __future__ import annotations

import itertools
import json
import queue
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from apps.viewer.engine import Engine, Task
from apps.viewer.stage import Stage, StageError
from data.films import VideoError, write_video
from nerf.keyframes import Keyframe, field_of_view, read_path, save_path
from nerf.model import SceneModel
from nerf.modes import Mode, Shot, drawing, probe, sized
from nerf.paths import PathError, Rig, path, through
from nerf.render import Freeze, shots
from nerf.video import to_bytes

FOLDER = "exports"  # in the run's folder
LONGEST_FILM, WIDEST = 3600, 2048  # frames; pixels
LINE = 96  # points of a path's line
STOPS = 24  # keyframes that an orbit or a spiral is saved as
PACE = 0.03  # seconds of a frame's slices


@dataclass(frozen=True)
class Order:
    """A film to be made.

    Attributes:
        path: "orbit", "spiral", or "keyframes" with the JSON of nerf/keyframes.py in `keyframes`.
        width: of a frame in pixels; None: the photos' own.
        freeze, time: as nerf.render takes them.
    """

    path: str
    keyframes: str = ""
    frames: int = 120
    fps: float = 24.0
    width: int | None = None
    freeze: Freeze = "none"
    time: float = 0.5
    mode: Mode = "color"


@dataclass
class Film:
    """A film under way or made.

    Attributes:
        file, path: the film, and its keyframes as nerf.render takes them.
        frames, done: how many it will have, and has.
    """

    file: Path
    path: Path
    frames: int
    done: int = 0
    task: Task[int] | None = None


class Films:
    """All films of this viewer."""

    def __init__(self, engine: Engine, stage: Stage) -> None:
        self.engine, self.stage = engine, stage
        self._named: set[Path] = set()
        self._naming = threading.Lock()

    def line(self, order: Order) -> dict[str, Any]:
        """A path as the page draws it: the cameras' places, where they look, and whether it closes."""
        _, rig = self.stage.ready()
        keyframes, loop = _keyframes(order, rig)
        film = path(rig, order.path, LINE) if keyframes is None else through(rig, keyframes, loop, LINE)
        poses = [camera.pose.double().numpy() for camera, _ in film]
        return {
            "places": [p[:, 3].tolist() for p in poses],
            "ahead": [(-p[:, 2]).tolist() for p in poses],
            "loop": loop,
        }

    def start(self, order: Order, owner: str) -> Film:
        """Begin to render a film. Raises PathError, VideoError or StageError, one sentence, where it can't be."""
        model, rig = self.stage.ready()
        check(order, model)
        keyframes, loop = _keyframes(order, rig)
        if keyframes is None:
            stops = path(rig, order.path, STOPS)
            keyframes = [Keyframe(c.pose.double().numpy(), field_of_view(c), time) for c, time in stops]
        if self.stage.run is None:
            raise StageError("expected a run's folder to keep the film in, found none")
        film = self._name(self.stage.run / FOLDER, order.frames)
        film.task = self.engine.start(_rendering(model, rig, order, film, keyframes, loop), owner)
        return film

    def _name(self, folder: Path, frames: int) -> Film:
        """The next film's files: no name comes from the page, and no file is there before the film's turn comes."""
        with self._naming:
            for n in itertools.count(1):
                film = Film(folder / f"film-{n:03d}.mp4", folder / f"film-{n:03d}.json", frames)
                if not (film.path in self._named or film.path.exists() or film.file.exists()):
                    self._named.add(film.path)
                    return film
        raise AssertionError("numbers end")


def check(order: Order, model: SceneModel) -> None:
    """Raise VideoError or StageError where an order is no film."""
    limits = (
        ("frames", order.frames, 1, LONGEST_FILM),
        ("fps", order.fps, 1, 120),
        ("width", order.width or 2, 2, WIDEST),
        ("time", order.time, 0, 1),
    )
    for name, value, low, high in limits:
        if not low <= value <= high:  # also what is no number
            raise VideoError(f"{name}: expected a number from {low} to {high}, found {value}")
    if order.mode not in get_args(Mode) or order.freeze not in get_args(Freeze):
        raise StageError(f"expected a mode and what is frozen, found {order.mode!r} and {order.freeze!r}")
    if model.warp is None and (order.freeze != "none" or order.mode in ("canonical", "warp")):
        raise StageError("expected a scene that moves, found one without a warp")


def _keyframes(order: Order, rig: Rig) -> tuple[list[Keyframe] | None, bool]:
    """The page's keyframes and whether they close; None, True for the paths that have a name."""
    if order.path in ("orbit", "spiral"):
        return None, True
    if order.path != "keyframes":
        raise PathError(f"path: expected orbit, spiral or keyframes, found {order.path!r}")
    try:
        whole = json.loads(order.keyframes)
    except ValueError as error:
        raise PathError(f"keyframes: expected JSON, found: {error}") from None
    return read_path(whole, rig, "keyframes")


def _shots(rig: Rig, order: Order, made: Film) -> list[Shot]:
    """Camera and instant of each frame."""
    name = str(made.path) if order.path == "keyframes" else order.path
    planned = shots(rig, name, order.frames, order.freeze, order.time if order.freeze == "person" else None)
    return [(sized(camera, order.width or rig.lens.width, even=True), time) for camera, time in planned]


def _rendering(
    model: SceneModel, rig: Rig, order: Order, made: Film, keyframes: list[Keyframe], loop: bool
) -> Generator[float, None, int]:
    """Render frame after frame in slices, beside a thread that encodes them; returns how many there were."""
    frames: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=4)
    failed: list[BaseException] = []
    abandoned = threading.Event()

    def arriving() -> Iterator[np.ndarray]:
        while (frame := frames.get()) is not None:
            yield frame
        if abandoned.is_set():
            raise VideoError(f"{made.file}: stopped")  # so that nothing half is kept

    def write() -> None:
        try:
            # Outside of the run's folder: a training that starts anew moves that aside.
            with tempfile.TemporaryDirectory(prefix=".film-", dir=made.file.parents[2]) as place:
                whole = Path(place) / made.file.name
                write_video(whole, arriving(), order.fps)
                made.file.parent.mkdir(parents=True, exist_ok=True)
                whole.replace(made.file)
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=write, name="film", daemon=True)
    made.path.parent.mkdir(parents=True, exist_ok=True)
    writer.start()
    try:
        save_path(made.path, keyframes, loop)
        film = _shots(rig, order, made)
        ranges = probe(model, film, order.mode)
        for shot in film:
            # All have the middle instant's exposure: none flickers.
            drawn = yield from drawing(model, shot, order.mode, ranges, 0.5, pace=PACE)
            while frames.full() and not failed:
                yield made.done / made.frames
            if failed:
                break
            frames.put(to_bytes(drawn))
            made.done += 1
    except BaseException:
        abandoned.set()
        raise
    finally:
        while writer.is_alive():
            with suppress(queue.Full):
                frames.put(None, timeout=0.01)
                writer.join()
        if abandoned.is_set() or failed:
            made.path.unlink(missing_ok=True)
    if failed:
        raise failed[0]
    if not made.path.exists():  # it went with the folder
        save_path(made.path, keyframes, loop)
    return made.done
