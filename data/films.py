"""Films and pictures on disk: MP4 that browsers play, GIF, or a folder of PNG files; and what of a film is read (`READING`).

A film is written beside its place and moved there once it is whole: whatever ends a rendering early leaves nothing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

FILMS = (".mp4", ".gif")
# The most of a film that is read: 8K and square, 20 minutes at 30 frames a second.
SIDE, PIXELS, FRAMES = 16_384, 36_000_000, 36_000
# What is opened as a film must be one: playlists and scripts, which ffmpeg knows by their text whatever the name, lead to
# other files and to the network.
READING = [
    "-protocol_whitelist", "file", "-format_whitelist",
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,obu,mjpeg,asf,flv,ogg,dv,mxf,nut,ivf,"
    "yuv4mpegpipe",
    "-max_pixels", str(PIXELS),
]  # fmt: skip
# BT.709 and said so in the file: unmarked, players guess by the picture's size, and colours shift.
_COLOURS = [
    "-vf",
    "scale=out_color_matrix=bt709:out_range=tv",
    "-colorspace",
    "bt709",
    "-color_primaries",
    "bt709",
    "-color_trc",
    "bt709",
]


class VideoError(RuntimeError):
    """A film or picture can't be written. The message is one sentence."""


def write_png(path: Path | str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write one picture; never half of one."""
    path = Path(path)
    _make_folder(path.parent)
    draft = path.with_name(f".{path.name}.tmp")
    try:
        Image.fromarray(np.asarray(picture)).save(draft, "PNG")
        os.replace(draft, path)
    except OSError as error:
        raise VideoError(f"{path}: expected a place that can be written, found: {error}") from None
    finally:
        draft.unlink(missing_ok=True)


def write_video(path: Path | str, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float = 24) -> int:
    """Write a film of `frames`, all of one size, and return how many there were.

    Args:
        path: FILE.mp4 (H.264, yuv420p, plays in browsers; odd sizes get their last row or column twice), FILE.gif, or
            a folder (no suffix) for PNG files 0000.png, 0001.png ...
        fps: frames a second.
    """
    path = Path(path)
    if path.suffix not in (*FILMS, ""):
        raise VideoError(f"{path}: expected FILE.mp4, FILE.gif or a folder without a suffix, found {path.suffix}")
    if path.suffix == "" and path.is_dir() and any(path.iterdir()):
        raise VideoError(f"{path}: expected a new or empty folder for PNG frames, found one with files in it")
    if not 0 < fps <= 1000:
        raise VideoError(f"fps: expected a number above 0, up to 1000, found {fps}")
    _make_folder(path.parent)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise VideoError(f"{path}: expected at least one frame, found none")
    every = _checked(itertools.chain([first], frames), np.shape(first), path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as draft_folder:
        draft = Path(draft_folder) / (path.name if path.suffix else "frames")
        write = {".mp4": _write_mp4, ".gif": _write_gif, "": _write_pngs}[path.suffix]
        try:
            count = write(draft, every, fps)
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(draft, path)
        except (OSError, RuntimeError) as error:
            if isinstance(error, VideoError):
                raise
            said = str(error).strip().splitlines()
            raise VideoError(f"{path}: expected ffmpeg to write it, found: {said[-1] if said else error!r}") from None
    return count


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoError(f"{folder}: expected a folder that can be made, found: {error}") from None


def _checked(frames: Iterable[np.ndarray], shape: tuple[int, ...], path: Path) -> Iterator[np.ndarray]:
    for index, frame in enumerate(frames):
        frame = np.asarray(frame)
        if frame.shape != shape or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise VideoError(
                f"{path}: frame {index}: expected bytes of shape {shape}, found {frame.dtype} {frame.shape}"
            )
        yield frame


def _write_mp4(draft: Path, frames: Iterator[np.ndarray], fps: float) -> int:
    import imageio_ffmpeg

    writer, count = None, 0
    try:
        for frame in frames:
            even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(draft), (even.shape[1], even.shape[0]), fps=fps, codec="libx264", pix_fmt_out="yuv420p",
                    macro_block_size=1, quality=None, ffmpeg_log_level="error",
                    output_params=[*_COLOURS, "-crf", "17", "-preset", "medium", "-movflags", "+faststart"],
                )  # fmt: skip
                writer.send(None)
            writer.send(np.ascontiguousarray(even))
            count += 1
    finally:
        if writer is not None:
            writer.close()
    return count


def _write_gif(draft: Path, frames: Iterator[np.ndarray], fps: float) -> int:
    pictures = [Image.fromarray(frame).quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    # GIF counts in hundredths of a second, and browsers slow down anything below two.
    pictures[0].save(draft, save_all=True, append_images=pictures[1:], duration=max(20, round(100 / fps) * 10), loop=0)
    return len(pictures)


def _write_pngs(draft: Path, frames: Iterator[np.ndarray], fps: float) -> int:
    draft.mkdir()
    count = 0
    for count, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(draft / f"{count - 1:04d}.png")
    return count
