"""Photos' pixels: in memory, or on the disk for scenes that are larger than it.

A photo that stays on the disk is decoded whenever it is looked at. Training does not look at it for every batch: it draws
from some of its pixels, spread evenly over it, which are drawn anew from time to time (nerf/pool.py).
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from torch import Tensor
from tqdm import tqdm

from data.camera import Camera
from data.errors import mismatch
from data.images import area_average, border, composite, has_opacity, image_size, read_mask, read_pixels, to_uint8
from data.shots import Shot, fit_lens, read_covisible
from data.sizes import said

# Bytes that a pixel takes: of a photo in memory, and of each of its masks; of a file while it is decoded, and with an alpha
# or a mask (measured, with Pillow's own); of a pixel that training draws from, twice while it is handed on.
COLOURS, MASK, DECODED, CUT_OUT, DRAWN = 3, 1, 16, 48, 2 * 8


@dataclass
class Photo:
    """A photo in memory.

    Attributes:
        image: colours; of cut-out photos on the scene's background.
        mask, covisible: as `Frame` has them.
        cut_out: the mask is the file's alpha.
    """

    image: UInt8[Tensor, "h w 3"]
    mask: UInt8[Tensor, "h w"] | None = None
    covisible: UInt8[Tensor, "h w"] | None = None
    cut_out: bool = False

    @property
    def masked(self) -> bool:
        """Whether it has a mask."""
        return self.mask is not None


class Drawn(NamedTuple):
    """Some pixels of a photo: where they lie in it, row by row, their colours, and its mask there."""

    within: Int32[Tensor, "n"]
    rgb: UInt8[Tensor, "n 3"]
    mask: UInt8[Tensor, "n"] | None


class PhotoOnDisk:
    """A photo that is decoded whenever it is looked at.

    Args:
        decode: does it.
        number: its place among the scene's photos, so that no two draw alike.
        share: of its pixels, how many a training set keeps in memory; 0: none.
    """

    def __init__(self, decode: Callable[[], Photo], number: int, share: float) -> None:
        self.decode, self.number, self.share = decode, number, share
        self.masked = self.cut_out = False
        self._first: Drawn | None = None

    def remember(self, photo: Photo) -> None:
        """Keep what is to be known of it, now that it has been decoded: whether it has a mask, and its first pixels."""
        self.masked, self.cut_out = photo.masked, photo.cut_out
        if self.share > 0:
            self._first = self._pick(photo, photo.masked and not photo.cut_out, 0)

    def draw(self, excluding: bool, turn: int) -> Drawn:
        """The pixels that it is represented by in its `turn`-th turn, numbers from nothing but the photo's own and the turn's.

        Args:
            excluding: pixels outside of the mask aren't drawn.

        Raises SceneError where the file is not what it was.
        """
        first, self._first = self._first, None
        excluding = excluding and self.masked
        if turn == 0 and first is not None and excluding == (self.masked and not self.cut_out):
            return first
        return self._pick(self.decode(), excluding, turn)

    def _pick(self, photo: Photo, excluding: bool, turn: int) -> Drawn:
        """One pixel from each of as many equal parts of those that may be drawn."""
        allowed = (photo.mask.reshape(-1) > 127).nonzero().squeeze(1) if excluding and photo.mask is not None else None
        total = photo.image.shape[0] * photo.image.shape[1] if allowed is None else len(allowed)
        count = min(round(self.share * total) or min(total, 1), total)
        spread = np.random.default_rng((self.number, turn)).random(count)
        place = torch.from_numpy(((np.arange(count) + spread) * (total / max(count, 1))).astype(np.int64))
        within = place.clamp_(max=total - 1) if allowed is None else allowed[place.clamp_(max=total - 1)]
        mask = None if photo.mask is None else photo.mask.reshape(-1)[within]
        return Drawn(within.int(), photo.image.reshape(-1, 3)[within], mask)

    @property
    def image(self) -> UInt8[Tensor, "h w 3"]:
        """Its colours, decoded."""
        return _last.of(self).image

    @property
    def mask(self) -> UInt8[Tensor, "h w"] | None:
        """Its mask, decoded."""
        return _last.of(self).mask if self.masked else None

    @property
    def covisible(self) -> UInt8[Tensor, "h w"] | None:
        """Its covisibility, decoded."""
        return _last.of(self).covisible


class _Last:
    """The photo that was looked at last: whoever asks for its colours asks for its mask next."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.photo: PhotoOnDisk | None = None
        self.found: Photo | None = None

    def of(self, photo: PhotoOnDisk) -> Photo:
        with self.lock:
            if self.photo is not photo or self.found is None:
                self.photo = self.found = None  # before another takes its memory
                self.photo, self.found = photo, photo.decode()
            return self.found


_last = _Last()


class Plan(NamedTuple):
    """How a scene's photos are held.

    Attributes:
        workers: photos that are decoded at once.
        pixels: of each photo, as it is to be read.
        share: of every training photo's pixels, those in memory; None: photos are held whole.
    """

    workers: int
    pixels: list[int]
    share: float | None = None


def plan(shots: Sequence[Shot], source: Path, downscale: int, memory: int | None) -> Plan:
    """How to hold photos in so many bytes, from their headers alone. Raises SceneError where the largest can't even be decoded in
    them. None: in half of what the machine has to spare."""
    pixels, held, largest = [], 0, 0
    for shot in shots:
        width, height = image_size(shot.image)
        left = max(1.0, downscale / shot.reduced)
        pixels.append(max(1, round(width / left)) * max(1, round(height / left)))
        masked = shot.mask is not None or has_opacity(shot.image)
        held += pixels[-1] * (COLOURS + MASK * (masked + (shot.covisible is not None)))
        largest = max(largest, (CUT_OUT if masked else DECODED) * width * height)
    most = min(8, os.cpu_count() or 1)
    memory = spare() if memory is None else memory
    if memory is None or held <= memory:
        # Together with what they are decoded in, where that is possible: a photo that fits in memory at all is tried.
        return Plan(most if memory is None else max(1, min(most, (memory - held) // largest)), pixels)
    if 2 * largest > memory:
        least = said(min(2 * largest, held))
        raise mismatch(source, "memory", f"at least {least} for photos of this size", said(memory))
    workers = min(most, memory // 2 // largest)
    trained = sum(count for shot, count in zip(shots, pixels) if not shot.test)
    return Plan(workers, pixels, min((memory - workers * largest) / (DRAWN * trained), 1.0))


def spare() -> int | None:
    """Bytes that photos may take where nobody says: half of what the machine has to spare, shared with the processes that
    torchrun has started beside this one."""
    free = available()
    return None if free is None else free // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def available() -> int | None:
    """Bytes of memory that programs may still take without any being pushed out; None: the system doesn't say."""
    found = []
    for file, pattern, unit in (
        ("/proc/meminfo", r"^MemAvailable:\s*(\d+) kB$", 1024),
        ("/sys/fs/cgroup/memory.max", r"^(\d+)$", 1),  # a container's limit
    ):
        with suppress(OSError, UnicodeDecodeError):
            match = re.search(pattern, Path(file).read_text(), re.MULTILINE)
            found += [] if match is None else [int(match[1]) * unit]
    if not found:
        with suppress(AttributeError, OSError, ValueError):  # such as Windows
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


class Loaded(NamedTuple):
    """A photo, and what the scene's own settings are found from.

    Attributes:
        lens: at the photo's size as it is read.
        border: colours along its edges "n 3".
        span: its lowest and highest value.
    """

    photo: Photo | PhotoOnDisk
    lens: Camera
    border: UInt8[np.ndarray, "n 3"]
    span: tuple[int, int]


def load_photos(shots: Sequence[Shot], source: Path, downscale: int, chosen: Plan) -> list[Loaded]:
    """Decode all photos, in threads, so that one that is broken is found before anything else is done; those that are to
    stay on the disk are forgotten again. A bar appears where it takes more than two seconds."""

    # The same threads decode photos again later: memory that a thread has had stays with it.
    pool = ThreadPoolExecutor(chosen.workers)
    places = _places(shots, chosen.pixels) if chosen.share is None else []

    def load(number: int, shot: Shot) -> Loaded:
        lens, photo = _decode(shot, source, downscale)
        image = photo.image.numpy()
        seen = lens, border(image), (int(image.min()), int(image.max()))
        if chosen.share is None:
            photo.image = places[number].copy_(photo.image.reshape(-1, 3)).view(photo.image.shape)
            return Loaded(photo, *seen)
        share = 0.0 if shot.test else chosen.share
        kept = PhotoOnDisk(lambda: pool.submit(_decode, shot, source, downscale).result()[1], number, share)
        kept.remember(photo)
        return Loaded(kept, *seen)

    jobs = [pool.submit(load, number, shot) for number, shot in enumerate(shots)]
    try:
        bar = tqdm(jobs, desc="photos", unit="photo", delay=2, leave=False, disable=not sys.stderr.isatty())
        return [job.result() for job in bar]
    except BaseException:
        for job in jobs:
            job.cancel()
        raise
    finally:
        if chosen.share is None:
            pool.shutdown()


def _places(shots: Sequence[Shot], pixels: Sequence[int]) -> list[UInt8[Tensor, "_ 3"]]:
    """Memory for every photo's pixels, those of the training photos one after the other, which is how training draws from them."""
    order = sorted(range(len(shots)), key=lambda i: shots[i].test)
    parts = torch.empty(sum(pixels), 3, dtype=torch.uint8).split([pixels[i] for i in order])
    return [part for _, part in sorted(zip(order, parts), key=lambda item: item[0])]


def side_by_side(photos: Sequence[Photo]) -> UInt8[Tensor, "n 3"]:
    """The pixels of photos one after the other: where they lie so already, the same memory."""
    flat = [photo.image.reshape(-1, 3) for photo in photos]
    first, at = flat[0], flat[0].data_ptr()
    for part in flat:
        if part.data_ptr() != at or part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return torch.cat(flat)
        at += part.nbytes
    return first.as_strided((sum(len(part) for part in flat), 3), (3, 1))


def _decode(shot: Shot, source: Path, downscale: int) -> tuple[Camera, Photo]:
    """A photo and its lens, as they are to be read. Raises SceneError."""
    try:
        return _read(shot, source, downscale)
    except MemoryError:
        raise mismatch(
            shot.image, "memory", "enough to decode it in", "too little; close other programs, or make it smaller"
        ) from None


def _read(shot: Shot, source: Path, downscale: int) -> tuple[Camera, Photo]:
    rgb, opacity = read_pixels(shot.image, (shot.lens.width, shot.lens.height))
    size = rgb.shape[1], rgb.shape[0]
    lens = fit_lens(shot.lens, size, shot.image, source)
    left = max(1.0, downscale / shot.reduced)
    width, height = (max(1, round(s / left)) for s in size)
    transparent = opacity is not None and bool((opacity < 255).any())
    cut_out = transparent and not shot.alpha_masks
    if cut_out or (width, height) != size:
        rgb = to_uint8(area_average(composite(rgb, opacity if cut_out else None, 1.0), width, height))
    mask = opacity if cut_out else None
    if mask is None and shot.mask is not None:
        mask = read_mask(shot.mask)
        if mask.shape != (size[1], size[0]):
            raise mismatch(shot.mask, "size", f"{size[0]}x{size[1]} as the photo", f"{mask.shape[1]}x{mask.shape[0]}")
    elif transparent and shot.alpha_masks:
        mask = opacity
    covisible = _fitted(read_covisible(shot, size), width, height)
    return lens.scaled(1 / left, width, height), Photo(
        torch.from_numpy(rgb), _fitted(mask, width, height), covisible, cut_out
    )


def _fitted(mask: np.ndarray | None, width: int, height: int) -> Tensor | None:
    return None if mask is None else torch.from_numpy(to_uint8(area_average(mask[..., None], width, height))[..., 0])
