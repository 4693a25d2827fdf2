"""Points followed through a capture's photos, by dense optical flow from each photo to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.scene import Frame

LONGEST = 512  # pixels: larger photos are followed at this size, which is fine enough for a start
SPACING = 8  # pixels between the points that set out
STARTS = 20  # photos of a capture, at most, from which points set out
EVERY = 5  # photos, at least, between two of those
REACH = 8  # times as many photos as lie between two starts: how far a point is followed
RETURN = 0.6  # pixels by which a point that is followed there and back may miss the place it came from
MARGIN = 2  # pixels of a photo's edge where flow is not believed
REMAP = 16384  # places looked up at once; OpenCV takes less than 32768
NO_GUESS: Any = None  # the flow that OpenCV would start from
SMALLEST = 16  # pixels: below this the flow has no coarse level to begin with


class Tracks(NamedTuple):
    """Where points were seen: sighting s shows `point[s]` in frame `photo[s]` at `pixel[s]` (centres at +0.5)."""

    photo: Int[Tensor, "s"]
    point: Int[Tensor, "s"]
    pixel: Float[Tensor, "s 2"]


def follow(frames: Sequence[Frame], masked: bool = False) -> Tracks:
    """Follow a grid of points from every few photos forward in time, for as long as flow there and back agrees.

    Flow is Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", down to the photo's own pixels. Photos
    in no order in time agree hardly anywhere, and yield next to nothing.

    Args:
        frames: photos of any cameras; each camera's are followed in order of time, while their size stays the same.
        masked: leave out sightings that the photo's mask excludes.
    """
    order = sorted(range(len(frames)), key=lambda i: (frames[i].camera_id, frames[i].time))
    every = max(EVERY, math.ceil(len(frames) / STARTS))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    points = 0
    for chain in _chains(frames, order):
        points = _follow_chain(frames, chain, every, points, found)
    if not found:
        return Tracks(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))
    photo, point, pixel = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found))
    tracks = Tracks(photo, point, pixel.float())
    return _unmasked(frames, tracks) if masked else tracks


def _chains(frames: Sequence[Frame], order: list[int]) -> list[list[int]]:
    """Runs of photos of one camera and size."""
    chains: list[list[int]] = [[order[0]]]
    for before, after in pairwise(order):
        a, b = frames[before], frames[after]
        if a.camera_id == b.camera_id and _size(a) == _size(b):
            chains[-1].append(after)
        else:
            chains.append([after])
    return [chain for chain in chains if len(chain) > 1 and min(_size(frames[chain[0]])) >= SMALLEST]


def _size(frame: Frame) -> tuple[int, int]:
    return frame.camera.width, frame.camera.height


def _follow_chain(frames: Sequence[Frame], chain: list[int], every: int, points: int, found: list) -> int:
    """Follow points through one run of photos, adding sightings to `found`; returns the number of points so far."""
    import cv2  # heavy, and not needed by runs that don't follow points

    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    here, scale = _grey(frames[chain[0]])
    height, width = here.shape
    v, u = np.mgrid[SPACING // 2 : height : SPACING, SPACING // 2 : width : SPACING]
    grid = np.stack([u.ravel(), v.ravel()], axis=-1).astype(np.float32)
    at, names, age = np.zeros((0, 2), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
    for place, index in enumerate(chain):
        if place % every == 0:
            at, age = np.concatenate([at, grid]), np.concatenate([age, np.zeros(len(grid), np.int64)])
            names = np.concatenate([names, points + np.arange(len(grid))])
            points += len(grid)
        found.append((np.full(len(at), index), names, (at + 0.5) / scale))
        if place + 1 == len(chain):
            break
        there, _ = _grey(frames[chain[place + 1]])
        moved = at + _at(flow.calc(here, there, NO_GUESS), at)
        missed = np.linalg.norm(moved + _at(flow.calc(there, here, NO_GUESS), moved) - at, axis=1)
        inside = ((moved >= MARGIN) & (moved < np.array([width, height]) - MARGIN - 1)).all(1)
        keep = (missed < RETURN) & inside & (age < REACH * every)
        at, names, age, here = moved[keep], names[keep], age[keep] + 1, there
    return points


def _grey(frame: Frame) -> tuple[np.ndarray, float]:
    """A photo's brightness, and its size as a share of the photo's."""
    import cv2

    grey = cv2.cvtColor(frame.image.numpy(), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, LONGEST / max(grey.shape))
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return grey, scale


def _at(flow: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Flow at places "n 2" between pixels."""
    import cv2

    parts = np.array_split(place[None], len(place) // REMAP + 1, axis=1)
    edge = cv2.BORDER_REPLICATE
    moved = [cv2.remap(flow, p[..., 0], p[..., 1], cv2.INTER_LINEAR, borderMode=edge) for p in parts if p.size]
    return np.concatenate(moved, axis=1)[0] if moved else np.zeros((0, 2), np.float32)


def _unmasked(frames: Sequence[Frame], tracks: Tracks) -> Tracks:
    keep = torch.ones(len(tracks.photo), dtype=torch.bool)
    for index, frame in enumerate(frames):
        if frame.mask is not None:
            mine = (tracks.photo == index).nonzero().squeeze(1)
            column, row = tracks.pixel[mine].long().unbind(-1)
            keep[mine] = frame.mask[row, column] > 127
    return Tracks(*(part[keep] for part in tracks))
