"""Answers end with whoever waits for them, and pictures come as what they are."""

from __future__ import annotations

import asyncio
import io
import time

import numpy as np
import pytest
from fastapi import Request
from PIL import Image

from apps.viewer.answers import Gone, picture, result
from apps.viewer.engine import Engine


class Caller(Request):
    """Somebody who waits, or has left."""

    def __init__(self, left: bool) -> None:
        super().__init__({"type": "http"})
        self.left = left

    async def is_disconnected(self) -> bool:
        return self.left


@pytest.fixture
def engine():
    started = Engine()
    yield started
    started.stop()


def endless():
    while True:
        time.sleep(0.001)
        yield


def test_work_that_nobody_waits_for_is_cancelled(engine):
    task = engine.start(endless(), "a")
    with pytest.raises(Gone):
        asyncio.run(result(Caller(left=True), task))
    assert task.ended and engine.call(lambda: 7, "a").future.result(20) == 7 and not engine._tasks[1:]


def test_work_whose_place_is_taken_is_gone_and_other_work_is_answered(engine):
    old, new = engine.start(endless(), "a"), engine.call(lambda: 7, "a")

    async def both():
        waiting = asyncio.ensure_future(result(Caller(left=False), old))
        await asyncio.sleep(0.05)
        old.cancel()
        with pytest.raises(Gone):
            await waiting
        return await result(Caller(left=False), new)

    assert asyncio.run(both()) == 7


def test_what_fails_fails_for_whoever_asked(engine):
    def broken():
        raise ZeroDivisionError("seven")

    with pytest.raises(ZeroDivisionError, match="seven"):
        asyncio.run(result(Caller(left=False), engine.call(broken, "a")))


def test_a_picture_is_encoded_as_asked():
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    exact = asyncio.run(picture(pixels, 90, {"X-PSNR": "3"}, "png"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(exact.body))), pixels) and exact.headers["x-psnr"] == "3"
    lossy = asyncio.run(picture(pixels, 95))
    assert lossy.media_type == "image/jpeg"
    assert np.abs(np.asarray(Image.open(io.BytesIO(lossy.body))).astype(float) - pixels).mean() < 4
