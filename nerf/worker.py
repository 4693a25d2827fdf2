"""What one machine does of a queue: it claims scenes, trains each in a process of its own, and tells what came of it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from nerf import together
from nerf.claims import PATIENCE, Claim, Claims, End, Held
from nerf.evaluate import METRICS
from nerf.kernels.backends import ON_GPU
from nerf.standings import markdown, outcome, replace, row
from nerf.states import saved

OWN = ".queue"  # in the folder of the runs: the claims, and what all of them were told
TABLE, LOG = "queue.md", "queue.log"
LOOK = 0.2  # seconds between two looks at the processes; at the claims, five times as many


@dataclass
class _Child:
    """A training that goes on. place: the GPU that it has, or ""."""

    held: Held
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    slot: int
    place: str


class Worker:
    """The part of the work that this machine does.

    Args:
        folder, names: the scenes.
        out: where the runs go.
        arguments: for nerf.train.
        workers: how many scenes at a time; cards: the GPUs, by CUDA's names, that they share.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        out: Path,
        arguments: list[str],
        workers: int,
        cards: list[str],
        wait: bool,
    ) -> None:
        self.folder, self.names, self.out, self.arguments = folder, names, out, arguments
        self.workers, self.cards, self.wait = workers, cards, wait
        self.claims = Claims(out / OWN)
        now = self.claims.newest()
        self.retried = {name: claim.number for name, claim in now.items() if claim.state == "failed"}
        self.foreign = {name for name in names if name not in now and (saved(out / name) or self._measured(name))}
        self.children: list[_Child] = []
        self.asked = 0  # how often to stop
        self._doubted: set[str] = set()

    def run(self) -> int:
        """Work until there is nothing left to claim; the command's exit code."""
        for name in sorted(self.foreign):
            say(f"{name}: not trained: {self.out / name} holds a run that isn't this queue's; move it away")
        kept = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        looks = 0
        try:
            while True:
                for child in list(self.children):
                    self._watch(child)
                if self.asked and not self.children:
                    break
                if not self.asked and looks % 5 == 0 and len(self.children) < self.workers and not self._begin():
                    break
                looks += 1
                time.sleep(LOOK)
        finally:
            for child in self.children:  # a fault of ours
                child.process.kill()
            for number, handler in kept.items():
                signal.signal(number, handler)
        return self._end()

    def _ask(self, *_: object) -> None:
        self.asked += 1
        for child in self.children:
            child.process.send_signal(signal.SIGTERM if self.asked == 1 else signal.SIGKILL)
        if self.asked == 1 and self.children:
            say("stopping; trainings are saved (once more: at once)")

    def _begin(self) -> bool:
        """Claim scenes for the workers that are idle; False: there is nothing left that this machine could do."""
        now = self.claims.newest()
        own = {child.held.name for child in self.children}
        for name in self.names:
            if len(self.children) == self.workers or self.asked:
                return True
            if name not in own and self._open(name, now.get(name)):
                held = self.claims.take(name, now.get(name))
                if held is not None:
                    self._start(held)
        others = [now[name] for name in self.names if name in now and name not in own and now[name].state == "held"]
        unsure = [claim for claim in others if not self.claims.alive(claim)]
        for claim in unsure:
            if claim.name not in self._doubted:
                self._doubted.add(claim.name)
                say(f"{claim.name}: claimed by {claim.host} since {claim.started}; taken over unless it is heard of")
        return bool(self.children or unsure or (self.wait and others))

    def _open(self, name: str, claim: Claim | None) -> bool:
        """Whether a scene is there to be claimed."""
        if claim is None:
            return name not in self.foreign
        match claim.state:
            case "held":
                return self.claims.dead(claim)
            case "done":
                return not self._measured(name)  # somebody has removed the run
            case "failed":
                return claim.number == self.retried.get(name)
        return True

    def _measured(self, name: str) -> bool:
        return (self.out / name / METRICS).is_file()

    def _start(self, held: Held) -> None:
        """Train a scene that was claimed."""
        before, run = self.claims.before(held), self.out / held.name
        if before is not None and before.state == "done" and self._measured(held.name):
            held.release("done")  # it wasn't dead after all
            return
        slot = min(set(range(self.workers)) - {child.slot for child in self.children})
        card = self.cards[slot % len(self.cards)] if self.cards else ""
        run.mkdir(parents=True, exist_ok=True)
        resume = ["--resume"] if saved(run) else []
        command = [*program(), "--scene", str(self.folder / held.name), "--out", str(run), *self.arguments, *resume]
        log = open(run / LOG, "ab")  # noqa: SIM115 (for as long as the process)
        log.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} {platform.node()}: {' '.join(command)}\n".encode())
        log.flush()
        # In a session of its own: the terminal's Ctrl-C is this process's to pass on, once.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=self._environment(card), preexec_fn=_dies_with_us() if sys.platform == "linux" else None,
        )  # fmt: skip
        place = f"GPU {card}" if card else ""
        self.children.append(_Child(held, process, log, slot, place))
        verb = "goes on from its checkpoint" if resume else "begins"
        say(
            f"{held.name}: {verb}{' on ' * bool(place)}{place} ({self.names.index(held.name) + 1} of {len(self.names)})"
        )

    def _environment(self, card: str) -> dict[str, str]:
        """A training's: its GPU, and its share of the processors unless somebody has said how many threads."""
        more = {"CUDA_VISIBLE_DEVICES": card} if card else {}
        if self.workers > 1 and "OMP_NUM_THREADS" not in os.environ:
            more["OMP_NUM_THREADS"] = str(max(1, together.processors() // self.workers))
        return {**os.environ, "PYTHONUNBUFFERED": "1", **more}

    def _watch(self, child: _Child) -> None:
        """Keep a training's claim, and see whether it has ended."""
        held, code = child.held, child.process.poll()
        if code is None:
            if held.beat():
                return
            child.process.kill()
            child.process.wait()
            say(f"{held.name}: taken over by another machine, which hadn't heard of this one for {PATIENCE:.0f} s")
        child.log.close()
        self.children.remove(child)
        state: End = "stopped"
        said = ""
        if code == 0 and self._measured(held.name):
            state = "done"
            say(f"{held.name}: {row(self.out / held.name)}")
        elif code is not None and not self.asked:
            state, said = "failed", outcome(code, self.out / held.name / LOG)
            say(f"{held.name}: failed: {said}")
        held.release(state, said)
        self._tell()

    def _tell(self) -> str:
        """The table, written and returned."""
        table = markdown(self.out, self.names, self.claims.newest(), self.foreign)
        with suppress(OSError):  # it is on the screen too
            replace(self.out / TABLE, table)
        return table

    def _end(self) -> int:
        print(f"\n{self._tell()}\n{self.out / TABLE}")
        now = self.claims.newest()
        if self.asked:
            print("stopped, and saved what was trained. Go on with the same command")
            return 130
        left = [claim for name, claim in now.items() if claim.state == "held" and name in self.names]
        if left:
            print("still trained elsewhere: " + ", ".join(f"{claim.name} ({claim.host})" for claim in left))
        failed = [name for name in self.names if name in self.foreign or (name in now and now[name].state == "failed")]
        if failed:
            print(f"not trained: {', '.join(failed)}. The same command tries again", file=sys.stderr)
        return int(bool(failed))


def say(text: str) -> None:
    """A line for people, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def program() -> list[str]:
    """What trains a scene, without its arguments."""
    return [sys.executable, "-m", "nerf.train"]


def gpus(backend: str) -> list[str]:
    """This machine's GPUs by the names that CUDA_VISIBLE_DEVICES takes, for kernels that run there."""
    count = torch.cuda.device_count() if backend in ("auto", *ON_GPU) else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(card) for card in range(count)]


def _dies_with_us() -> Callable[[], None]:
    """For a child before it becomes another program: whoever takes over from a parent that was killed must not find it at work."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return prepare
