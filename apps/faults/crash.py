"""Faults of a run: killed at random moments, its files cut and spoilt, its disk full or read-only. What it learns in the end is
compared, bit for bit, with an undisturbed run."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import torch

from apps.faults import seeds
from apps.faults.clock import Clock
from apps.faults.target import put
from data.films import VideoError
from data.scene import load_scene
from nerf import states
from nerf import train as training
from nerf.checkpoint import load_model, saved
from nerf.config import TrainConfig
from nerf.field import HashFieldConfig
from nerf.model import MarchConfig
from nerf.occupancy import OccupancyConfig
from nerf.paths import Rig
from nerf.presets import preset
from nerf.states import KEPT, read_newest

STEPS = 24
ROWS, MANY_ROWS = 6, 16  # log2 of a table's rows; with many, a state takes some MB, and so a while to write
POLL = 0.0003  # seconds between looks at a file that is being written
_HOME = Path(__file__).parents[2]


def config_of(folder: Path, rows: int = ROWS) -> TrainConfig:
    """A moving scene's training, as small as it gets with all its parts."""
    scene = load_scene(folder)
    config = small(preset("instant", scene.moving, scene.background is not None), rows)
    return replace(config, scene=str(folder), steps=STEPS, rays=32, samples=300)


def small(config: TrainConfig, rows: int = ROWS) -> TrainConfig:
    """A preset with a field and a warp as small as they get."""
    field, sampling, warp = config.model.field, config.model.sampling, config.model.warp
    assert isinstance(field, HashFieldConfig) and isinstance(sampling, MarchConfig)
    field = replace(field, log2_rows=rows, finest_resolution=32, levels=2)
    sampling = replace(sampling, occupancy=OccupancyConfig(resolution=8, every=4, survey=32, settle=8))
    warp = None if warp is None else replace(warp, width=16, depth=2)
    return replace(config, model=replace(config.model, field=field, warp=warp, sampling=sampling))


def train(folder: Path, out: Path, until: int = STEPS, said: list[str] | None = None, rows: int = ROWS) -> None:
    """Train into `out`, from its last state if there is one, as far as step `until`, saving after every step; `said` gets what
    is said."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    training.SAVE_EVERY = 0.0
    scene = load_scene(folder)
    if not (out / "cameras.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        Rig.of(scene).save(out)
    for progress in training.train(config_of(folder, rows), scene, out, resume=bool(saved(out))):
        if said is not None:
            said += progress.note.splitlines()
        # Once it is trained it is saved; measuring is another matter.
        if progress.step == until and (until < STEPS or progress.stage):
            break


def learned(out: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's newest state."""
    return read_newest(out).tensors


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two states have the same bits."""
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def make(home: Path) -> tuple[Path, Path]:
    """A scene and an undisturbed run on it, below `home`."""
    scene, run = home / "scene", home / "run"
    shutil.rmtree(home, ignore_errors=True)
    put(scene, seeds.nerfies())
    train(scene, run)
    return scene, run


def killed(scene: Path, home: Path, clock: Clock, random: Random) -> Counter[str]:
    """Start a training, kill it (SIGKILL), start it again, and so on until it ends by itself; then anew. Half of the kills come
    at random times, half while a state is being written."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["apps.faults.crash", "torch.utils.tensorboard"])
    figures: Counter[str] = Counter()
    out, whole = home / "killed", home / "undisturbed"
    for folder in (out, whole):
        shutil.rmtree(folder, ignore_errors=True)
    train(scene, whole, rows=MANY_ROWS)
    expected, size = learned(whole), saved(whole)[0].stat().st_size
    longest, writes = 5.0, 4.0
    while clock.running():
        process = context.Process(target=train, args=(scene, out, STEPS, None, MANY_ROWS))
        process.start()
        aimed = random.random() < 0.5
        if aimed:
            _wait_for_write(
                process.is_alive, out, random.randint(1, max(1, round(writes))), random.uniform(0, 1.3) * size
            )
        else:
            process.join(random.uniform(0.0, longest))
        alive = process.exitcode is None
        if alive and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if Clock.stopped:  # Ctrl-C reached the training, too
            break
        # Some are to end by themselves, however fast the machine is at the moment.
        if aimed:
            writes *= 1.1 if alive else 0.6
        else:
            longest *= 1.1 if alive else 0.6
        figures["killed"] += alive
        figures["killed while a state was written"] += alive and (out / f"{states.CHECKPOINT}.tmp").exists()
        if saved(out):
            note = read_newest(out).note  # raises where nothing can be read
            figures["went on from the state before"] += bool(note)
            figures["went on from a state"] += alive
        if not alive:
            figures["failed"] += process.exitcode != 0
            figures["runs that ended"] += 1
            figures["with the undisturbed run's bits"] += same(learned(out), expected)
            shutil.rmtree(out)
        clock.tell(f"{figures['killed']} killed, {figures['runs that ended']} runs ended")
    return figures


def _wait_for_write(alive: Callable[[], bool], out: Path, writes: int, size: float) -> None:
    """Wait until so many states have begun to be written, and `size` bytes of the last are there or it got its name."""
    draft = out / f"{states.CHECKPOINT}.tmp"
    seen = _size(draft)  # left by the kill before
    while alive():
        now = _size(draft)
        writes -= 0 <= now < seen or (seen < 0 <= now)
        seen = now
        if writes <= 0 and (now < 0 or now >= size):
            return
        time.sleep(POLL)


def _size(file: Path) -> int:
    """In bytes; -1: there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return -1


def spoilt(run: Path, home: Path, clock: Clock, random: Random) -> Counter[str]:
    """Cut or change one or two of a run's states at random places; what is read then must be one that is whole."""
    good = {path.name: path.read_bytes() for path in saved(run)}
    wholes = [states.read(path) for path in saved(run)]
    figures: Counter[str] = Counter()
    out = home / "spoilt"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    while clock.running():
        names = list(good)[: random.choice((1, 1, 2))]
        for name in good:
            data = _damaged(good[name], random, figures) if name in names else good[name]
            (out / name).write_bytes(data)
        state = read_newest(out)
        age = list(good).index(state.path.name)
        if not same(wholes[age].tensors, state.tensors) or (age > 0) != bool(state.note):
            figures["read wrongly"] += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_model(out, "reference")
        figures["read, an older state with a note" if age else "read, as the change made no difference"] += 1
        clock.tell(f"{sum(figures.values())} states read")
    return figures


def _damaged(data: bytes, random: Random, figures: Counter[str]) -> bytes:
    out = bytearray(data)
    header = 8 + int.from_bytes(data[:8], "little")
    at = random.choice((random.randrange(8), random.randrange(header), random.randrange(len(data)), len(data) - 1))
    match random.randrange(4):
        case 0:
            figures["cut short"] += 1
            return data[:at]
        case 1:
            figures["bits turned"] += 1
            out[at] ^= 1 << random.randrange(8)
        case 2:
            figures["pages of zeros"] += 1
            at = at // 4096 * 4096
            out[at : at + 4096] = bytes(len(out[at : at + 4096]))
        case _:
            figures["parts overwritten"] += 1
            out[at : at + 64] = random.randbytes(len(out[at : at + 64]))
    return bytes(out)


def full_disks(scene: Path, run: Path, home: Path) -> Counter[str] | str:
    """Train on small disks that fill up and on one that becomes read-only; figures, or why that can't be tried here."""
    command = ["unshare", "-rm" if os.getuid() else "-m", sys.executable, "-m", "apps.faults.crash"]
    done = subprocess.run([*command, str(scene), str(run), str(home)], capture_output=True, text=True, cwd=_HOME)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def _mounted(place: Path, options: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)


def _on_small_disks(scene: Path, run: Path, home: Path) -> Counter[str]:
    """In a mount namespace of its own: disks of every size from too small for anything to large enough."""
    figures: Counter[str] = Counter()
    size = max(path.stat().st_size for path in saved(run)) // 1024 + 8
    expected = learned(run)
    sizes = [int(size * share) for share in (0.3, 0.9, 1.2, 1.6, 2.05, 2.3, 2.9, 3.1, 3.6, 4.2, 5.2)]
    for kilobytes in (*sizes, 0):
        place = home / f"disk{kilobytes}"
        _mounted(place, f"size={kilobytes or 20 * size}k")
        out = place / "run"
        if not kilobytes:  # becomes read-only once there is something to lose
            train(scene, out, STEPS // 2)
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        figures["disks that were full" if kilobytes else "disks that became read-only"] += 1
        _tried(scene, out, expected, figures)
        subprocess.run(["mount", "-o", f"remount,rw,size={20 * size}k", str(place)], check=True)
        train(scene, out)
        figures["went on to the undisturbed run's bits, given room"] += same(learned(out), expected)
        subprocess.run(["umount", str(place)], check=True)
    return figures


def _tried(scene: Path, out: Path, expected: dict[str, torch.Tensor], figures: Counter[str]) -> None:
    before = len(saved(out))
    said: list[str] = []
    try:
        train(scene, out, STEPS, said)
        figures["trained to the end"] += same(learned(out), expected)
    except (OSError, VideoError) as error:
        figures["ended in a sentence"] += 1
        figures["ended in a sentence of more than one line"] += "\n" in str(error)
    figures["saves that failed and were said"] += sum(line.startswith("not saved:") for line in said)
    if before or saved(out):
        read_newest(out)  # raises where the last good one was lost
        figures["kept a whole state"] += 1
    assert len(saved(out)) <= KEPT


if __name__ == "__main__":
    print(json.dumps(_on_small_disks(*map(Path, sys.argv[1:4]))))
