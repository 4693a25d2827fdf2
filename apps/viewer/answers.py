"""Answers that are drawn while somebody waits for them: pictures, and what becomes of them when nobody does any more."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

import numpy as np
from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from jaxtyping import UInt8
from PIL import Image

from apps.viewer.engine import Task

R = TypeVar("R")

LOOK = 0.1  # seconds between looks whether the page is still there
GONE = 499  # nobody reads the answer


class Gone(Exception):
    """Nobody waits for the answer any more."""


def saying(refused: Callable[[Exception], Response | None]) -> type[APIRoute]:
    """Routes that say every refusal as {"error": sentence}.

    refused: the answer to an error of the routes' own; None to errors that it doesn't know, which are raised.
    """

    class Saying(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except HTTPException as error:
                    return refusal(error.detail, error.status_code)
                except RequestValidationError as error:
                    first = error.errors()[0]
                    return refusal(f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}", 422)
                except Exception as error:
                    said = refused(error)
                    if said is None:
                        raise
                    return said

            return answer

    return Saying


def refusal(sentence: object, status: int) -> Response:
    """What is wrong, as the page's scripts read it."""
    return JSONResponse({"error": str(sentence)}, status)


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
