"""The person in the room at any instant."""

from __future__ import annotations

from pathlib import Path

from data.selfie_studio.person import Person
from data.selfie_studio.room import build_room
from data.selfie_studio.stage import Stage
from data.selfie_studio.wardrobe import materials


class Performer:
    """A person and a room, built once; `scene(instant)` poses the one in the other."""

    def __init__(self, head_path: Path, work: Path):
        self.person = Person(head_path)
        self.stage = Stage(build_room(), materials(self.person.head), work)
        self._last: tuple[int, object] | None = None  # both cameras film one scene

    def scene(self, instant: int):
        """The renderer's scene at an instant."""
        if self._last is None or self._last[0] != instant:
            self._last = (instant, self.stage.load(self.stage.person(*self.person.shapes(instant))))
        return self._last[1]
