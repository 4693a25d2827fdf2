"""Films frame by frame, as ffmpeg decodes them: turned upright by the file's own rotation; and films from a webcam."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data.capturing.progress import bar
from data.errors import SceneError, mismatch
from data.films import FRAMES, PIXELS, READING, SIDE

FILMS = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".3gp", ".gif", ".mpg", ".mpeg", ".ts", ".mts")
_LEVEL = [None, "gray", None, "rgb24"]  # ffmpeg's name of the pixel, by its channels


@dataclass(frozen=True)
class Film:
    """What a film's header says. Sizes in pixels, upright; `fps` and `seconds` are 0 where it doesn't say."""

    path: Path
    width: int
    height: int
    fps: float
    seconds: float


def open_film(path: Path) -> Film:
    """Read the header. Raises SceneError for a file without pictures that ffmpeg can decode, or with larger ones than are read."""
    if not path.is_file():
        raise mismatch(path, "film", "a file", "a folder" if path.exists() else "none")
    frames = _decode(path, "rgb24", [])
    try:
        header = next(frames)
        width, height = header["size"]
        if width * height > PIXELS or max(width, height) > SIDE:  # before there is a place for the first
            limit = f"{PIXELS // 1_000_000} megapixels, and {SIDE} pixels a side"
            raise mismatch(path, "frames", f"at most {limit}", f"{width}x{height}")
        next(frames)
    except SceneError:
        raise
    except StopIteration:
        raise _undecodable(path, "no picture in it") from None
    except Exception as error:  # imageio-ffmpeg's parser ends in anything from OSError to IndexError
        raise _undecodable(path, _last_line(error)) from None
    finally:
        frames.close()
    return Film(path, width, height, float(header["fps"]), float(header["duration"]))


def read_frames(
    film: Film, longest: int | None = None, channels: int = 3
) -> Iterator[UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]]:
    """The film's frames in order, at a steady rate (a phone's varying one is evened out by repeating frames).

    Ends at a frame that can't be decoded, as a file that was cut short has one. Raises SceneError past `data.films.FRAMES`.

    Args:
        longest: reduce the longer side to so many pixels.
        channels: 3 for colours, 1 for brightness, which then has no axis of its own.
    """
    scale = min(1.0, (longest or np.inf) / max(film.width, film.height))
    width, height = (max(2, round(side * scale)) for side in (film.width, film.height))
    resize = ["-vf", f"scale={width}:{height}:flags=area"] if scale < 1 else []
    frames = _decode(film.path, str(_LEVEL[channels]), resize, 8 * channels)
    shape = (height, width, 3)[: 2 + (channels == 3)]
    try:
        next(frames)
        for number, frame in enumerate(frames):
            if number == FRAMES:  # a header that lies about time makes ffmpeg repeat frames for hours
                raise mismatch(film.path, "film", f"at most {FRAMES} frames", "more: cut it first")
            yield np.frombuffer(frame, np.uint8).reshape(shape)
    except RuntimeError:  # the last frame is half a one
        return
    finally:
        frames.close()


def record(device: str, file: Path, seconds: float, longest: int) -> None:
    """Film `seconds` seconds with the webcam that imageio calls `device`, such as <video0>, into an MP4 file.

    Raises SceneError where there is no such webcam, or it gives no pictures.
    """
    import imageio

    from data.films import write_video

    try:
        camera: Any = imageio.get_reader(device, format="FFMPEG", mode="I")
        fps = float(camera.get_meta_data().get("fps") or 30)
    except Exception as error:  # IndexError where none answers, and whatever the driver says
        name = f"webcam:{device.strip('<>').removeprefix('video')}"
        raise mismatch(name, "webcam", "a camera that this machine can open", _last_line(error)) from None

    def frames() -> Iterator[np.ndarray]:
        count = max(1, round(seconds * fps))
        for _, frame in zip(bar(range(count), "filming", "frame"), camera):
            step = -(-max(frame.shape[:2]) // longest)
            yield np.asarray(frame)[::step, ::step, :3]

    try:
        write_video(file, frames(), fps)
    finally:
        camera.close()


def _decode(path: Path, level: str, output: list[str], bits: int = 24) -> Any:
    import imageio_ffmpeg

    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)  # it warns of every film that is turned or reduced
    return imageio_ffmpeg.read_frames(
        str(path.resolve()), pix_fmt=level, bits_per_pixel=bits, input_params=READING, output_params=output
    )


def _undecodable(path: Path, found: str) -> Exception:
    return mismatch(path, "film", "one that ffmpeg can decode (MP4, MOV, WebM ...)", found)


def _last_line(error: BaseException) -> str:
    """What ffmpeg said last, without its addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "===" not in line]
    return lines[-1].split("] ")[-1] if lines else type(error).__name__
