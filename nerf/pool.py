"""What training draws from where photos stay on the disk: some pixels of every photo, drawn anew photo by photo.

Every batch sees all photos, so that a moving scene's instants learn together, and pixels are drawn as evenly as from whole photos. A run
of minutes draws fewer pixels than a few hundred megabytes hold; a longer one meets others as their turn comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate

import torch
from jaxtyping import Int32, UInt8
from torch import Tensor

from data.photos import Drawn, PhotoOnDisk

# A photo is decoded again every so many steps at the soonest, or once about this many pixels for each that it has in memory
# have been drawn: decoding takes a tenth of a second of a processor.
SOONEST, DRAWN_A_STEP = 16, 1 << 13
AHEAD = 2  # photos that are decoded before their turn


class Pool:
    """Pixels of photos, one photo after the other.

    Which pixels there are at a step follows from the step alone, so a run that is resumed goes on with the same.

    Args:
        photos: those to train on.
        cut_out: their masks are their opacity, and exclude nothing.
        device: where the pixels are.

    Attributes:
        rgb, opacities: of every pixel; opacities are there for cut-out photos.
        within: its place in its photo.
        starts: where each photo's pixels begin, and the end of the last one's.
        every: steps from one photo's turn to the next one's.
    """

    def __init__(self, photos: Sequence[PhotoOnDisk], cut_out: bool, device: torch.device | str) -> None:
        self.photos, self.cut_out, self.device = photos, cut_out, device
        self.workers = ThreadPoolExecutor(1)
        first = deque(photo.draw(not cut_out, 0) for photo in photos)
        self.bounds = [0, *accumulate(len(drawn.within) for drawn in first)]
        self.starts = torch.tensor(self.bounds).to(device)
        total = self.bounds[-1]
        self.rgb: UInt8[Tensor, "n 3"] = torch.empty(total, 3, dtype=torch.uint8, device=device)
        self.within: Int32[Tensor, "n"] = torch.empty(total, dtype=torch.int32, device=device)
        self.opacities: UInt8[Tensor, "n"] | None = None
        if cut_out:
            self.opacities = torch.full((total,), 255, dtype=torch.uint8, device=device)
        for number in range(len(photos)):
            self._put(number, first.popleft())  # let go as soon as it has its place
        self.every = max(SOONEST, total // max(len(photos), 1) // DRAWN_A_STEP)
        self.turns = 0  # that were taken
        self.coming: deque[Future[Drawn]] = deque()

    def turn(self, step: int) -> None:
        """Bring in what a run has at this step. Raises SceneError where a photo can't be read any more."""
        due = step // self.every
        if due - self.turns > len(self.photos):  # a run that is resumed: of each photo, only its last turn counts
            self.coming.clear()
            self.turns = due - len(self.photos)
        while self.turns < due:
            self._look_ahead(self.turns + 1 + AHEAD)
            self._put(self.turns % len(self.photos), self.coming.popleft().result())
            self.turns += 1
        self._look_ahead(due + AHEAD)

    def _look_ahead(self, until: int) -> None:
        """Have the photos decoded whose turns come before `until`."""
        while self.turns + len(self.coming) < until:
            turn = self.turns + len(self.coming)
            photo = self.photos[turn % len(self.photos)]
            self.coming.append(self.workers.submit(photo.draw, not self.cut_out, 1 + turn // len(self.photos)))

    def _put(self, number: int, drawn: Drawn) -> None:
        mine = slice(self.bounds[number], self.bounds[number + 1])
        self.rgb[mine], self.within[mine] = drawn.rgb.to(self.device), drawn.within.to(self.device)
        if self.opacities is not None and drawn.mask is not None:
            self.opacities[mine] = drawn.mask.to(self.device)
