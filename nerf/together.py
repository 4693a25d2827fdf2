"""Ranks: processes that train one scene together, on one machine or on many, started by `torchrun`.

Every rank holds the whole model and draws rays of its own; nerf/exchange.py adds up what they learn from them. A process
that torchrun didn't start, or the only one that it started, is alone: nothing here then does anything.

Two groups of the same ranks differ in how long they wait for a rank that says nothing. Between training steps a rank is
lost after PATIENCE; where one of them renders, measures or loads while the others wait, after LONG.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from nerf.trainer import Trainer

T = TypeVar("T")

PATIENCE, LONG = timedelta(seconds=30), timedelta(minutes=30)
JOB = "torchrun.txt"  # in a run's folder: the torchrun job that it belongs to
NO_NAME = "none"  # what torchrun calls a job without --rdzv-id

_steps: Any = None  # the group between steps


class Lost(RuntimeError):
    """Another rank has ended, or can't be reached any more."""


@contextmanager
def _heard() -> Iterator[None]:
    """Around messages: what the transport says when they don't arrive, as a `Lost`."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).splitlines()[0][:200]
        raise Lost(f"another process was lost, or the way to it: {said}") from error


def join() -> None:
    """Meet the other ranks and share this machine's processors and GPUs with those on it."""
    global _steps
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1 or dist.is_initialized():
        return
    local, beside = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if beside > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":  # torchrun's; another number is a person's
        torch.set_num_threads(max(1, processors() // beside))
    cards = torch.cuda.device_count()
    if cards:
        torch.cuda.set_device(local % cards)
    # NCCL takes one rank a GPU; more share it through the host.
    nccl = cards >= beside and dist.is_nccl_available()
    store, own, size = next(dist.rendezvous("env://", timeout=LONG))
    store = dist.PrefixStore(meeting(store, own, size), store)
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
    dist.init_process_group(backend, store=store, rank=own, world_size=size, timeout=LONG)
    _steps = dist.new_group(timeout=PATIENCE)


def meeting(store: dist.Store, rank: int, size: int) -> str:
    """A name that these ranks have in common and no other start of theirs had.

    torchrun keeps one store over restarts, in which addresses of processes that are gone would be found. So the first rank
    calls with a new name and the others answer with names of their own, which tells them its reply from an old one.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set("call", mine)
        answers = [store.get(f"answer/{mine}/{k}").decode() for k in range(1, size)]
        store.set(f"reply/{mine}", json.dumps(["", *answers]))
        return mine
    while True:
        call = store.get("call").decode()
        store.set(f"answer/{call}/{rank}", mine)
        while store.get("call").decode() == call:
            if store.check([f"reply/{call}"]) and json.loads(store.get(f"reply/{call}"))[rank] == mine:
                return call
            time.sleep(0.05)


def leave() -> None:
    """Part from the other ranks, once all have come as far as this."""
    global _steps
    if not alone():
        wait()
        dist.destroy_process_group()
        _steps = None


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rank() -> int:
    """This process's number, from 0."""
    return 0 if alone() else dist.get_rank()


def world() -> int:
    """How many ranks there are."""
    return 1 if alone() else dist.get_world_size()


def alone() -> bool:
    """No other rank is there."""
    return not dist.is_initialized()


def first() -> bool:
    """This is the rank that writes and prints."""
    return rank() == 0


def part(count: int) -> int:
    """This rank's share of `count` things; all ranks' shares add up to it."""
    return count // world() + (rank() < count % world())


def wire(device: torch.device) -> torch.device:
    """Where tensors of a device have to be for the other ranks to get them."""
    return device if device.type == "cuda" and "nccl" in dist.get_backend_config() else torch.device("cpu")


def add(values: Tensor) -> None:
    """Replace values by their sum over the ranks, the same bits on all of them. Between steps."""
    with _heard():
        dist.all_reduce(values, group=_steps)


def raise_to_highest(values: Tensor) -> None:
    """Replace values by the highest of any rank's. Between steps."""
    sent = values.to(wire(values.device))
    with _heard():
        dist.all_reduce(sent, dist.ReduceOp.MAX, group=_steps)
    values.copy_(sent)


def follow_first(values: Tensor) -> None:
    """Replace values by the first rank's. Between steps."""
    with _heard():
        dist.broadcast(values, 0, group=_steps)


def collect(values: Tensor) -> list[Tensor]:
    """Every rank's values, of one shape. Between steps."""
    found = [torch.empty_like(values) for _ in range(world())]
    with _heard():
        dist.all_gather(found, values, group=_steps)
    return found


def wait() -> None:
    """Wait until all ranks have come as far as this."""
    if not alone():
        with _heard():
            dist.all_reduce(torch.zeros(1))


def anyone(wish: bool) -> bool:
    """Whether any rank says yes."""
    if alone():
        return wish
    said = torch.tensor([float(wish)])
    with _heard():
        dist.all_reduce(said)
    return bool(said > 0)


def one_a_machine(work: Callable[[], str]) -> str:
    """Do something on the first rank, then on the first of every other machine, which may see the same disk or not."""
    said = ""
    for turn in (first(), not first() and os.environ.get("LOCAL_RANK") == "0"):
        if turn:
            said = work()
        wait()
    return said


def gather(data: bytes) -> list[bytes]:
    """Every rank's bytes, on every rank."""
    if alone():
        return [data]
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]
    with _heard():
        dist.all_gather(sizes, torch.tensor([len(data)]))
    padded = torch.zeros(max(1, *map(int, sizes)), dtype=torch.uint8)
    padded[: len(data)] = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    found = [torch.empty_like(padded) for _ in sizes]
    with _heard():
        dist.all_gather(found, padded)
    return [rows[: int(size)].numpy().tobytes() for rows, size in zip(found, sizes)]


def own(items: Sequence[T]) -> Sequence[T]:
    """The items that fall to this rank: every so many-th."""
    return items if alone() else items[rank() :: world()]


def merged(done: list[Any]) -> list[Any]:
    """What the ranks made of their `own` items (as JSON can hold it), in the items' order, on every rank."""
    if alone():
        return done
    parts = [json.loads(text) for text in gather(json.dumps(done).encode())]
    return [row for turn in range(len(parts[0])) for row in (p[turn] for p in parts if turn < len(p))]


def in_turns(items: Sequence[T], draw: Callable[[T], np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures of one size in the items' order, the ranks drawing one each at a time. The first rank gets them all, the
    others none."""
    for start in range(0, len(items), world()):
        mine = start + rank()
        picture = draw(items[mine]) if mine < len(items) else np.zeros(0, np.uint8)
        everyone = gather(picture.tobytes())
        if first():
            yield from (np.frombuffer(data, np.uint8).reshape(picture.shape) for data in everyone if data)


def goes_on(out: Path, there: bool) -> bool:
    """Whether this job has been at work in `out` before, so that it goes on with its run rather than begin another.

    torchrun counts restarts after a fault, but neither those for a machine that came or went nor the first start of that
    machine's own processes. So the job's name is written down, where it has one; call this once, before training.

    there: a checkpoint is in `out`.
    """
    if not dist.is_torchelastic_launched():
        return False
    name = os.environ.get("TORCHELASTIC_RUN_ID", NO_NAME)
    known = (out / JOB).is_file() and (out / JOB).read_text() == name != NO_NAME
    return anyone(there and (known or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0))


def mark(out: Path) -> None:
    """Write down which torchrun job the run in `out` belongs to."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", NO_NAME)
    if dist.is_torchelastic_launched() and name != NO_NAME:
        (out / JOB).write_text(name)


def share(trainer: Trainer, save: Callable[[Path, Trainer], None], restore: Callable[[Path, Trainer], object]) -> None:
    """Give every rank the state of the one that is furthest, and random numbers of its own.

    It travels as the files of a checkpoint, which `save` writes and `restore` reads, so ranks needn't share a disk.
    """
    if alone():
        return
    steps = [int(data) for data in gather(str(trainer.step).encode())]
    source = steps.index(max(steps))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if rank() == source:
            save(folder, trainer)
        names = json.loads(gather(json.dumps(sorted(p.name for p in folder.iterdir())).encode())[source])
        for name in names:
            data = _spread((folder / name).read_bytes() if rank() == source else b"", source)
            if rank() != source:
                (folder / name).write_bytes(data)
        if rank() != source:
            restore(folder, trainer)
    if not first():
        seeds = np.random.SeedSequence([trainer.config.seed, rank(), trainer.step])
        trainer.generator.manual_seed(int(seeds.generate_state(1)[0]))


def _spread(data: bytes, source: int) -> bytes:
    """The bytes of one rank, on every rank."""
    size = torch.tensor([len(data)])
    with _heard():
        dist.broadcast(size, source)
    values = torch.zeros(int(size), dtype=torch.uint8)
    if rank() == source:
        values.copy_(torch.from_numpy(np.frombuffer(data, np.uint8).copy()))
    with _heard():
        dist.broadcast(values, source)
    return values.numpy().tobytes()
