"""From what a person gives, a film, a folder of photos or a webcam, to the photos that poses are found for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from data.capturing import film as films
from data.capturing.choose import choose, find_cuts, longest_take, watch
from data.capturing.photos import WATCHED, Photo, take_photos
from data.capturing.progress import bar
from data.errors import CaptureError, mismatch
from data.images import read_mask
from data.shots import find_image, list_images

FEWEST = 8  # frames or photos that a scene needs
PLAIN = 6.0  # gray levels: a film whose frames vary by less shows nothing that could be followed


@dataclass
class Gathered:
    """Photos in `folder`, in order of time where `ordered`; what to tell about them; a film's frames, for its masks."""

    folder: Path
    photos: list[Photo]
    ordered: bool
    said: list[str] = field(default_factory=list)
    frames: list[int] | None = None
    total: int = 0


def gather(source: str, into: Path, frames: int, longest: int, seconds: float) -> Gathered:
    """Photos from `source` as files in the new folder `into`.

    Args:
        source: a film, a folder of photos, or webcam:0.
        frames: at most so many of a film.
        longest: pixels of the longer side that photos are reduced to.
        seconds: how long a webcam films.

    Raises:
        SceneError: what was given can't be read. CaptureError: no scene can come of it.
    """
    into.mkdir()
    if source.partition(":")[0] == "webcam":
        number = source.partition(":")[2] or "0"
        if not number.isdecimal():
            raise mismatch(source, "webcam", "webcam:0, webcam:1 ...", source)
        clip = into.with_name("webcam.mp4")
        films.record(f"<video{number}>", clip, seconds, longest)
        return _from_film(clip, source, into, frames, longest)
    path = Path(source).expanduser()
    if path.is_dir():
        photos = take_photos(path, into, longest)
        if len(photos) < FEWEST:
            raise CaptureError(f"{path}: photos: expected {FEWEST} or more of one scene, found {len(photos)}")
        return Gathered(into, photos, False, [f"{path.name}: {len(photos)} photos"])
    if not path.exists():
        raise mismatch(path, "film or folder of photos", "one that is there", "none")
    return _from_film(path, path.name, into, frames, longest)


def _from_film(path: Path, name: str, into: Path, frames: int, longest: int) -> Gathered:
    film = films.open_film(path)
    expected = round(film.seconds * film.fps) or None
    looked = bar(films.read_frames(film, WATCHED, 1), "looking", "frame", expected)
    watched = watch(iter(looked), film.fps or 30.0)
    total = len(watched.motion)
    first, last = longest_take(watched)
    said = [f"{name}: {total} frames of {film.width}x{film.height}, {total / watched.fps:.1f} s"]
    cuts = [f"{cut / watched.fps:.1f} s" for cut in find_cuts(watched)]
    if cuts:
        part = f"{first / watched.fps:.1f} to {last / watched.fps:.1f} s"
        said.append(f"it was cut at {', '.join(cuts)}: only the longest part, {part}, is used")
    if last - first < FEWEST:
        where = " between its cuts" if cuts else ""
        raise CaptureError(
            f"{name}: frames: expected {FEWEST} or more{where}, found {last - first}: film for about ten seconds without a break"
        )
    if np.median(watched.contrast[first:last]) < PLAIN:
        raise CaptureError(
            f"{name}: frames: expected something to be seen in them, found one plain shade: is there light, and texture behind you?"
        )
    choice = choose(watched, frames, first, last)
    if len(choice.frames) < FEWEST:
        raise CaptureError(
            f"{name}: frames: expected {FEWEST} or more that differ, found {len(choice.frames)}: move the camera while it films"
        )
    photos = _write_frames(film, into, choice.frames, choice.blurred, longest, watched.fps)
    said.append(f"{len(photos)} frames chosen, sharp ones spread over time and motion")
    return Gathered(into, photos, True, said, choice.frames, total)


def _write_frames(
    film: films.Film, into: Path, frames: list[int], blurred: list[bool], longest: int, fps: float
) -> list[Photo]:
    photos: list[Photo] = []
    wanted = dict(zip(frames, blurred))
    for number, picture in enumerate(bar(films.read_frames(film, longest), "frames", "frame", frames[-1] + 1)):
        if number in wanted:
            name = f"{number:06d}"
            file = into / f"{name}.jpg"
            Image.fromarray(picture).save(file, quality=95, subsampling=0)
            source, (height, width) = f"frame {number} at {number / fps:.1f} s", picture.shape[:2]
            photos.append(Photo(name, source, file, width, height, place=number, blurred=wanted[number]))
        if number >= frames[-1]:
            break
    return photos


def take_masks(masks: Path, gathered: Gathered, into: Path) -> Path:
    """Masks that a person gives, as pycolmap reads them: a folder of `<photo's file>.png`, black where it looks away.

    Args:
        masks: a folder with a picture for each photo, by its name, or for each frame of the film, in order; or a film as
            long as the first. White is what moves.

    Raises SceneError where they don't fit the photos.
    """
    into.mkdir()
    for photo, mask in zip(gathered.photos, _pictures(masks, gathered)):
        fitted = Image.fromarray(mask).resize((photo.width, photo.height), Image.Resampling.NEAREST)
        Image.fromarray(np.where(np.asarray(fitted) > 127, 0, 255).astype(np.uint8)).save(
            into / f"{photo.file.name}.png"
        )
    return into


def _pictures(masks: Path, gathered: Gathered) -> list[np.ndarray]:
    if masks.is_file():
        wanted = set(gathered.frames or [])
        if not wanted:
            raise mismatch(masks, "masks", "a folder, as the photos are in one", "a film")
        film = films.open_film(masks)
        found = {i: frame for i, frame in enumerate(films.read_frames(film, channels=1)) if i in wanted}
        if len(found) < len(wanted):
            raise mismatch(masks, "masks", f"{gathered.total} frames, as the film has", "fewer")
        return [found[frame] for frame in gathered.frames or []]
    files = list_images(masks)
    if gathered.frames is not None:
        if len(files) != gathered.total:
            raise mismatch(masks, "masks", f"{gathered.total} pictures, one a frame of the film", f"{len(files)}")
        return [read_mask(files[frame]) for frame in gathered.frames]
    found_files = [find_image(masks / p.source) or find_image(masks / Path(p.source).stem) for p in gathered.photos]
    for photo, file in zip(gathered.photos, found_files):
        if file is None:
            raise mismatch(
                masks / f"{Path(photo.source).stem}.png", "mask", f"one for the photo {photo.source}", "none"
            )
    return [read_mask(file) for file in found_files if file is not None]
