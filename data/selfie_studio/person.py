"""The person at any instant, as meshes and strands; nothing here needs the renderer."""

from __future__ import annotations

from pathlib import Path

from data.selfie_studio import hair, motion
from data.selfie_studio.body import Sweater
from data.selfie_studio.head import Head
from data.selfie_studio.shapes import Strands, Surface


class Person:
    """Head, hair and sweater, built once; `shapes(instant)` poses them, cm."""

    def __init__(self, head_path: Path):
        self.head = Head(head_path)
        self.sweater = Sweater(self.head)
        self.head.cover(self.sweater.hides(self.head))
        self.scalp = hair.ScalpHair(self.head)
        self.lashes = hair.Lashes(self.head)
        self.follicles = {"brows": hair.brows(self.head), "beard": hair.beard(self.head)}

    def shapes(self, instant: int) -> tuple[dict[str, Surface], dict[str, Strands]]:
        """Every part's surface and every kind of hair. A part has the same triangles at all instants."""
        pose, lens = motion.pose_at(instant), motion.camera_at(instant).position
        vertices = self.head.vertices(pose, lens)
        surfaces = {**self.head.surfaces(vertices), **self.sweater.surfaces(pose)}
        strands = {name: follicles.posed(vertices) for name, follicles in self.follicles.items()}
        strands |= {**self.scalp.posed(self.head, pose), "lashes": self.lashes.posed(vertices)}
        return surfaces, strands
