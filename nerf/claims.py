"""Who works on what, where several machines share a folder and nothing else.

A claim is a small file, `<name>.<number>`, that only one process can create. It holds who claimed, is touched every few seconds
as long as its holder lives, and says in the end what came of it. Numbers only grow, and nothing is ever removed: the
highest one counts. To take a claim over, from one that is released or from a holder that is dead, is to create the next number.
So two that see the same dead holder compete for one name, and one that decided on what it saw long ago finds its name taken.

A holder is dead where its file hasn't changed for PATIENCE seconds of the observer's own clock, so that clocks needn't agree; or,
seen from its own machine, where its process is gone.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from data.files import write_atomically

BEAT = 5.0  # seconds between two touches of a claim that is held
PATIENCE = 60.0  # seconds without one, after which its holder is dead; disks over networks tell of changes late
HELD = "held"
End = Literal["done", "failed", "stopped"]


@dataclass(frozen=True)
class Claim:
    """The newest claim on a name, as its file has it.

    Attributes:
        number: how many there were before it.
        state: "held", or what came of it: "done", "failed" or "stopped".
        host, pid, started: whose it is, and since when (its own clock, for people).
        said: of what failed, a sentence.
        machine, born: which kernel and processes the pid is one of, and when that one began; "" where the system doesn't say.
        touched: the file's time, in ns.
    """

    name: str
    number: int
    state: str
    host: str
    pid: int
    started: str
    said: str
    machine: str
    born: str
    touched: int


class Held:
    """A claim of our own."""

    def __init__(self, claims: Claims, name: str, number: int, handle: int) -> None:
        self.name, self.number = name, number
        self._path, self._next = claims.place(name, number), claims.place(name, number + 1)
        self._handle = handle  # of the file itself, whatever its name then leads to
        self._beaten = time.monotonic()
        self._told = {
            "state": HELD, "host": socket.gethostname(), "pid": os.getpid(), "said": "",
            "started": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": machine(), "born": born(os.getpid()),
        }  # fmt: skip
        os.write(handle, json.dumps(self._told).encode())

    def beat(self) -> bool:
        """Show that its holder lives, where it is time. False: others have taken it over."""
        if time.monotonic() - self._beaten >= BEAT:
            self._beaten = time.monotonic()
            with suppress(OSError):  # a disk that is away for a moment; away for longer, and others take over
                os.utime(self._handle)
        return not self._next.exists()

    def release(self, state: End, said: str = "") -> None:
        """Give it back, and tell what came of it."""
        os.close(self._handle)
        write_atomically(self._path, json.dumps(self._told | {"state": state, "said": said}).encode())


class Claims:
    """The claims in a folder. Args: now: a clock that runs alike wherever it is asked; seconds."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._now = folder, now
        self._seen: dict[str, tuple[int, int, float, bool]] = {}  # number, time of the file, ours, whether it has moved
        folder.mkdir(parents=True, exist_ok=True)

    def place(self, name: str, number: int) -> Path:
        """A claim's file."""
        return self.folder / f"{quote(name, safe='')}.{number:04d}"

    def newest(self) -> dict[str, Claim]:
        """The claim that counts of each name that was ever claimed."""
        numbers: dict[str, int] = {}
        for file in os.listdir(self.folder):
            stem, _, number = file.rpartition(".")
            if number.isdecimal():
                name = unquote(stem)
                numbers[name] = max(int(number), numbers.get(name, 0))
        found = {name: self._read(name, number) for name, number in numbers.items()}
        for name, claim in found.items():
            before = self._seen.get(name)
            if before is None or before[:2] != (claim.number, claim.touched):
                moved = before is not None and before[0] == claim.number
                self._seen[name] = claim.number, claim.touched, self._now(), moved
        return found

    def take(self, name: str, after: Claim | None) -> Held | None:
        """Claim a name after its newest claim, as `newest` saw it; None: another was faster."""
        number = 0 if after is None else after.number + 1
        try:
            handle = os.open(self.place(name, number), os.O_CREAT | os.O_EXCL | os.O_RDWR)
        except FileExistsError:
            return None
        return Held(self, name, number, handle)

    def before(self, held: Held) -> Claim | None:
        """The claim that was taken over, as it is now: its holder may have come to an end in the meantime."""
        return self._read(held.name, held.number - 1) if held.number else None

    def dead(self, claim: Claim) -> bool:
        """Whether the holder of a claim that `newest` has given is gone."""
        if claim.machine and claim.machine == machine() and born(claim.pid) != claim.born:
            return True
        return self._now() - self._seen[claim.name][2] > PATIENCE

    def alive(self, claim: Claim) -> bool:
        """Whether the holder of a claim that `newest` has given was seen at work."""
        here = bool(claim.machine) and claim.machine == machine() and born(claim.pid) == claim.born
        return (here or self._seen[claim.name][3]) and not self.dead(claim)

    def _read(self, name: str, number: int) -> Claim:
        told: dict[str, Any] = {}
        # Opened first: over a network, that is when a file's time is asked for anew.
        with (
            open(self.place(name, number), "rb") as file,
            suppress(ValueError, TypeError),
        ):  # empty: created a moment ago
            touched = os.fstat(file.fileno()).st_mtime_ns
            told = dict(json.loads(file.read()))
        return Claim(
            name, number, told.get("state", HELD), told.get("host", "?"), told.get("pid", 0), told.get("started", "?"),
            told.get("said", ""), told.get("machine", ""), told.get("born", ""), touched,
        )  # fmt: skip


def machine() -> str:
    """Which processes this one is among: the start of the kernel and the container's own numbering; "" where Linux doesn't say."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def born(pid: int) -> str:
    """When a process of this machine began, in ticks since its start; "": there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
