"""What a person drops is read by the project's own reader, in its own words; strangers get no further."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from apps.viewer.upload_routes import router
from apps.viewer.uploads import Uploads
from tests import trees
from tests.drops import BAD_NAMES, LIMIT, dropped, files_below, send, zipped
from tests.trees import edit_json


@pytest.fixture
def store(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", LIMIT)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.write_ngp(tmp_path / "made" / "spheres").path


@pytest.fixture
def ready() -> list[tuple[str, Path]]:
    return []


@pytest.fixture
def client(store: Uploads, ready: list[tuple[str, Path]]) -> TestClient:
    app = FastAPI()
    app.include_router(router(store, lambda token, root: ready.append((token, root))))
    return TestClient(app)


def check(client: TestClient, files: dict[str, bytes], status: int = 200) -> dict:
    answer = client.post(f"{send(client, files)}/check")
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize("how", ["folder", "folders in folders", "loose", "zip", "zip of loose files", "photos zipped"])
def test_a_scene_arrives(how: str, client: TestClient, tree: Path, ready: list[tuple[str, Path]]) -> None:
    files = {
        "folder": dropped(tree, "spheres/"),
        "folders in folders": dropped(tree, "a/b/spheres/"),
        "loose": dropped(tree),
        "zip": {"some.zip": zipped(dropped(tree, "spheres/") | {"__MACOSX/spheres/._transforms.json": b"?"})},
        "zip of loose files": {"spheres.zip": zipped(dropped(tree))},
        "photos zipped": {
            "images.zip": zipped(dropped(tree / "images")),
            "transforms.json": (tree / "transforms.json").read_bytes(),
        },
    }[how]
    report = check(client, files | {"notes.md": b"hello", ".DS_Store": b"?", "Thumbs.db": b"?"})
    name = "upload" if how in ("loose", "photos zipped") else "spheres"
    assert report["summary"].startswith(f"{name} (transforms.json, static): 12 photos of 40x30")
    assert (report["photos"], report["downscale"], report["suggested"], report["warnings"]) == (12, 1, 1, [])
    assert report["skipped"] == 3 + (how == "zip")
    picture = client.get(report["plot"])
    assert picture.headers["content-type"] == "image/png" and Image.open(io.BytesIO(picture.content)).width > 1000
    token, root = ready[0]
    assert len(ready) == 1 and token in report["plot"] and root.name == name and (root / "transforms.json").is_file()
    assert not list(root.rglob("*.zip")) and not list(root.rglob("*.md"))


def test_a_scene_is_checked_again_at_another_size(client: TestClient, tree: Path) -> None:
    url = send(client, dropped(tree, "spheres/"))
    assert "40x30" in client.post(f"{url}/check").json()["summary"]
    assert "20x15" in client.post(f"{url}/check?downscale=2").json()["summary"]
    refused = client.post(f"{url}/check?downscale=0")
    assert refused.status_code == 422 and "downscale: expected a whole number from 1" in refused.json()["error"]
    late = client.put(f"{url}/files/more.json", content=b"{}")
    assert late.status_code == 422 and "before the scene is checked" in late.json()["error"]


def test_warnings_name_no_folder_of_the_server(client: TestClient, tree: Path, tmp_path: Path) -> None:
    (tree / "images/shot_003.png").unlink()
    (line,) = check(client, dropped(tree, "spheres/"))["warnings"]
    assert line.startswith("spheres/transforms.json: 1 of 12 photos are missing") and str(tmp_path) not in line


def _spoil_json(change: Callable[[dict], object]) -> Callable[[Path], object]:
    return lambda tree: edit_json(tree / "transforms.json", change)


def _name(name: str, field: str = "file_path") -> Callable[[Path], object]:
    return _spoil_json(lambda d: d["frames"][0].update({field: name}))


BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "cut": (
        lambda t: (t / "transforms.json").write_text("{"),
        ("spheres/transforms.json: line 1: expected valid JSON",),
    ),
    "no poses": (lambda t: (t / "transforms.json").unlink(), ("poses_bounds.npy", "COLMAP", "found 12 photos alone")),
    "no photos": (lambda t: shutil.rmtree(t / "images"), ("frames: expected photos in the scene's folder",)),
    "not a photo": (
        lambda t: (t / "images/shot_000.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("spheres/images/shot_000.png: image: expected a PNG or JPEG, found 47 bytes of something else",),
    ),
    "half a photo": (
        lambda t: (t / "images/shot_000.png").write_bytes((t / "images/shot_000.png").read_bytes()[:80]),
        ("spheres/images/shot_000.png: image: expected a whole PNG or JPEG",),
    ),
    "a size that isn't": (_spoil_json(lambda d: d.update(w=77)), ("shot_000.png: size: expected 77x30",)),
    "leads up": (
        _name("../../../../secret.png"),
        ("frames[0].file_path: expected a file inside spheres, found ../..",),
    ),
    "leads away": (_name("/etc/passwd"), ("frames[0].file_path: expected a file inside spheres, found /etc/passwd",)),
    "leads to a neighbour": (_name("."), ("frames[0].file_path: expected a file inside spheres, found .",)),
    "mask leads up": (_name("../secret.png", "mask_path"), ("frames[0].mask_path: expected a file inside spheres",)),
    "backslashes": (_name("images\\..\\..\\secret.png"), ("frames[0].file_path: expected a file inside spheres",)),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_the_readers_own_words(case: str, client: TestClient, tree: Path, tmp_path: Path, store: Uploads) -> None:
    spoil, words = BROKEN[case]
    spoil(tree)
    url = send(client, dropped(tree, "spheres/"))
    (home,) = store.folder.iterdir()
    store.finish(home.name)
    for place in (store.folder, home, home / "upload"):  # photos that would do, were they read
        for name in ("secret.png", "spheres.png"):
            Image.new("RGB", (40, 30)).save(place / name)
    answer = client.post(f"{url}/check")
    assert answer.status_code == 422, answer.text
    sentence = answer.json()["error"]
    assert all(word in sentence for word in words), sentence
    assert str(tmp_path) not in sentence and "\n" not in sentence


@pytest.mark.parametrize("name", [n for n in BAD_NAMES if n not in ("", "\ud800")])
def test_bad_names_are_refused_over_http(name: str, client: TestClient, store: Uploads) -> None:
    url = send(client, {})
    answer = client.put(f"{url}/files/{quote(name, safe='').replace('.', '%2E')}", content=b"x")
    refused = answer.status_code == 422 and "name: expected a path inside" in answer.json()["error"]
    assert refused or (name == "a\n.txt" and answer.status_code == 404)  # no route's name holds a line's end
    assert files_below(store.folder.parent) == []


def test_limits_over_http(client: TestClient, store: Uploads) -> None:
    url = send(client, {})

    def pieces():
        for _ in range(12):
            yield bytes(LIMIT // 10)

    for body in (bytes(LIMIT + 1), pieces()):  # with its length ahead, and without
        for name in ("a.png", "a.other"):
            answer = client.put(f"{url}/files/{name}", content=body)
            assert answer.status_code == 413 and "at most 1 MB in all" in answer.json()["error"]
            body = pieces() if not isinstance(body, bytes) else body
    assert files_below(store.folder) == []


@pytest.mark.parametrize("token", ["0" * 32, "..", "%2e%2e", "A" * 32, "0" * 31 + "%0a", "x"])
def test_unknown_tokens(token: str, client: TestClient, tmp_path: Path) -> None:
    answers = [
        client.put(f"/api/uploads/{token}/files/a.json", content=b"x"),
        client.post(f"/api/uploads/{token}/check"),
        client.get(f"/api/uploads/{token}/plot.png"),
        client.delete(f"/api/uploads/{token}"),
    ]
    assert {a.status_code for a in answers} <= {404, 405} and not (tmp_path / "uploads").exists()


def test_delete_removes_all(client: TestClient, tree: Path, store: Uploads) -> None:
    url = send(client, dropped(tree, "spheres/"))
    assert client.get(f"{url}/plot.png").status_code == 404
    assert client.delete(url).json() == {} and not list(store.folder.iterdir())
    assert client.delete(url).status_code == 404


def test_other_sites_may_not(client: TestClient, store: Uploads) -> None:
    url = send(client, {})
    other = {"Origin": "http://elsewhere.example"}
    for method, address in (("POST", "/api/uploads"), ("PUT", f"{url}/files/a.json"), ("DELETE", url)):
        answer = client.request(method, address, headers=other)
        assert answer.status_code == 403 and "Origin: expected testserver" in answer.json()["error"]
    assert len(list(store.folder.iterdir())) == 1 and files_below(store.folder) == []
