"""The page's own server: pictures of the scene over plain HTTP, beside Gradio's forms.

A picture is the answer to a POST that describes the whole view, so the server keeps nothing of a person but the one request
that is being drawn: a newer one takes its place, and whoever closes the tab takes the work along.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.viewer import fit_routes, upload_routes
from apps.viewer.answers import GONE, Gone, picture, result
from apps.viewer.engine import FRAME, REFINE, Engine, Task
from apps.viewer.films import Films, Order
from apps.viewer.fits import Fits
from apps.viewer.guard import same_origin
from apps.viewer.live import Live
from apps.viewer.scenes import Scenes
from apps.viewer.stage import Stage, StageError, View
from apps.viewer.uploads import Uploads
from data.errors import SceneError
from data.films import VideoError
from nerf.config import ConfigError
from nerf.paths import PathError

STATIC = Path(__file__).parent / "static"
SENTENCES = (StageError, PathError, VideoError, SceneError, ConfigError)
QUICK = 1 << 17  # pixels up to which a picture counts as one that a hand waits for
# Everything comes from this server: what a page would fetch elsewhere is refused by the browser itself.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' blob: data:; frame-ancestors 'self'"

Person = Annotated[str, Header(alias="X-Person", pattern=r"^[A-Za-z0-9_-]{8,64}$")]


@dataclass(frozen=True)
class House:
    """Everything that a viewer consists of."""

    engine: Engine
    stage: Stage
    live: Live
    films: Films
    fits: Fits
    uploads: Uploads


def serve(house: House, scenes: Scenes, names: frozenset[str] | None = None) -> FastAPI:
    """The server without Gradio's forms.

    Args:
        names: of this machine, in addresses that it answers to; None: any.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(same_origin)])
    app.add_middleware(Policy, names=names)
    _words(app)
    _scene_routes(app, house)
    _film_routes(app, house)
    _training_routes(app, house, scenes)
    app.include_router(fit_routes.router(house.fits))
    app.include_router(upload_routes.router(house.uploads, scenes.dropped))
    app.mount("/page", StaticFiles(directory=STATIC), name="page")
    return app


def _words(app: FastAPI) -> None:
    """What went wrong, as a sentence; and nothing from elsewhere."""

    async def sentence(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=GONE)

    for kind in SENTENCES:
        app.add_exception_handler(kind, sentence)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Gone, gone)


class Policy:
    """Keeps a page to this server, and other sites' pages out; as plain ASGI, so that streams and disconnections pass.

    A site whose name is made to lead to this machine (DNS rebinding) would pass for this page, were it not for `names`.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str] | None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", POLICY)
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        if scope["type"] in ("http", "websocket") and self.names is not None:
            host = Headers(scope=scope).get("host", "")
            if _name(host) not in self.names:
                said = f"Host: expected one of {', '.join(sorted(self.names))}, found {host[:80]}; see --name"
                await JSONResponse({"error": said}, 403)(scope, receive, marked)
                return
        await self.app(scope, receive, marked if scope["type"] == "http" else send)


def _name(host: str) -> str:
    """Of a host with or without a port; "" for what is none."""
    try:
        return "" if "@" in host else urlsplit(f"//{host}").hostname or ""
    except ValueError:  # such as half an IPv6 address
        return ""


def _scene_routes(app: FastAPI, house: House) -> None:
    engine, stage = house.engine, house.stage
    drawn: dict[str, Task[Any]] = {}  # the picture that each person waits for

    @app.get("/api/scene")
    async def scene() -> dict[str, Any]:
        return stage.describe()

    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        return {
            "scene": stage.scene_id, "version": stage.version, "ready": stage.model is not None,
            "training": house.live.state,
        }  # fmt: skip

    @app.post("/api/frame")
    async def frame(view: View, request: Request, person: Person) -> Response:
        quick = view.width * view.height <= QUICK
        version = stage.version
        task = engine.start(stage.picture(view), person, FRAME if quick else REFINE)
        before = drawn.get(person)
        drawn[person] = task
        if before is not None:
            before.cancel()
        try:
            pixels = await result(request, task)
        finally:
            if drawn.get(person) is task:
                del drawn[person]
        headers = {"X-Version": str(version), "X-Scene": str(stage.scene_id)}
        return await picture(pixels, 80 if quick else 92, headers)

    @app.get("/api/photos/{index}/compared")
    async def compared(index: int, request: Request, person: Person, longest: int = 512) -> Response:
        found = await asyncio.to_thread(stage.frame_of, index)
        work = stage.compare(found, min(max(longest, 16), 1024))
        pixels, decibels = await result(request, engine.start(work, person, REFINE))
        return await picture(pixels, 90, {"X-PSNR": f"{decibels:.2f}"})


def _film_routes(app: FastAPI, house: House) -> None:
    films = house.films

    @app.post("/api/paths")
    async def line(order: Order) -> dict[str, Any]:
        return await asyncio.to_thread(films.line, order)


class Wish(BaseModel):
    """What a page wants trained: a scene that was dropped onto it."""

    upload: str
    downscale: Annotated[int, Field(ge=1, le=64)] = 1
    budget: Annotated[str, Field(max_length=20)] = "5m"


def _training_routes(app: FastAPI, house: House, scenes: Scenes) -> None:
    live = house.live

    @app.get("/api/training")
    async def training() -> dict[str, Any]:
        now = live.progress
        whole = 1.0 if now is None else max(now.seconds + now.left, 1.0)
        return {
            "state": live.state, "scene": live.scene_name, "error": live.error, "notes": live.notes, "seconds": whole,
            "curve": [[p.seconds, p.psnr, p.loss] for p in live.curve],
        }  # fmt: skip

    @app.post("/api/training")
    async def train(wish: Wish) -> dict[str, Any]:
        name = scenes.of_upload(wish.upload)
        scenes.train(name, wish.budget, wish.downscale)
        return {"scene": name}
