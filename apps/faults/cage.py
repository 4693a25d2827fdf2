"""A child process in which cases are tried: its memory, its files and its time are bounded, and every file that it opens is
looked at. What goes wrong is written down with the case's number, by which it can be repeated."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from apps.faults.clock import Clock

MEMORY = 1 << 30  # bytes that the cases may take beyond what the program itself has
FILES = 256 << 20  # bytes of any one file that is written
HANG = 60.0  # seconds for one case
TOLD = 5.0  # seconds between a child's figures
_HOME = Path(__file__).parents[2]
# Looked at by the interpreter itself: its modules, its own source for warnings, its random numbers.
_KNOWN = tuple(map(str, (sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys", "/dev", "/etc/mime", _HOME)))


class Outside(AssertionError):
    """A file beyond the case's own folder was touched, a program started, or a pickle opened."""


@dataclass
class Watch:
    """Sees every file that is opened while it is on."""

    folder: str | None = None
    programs: tuple[str, ...] = ()  # that may be started
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "subprocess.Popen" and str(arguments[0] or arguments[1][0]) in self.programs:
            return
        if event in (
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "socket.connect",
            "pickle.find_class",
        ):
            self.seen.append(f"{event} {arguments[:2]!r}")
        elif event in (
            "open",
            "os.remove",
            "os.rename",
            "os.mkdir",
            "os.rmdir",
            "os.link",
            "os.symlink",
            "os.truncate",
        ):
            for given in arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
                if isinstance(given, (str, bytes, os.PathLike)) and not self._inside(os.fsdecode(given)):
                    self.seen.append(f"{event} {given!r}")

    def _inside(self, name: str) -> bool:
        place = os.path.abspath(name)
        return place.startswith((f"{self.folder}/", *_KNOWN)) or place == self.folder


WATCH = Watch()


@contextmanager
def watched(folder: Path, inner: str = "", programs: tuple[str, ...] = ()) -> Iterator[None]:
    """Raises Outside at the end where anything but `folder`, or what lies below `folder/inner`, was touched, or a program
    started that isn't one of `programs`."""
    WATCH.seen, WATCH.programs = [], programs
    WATCH.folder = str(folder / inner if inner else folder)
    try:
        yield
    finally:
        WATCH.folder = None
    if WATCH.seen:
        raise Outside("; ".join(WATCH.seen[:5]))


def bound() -> None:
    """Bound this process for the rest of its life."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILES, FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def serve(run: Path, home: Path, first: int, step: int, until: float) -> None:
    """Try cases `first`, `first + step`, ... until that time; the child's whole life."""
    import torch

    from apps.faults.target import attempt, clear, rounds
    from apps.faults.targets import targets

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    torch.set_num_threads(1)
    sys.addaudithook(WATCH)
    every = targets(run)
    log = open(home / f"log-{first % step}.jsonl", "a", buffering=1)  # noqa: SIM115 (open for life)
    trace = open(home / f"trace-{first % step}.txt", "w")  # noqa: SIM115
    for target in every:  # what is loaded late is loaded before memory is counted
        _one(target, home / f"case-{first % step}", -1, attempt, clear)
    bound()
    case, counts = first, {target.name: [0, 0] for target in every}
    every = rounds(every)
    told = 0.0
    while True:  # one case at least
        target = every[case % len(every)]
        (home / f"now-{first % step}").write_text(str(case))
        faulthandler.dump_traceback_later(HANG, exit=True, file=trace)
        fault = _one(target, home / f"case-{first % step}", case, attempt, clear)
        faulthandler.cancel_dump_traceback_later()
        if isinstance(fault, bool):
            counts[target.name][fault] += 1
        else:
            log.write(json.dumps({"case": case, "target": target.name, "fault": fault}) + "\n")
        if time.time() - told > TOLD:
            told = time.time()
            _tell(home, first % step, case, counts)
        case += step
        if time.time() >= until:
            break
    _tell(home, first % step, case, counts)


def main(told: list[str]) -> None:
    """The child's command line: run, home, first, step, until."""
    run, home, first, step, until = told
    serve(Path(run), Path(home), int(first), int(step), float(until))


def _one(target: Any, folder: Path, case: int, attempt: Any, clear: Any) -> bool | str:
    """Whether the case was read, or the fault that it showed."""
    clear(folder)
    random = Random(f"{target.name} {case}")
    target.prepare(folder, random)
    try:
        with watched(folder, target.inner, target.programs):
            return attempt(target, folder)
    except BaseException:
        return traceback.format_exc()


def _tell(home: Path, own: int, case: int, counts: dict[str, list[int]]) -> None:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)  # ffmpeg is one of the children
    peak = max(resource.getrusage(one).ru_maxrss for one in who) * 1024
    told = {"case": case, "counts": counts, "peak": peak, "pid": os.getpid()}
    draft = home / f"told-{own}-{os.getpid()}.tmp"
    draft.write_text(json.dumps(told))
    os.replace(draft, home / f"told-{own}-{os.getpid()}.json")


def fuzz(run: Path, home: Path, clock: Clock, workers: int, first: int = 0) -> dict[str, Any]:
    """Try cases for that long in `workers` processes at once; one that ends early is written down and replaced."""
    home.mkdir(parents=True, exist_ok=True)
    began, ended = time.time(), []
    alive = {w: _start(run, home, first + w, workers, clock.until) for w in range(workers)}
    while alive and not Clock.stopped:
        time.sleep(0.5)
        for worker, process in list(alive.items()):
            if process.poll() is None:
                continue
            del alive[worker]
            if process.returncode:
                case = int((home / f"now-{worker}").read_text())
                trace = (home / f"trace-{worker}.txt").read_text()
                ended.append({"case": case, "target": "", "fault": f"exit code {process.returncode}\n{trace}"})
                if clock.running():
                    alive[worker] = _start(run, home, case + workers, workers, clock.until)
        so_far = _summed(home, ended)
        cases = sum(map(sum, so_far["counts"].values()))
        clock.tell(f"{cases:,} cases, {len(so_far['faults'])} faults")
    for process in alive.values():
        process.terminate()
        process.wait()
    told = {"seconds": time.time() - began, "workers": workers, "first": first}
    return _summed(home, ended) | told


def _start(run: Path, home: Path, first: int, step: int, until: float) -> subprocess.Popen[bytes]:
    (home / f"now-{first % step}").write_text(str(first))
    code = "import sys; from apps.faults.cage import main; main(sys.argv[1:])"
    told = [str(run), str(home), str(first), str(step), str(until)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen([sys.executable, "-c", code, *told], env=environment, cwd=_HOME)


def _summed(home: Path, ended: list[dict[str, Any]]) -> dict[str, Any]:
    """Cases read and refused by target, the faults, and the most memory that a child had."""
    counts: dict[str, list[int]] = {}
    peak = 0
    for file in home.glob("told-*.json"):
        told = json.loads(file.read_text())
        peak = max(peak, told["peak"])
        for name, (refused, read) in told["counts"].items():
            have = counts.setdefault(name, [0, 0])
            have[0], have[1] = have[0] + refused, have[1] + read
    faults = [json.loads(line) for file in home.glob("log-*.jsonl") for line in file.read_text().splitlines()]
    return {"counts": counts, "peak": peak, "faults": faults + ended}
