"""The person in the room at any instant."""

from __future__ import annotations

from pathlib import Path

from data.selfie_studio import hair, motion
from data.selfie_studio.body import Sweater
from data.selfie_studio.head import Head
from data.selfie_studio.room import build_room
from data.selfie_studio.stage import Stage
from data.selfie_studio.wardrobe import materials


class Performer:
    """Head, hair, sweater and room, built once; `scene(instant)` poses them."""

    def __init__(self, head_path: Path, work: Path):
        self.head = Head(head_path)
        self.sweater = Sweater(self.head)
        self.head.cover(self.sweater.hides(self.head))
        self.scalp = hair.ScalpHair(self.head)
        self.lashes = hair.Lashes(self.head)
        self.follicles = {"brows": hair.brows(self.head), "beard": hair.beard(self.head)}
        self.stage = Stage(build_room(), materials(self.head), work)
        self._last: tuple[int, object] | None = None  # both cameras film one scene

    def scene(self, instant: int):
        """The renderer's scene at an instant."""
        if self._last is None or self._last[0] != instant:
            self._last = (instant, self._build(instant))
        return self._last[1]

    def _build(self, instant: int):
        pose, lens = motion.pose_at(instant), motion.camera_at(instant).position
        vertices = self.head.vertices(pose, lens)
        surfaces = {**self.head.surfaces(vertices), **self.sweater.surfaces(pose)}
        strands = {name: follicles.posed(vertices) for name, follicles in self.follicles.items()}
        strands |= {**self.scalp.posed(self.head, pose), "lashes": self.lashes.posed(vertices)}
        return self.stage.load(self.stage.person(surfaces, strands))
