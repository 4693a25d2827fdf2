"""Films and stills of a trained scene, from cameras that no photo was taken with: `python -m nerf.render --run DIR`.

In a moving scene a film can hold still the person, the camera, or neither:

freeze "none"     camera and time both go on: the camera along its path, time from the first photo to the last and back
freeze "person"   time stands still and the camera moves
freeze "camera"   the camera stands still and time goes on
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from data.errors import SceneError
from data.films import VideoError, write_png, write_video
from nerf import together
from nerf.checkpoint import load_model
from nerf.config import ConfigError
from nerf.kernels import BackendError, choose, keep_memory
from nerf.model import SceneModel
from nerf.modes import Mode, Shot, draw, probe, sized
from nerf.paths import PathError, Rig, back_and_forth, central, path
from nerf.video import to_bytes

Freeze = Literal["none", "person", "camera"]
Wrap = Callable[[Sequence[Any]], Iterable[Any]]

LONGEST = 512  # pixels of a film's longer side, unless a size is asked for


@dataclass(frozen=True)
class Options:
    """Make a film, or a still, of a trained scene.

    Film round the subject:     python -m nerf.render --run runs/fox --path orbit --frames 120 --out fox.mp4

    One instant, camera moves:  python -m nerf.render --run runs/selfie --path orbit --freeze person --out frozen.mp4

    A still at a photo's place: python -m nerf.render --run runs/fox --photo 0012 --mode depth --out depth.png

    A path of your own is a JSON list of keyframes, each of them {"pose": camera-to-world 4x4 (OpenGL axes), "fov":
    vertical degrees, "time": 0 to 1} or {"photo": "0012"}; nerf/keyframes.py describes what else it can say.
    """

    run: Path
    """The run's folder, as python -m nerf.train made it."""
    out: Path
    """FILE.mp4, FILE.gif, a new folder for PNG frames, or FILE.png for one still."""
    path: str = "orbit"
    """orbit, spiral, or FILE.json with keyframes."""
    frames: int = 120
    """Number of frames of a film."""
    fps: float = 24
    """Frames a second."""
    width: int | None = None
    """Of a frame, in pixels. Default: as trained on; a film's longer side is then 512 at most."""
    freeze: Freeze = "none"
    """Of a moving scene, hold still: none, the person (time stands still), or the camera."""
    time: float | None = None
    """Stand still at this instant, 0 (first photo) to 1 (last): --freeze person. Default: 0.5, or the photo's."""
    mode: Mode = "color"
    """color, depth, opacity, both (color beside depth); of a moving scene canonical (its undeformed shape) or warp (how far
    each place is moved to get there, x, y and z as red, green and blue)."""
    photo: str | None = None
    """A photo's name: its camera, and its instant, for a still or for --freeze camera."""
    backend: str = "auto"
    """Kernels: auto takes the fastest there is (python -m nerf.kernels lists them)."""


def shots(
    rig: Rig, name: str, frames: int, freeze: Freeze = "none", time: float | None = None, photo: str | None = None
) -> list[Shot]:
    """Cameras and instants of a film.

    Args:
        name: "orbit", "spiral" or a file of keyframes; with freeze "camera" the first camera of such a file, else
            the `photo`'s, else one in the middle of the capture, stands still.
        time: where time stands still, freeze "person"; default: the middle.
    """
    if freeze == "person":
        return [(camera, 0.5 if time is None else time) for camera, _ in path(rig, name, frames)]
    if freeze == "camera":
        if photo is not None:
            camera = rig.photo(photo).camera
        else:
            camera = path(rig, name, 1)[0][0] if name.endswith(".json") else central(rig)
        return [(camera, instant) for instant in back_and_forth(frames).tolist()]
    return list(path(rig, name, frames))


def still(rig: Rig, name: str, time: float | None = None, photo: str | None = None, freeze: Freeze = "none") -> Shot:
    """Camera and instant of one picture: the photo's, else those of the path's first frame; `time` goes first."""
    if photo is not None:
        there = rig.photo(photo)
        shot: Shot = there.camera, there.time
    else:
        shot = shots(rig, name, 1, freeze)[0]
    return shot if time is None else (shot[0], time)


def frames_of(
    model: SceneModel, film: Sequence[Shot], mode: Mode = "color", progress: Wrap | None = None
) -> Iterator[np.ndarray]:
    """A film's frames as bytes, one after another. All have the middle instant's exposure: none flickers.

    Ranks share the frames; the first one gets all of them, the others none.
    """
    ranges = probe(model, film, mode)

    def frame(shot: Shot) -> np.ndarray:
        return to_bytes(draw(model, shot, mode, ranges, look=0.5))

    if together.alone():
        yield from map(frame, progress(film) if progress is not None else film)
        return
    shown = progress(film) if progress is not None else film
    yield from (picture for _, picture in zip(shown, together.in_turns(film, frame)))


def render_video(
    model: SceneModel,
    rig: Rig,
    path: str,
    frames: int,
    out: Path | str,
    *,
    fps: float = 24,
    width: int | None = None,
    freeze: Freeze = "none",
    time: float | None = None,
    photo: str | None = None,
    mode: Mode = "color",
    progress: Wrap | None = None,
) -> int:
    """Render a film and write it.

    Args:
        path: "orbit", "spiral" or a file of keyframes.
        out: FILE.mp4, FILE.gif or a folder.
        width: of a frame, in pixels; None: the photos', at most 512 on the longer side.
        freeze, time, photo: see `shots`.
        progress: wraps the list of shots, as `tqdm` does.

    Returns:
        the number of frames.
    """
    planned = shots(rig, path, frames, freeze, time, photo)
    film: list[Shot] = [(sized(camera, width, even=True, longest=LONGEST), instant) for camera, instant in planned]
    drawn = frames_of(model, film, mode, progress)
    return write_video(out, drawn, fps) if together.first() else len(film) + sum(1 for _ in drawn)


def check(options: Options, rig: Rig, model: SceneModel) -> Options:
    """The options made whole; raises PathError where they contradict each other or the scene."""
    a_still = options.out.suffix.lower() == ".png"
    if options.time is not None and not 0 <= options.time <= 1:
        raise PathError(f"--time: expected a number from 0 (first photo) to 1 (last), found {options.time}")
    if options.width is not None and not 2 <= options.width <= 16384:
        raise PathError(f"--width: expected 2 to 16384 pixels, found {options.width}")
    if model.warp is None and (options.freeze != "none" or options.mode in ("canonical", "warp")):
        asked = f"--mode {options.mode}" if options.mode in ("canonical", "warp") else f"--freeze {options.freeze}"
        raise PathError(f"{asked}: expected a scene that moves, found one without a warp in {options.run}")
    freeze = options.freeze
    if not a_still and options.time is not None:
        if freeze == "camera":
            raise PathError(
                "--time, --freeze camera: expected one of them, found both (the camera frozen, time goes on)"
            )
        freeze = "person"
    if not a_still and options.photo is not None and freeze != "camera":
        raise PathError(
            f"--photo: expected --freeze camera or --out FILE.png with it, found a film with --freeze {freeze}"
        )
    return replace(options, freeze=freeze)


def render(options: Options) -> str:
    """Do what the command line asks for; returns a line that says what was made."""
    if options.out.suffix.lower() not in (".png", ".mp4", ".gif", ""):
        raise VideoError(f"--out: expected FILE.mp4, FILE.gif, FILE.png or a folder, found {options.out}")
    rig = Rig.load(options.run)
    model, _ = load_model(options.run, options.backend)
    options = check(options, rig, model)
    if options.out.suffix.lower() == ".png":
        camera, time = still(rig, options.path, options.time, options.photo, options.freeze)
        shot = sized(camera, options.width), time
        picture = to_bytes(draw(model, shot, options.mode, probe(model, [shot], options.mode)))
        write_png(options.out, picture)
        return f"{options.out}: {picture.shape[1]}x{picture.shape[0]}, {options.mode}"
    bar = partial(tqdm, desc="rendering", unit="frame", dynamic_ncols=True)
    count = render_video(
        model, rig, options.path, options.frames, options.out, fps=options.fps, width=options.width,
        freeze=options.freeze, time=options.time, photo=options.photo, mode=options.mode, progress=bar,
    )  # fmt: skip
    return f"{options.out}: {count} frames, {count / options.fps:.1f} s at {options.fps:g} a second"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    options = tyro.cli(Options, args=arguments, prog="python -m nerf.render")
    keep_memory()
    try:
        print(choose(options.backend)[1])
        print(render(options))
    except (PathError, VideoError, ConfigError, BackendError, SceneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {options.out} was not written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
