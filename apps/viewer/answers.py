"""Answers that are drawn while somebody waits for them: pictures, and what becomes of them when nobody does any more."""

from __future__ import annotations

import asyncio
import io
from typing import Literal, TypeVar

import numpy as np
from fastapi import Request, Response
from jaxtyping import UInt8
from PIL import Image

from apps.viewer.engine import Task

R = TypeVar("R")

LOOK = 0.1  # seconds between looks whether the page is still there
GONE = 499  # nobody reads the answer


class Gone(Exception):
    """Nobody waits for the answer any more."""


async def result(request: Request, task: Task[R]) -> R:
    """What a task returns. Where the page goes away, or something newer took the task's place, it ends: Gone."""
    waiting = asyncio.wrap_future(task.future)
    try:
        while not (await asyncio.wait({waiting}, timeout=LOOK))[0]:
            if await request.is_disconnected():
                raise Gone
        if waiting.cancelled():
            raise Gone
        return waiting.result()
    finally:
        task.cancel()


async def picture(
    pixels: UInt8[np.ndarray, "h w 3"],
    quality: int,
    headers: dict[str, str] | None = None,
    kind: Literal["jpeg", "png"] = "jpeg",
) -> Response:
    """Pixels as an image that no cache keeps, encoded beside the event loop."""

    def encoded() -> bytes:
        data = io.BytesIO()
        subsampling = 0 if quality > 85 else 2
        more = {"quality": quality, "subsampling": subsampling} if kind == "jpeg" else {"compress_level": 3}
        Image.fromarray(pixels).save(data, kind, **more)
        return data.getvalue()

    content = await asyncio.to_thread(encoded)
    return Response(content, media_type=f"image/{kind}", headers={"Cache-Control": "no-store", **(headers or {})})
