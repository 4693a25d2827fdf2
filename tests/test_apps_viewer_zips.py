"""Zips from strangers."""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from apps.viewer.upload_routes import router
from apps.viewer.uploads import UploadError, Uploads
from tests.drops import BAD_NAMES, LIMIT, files_below, put, send, zipped


@pytest.fixture
def store(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", LIMIT)


@pytest.fixture
def client(store: Uploads) -> TestClient:
    app = FastAPI()
    app.include_router(router(store, lambda token, root: None))
    return TestClient(app)


@pytest.mark.parametrize("name", [n for n in BAD_NAMES if n not in ("", "a/", "\ud800", "a\0.txt")])
def test_bad_names_in_a_zip_are_refused(name: str, store: Uploads) -> None:
    token = store.begin()
    put(store, token, "a.zip", zipped({"good.json": b"{}", name: b"x"}))
    with pytest.raises(UploadError, match=r"name: expected a path inside"):
        store.finish(token)
    assert files_below(store.folder.parent) == [] and not (store.folder / token).exists()


LINK = zipfile.ZipInfo("link.json")
LINK.external_attr = (stat.S_IFLNK | 0o777) << 16
DEVICE = zipfile.ZipInfo("device.json")
DEVICE.external_attr = (stat.S_IFCHR | 0o666) << 16


def _special(info: zipfile.ZipInfo) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, b"/etc/passwd")
    return out.getvalue()


def _flagged(data: bytes, at_local: int, at_central: int, value: int) -> bytes:
    """A zip of one entry with a 16-bit field changed in both of its headers."""
    out, central = bytearray(data), data.index(b"PK\1\2")
    struct.pack_into("<H", out, at_local, value)
    struct.pack_into("<H", out, central + at_central, value)
    return bytes(out)


def _lying(data: bytes, size: int) -> bytes:
    """A zip of one entry that states a smaller size than it inflates to."""
    out, central = bytearray(data), data.index(b"PK\1\2")
    struct.pack_into("<I", out, 22, size)
    struct.pack_into("<I", out, central + 24, size)
    return bytes(out)


PLAIN = zipped({"a.json": b"{}" * 500})
ZIPS = {
    "link": (_special(LINK), "expected a plain file, stored or deflated, found a link"),
    "device": (_special(DEVICE), "found a device"),
    "encrypted": (_flagged(PLAIN, 6, 8, 1), "found an encrypted one"),
    "lzma": (zipped({"a.json": b"{}"}, zipfile.ZIP_LZMA), "found method 14"),
    "cut": (PLAIN[:-30], "expected a whole zip, found a broken one"),
    "cut in an entry": (PLAIN[:40] + PLAIN[55:], "expected a whole zip, found a broken one"),
    "spoilt": (PLAIN[:50] + b"????" + PLAIN[54:], "expected a whole zip, found a broken one"),
    "no zip": (b"hello", "expected a whole zip, found a broken one"),
    "nothing": (zipped({}), "expected photos and their poses"),
    "other kinds": (zipped({"a.exe": b"x", "b.svg": b"x"}), "found 2 files of other kinds"),
    "zip in a zip": (zipped({"b.zip": PLAIN}), "found 1 files of other kinds"),
    "bomb": (zipped({"a.json": bytes(50 * LIMIT)}), "at most 1 MB in all, found more"),
    "bomb in parts": (zipped({f"{i}.json": bytes(LIMIT // 5) for i in range(6)}), "at most 1 MB in all, found more"),
    "bomb that lies": (_lying(zipped({"a.json": bytes(50 * LIMIT)}), 100), "broken one|at most 1 MB"),
}


@pytest.mark.parametrize("case", list(ZIPS))
def test_zips_that_are_refused(case: str, client: TestClient, store: Uploads) -> None:
    data, words = ZIPS[case]
    url = send(client, {"a.zip": data})
    answer = client.post(f"{url}/check")
    assert answer.status_code == (413 if case in ("bomb", "bomb in parts") else 422)
    assert re.search(words, answer.json()["error"]), answer.text
    assert files_below(store.folder) == [] and client.post(f"{url}/check").status_code == 404


def test_a_zip_may_be_as_large_as_what_it_holds(store: Uploads) -> None:
    token = store.begin()
    put(store, token, "a.zip", zipped({"a.bin": bytes(LIMIT * 8 // 10)}, zipfile.ZIP_STORED))
    assert [p.name for p in files_below(store.finish(token))] == ["a.bin"]
