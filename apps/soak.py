"""Whether the viewer can be left on: `python -m apps.soak --minutes 30` has people at its page, and a training in it, all the time.

The viewer runs as a process of its own. Browsers turn the scene, change modes, scrub time, compare photos, order films and take
them home, fit a photo, drop a scene, close their tabs and come back (apps/visitors.py), while its memory, threads, open files and
temporary files are counted. In the end a line is fitted to each, which says whether it grows.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from apps.ablation import insert
from apps.browsing import chromium, viewer
from apps.faults.seeds import nerfies
from apps.faults.target import put
from apps.growth import EVERY, Sample, figures, markdown, plot, verdict
from apps.visitors import Visitor, pack, paint
from data.errors import SceneError
from data.files import write_atomically
from data.scene import load_scene
from nerf.cli import budget_seconds
from nerf.config import ConfigError

MARKERS = ("<!-- soak -->", "<!-- /soak -->")
KEPT = 60.0  # seconds for which the runs before the present one stay
TEMPORARY = ("runs/uploads", "runs/page", "tmp")  # where the viewer, Gradio and others put what isn't to stay


@dataclass(frozen=True)
class Options:
    """Leave the viewer on with people at its page, and see whether it grows.

    Example: python -m apps.soak --minutes 30 --browsers 3 --out runs/soak

    Needs Linux, playwright (pip install playwright) and Chromium.
    """

    minutes: float = 30.0
    """How long."""
    browsers: int = 3
    """People at the page."""
    scene: Path = Path("data/selfie")
    """A folder of posed photos; it is trained again and again."""
    downscale: int = 4
    """Read its photos reduced by this whole factor."""
    budget: str = "15s"
    """Of each training."""
    out: Path = Path("runs/soak")
    """Folder for soak.json, soak.md, soak.png and viewer.log."""
    docs: Path | None = None
    """A text whose table is replaced, such as docs/reliability.md. Default: none."""


def family(pid: int) -> list[int]:
    """A process and all that it has started, directly or not."""
    found = [pid]
    for one in found:
        for file in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(child) for child in file.read_text().split()]
    return found


def sample(pid: int, folder: Path, seconds: float) -> Sample:
    """Look at the viewer. Raises OSError where it is gone."""
    fields, files = _status(pid), len(list(Path(f"/proc/{pid}/fd").iterdir()))
    children = 0.0
    for child in family(pid)[1:]:
        with suppress(OSError):  # gone meanwhile
            children += _resident(_status(child))
    temporary = sum(_bytes(folder / name) for name in TEMPORARY) / 1e6
    return Sample(seconds, _resident(fields), int(fields["Threads"]), files, children, temporary)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _resident(status: dict[str, str]) -> float:
    """MB; a process that is ending has none."""
    return int(status.get("VmRSS", "0 kB").split()[0]) * 1024 / 1e6


def _bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            total += file.lstat().st_size if file.is_file() else 0
    return total


def watch(options: Options, work: Path) -> tuple[list[Sample], list[Visitor], str]:
    """The viewer with people at it, for as long as was asked; samples, people, and what it said."""
    (work / "tmp").mkdir()
    scene, name = pack(_small(work), work / "ball.zip"), options.scene.resolve().name
    photo, log = paint(work / "waves.png"), options.out.resolve() / "viewer.log"
    arguments = [
        "--train", str(options.scene.resolve()), "--downscale", str(options.downscale), "--budget", options.budget,
    ]  # fmt: skip
    over = threading.Event()
    samples: list[Sample] = []
    with viewer(arguments, work, log, {"TMPDIR": str(work / "tmp")}) as (address, process):
        people = [
            Visitor(address, k, over, scene, photo, None if k else name, options.budget, options.downscale)
            for k in range(options.browsers)
        ]
        for one in people:
            one.start()
        began = time.monotonic()
        try:
            while (seconds := time.monotonic() - began) < 60 * options.minutes and process.poll() is None:
                samples.append(sample(process.pid, work, seconds))
                _tidy(work / "runs")
                last = samples[-1]
                print(f"\r{seconds / 60:5.1f} min  {last.memory:6.0f} MB  {last.threads} threads", end="", flush=True)
                time.sleep(max(0.0, began + len(samples) * EVERY - time.monotonic()))
        except OSError:  # the viewer is gone, which its end will tell
            pass
        finally:
            print()
            over.set()
            for one in people:
                one.join(60)
        alive = process.poll() is None
    if process.returncode or not alive:
        people[0].errors.append(f"viewer: ended{' by itself' * (not alive)} with code {process.returncode}; see {log}")
    return samples, people, log.read_text(errors="replace")


def _small(work: Path) -> Path:
    """A scene of a few KB."""
    put(work / "ball", nerfies())
    return work / "ball"


def _tidy(runs: Path) -> None:
    """Remove runs that were moved aside for a newer one: no person needs them here, and each has a hundred MB."""
    for old in runs.glob("*.old*"):
        with suppress(OSError):
            if time.time() - old.stat().st_ctime > KEPT:
                shutil.rmtree(old)


def run(options: Options) -> tuple[str, bool]:
    """Soak, and write the figures down; the tables, and whether anything was amiss."""
    if not Path("/proc/self/status").exists():
        raise ConfigError("expected Linux, whose /proc tells of a process' memory, found another system")
    for name, value, least in (("minutes", options.minutes, 0.1), ("browsers", options.browsers, 1)):
        if value < least:
            raise ConfigError(f"--{name}: expected at least {least:g}, found {value:g}")
    budget_seconds(options.budget)
    load_scene(options.scene, options.downscale)  # what can't be read is said before the time is spent
    if options.docs is not None:
        insert(options.docs.read_text(), "", options.docs, MARKERS)
    with chromium():
        pass  # there is one
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as work:
        samples, people, log = watch(options, Path(work))
    if len(samples) < 3:
        raise ConfigError(f"expected a viewer that goes on, found one that ended; see {options.out / 'viewer.log'}")
    done: Counter[str] = sum((one.counts for one in people), Counter())
    errors = [error for one in people for error in one.errors]
    errors += ["viewer: a traceback in viewer.log"] * ("Traceback" in log)
    told: dict[str, Any] = {
        "minutes": samples[-1].seconds / 60, "browsers": options.browsers, "budget": options.budget,
        "trainings": 1 + done["start a training"], "figures": figures(samples), "done": dict(done), "errors": errors,
        "console": [text for one in people for text in one.console],
        "samples": [asdict(one) for one in samples],
    }  # fmt: skip
    text = markdown(told)
    write_atomically(options.out / "soak.json", json.dumps(told).encode())
    write_atomically(options.out / "soak.md", text.encode())
    plot(samples, options.out / "soak.png")
    if options.docs is not None:
        whole = insert(options.docs.read_text(), f"\n{text}", options.docs, MARKERS)
        write_atomically(options.docs, whole.encode())
    for error in [*errors, *told["console"]][:20]:
        print(error, file=sys.stderr)
    return text, bool(verdict(told["figures"]) or errors or told["console"])


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 1 where something grew or went wrong, 2 for bad input, 130 after Ctrl-C."""
    options = tyro.cli(Options, args=arguments, prog="python -m apps.soak")
    try:
        text, wrong = run(options)
    except (ConfigError, SceneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written down", file=sys.stderr)
        return 130
    print(text)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
