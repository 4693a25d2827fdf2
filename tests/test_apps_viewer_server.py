"""The page's addresses: pictures and sentences, for this page alone, and nothing of the disk but what is meant."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from apps.viewer.__main__ import Options, build, listening, main, names
from apps.viewer.scenes import Scenes
from apps.viewer.server import serve
from nerf.config import ConfigError
from nerf.picture import finished
from tests.test_apps_viewer_stage import home
from tests.test_nerf_render import make_run

SOMEBODY = {"X-Person": "somebody-1"}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    built, scenes = build(Options(run=make_run(folder, True)[0], backend="reference"), folder / "runs")
    with TestClient(serve(built, scenes), base_url="http://127.0.0.1:7860", raise_server_exceptions=False) as client:
        yield built, client
    built.engine.stop()


def view(house, **more) -> dict:
    return home(house[0].stage, **more).model_dump()


def test_a_frame_is_the_view_as_jpeg(house):
    answer = house[1].post("/api/frame", json=view(house, width=40, height=30, time=0.3), headers=SOMEBODY)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["x-version"]) == house[0].stage.version
    found = np.asarray(Image.open(io.BytesIO(answer.content))).astype(float)
    expected = finished(house[0].stage.picture(home(house[0].stage, width=40, height=30, time=0.3)))
    assert found.shape == (30, 40, 3) and np.abs(found - expected).mean() < 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fov": 500}, "fov: "),
        ({"width": 4096}, "width: "),
        ({"pose": [[0] * 4] * 3}, "expected a rotation and a position"),
        ({"mode": "both"}, "mode: "),
        ({"crop": [1, 2]}, "crop: "),
    ],
)
def test_an_odd_view_is_a_sentence(house, change, message):
    answer = house[1].post("/api/frame", json={**view(house), **change}, headers=SOMEBODY)
    assert answer.status_code == 422 and message in answer.json()["error"]


@pytest.mark.parametrize("name", [None, "", "short", "x" * 65, "../../../etc", "a b c d e f g h"])
def test_who_asks_must_say_so(house, name):
    headers = {} if name is None else {"X-Person": name}
    assert house[1].post("/api/frame", json=view(house), headers=headers).status_code == 422


def test_other_sites_are_refused(house):
    client = house[1]
    for method, address in (
        ("GET", "/api/scene"),
        ("POST", "/api/frame"),
        ("POST", "/api/training"),
        ("GET", "/api/training"),
    ):
        answer = client.request(method, address, headers={**SOMEBODY, "Origin": "http://evil.example"})
        assert answer.status_code == 403, address
    own = {**SOMEBODY, "Origin": "http://127.0.0.1:7860"}
    assert client.post("/api/frame", json=view(house), headers=own).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[", "localhost@evil.example"]
)
def test_names_that_lead_here_by_trickery_are_refused(house, host):
    named = serve(house[0], Scenes(house[0].live, Path("runs"), "reference"), names(Options()))
    with TestClient(named, base_url="http://127.0.0.1:7860") as client:
        assert client.get("/api/scene").status_code == 200
        assert client.get("/api/scene", headers={"Host": "LOCALHOST:99"}).status_code == 200
        answer = client.get("/page/view.js", headers={"Host": host})
        assert answer.status_code == 403 and "Host: expected one of" in answer.json()["error"]


def test_everybody_is_let_in_only_on_request():
    assert names(Options()) == {"127.0.0.1", "localhost", "::1"} and names(Options(host="0.0.0.0")) is None
    assert "scenes.example" in names(Options(name="Scenes.example"))


def test_the_browser_is_told_to_fetch_nothing_from_elsewhere(house):
    for address in ("/api/scene", "/page/view.js", "/nowhere"):
        headers = house[1].get(address).headers
        assert (
            "default-src 'self'" in headers["content-security-policy"]
            and "http" not in headers["content-security-policy"]
        )
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "address",
    [
        "/page/../server.py", "/page/%2e%2e/server.py", "/page/..%2fserver.py", "/page//etc/passwd",
        "/api/films/none/film.mp4", "/api/films/../../config.json", "/api/photos/..%2f..", "/openapi.json", "/docs",
    ],
)  # fmt: skip
def test_nothing_else_of_the_disk_is_served(house, address):
    answer = house[1].get(address)
    assert answer.status_code in (404, 422), (address, answer.text[:80])


def test_photos_and_what_the_scene_makes_of_them(house):
    built, client = house
    small = client.get("/api/photos/0/compared?longest=18", headers=SOMEBODY)
    assert Image.open(io.BytesIO(small.content)).size == (54, 18)
    compared = client.get("/api/photos/0/compared", headers=SOMEBODY)
    assert Image.open(io.BytesIO(compared.content)).size == (72, 24) and float(compared.headers["x-psnr"]) > 3
    beyond = client.get(f"/api/photos/{len(built.stage.rig.photos)}/compared", headers=SOMEBODY)
    assert beyond.status_code == 422 and "photo: expected a number below" in beyond.json()["error"]


def test_paths_and_training_answer_in_sentences(house):
    client = house[1]
    line = client.post("/api/paths", json={"path": "spiral"}).json()
    assert len(line["places"]) == len(line["ahead"]) > 20
    odd = client.post("/api/paths", json={"path": "/etc/passwd"})
    assert odd.status_code == 422 and "path: expected orbit, spiral or keyframes" in odd.json()["error"]
    unknown = client.post("/api/training", json={"upload": "f" * 32})
    assert unknown.status_code == 422 and "expected a scene that was checked" in unknown.json()["error"]
    assert client.get("/api/training").json()["state"] == "idle"
    assert client.get("/api/status").json() == {
        "scene": house[0].stage.scene_id, "version": house[0].stage.version, "ready": True, "training": "idle",
    }  # fmt: skip


def test_a_port_that_is_taken_is_said(tmp_path):
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()  # at once, before there is a server
        with pytest.raises(ConfigError, match=rf"--port {port}: expected a free port"):
            listening("127.0.0.1", port)
    with pytest.raises(ConfigError, match="expected a free port"):
        listening("127.0.0.1", 99999)


def test_bad_input_ends_at_once_with_a_sentence(tmp_path, capsys):
    for arguments, message in (
        (["--run", tmp_path / "none"], "expected a run with"),
        (["--run", tmp_path, "--train", tmp_path], "--run, --train: expected one of them"),
        (["--train", tmp_path, "--budget", "soon"], "--budget: expected a time"),
        (["--backend", "gpu"], "--backend: expected auto"),
    ):
        assert main(["--port", "0", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err
