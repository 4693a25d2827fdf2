"""What a browser sends when a person drops something, and names that it must not."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from fastapi.testclient import TestClient

from apps.viewer.uploads import Uploads

LIMIT = 1_000_000
BAD_NAMES = {
    "/etc/passwd.txt": "an absolute one",
    "//host/a.txt": "an absolute one",
    "../a.txt": "a part of dots",
    "a/../../b.txt": "a part of dots",
    "a/./b.txt": "a part of dots",
    "..": "a part of dots",
    "a//b.txt": "an empty part",
    "a/": "an empty part",
    "": "one without a name",
    "a\\b.txt": "a backslash",
    "..\\..\\b.txt": "a backslash",
    "C:/a.txt": "a drive",
    "C:a.txt": "a drive",
    "a\0.txt": "control characters",
    "a\n.txt": "control characters",
    "a\x85.txt": "control characters",
    "\ud800": "characters that are no text",
    "a/" + "b" * 252 + ".txt": "a part of 256 bytes",
    "é" * 126 + ".txt": "a part of 256 bytes",
    "a/" * 16 + "b.txt": "17 parts",
}


async def stream(data: bytes, piece: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), piece):
        yield data[at : at + piece]


def put(store: Uploads, token: str, name: str, data: bytes = b"x") -> int:
    return asyncio.run(store.receive(token, name, stream(data)))


def files_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if not p.is_dir())


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def dropped(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {prefix + p.relative_to(folder).as_posix(): p.read_bytes() for p in files_below(folder)}


def send(client: TestClient, files: dict[str, bytes]) -> str:
    url = f"/api/uploads/{client.post('/api/uploads').json()['upload']}"
    for name, data in files.items():
        answer = client.put(f"{url}/files/{quote(name, safe='/')}", content=data)
        assert answer.status_code == 200, answer.text
    return url
