"""Targets among films, folders of photos to capture, and what is given to `siren`: sounds, films, pictures, surfaces, networks."""

from __future__ import annotations

from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from apps.faults import seeds, signals
from apps.faults.mutate import OUTSIDE, spoilt_file, spoilt_npy, spoilt_photo
from apps.faults.target import Target, Wrong, put
from data.capturing.gather import Gathered, gather, take_masks
from data.errors import SceneError
from siren.audio import load_sound, sample_sound
from siren.image import read_image
from siren.loop import FitError
from siren.pde import read_slowness
from siren.prior_files import load_prior
from siren.sdf_read import read_shape
from siren.signal_io import read_film
from siren.tiles import Mosaic
from siren.video import load_film, sample_frame
from siren.wav import read_wav

PHOTOS, LONGEST, FRAMES = 9, 32, 10
SLOW = 8  # rounds between films, which take ffmpeg


def _film(folder: Path, random: Random) -> None:
    kind = random.choice(signals.KINDS)
    (folder / OUTSIDE).write_bytes(signals.film(".mp4"))
    (folder / "in").mkdir()
    (folder / "in" / f"film{kind}").write_bytes(signals.spoilt_film(kind, random))


def _take_film(folder: Path) -> None:
    """The frames of a film up to where poses would be sought."""
    file = next((folder / "in").iterdir())
    with redirect_stderr(StringIO()):  # the bar
        found = gather(str(file), folder / "in" / "photos", FRAMES, LONGEST, 1.0)
    _check_gathered(found, FRAMES)
    _check_own(file)


def _check_own(file: Path) -> None:
    if file.read_bytes()[:8] in (b"ffconcat", b"#EXTM3U\n"):
        raise Wrong("expected a playlist to be refused, found that it was followed")


def _check_gathered(found: Gathered, most: int) -> None:
    if not 8 <= len(found.photos) <= most or len({photo.name for photo in found.photos}) != len(found.photos):
        raise Wrong(f"expected 8 to {most} photos, found {[photo.name for photo in found.photos]}")
    for photo in found.photos:
        with Image.open(photo.file) as image:
            if image.size != (photo.width, photo.height) or max(image.size) > LONGEST:
                raise Wrong(f"{photo.name}: expected {photo.width}x{photo.height}, found {image.size}")
        if photo.focal is not None and not 0 < photo.focal < float("inf"):
            raise Wrong(f"{photo.name}: expected a positive focal length, found {photo.focal}")


def _folder(folder: Path, random: Random) -> None:
    """Photos and masks for a capture, some of them spoilt."""
    (folder / OUTSIDE).write_bytes(seeds.photo(0))
    photos = {f"in/photos/{i}.{('jpg', 'png')[i % 2]}": seeds.photo(i, size=(24, 16)) for i in range(PHOTOS)}
    masks = {f"in/masks/{i}.png": seeds.photo(i, "L", (24, 16)) for i in range(PHOTOS)}
    files = photos | masks
    for name in random.sample(sorted(photos if random.random() < 0.8 else masks), random.randint(1, 2)):
        files[name] = _odd_photo(files[name], random)
    if random.random() < 0.1:
        del files[random.choice(sorted(files))]
    put(folder, files)


def _odd_photo(data: bytes, random: Random) -> bytes:
    """A spoilt photo, or a good one whose EXIF says odd things."""
    from io import BytesIO

    if random.random() < 0.6:
        return spoilt_photo(data, random)
    out, exif = BytesIO(), Image.Exif()
    exif[0x0112] = random.choice((0, 1, 3, 6, 8, 9, 65535))
    exif[0x010F], exif[0x0110] = random.choice(("x", "x" * 5000, "\n")), "y"
    focal = random.choice((0, 1, 26, 65535, 2**31))
    with suppress(Exception):  # what the file can't hold is left out
        exif.get_ifd(0x8769)[0xA405] = focal
        Image.new("RGB", random.choice(((24, 16), (16, 24), (1, 1), (400, 2)))).save(out, "JPEG", exif=exif)
        return out.getvalue()
    return data


def _take_folder(folder: Path) -> None:
    with redirect_stderr(StringIO()):
        found = gather(str(folder / "in" / "photos"), folder / "in" / "copies", FRAMES, LONGEST, 1.0)
    _check_gathered(found, PHOTOS)
    with suppress(SceneError) if not (folder / "in" / "masks").is_dir() else redirect_stderr(StringIO()):
        take_masks(folder / "in" / "masks", found, folder / "in" / "looked")


def _take_signal_film(folder: Path) -> None:
    file = next((folder / "in").iterdir())
    film = read_film(file, None, 2, 1 << 24)
    if film.frames.dtype != np.uint8 or film.frames.nbytes > 1 << 24 or not 0 < film.fps < float("inf"):
        raise Wrong(f"expected at most 16 MB of frames, found {film.frames.shape} at {film.fps}")
    _check_own(file)


def _sound(folder: Path, random: Random) -> None:
    (folder / "x.wav").write_bytes(signals.spoilt_sound(random))


def _take_sound(folder: Path) -> None:
    sound = read_wav(folder / "x.wav")
    if not np.isfinite(sound.samples).all() or not 0 < sound.seconds < float("inf"):
        raise Wrong(f"expected finite samples, found {sound.samples.shape} at {sound.rate}")


def _surface(folder: Path, random: Random) -> None:
    name = random.choice(sorted(signals.surfaces()))
    (folder / name).write_bytes(signals.spoilt_surface(name, random))


def _take_surface(folder: Path) -> None:
    shape = read_shape(next(folder.iterdir()), count=200)
    if not (np.isfinite(shape.points).all() and np.isfinite(shape.normals).all()) or np.abs(shape.points).max() > 1.001:
        raise Wrong("expected points in the cube [-1, 1]^3 and finite normals, found others")


def _network(folder: Path, random: Random) -> None:
    name = random.choice(sorted(signals.networks()))
    data = spoilt_file("x.safetensors", signals.networks()[name], random)
    (folder / f"{name}.safetensors").write_bytes(data)


def _take_network(folder: Path) -> None:
    """What the file says, at one place."""
    file = next(folder.iterdir())
    match file.stem:
        case "sound":
            siren, about = load_sound(file)
            if about["samples"] < 1 << 16:
                sample_sound(siren, about)
        case "film":
            siren, about = load_film(file)
            if about["height"] * about["width"] < 1 << 16:
                sample_frame(siren, 0, about["frames"], about["height"], about["width"])
        case "image":
            mosaic = Mosaic.load(file)
            if mosaic.width < 1 << 12:
                mosaic.rows(0, 1)
        case _:
            load_prior(file)


def _numbers(folder: Path, random: Random) -> None:
    value = np.full((6, 5), 2, random.choice((np.float32, np.uint8)))
    (folder / "x.npy").write_bytes(spoilt_npy(seeds.array(value), random))


def _take_numbers(folder: Path) -> None:
    """An array as a picture and as a medium."""
    try:
        read_image(folder / "x.npy", 8)
    except (FitError, SceneError) as error:
        if "\n" in str(error):
            raise
    values = read_slowness(folder / "x.npy")(torch.zeros(1, 2, dtype=torch.float64))
    if not values.isfinite().all():
        raise Wrong("expected finite slownesses, found others")


def media() -> list[Target]:
    """All of them; surfaces only where open3d is installed."""
    import imageio_ffmpeg

    ffmpeg = (imageio_ffmpeg.get_ffmpeg_exe(),)
    said = (SceneError, FitError)
    found = [
        Target("capture: a film", _film, _take_film, said, "in", SLOW, ffmpeg),
        Target("capture: a folder of photos", _folder, _take_folder, said, "in"),
        Target("siren: a film", _film, _take_signal_film, said, "in", SLOW, ffmpeg),
        Target("siren: a sound", _sound, _take_sound, said),
        Target("siren: a network", _network, _take_network, said),
        Target("siren: an array", _numbers, _take_numbers, said),
    ]
    with suppress(ImportError):
        import open3d  # noqa: F401

        found.append(Target("siren: a surface", _surface, _take_surface, said))
    return found
