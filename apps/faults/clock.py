"""How long a part of the trial goes on, what it says meanwhile, and how it is ended early."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EVERY = 30.0  # seconds between lines


class Clock:
    """A part's time.

    Args:
        part: its name, for the lines.
        seconds: how long it goes on.
    """

    stopped = False  # all parts

    def __init__(self, part: str, seconds: float) -> None:
        self.part, self.until, self.told = part, time.time() + seconds, time.time()

    def running(self) -> bool:
        """Whether there is time left, and nobody pressed Ctrl-C."""
        return not Clock.stopped and time.time() < self.until

    def tell(self, said: str) -> None:
        """Print a line with the time left, twice a minute at most."""
        now = time.time()
        if now - self.told >= EVERY:
            self.told = now
            minutes, rest = divmod(max(0, round(self.until - now)), 60)
            left = f"; {minutes}:{rest:02d} left" if now < self.until else ""
            print(f"{self.part}: {said}{left}", flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first Ctrl-C ends all parts, which keep their figures; the second one ends the program."""

    def stop(number: int, frame: FrameType | None) -> None:
        Clock.stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        Clock.stopped = False
