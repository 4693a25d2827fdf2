"""The viewer's SIREN tab over HTTP, and what hostile uploads come to."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from apps.viewer import fit_photos, fit_routes
from apps.viewer.fit_photos import read_photo
from apps.viewer.fit_routes import router
from siren.loop import FitError
from tests.fitted import coded, fits_of_small_networks, small, waves  # noqa: F401 (fixtures)


def bomb(width: int = 60000, height: int = 60000) -> bytes:
    """A PNG of some bytes whose header promises gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 4096)) + chunk(b"IEND", b"")


BROKEN = {
    "truncated": (lambda: coded(waves(200, 200))[:9000], "broken"),
    "truncated JPEG": (lambda: coded(waves(200, 200), "JPEG")[:900], "broken"),
    "text": (lambda: b"#!/bin/sh\necho hello\n", "found 21 bytes of something else"),
    "script": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "something else"),
    "nothing": (lambda: b"", "found 0 bytes"),
    "bomb": (bomb, "64 megapixels"),
    "smaller bomb": (lambda: bomb(9000, 8000), "64 megapixels, found 9000 x 8000"),
    "a line": (lambda: coded(waves(600, 2)), "at least 8 pixels"),
    "TIFF": (lambda: coded(waves(), "TIFF"), "something else"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_images_are_a_sentence(name):
    make, words = BROKEN[name]
    with pytest.raises(FitError, match=words):
        read_photo(make(), 128)


def test_photos_are_read_as_a_person_sees_them():
    pixels = waves(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = read_photo(coded(pixels, exif=exif), 512)
    assert np.array_equal(turned.pixels, np.rot90(pixels, -1)) and turned.original == (40, 60)
    clear = np.concatenate([pixels, np.zeros((40, 60, 1), np.uint8)], -1)
    assert read_photo(coded(clear), 512).pixels.min() == 255
    assert read_photo(coded(pixels[..., 0]), 512).pixels.shape == (40, 60, 1)
    assert read_photo(coded(pixels[..., 0].astype(np.uint16) * 257), 512).pixels.shape == (40, 60, 1)
    wide = read_photo(coded(waves(100, 1200), "JPEG"), 512)
    assert wide.pixels.shape == (43, 512, 3) and wide.original == (1200, 100)
    tall = read_photo(coded(waves(500, 2000), "JPEG", exif=exif), 256)
    assert tall.pixels.shape == (256, 64, 3) and tall.original == (500, 2000)


@pytest.fixture
def client(fits):
    app = FastAPI()
    app.include_router(router(fits))
    with TestClient(app) as found:
        yield found


def test_a_fit_over_http(client):
    made = client.post("/api/fits", files={"image": coded(waves())}, data={"seconds": "1"})
    assert made.status_code == 200, made.text
    place = f"/api/fits/{made.json()['token']}"
    end = time.monotonic() + 30
    while (status := client.get(place).json())["state"] != "done":
        assert time.monotonic() < end and status["error"] == ""
    shot = client.get(f"{place}/picture", params={"width": 40, "height": 30, "right": 0.5, "bottom": 0.5})
    assert shot.headers["content-type"] == "image/jpeg" and Image.open(io.BytesIO(shot.content)).size == (40, 30)
    shot = client.get(f"{place}/picture", params={"width": 32, "height": 24, "mode": "photo", "format": "png"})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shot.content))), waves())
    for query in ({"width": 4000}, {"left": "x"}, {"left": 2}, {"mode": "y"}, {"format": "exe"}, {"left": "nan"}):
        wrong = client.get(f"{place}/picture", params=query)
        assert wrong.status_code == 422 and isinstance(wrong.json()["error"], str), query


def test_a_blend_over_http_is_paused_and_stopped(client):
    files = {"first": coded(waves(seed=1)), "second": coded(waves(seed=2))}
    made = client.post("/api/fits/blend", files=files, data={"seconds": "100", "mixed": "true", "weight": "0.3"})
    assert made.status_code == 200, made.text
    place = f"/api/fits/{made.json()['token']}"
    assert client.post(f"{place}/pause").json()["paused"] is True
    assert client.post(f"{place}/resume").json()["paused"] is False
    assert client.post(f"{place}/stop").json()["state"] == "stopped"
    assert client.post(f"{place}/explode").status_code == 422


@pytest.mark.parametrize("name", ["truncated", "text", "nothing", "bomb"])
def test_broken_uploads_are_a_sentence(client, name):
    make, words = BROKEN[name]
    answer = client.post("/api/fits", files={"image": ("x.png", make())})
    assert answer.status_code == 422 and words in answer.json()["error"]
    answer = client.post("/api/fits/blend", files={"first": coded(waves()), "second": ("x.png", make())})
    assert answer.status_code == 422 and answer.json()["error"].startswith("the second image")


def test_bad_requests_are_a_sentence(client, monkeypatch):
    image = {"image": coded(waves())}
    for data in ({"seconds": "x"}, {"seconds": "nan"}, {"seconds": "1e9"}, {"seconds": "-1"}, {"target": "sound"}):
        answer = client.post("/api/fits", files=image, data=data)
        assert answer.status_code == 422 and answer.json()["error"], data
    for answer in (
        client.post("/api/fits"),
        client.post("/api/fits", content=b"x", headers={"content-type": "multipart/form-data"}),
        client.post("/api/fits", content=b"x", headers={"content-type": "multipart/form-data; boundary=a"}),
        client.post("/api/fits", data={"image": "text"}, files={"other": b"1"}),
        client.post("/api/fits/blend", files={"first": coded(waves())}),
    ):
        assert answer.status_code == 422 and answer.json()["error"]
    for place in ("", "/picture"):
        answer = client.get(f"/api/fits/unknown{place}")
        assert answer.status_code == 404 and "no such fit" in answer.json()["error"]
    assert client.post("/api/fits/unknown/stop").status_code == 404

    monkeypatch.setattr(fit_routes, "LIMIT", 4096)
    large = coded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    assert client.post("/api/fits", files={"image": large}).status_code == 413

    def parts():  # no length is announced
        yield b'--a\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield b"0" * 1000

    answer = client.post("/api/fits", content=parts(), headers={"content-type": "multipart/form-data; boundary=a"})
    assert answer.status_code == 413 and "at most" in answer.json()["error"]


def test_the_example_is_a_photo_or_is_not_there(client, monkeypatch, tmp_path):
    answer = client.get("/api/fits/example")
    assert answer.status_code == 200 and Image.open(io.BytesIO(answer.content)).format == "JPEG"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit_photos.data, "__path__", [])
    assert client.get("/api/fits/example").status_code == 404
