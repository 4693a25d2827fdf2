"""One thread in which all work with networks is done, a slice at a time, shared among the people who wait for it.

A network that trains while it is looked at, films and fits beside it, several people with a camera each: on a few cores they
would fight for the same threads and tear each other's weights. So every piece of work is a generator that yields
between slices of some milliseconds, and the engine decides whose slice is next: start-time fair queueing (Goyal, Vin and
Cheng 1996) of owners, and of each owner's tasks, where a clock runs by the seconds used over the weight and the one that
is furthest behind goes on. Who has nothing to do, or is paused, earns no credit and owes none.

What a generator sets for its thread (`torch.no_grad()`) must not span a yield: the next slice is somebody else's.
"""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Generic, TypeVar

from nerf.kernels import release_memory

R = TypeVar("R")

FRAME, REFINE, WORK = 8.0, 2.0, 1.0  # weights: a picture that a hand waits for, one at rest, and what runs by itself
KEPT = 64  # owners without work whose clocks are kept
# Memory that is free is handed back after the end of work that took so many seconds, since the next has other needs, and
# after so many of whatever work: what came and went beside it left its own.
LONG, OFTEN = 2.0, 20.0


class Turn:
    """Somebody's place among those who share something.

    Attributes:
        clock: seconds used, over the weight.
        served: when it was last their turn; of level clocks, who waits for longer goes first.
        level: of those who share this one's time: the clock of the last one served.
    """

    def __init__(self) -> None:
        self.clock, self.served, self.level = 0.0, -1, 0.0

    def lift(self, waiting: Iterable[Turn]) -> None:
        """Bring those who had nothing to do up to where the others are."""
        for turn in waiting:
            turn.clock = max(turn.clock, self.level)


class Task(Generic[R]):
    """A piece of work under way.

    Attributes:
        future: its result, once it is there; cancelled where the work was.
        paused: the engine gives it no further slice while this is set.
        running: whether a slice of it is under way.
    """

    def __init__(self, work: Generator[Any, None, R], owner: str, weight: float, awake: threading.Condition) -> None:
        self.work, self.owner, self.weight, self._awake = work, owner, weight, awake
        self.future: Future[R] = Future()
        self.ended = self.running = False
        self.turn = Turn()
        self.used = 0.0  # seconds
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether it waits until it is told to go on."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        with self._awake:  # the engine looks at it and begins a slice in one go
            self._paused = value
            self._awake.notify()

    @property
    def held(self) -> bool:
        """Whether it is paused and its last slice has ended: nothing happens before it goes on."""
        with self._awake:
            return self._paused and not self.running

    def cancel(self) -> None:
        """End the work at its next yield. It may still save what it has."""
        with self._awake:
            self.ended = True
            self._awake.notify()

    @property
    def done(self) -> bool:
        """Whether it has ended, whichever way."""
        return self.future.done()


class Engine:
    """Starts its thread at once; `stop` ends it."""

    def __init__(self) -> None:
        self._tasks: list[Task[Any]] = []
        self._owners: dict[str, Turn] = {}
        self._all = Turn()
        self._awake = threading.Condition()
        self._stopping = False
        self._since = 0.0  # seconds of work since memory was handed back
        self._count = itertools.count()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def start(self, work: Generator[Any, None, R], owner: str, weight: float = WORK) -> Task[R]:
        """Let `work` go on whenever it is `owner`'s turn. What it returns is the task's result."""
        task: Task[R] = Task(work, owner, weight, self._awake)
        with self._awake:
            if self._stopping:
                task.ended = True
                task.future.cancel()
                return task
            self._owners.setdefault(owner, Turn())
            self._tasks.append(task)
            self._awake.notify()
        return task

    def call(self, function: Callable[[], R], owner: str, weight: float = WORK) -> Task[R]:
        """Run a function that is one slice."""

        def work() -> Generator[None, None, R]:
            return function()
            yield

        return self.start(work(), owner, weight)

    def stop(self) -> None:
        """Cancel everything, let it save, and wait for the thread's end."""
        with self._awake:
            self._stopping = True
            for task in self._tasks:
                task.ended = True
            self._awake.notify()
        self._thread.join()

    def _next(self) -> Task[Any] | None:
        """The task whose slice is next; waits for one. None at the end."""
        with self._awake:
            while True:
                for task in self._tasks:
                    if task.ended:
                        return task
                ready = [task for task in self._tasks if not task.paused]
                if ready:
                    task = self._choose(ready)
                    task.running = True
                    return task
                if self._stopping:
                    return None
                self._awake.wait()

    def _choose(self, ready: list[Task[Any]]) -> Task[Any]:
        """The owner who is furthest behind, and of its tasks the one that is."""
        owners = {task.owner: self._owners[task.owner] for task in ready}
        self._all.lift(owners.values())
        owner = min(owners, key=lambda name: (owners[name].clock, owners[name].served))
        self._all.level = owners[owner].clock
        own = [task for task in ready if task.owner == owner]
        owners[owner].lift(task.turn for task in own)
        task = min(own, key=lambda task: (task.turn.clock, task.turn.served))
        owners[owner].level = task.turn.clock
        return task

    def _run(self) -> None:
        while (task := self._next()) is not None:
            began = time.perf_counter()
            over = self._slice(task)
            seconds = time.perf_counter() - began
            with self._awake:
                task.running = False
                task.used += seconds
                for turn in (self._owners[task.owner], task.turn):
                    turn.clock += seconds / task.weight
                    turn.served = next(self._count)
                if over:
                    self._tasks.remove(task)
                    self._forget()
            self._since += seconds
            if (over and task.used > LONG) or self._since > OFTEN:
                gc.collect()  # figures and networks go in rings, which Python looks for seldom where there is much else
                release_memory()
                self._since = 0.0

    def _forget(self) -> None:
        """Drop the clocks of owners that have been gone for long."""
        idle = self._owners.keys() - {task.owner for task in self._tasks}
        for owner in sorted(idle, key=lambda name: self._owners[name].served)[:-KEPT]:
            del self._owners[owner]

    def _slice(self, task: Task[Any]) -> bool:
        """Let a task go on to its next yield; whether that was its end."""
        try:
            if task.ended or task.future.cancelled():  # who waited for it may have cancelled the future alone
                task.ended = True
                task.work.close()
                task.future.cancel()
                return True
            next(task.work)
            return False
        except StopIteration as end:
            _settle(task.future.set_result, end.value)
        except BaseException as error:  # the engine must outlive whatever fails in it
            _settle(task.future.set_exception, error)
        return True


def _settle(settle: Callable[[Any], None], value: Any) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile: nobody waits for it
        settle(value)
