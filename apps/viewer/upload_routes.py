"""`/api/uploads`: how the page sends a scene, has it checked, and sees what the reader made of it.

    POST   /api/uploads                        {"upload": token, "limit": bytes}
    PUT    /api/uploads/TOKEN/files/a/b.png    the file's bytes as they are; {"bytes": written}
    POST   /api/uploads/TOKEN/check            {"summary", "warnings", "photos", "downscale", "suggested", "skipped", "plot"}
    GET    /api/uploads/TOKEN/plot.png
    DELETE /api/uploads/TOKEN                  {}

Whatever is wrong is said as {"error": sentence}: 403 to other sites, 404 for unknown tokens, 413 past the limits, 422 for
files that can't be used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from apps.viewer.answers import refusal, saying
from apps.viewer.guard import same_origin
from apps.viewer.inspection import inspect
from apps.viewer.uploads import UploadError, UploadLimit, Uploads

_ABANDONED = 3600.0  # seconds


def _refused(error: Exception) -> Response | None:
    if isinstance(error, UploadError):
        return refusal(error, error.status)
    return (
        refusal("upload: expected the whole file, found it cut off", 400)
        if isinstance(error, ClientDisconnect)
        else None
    )


def router(uploads: Uploads, on_ready: Callable[[str, Path], None]) -> APIRouter:
    """The routes. `on_ready` is told the token and the folder of each scene that was read without fault, in a worker
    thread, again each time that it is checked."""
    routes = APIRouter(prefix="/api/uploads", dependencies=[Depends(same_origin)], route_class=saying(_refused))

    @routes.post("")
    def begin() -> dict[str, Any]:
        uploads.sweep(_ABANDONED)
        return {"upload": uploads.begin(), "limit": uploads.limit}

    @routes.put("/{token}/files/{name:path}")
    async def receive(token: str, name: str, request: Request) -> dict[str, int]:
        claimed = request.headers.get("content-length", "")
        if claimed.isdecimal() and int(claimed[:20]) > uploads.limit:
            raise UploadLimit(f"{name[:80]}: expected at most {uploads.limit / 1e6:.6g} MB in all, found more")
        return {"bytes": await uploads.receive(token, name, request.stream())}

    @routes.post("/{token}/check")
    def check(token: str, downscale: int | None = None) -> dict[str, Any]:
        root = uploads.finish(token)
        report = inspect(root, downscale, uploads.plot(token))
        on_ready(token, root)
        return {
            "summary": report.summary,
            "warnings": report.warnings,
            "photos": report.photos,
            "downscale": report.downscale,
            "suggested": report.suggested,
            "skipped": uploads.skipped(token),
            "plot": f"/api/uploads/{token}/plot.png",
        }

    @routes.get("/{token}/plot.png")
    def plot(token: str) -> FileResponse:
        file = uploads.plot(token)
        if not file.is_file():
            raise HTTPException(404, "plot.png: expected a scene that was checked, found one that wasn't")
        return FileResponse(file, media_type="image/png", headers={"Cache-Control": "no-store"})

    @routes.delete("/{token}")
    def discard(token: str) -> dict[str, Any]:
        uploads.discard(token)
        return {}

    return routes
