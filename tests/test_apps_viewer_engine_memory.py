"""The viewer's engine: what becomes of memory that its work has left."""

from __future__ import annotations

import gc
import weakref

import pytest

from apps.viewer import engine as engine_file
from apps.viewer.engine import Engine


@pytest.mark.parametrize("often, handed_back", [(-1.0, True), (1e9, False)])
def test_memory_is_handed_back_beside_much_short_work(monkeypatch, often, handed_back):
    released = []
    monkeypatch.setattr(engine_file, "release_memory", lambda: released.append(True))
    monkeypatch.setattr(engine_file, "LONG", 1e9)
    monkeypatch.setattr(engine_file, "OFTEN", often)
    engine = Engine()
    engine.call(lambda: None, "somebody").future.result(10)
    engine.stop()
    assert bool(released) == handed_back


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
