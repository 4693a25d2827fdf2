"""`/api/fits`: how the page has networks fitted to images and looks at them.

    POST /api/fits                  form: image, target, seconds; {"token", "width", "height", "original", ...}
    POST /api/fits/blend            form: first, second, seconds, weight, mixed; likewise
    GET  /api/fits/example          a photo to try it with, JPEG; 404 where none is at hand
    GET  /api/fits/TOKEN            the status, as `Fit.status` has it
    POST /api/fits/TOKEN/ACTION     pause, resume or stop; the status
    GET  /api/fits/TOKEN/picture    left, top, right, bottom, width, height, mode, format: JPEG, or PNG

Whatever is wrong is said as {"error": sentence}: 404 for unknown tokens, 413 past the limit, 422 for what can't be used, 429
where there is no room. Who asks is told apart by the header X-Person.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from apps.viewer.answers import GONE, Gone, refusal, result, saying
from apps.viewer.answers import picture as drawn
from apps.viewer.fit_photos import example
from apps.viewer.fits import Busy, Fits, UnknownFit
from siren.loop import FitError

LIMIT = 30 << 20  # bytes of an upload, with both images of a blend


def _refused(error: Exception) -> Response | None:
    if isinstance(error, FitError):
        return refusal(error, 404 if isinstance(error, UnknownFit) else 429 if isinstance(error, Busy) else 422)
    return Response(status_code=GONE) if isinstance(error, (ClientDisconnect, Gone)) else None


def router(fits: Fits) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/fits", route_class=saying(_refused))

    @routes.post("")
    async def start(request: Request) -> dict[str, Any]:
        form = await _form(request)
        image, seconds = await _file(form, "image"), _number(form, "seconds", 15.0)
        target = str(form.get("target", "image"))
        return fits.status(await asyncio.to_thread(fits.start_fit, image, target, seconds, _person(request)))

    @routes.post("/blend")
    async def blend(request: Request) -> dict[str, Any]:
        form = await _form(request)
        first, second = await _file(form, "first"), await _file(form, "second")
        seconds, weight = _number(form, "seconds", 30.0), _number(form, "weight", 0.5)
        mixed = str(form.get("mixed", "")).lower() in ("1", "true", "on")
        return fits.status(
            await asyncio.to_thread(fits.start_blend, first, second, seconds, weight, mixed, _person(request))
        )

    @routes.get("/example")
    def photo() -> Response:
        found = example()
        if found is None:
            raise HTTPException(404, "no photo to try is at hand")
        return FileResponse(found, media_type="image/jpeg")

    _one(routes, fits)
    return routes


def _one(routes: APIRouter, fits: Fits) -> None:
    """What concerns one fit."""

    @routes.get("/{token}")
    async def status(token: str) -> dict[str, Any]:
        return fits.status(token)

    @routes.post("/{token}/{action}")
    async def act(token: str, action: Literal["pause", "resume", "stop"]) -> dict[str, Any]:
        {"pause": fits.pause, "resume": fits.resume, "stop": fits.stop}[action](token)
        return fits.status(token)

    @routes.get("/{token}/picture")
    async def picture(
        token: str,
        request: Request,
        left: float = 0.0,
        top: float = 0.0,
        right: float = 1.0,
        bottom: float = 1.0,
        width: int = 256,
        height: int = 256,
        mode: str = "image",
        format: Literal["jpeg", "png"] = "jpeg",
    ) -> Response:
        task = fits.picture(token, (left, top, right, bottom), width, height, mode)
        return await drawn(await result(request, task), 90, kind=format)


def _person(request: Request) -> str:
    """Who asks: as the page calls itself, else where it is."""
    name = request.headers.get("x-person", "")
    known = 0 < len(name) <= 64 and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if known else request.client.host if request.client else "somebody"


async def _form(request: Request) -> FormData:
    """The form of a request, whose bytes are counted while they come."""
    too_large = HTTPException(413, f"the upload: expected at most {LIMIT >> 20} MB, found more")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > LIMIT:
        raise too_large
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise FitError("the upload: expected a form (multipart/form-data), found something else")

    async def counted() -> AsyncGenerator[bytes, None]:
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
            if total > LIMIT:
                raise too_large
            yield chunk

    try:
        return await MultiPartParser(request.headers, counted(), max_files=2, max_fields=8).parse()
    except (MultiPartException, KeyError) as error:
        said = error.message if isinstance(error, MultiPartException) else "no boundary"
        raise FitError(f"the upload: expected a form with images, found a broken one ({said[:80]})") from None


async def _file(form: FormData, name: str) -> bytes:
    found = form.get(name)
    if not isinstance(found, UploadFile):
        raise FitError(f"{name}: expected an image file, found none")
    return await found.read()


def _number(form: FormData, name: str, default: float) -> float:
    text = str(form.get(name, default))
    try:
        return float(text)
    except ValueError:
        raise FitError(f"{name}: expected a number, found {text[:40]!r}") from None
