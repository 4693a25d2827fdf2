"""Where points of the skin and the sweater are at each instant, and which photos see them: `motion.npz`.

photos "p"          names of the training photos
middle "n 3"        float32: each point's mean place over the clip, metres
offset "i n 3"      float16: how far it is from there at each instant, metres
seen "p ceil(n/8)"  bits, most significant first: whether a photo sees a point
part "n"            uint8: what each point lies on, an index into
parts "k"           names
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from data.selfie_studio import motion
from data.selfie_studio.head import to_room
from data.selfie_studio.person import Person
from data.selfie_studio.shapes import Strands, Surface
from data.selfie_studio.sight import visible

PARTS = ("skin", "sweater")
FOLLOWED = {"M_Face": 0, "M_BackHead": 0, "sweater": 1, "collar": 1}  # eyes and teeth only hide what is behind them
HAIR = ("hair", "hair_light")  # brows, lashes and stubble are a part of the skin that they ride on
COUNT, DRAWN = 1500, 40000  # points, and those drawn on all of the surface, of which enough are seen
SEED = 3


class Posed:
    """The person at one instant, metres: one mesh with the followed parts first, and the hair before it."""

    def __init__(self, person: Person, instant: int):
        surfaces, strands = person.shapes(instant)
        followed = [surfaces[name] for name in FOLLOWED]
        others = [surface for name, surface in surfaces.items() if name not in FOLLOWED]
        self.positions, self.triangles = _joined(followed + others)
        sizes = [len(surface.triangles) for surface in followed]
        self.part = np.repeat(np.array(list(FOLLOWED.values()), np.uint8), sizes)  # of each followed triangle
        self.hair = [Strands(to_room(strands[name].points), strands[name].radii * 0.01) for name in HAIR]

    def places(self, own: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Points "n 3" by their triangles "n" and barycentric weights "n 3"."""
        return np.einsum("nk,nkd->nd", weights, self.positions[self.triangles[own]])

    def seen(self, camera: motion.PosedCamera, own: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Whether a camera sees points "n"."""
        return visible(camera, self.positions, self.triangles, self.places(own, weights), own, self.hair)


def _joined(surfaces: list[Surface]) -> tuple[np.ndarray, np.ndarray]:
    first = np.cumsum([0] + [len(surface.positions) for surface in surfaces])
    triangles = [surface.triangles + start for surface, start in zip(surfaces, first)]
    return to_room(np.concatenate([surface.positions for surface in surfaces])), np.concatenate(triangles)


def draw(posed: Posed, cameras: list[motion.PosedCamera]) -> tuple[np.ndarray, np.ndarray]:
    """COUNT points by triangle "n" and weights "n 3", uniform by area over all that any of the cameras sees of a pose."""
    rng = np.random.default_rng(SEED)
    a, b, c = posed.positions[posed.triangles[: len(posed.part)].T]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    own = rng.choice(len(area), DRAWN, p=area / area.sum())
    u, v = rng.random((2, DRAWN))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], 1)
    seen = np.zeros(DRAWN, bool)
    for camera in cameras:
        left = np.flatnonzero(~seen)
        seen[left] = posed.seen(camera, own[left], weights[left])
    chosen = np.flatnonzero(seen)[:COUNT]
    if len(chosen) < COUNT:
        raise AssertionError(f"of {DRAWN} points {len(chosen)} are seen, expected {COUNT}")
    return own[chosen], weights[chosen]


def write_motion(path: Path, head_path: Path, photos: list[tuple[str, int]]) -> None:
    """Write `path` for the training photos (name, instant); two minutes of one core."""
    person, start = Person(head_path), time.time()
    cameras = [motion.camera_at(instant) for _, instant in photos]
    middle = Posed(person, motion.INSTANTS // 2)
    own, weights = draw(middle, cameras)
    places, seen = [], np.zeros((len(photos), COUNT), bool)
    for instant in range(motion.INSTANTS):
        posed = Posed(person, instant)
        places.append(posed.places(own, weights))
        for row, (_, when) in enumerate(photos):
            if when == instant:
                seen[row] = posed.seen(cameras[row], own, weights)
        pace = (time.time() - start) / (instant + 1)
        print(
            f"\rpoints at instant {instant}, {pace * (motion.INSTANTS - instant - 1):.0f} s left ", end="", flush=True
        )
    print()
    mean = np.mean(places, 0).astype(np.float32)
    np.savez_compressed(
        path, photos=np.array([name for name, _ in photos]), middle=mean,
        offset=(np.stack(places) - mean).astype(np.float16), seen=np.packbits(seen, axis=1),
        part=middle.part[own], parts=np.array(PARTS),
    )  # fmt: skip
