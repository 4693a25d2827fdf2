"""The viewer's engine: what becomes of memory that its work has left."""

from __future__ import annotations

import gc
import itertools
import weakref
from types import SimpleNamespace

from apps.viewer import engine as engine_file
from apps.viewer.engine import Engine


def test_memory_is_handed_back_beside_much_short_work(monkeypatch):
    released = []
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)  # a second a look, and so a second a slice
    monkeypatch.setattr(engine_file, "time", clock)
    monkeypatch.setattr(engine_file, "release_memory", lambda: released.append(len(done)))
    monkeypatch.setattr(engine_file, "LONG", 1.5)
    monkeypatch.setattr(engine_file, "OFTEN", 5.5)
    engine, done = Engine(), []
    for number in range(14):
        engine.call(lambda number=number: done.append(number), "somebody").future.result(10)
    engine.stop()
    assert released == [6, 12] and len(done) == 14


def test_rings_that_long_work_leaves_behind_go_with_its_memory(monkeypatch):
    class Node:
        pass

    def work():
        node = Node()
        node.itself = node
        left.append(weakref.ref(node))
        yield

    left: list[weakref.ref[Node]] = []
    released = []
    monkeypatch.setattr(engine_file, "release_memory", lambda: released.append(left[0]()))
    monkeypatch.setattr(engine_file, "LONG", -1.0)
    gc.disable()
    try:
        engine = Engine()
        engine.start(work(), "somebody").future.result(10)
        engine.stop()
    finally:
        gc.enable()
    assert released == [None]
