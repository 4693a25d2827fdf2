"""The viewer's engine: who gets which slice, and what ends how."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from apps.viewer import engine as engine_file
from apps.viewer.engine import FRAME, WORK, Engine

TICK = 0.001  # seconds of a slice, by the engine's clock


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The engine's clock runs by the work done, so that a busy machine changes nothing."""
    now = [0.0]

    def spin():
        time.sleep(TICK / 4)
        now[0] += TICK

    monkeypatch.setitem(globals(), "spin", spin)
    monkeypatch.setattr(engine_file, "time", SimpleNamespace(perf_counter=lambda: now[0]))


@contextmanager
def running():
    engine = Engine()
    try:
        yield engine
    finally:
        engine.stop()


def spin() -> None:
    """A slice's work; `clock` has it."""
    raise NotImplementedError


def gate(engine: Engine) -> threading.Event:
    """Hold the engine's thread until the event is set, so that what starts meanwhile starts together."""
    held, go = threading.Event(), threading.Event()

    def hold():
        held.set()
        go.wait(10)

    engine.call(hold, "gate", 1e9)
    assert held.wait(10)
    return go


def endless(log: list[str], name: str, most: int | None = None):
    """Spins a slice at a time and logs it, until `most` slices were logged in all."""
    while most is None or len(log) < most:
        spin()
        log.append(name)
        yield


@pytest.mark.parametrize("weights, ratio", [((WORK, WORK), 1.0), ((FRAME, WORK), 8.0), ((3.0, 1.0), 3.0)])
@pytest.mark.parametrize("owners", [("a", "b"), ("same", "same")])
def test_time_is_shared_by_weight_among_owners_and_among_an_owners_tasks(weights, ratio, owners):
    log: list[str] = []
    with running() as engine:
        go = gate(engine)
        tasks = [
            engine.start(endless(log, name, 360), owner, weight)
            for name, owner, weight in zip("ab", owners, weights, strict=True)
        ]
        go.set()
        for task in tasks:
            task.future.result(20)
    counts = Counter(log)
    assert counts["a"] / counts["b"] == pytest.approx(ratio, rel=0.1)


def test_an_owner_of_many_tasks_gets_no_more_than_one_of_few():
    log: list[str] = []
    with running() as engine:
        go = gate(engine)
        tasks = [engine.start(endless(log, owner, 300), owner) for owner in ["many"] * 5 + ["one"]]
        go.set()
        for task in tasks:
            task.future.result(20)
    counts = Counter(log)
    assert counts["many"] / counts["one"] == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("wait", ["gone", "paused"])
def test_waiting_earns_no_credit(wait):
    log: list[str] = []
    with running() as engine:
        idle = engine.start(endless(log, "idle"), "idle")
        while not log:
            time.sleep(0.001)
        if wait == "gone":
            idle.cancel()
        else:
            idle.paused = True
        busy = engine.start(endless(log, "busy"), "busy")
        while log.count("busy") < 200:
            time.sleep(0.001)
        if wait == "gone":
            idle = engine.start(endless(log, "idle"), "idle")
        else:
            idle.paused = False
        start = len(log)
        while len(log) < start + 60:
            time.sleep(0.001)
        busy.cancel()
        idle.cancel()
        counts = Counter(log[start : start + 60])
    assert counts["busy"] >= 15, counts


def test_having_worked_alone_is_no_debt():
    """Who used an idle machine goes on beside a newcomer, instead of waiting until that one has used as much."""
    log: list[str] = []
    with running() as engine:
        old = engine.start(endless(log, "old"), "old")
        while len(log) < 200:
            time.sleep(0.001)
        new = engine.start(endless(log, "new"), "new")
        while "new" not in log:
            time.sleep(0.001)
        old.cancel()
        old = engine.start(endless(log, "old"), "old")
        start = len(log)
        while len(log) < start + 60:
            time.sleep(0.001)
        counts = Counter(log[start : start + 60])
        new.cancel()
    assert counts["old"] >= 15, counts


def test_the_old_are_no_debtors_even_when_the_engine_was_idle_between():
    log: list[str] = []
    with running() as engine:
        old = engine.start(endless(log, "old", 200), "old")
        old.future.result(20)
        go = gate(engine)
        new = engine.start(endless(log, "new"), "new")
        again = engine.start(endless(log, "old"), "old")
        go.set()
        while len(log) < 260:
            time.sleep(0.001)
        counts = Counter(log[200:260])
        new.cancel()
        again.cancel()
    assert min(counts["old"], counts["new"]) >= 15, counts


def test_a_paused_task_rests_and_goes_on():
    log: list[str] = []
    with running() as engine:
        task = engine.start(endless(log, "a"), "a")
        while not log:
            time.sleep(0.001)
        task.paused = True
        engine.call(lambda: None, "b").future.result(10)  # the slice under way is over
        count = len(log)
        engine.call(spin, "b").future.result(10)
        assert len(log) == count and not task.done
        task.paused = False
        while len(log) == count:
            time.sleep(0.001)
        task.paused = True
        task.cancel()  # also ends what is paused
        with pytest.raises(CancelledError):
            task.future.result(10)


def test_cancelling_closes_the_generator_in_the_engines_thread():
    closed, begun = [], threading.Event()

    def work():
        try:
            while True:
                begun.set()
                yield
        finally:
            closed.append(threading.current_thread().name)

    with running() as engine:
        task = engine.start(work(), "a")
        assert begun.wait(10)
        task.cancel()
        with pytest.raises(CancelledError):
            task.future.result(10)
        assert closed == ["engine"]


def test_what_fails_is_said_and_the_engine_lives_on():
    def fails():
        yield
        raise ValueError("no")

    def fails_to_close():
        try:
            while True:
                spin()
                yield
        finally:
            raise OSError("disk full")

    def clings():
        try:
            while True:
                spin()
                yield
        except GeneratorExit:
            yield

    with running() as engine:
        with pytest.raises(ValueError, match="no"):
            engine.start(fails(), "a").future.result(10)
        for work, error in ((fails_to_close(), OSError), (clings(), RuntimeError)):
            task = engine.start(work, "a")
            engine.call(spin, "b").future.result(10)
            while task.turn.served < 0:
                time.sleep(0.001)
            task.cancel()
            with pytest.raises(error):
                task.future.result(10)
        with pytest.raises(ZeroDivisionError):
            engine.call(lambda: 1 // 0, "a").future.result(10)
        assert engine.call(lambda: 7, "a").future.result(10) == 7


@pytest.mark.parametrize("end", ["returns", "raises", "goes on"])
def test_a_future_that_its_reader_cancels_does_no_harm(end):
    """asyncio cancels the future itself when a request is dropped."""
    started, closed = threading.Event(), threading.Event()

    def work():
        try:
            started.set()
            while not task.future.cancelled():
                time.sleep(0.001)
            if end == "raises":
                raise ValueError("late")
            while end == "goes on":
                yield
        finally:
            closed.set()

    with running() as engine:
        go = gate(engine)
        task = engine.start(work(), "a")
        go.set()
        assert started.wait(10)

        async def drop():
            asyncio.wrap_future(task.future).cancel()
            await asyncio.sleep(0)

        asyncio.run(drop())
        assert closed.wait(10)
        assert engine.call(lambda: 7, "b").future.result(10) == 7


def test_stop_closes_everything_and_refuses_more():
    closed = []

    def work(name):
        try:
            while True:
                yield
        finally:
            closed.append(name)

    engine = Engine()
    tasks = [engine.start(work(name), name) for name in "abc"]
    while any(task.turn.served < 0 for task in tasks):
        time.sleep(0.001)
    tasks[1].paused = True
    engine.stop()
    assert sorted(closed) == ["a", "b", "c"] and all(task.future.cancelled() for task in tasks)
    assert engine.call(lambda: 1, "a").future.cancelled()
    engine.stop()  # again, harmless


def test_owners_who_left_are_forgotten_and_those_who_work_are_not(monkeypatch):
    monkeypatch.setattr(engine_file, "KEPT", 4)
    log: list[str] = []
    with running() as engine:
        task = engine.start(endless(log, "stays"), "stays")
        for number in range(20):
            engine.call(lambda: None, f"guest {number}").future.result(10)
        engine.call(lambda: None, "last").future.result(10)
        engine.call(lambda: None, "last").future.result(10)  # by now the one before is counted out
        assert len(engine._owners) <= 4 + 3 and "stays" in engine._owners and "guest 0" not in engine._owners
        count = len(log)
        while len(log) < count + 3:
            time.sleep(0.001)
        task.cancel()


def test_memory_is_handed_back_after_long_work_alone(monkeypatch):
    released = []
    monkeypatch.setattr(engine_file, "release_memory", lambda: released.append(True))
    monkeypatch.setattr(engine_file, "LONG", 10.5 * TICK)
    with running() as engine:
        for slices in (10, 11):
            engine.start(((spin(), None)[1] for _ in range(slices)), "somebody").future.result(10)
    assert released == [True]
