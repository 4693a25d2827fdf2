"""The viewer in a real browser: turned, scrubbed, filmed, trained live, reloaded, by two people at once."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from nerf.keyframes import load_path
from nerf.rig import Rig
from tests.browser import ROOT, Page, change, chromium, viewer

LEARNT = 18.0  # dB of training rays, of 12 at the start


def some_photos(folder: Path) -> Path:
    """The selfie that ships with a quarter of its photos, 4 of them held out."""
    shipped = ROOT / "data" / "selfie"
    folder.mkdir()
    for part in shipped.iterdir():
        if part.name != "dataset.json":
            (folder / part.name).symlink_to(part)
    whole = json.loads((shipped / "dataset.json").read_text())
    train, held = whole["train_ids"][::4], whole["val_ids"][::7]
    counts = {"count": len(train) + len(held), "num_exemplars": len(train)}
    content = whole | counts | {"ids": train + held, "train_ids": train, "val_ids": held}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def house(browser, tmp_path_factory):
    """A viewer started with --train and watched until it had learnt enough, then for a second more and until it was
    measured: its address, folder, and what was seen."""
    folder = tmp_path_factory.mktemp("viewer")
    scene = some_photos(folder / "selfie")
    with viewer(folder, "--train", scene, "--downscale", 4, "--budget", "5m") as address:
        page = Page(browser, address)
        seen = watch(page, LEARNT)
        page.tab.click("#training-stop:not([disabled])")
        page.wait_for_training("stopped")
        page.keep("trained")
        page.tab.fill("#training-budget textarea, #training-budget input", "1s")
        page.tab.click("#training-more:not([disabled])")
        page.wait_for_training("done")
        seen.append({**page.training(), "text": page.said("#training-status", "held out")})
        page.close()
        yield address, folder, seen


def watch(page: Page, enough: float, seconds: float = 240) -> list[dict]:
    """Look at a training until its photos are learnt to so many dB: its states, with the pictures shown by then."""
    seen, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        now = page.training()
        seen.append({**now, "shown": page.shown(), "text": page.tab.inner_text("#training-status")})
        assert now["state"] in ("loading", "training"), now["error"]
        if now["curve"] and now["curve"][-1][1] > enough:
            return seen
        if len(seen) == 12:
            page.keep("training")
        time.sleep(0.5)
    raise AssertionError(f"{seen[-1]['text']} after {seconds} s")


@pytest.fixture
def page(browser, house):
    opened = Page(browser, house[0])
    opened.settle()
    yield opened
    opened.close()


def test_a_training_is_seen_while_it_goes_on(house):
    _, folder, seen = house
    assert seen[-1]["state"] == "done", seen[-1]["error"]
    during = [now for now in seen if now["state"] == "training" and now["curve"]]
    assert len(during) >= 5
    assert during[-1]["shown"] > during[0]["shown"] + 3  # the view follows
    shown = [float(found[1]) for now in during if (found := re.search(r"train ([\d.]+) dB", now["text"]))]
    assert shown[-1] > shown[0] + 1  # and so does what is said
    metrics = json.loads((folder / "runs" / "selfie" / "metrics.json").read_text())
    assert len(metrics["views"]) == 4 and f"held out: {metrics['psnr']:.2f} dB" in seen[-1]["text"]


def test_a_drag_turns_the_scene_and_a_key_takes_it_back(page):
    before = page.picture()
    page.drag(0.25, 0.05)  # sees a picture while it moves
    page.settle()
    turned = page.picture()
    assert change(before, turned) > 8
    page.moved_by(lambda: page.tab.mouse.wheel(0, -240))
    page.settle()
    assert change(turned, page.picture()) > 4
    page.moved_by(lambda: page.tab.keyboard.press("r"))
    page.settle()
    assert change(before, page.picture()) < 1.5
    for key in ("ArrowLeft", "+", "Shift+ArrowUp"):
        page.moved_by(partial(page.tab.keyboard.press, key))
    page.settle()
    assert change(before, page.picture()) > 4


def test_time_moves_the_face_and_not_the_wall(page):
    def at(time: float) -> np.ndarray:
        page.tab.evaluate(
            "(time) => { const slider = document.getElementById('scene-time'); slider.value = time;"
            " slider.dispatchEvent(new Event('input')); }",
            time,
        )
        page.settle()
        return page.picture()

    moved = np.abs(at(0.0) - at(0.6)).mean(-1)
    height, width = moved.shape
    face = moved[int(0.3 * height) : int(0.6 * height), int(0.35 * width) : int(0.65 * width)].mean()
    wall = moved[: int(0.15 * height)].mean()
    assert face > 1 and face > 1.5 * wall
    page.keep("scrubbed")


def test_modes_show_other_things(page):
    pictures = {}
    for mode in ("color", "depth", "opacity", "canonical", "warp"):
        page.tab.select_option("#scene-mode", mode)
        page.settle()
        pictures[mode] = page.picture()
    assert pictures["opacity"].mean() > 200  # a room's walls are opaque
    for mode in ("depth", "opacity", "warp"):
        assert change(pictures["color"], pictures[mode]) > 20
    page.tab.select_option("#scene-mode", "color")
    page.tab.check("#scene-crop")
    page.tab.evaluate(
        "() => { const slider = document.getElementById('scene-crop-x0'); slider.value = Number(slider.max) / 2 + Number(slider.min) / 2;"
        " slider.dispatchEvent(new Event('input')); }"
    )
    page.settle()
    assert change(pictures["color"], page.picture()) > 10
    page.keep("cropped")


def test_a_photo_is_taken_and_compared(page):
    page.tab.check("#scene-cameras")
    page.tab.select_option("#scene-photo", index=4)
    page.until("window.sceneView.state.chosen === 3")
    page.settle()
    page.keep("cameras")
    page.tab.click("#scene-compare")
    page.tab.wait_for_selector("#scene-sheet img", state="visible")
    assert float(re.search(r"([\d.]+) dB", page.said("#scene-sheet", "dB"))[1]) > LEARNT - 2
    page.tab.route("**/compared?*", lambda route: route.fulfill(status=422, json={"error": "not <b>now</b>"}))
    page.tab.click("#scene-compare")
    page.said("#scene-sheet", "not <b>now</b>")  # and it stays, whatever the scene's own line says by then
    assert not page.tab.is_visible("#scene-sheet img")
    page.tab.unroute("**/compared?*")
    page.tab.click("#scene-compare")
    page.tab.wait_for_selector("#scene-sheet img", state="visible")
    page.drag(0.1, 0)
    page.until("window.sceneView.state.chosen === -1")


def test_a_recorded_path_becomes_a_film_that_plays(page, house, tmp_path):
    page.tab.click("#film button")
    page.tab.click("#film-record")
    page.drag(0.15, 0.05)
    page.tab.click("#film-record")
    page.tab.click("#film-path input")
    page.tab.click("text=through my keyframes")
    page.tab.click("#film-show")
    page.until("window.sceneView.path?.places.length > 10")
    before, moment = page.tab.evaluate("() => [window.sceneView.camera.eye, window.sceneView.state.time]")
    page.tab.check("#scene-freeze")
    page.tab.click("#scene-play")  # along the line, the person frozen
    page.until("Math.abs(window.sceneView.camera.eye[0] - it[0]) > 1e-4", before)
    page.tab.click("#scene-play")
    assert page.tab.evaluate("() => window.sceneView.state.time") == moment
    page.tab.fill("#film-seconds input", "0.375")
    page.tab.fill("#film-width input", "60")
    page.tab.click("#film-render")
    page.tab.wait_for_selector("#film-video video")
    page.until("document.querySelector('#film-video video').readyState >= 2")
    assert page.tab.evaluate("() => document.querySelector('#film-video video').duration") == pytest.approx(
        9 / 24, abs=0.1
    )
    page.keep("film")
    with page.tab.expect_download() as coming:
        page.tab.click("#film-files a[download$='.mp4'], #film-files a[href$='.mp4']")
    coming.value.save_as(tmp_path / "film.mp4")
    frames = [*imageio.get_reader(tmp_path / "film.mp4", "ffmpeg").iter_data()]
    assert len(frames) == 9 and frames[0].shape == (80, 60, 3)
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 4
    run = house[1] / "runs" / "selfie"
    assert not [*(run.parent / "page").rglob("film-*")]  # it is shown where it lies, and not kept twice
    keyframes, loop = load_path(next((run / "exports").glob("*.json")), Rig.load(run))
    assert len(keyframes) == 2 and not loop


def test_a_film_is_stopped_with_its_tab(browser, house):
    exports = house[1] / "runs" / "selfie" / "exports"
    before = set(exports.iterdir()) if exports.is_dir() else set()
    page = Page(browser, house[0])
    page.settle()
    page.tab.click("#film button")
    page.tab.fill("#film-seconds input", "100")
    page.tab.click("#film-render")
    until = time.monotonic() + 60
    while not (exports.is_dir() and set(exports.iterdir()) - before) and time.monotonic() < until:
        time.sleep(0.1)
    assert set(exports.iterdir()) - before
    page.close()
    until = time.monotonic() + 60
    while set(exports.iterdir()) - before and time.monotonic() < until:
        time.sleep(0.1)
    assert set(exports.iterdir()) == before


def test_a_reload_loses_nothing(page):
    page.drag(0.2, 0)
    page.settle()
    eye = page.tab.evaluate("() => window.sceneView.camera.eye")
    kept = "JSON.parse(sessionStorage.getItem('scene:selfie'))?.camera.eye"
    page.until(f"JSON.stringify({kept}) === JSON.stringify(it)", eye)
    before, pose = page.picture(), page.pose()
    page.open()
    page.settle()
    assert page.pose() == pose
    assert change(before, page.picture()) < 1.5
    assert page.training()["state"] == "done"


def test_two_people_have_a_camera_each(browser, page):
    other = Page(browser, page.address)
    other.settle()
    same = page.picture()
    for _ in range(6):  # both at once, turn by turn; each sees the scene move
        page.drag(0.02, 0, 3)
        other.drag(-0.02, 0, 3)
    page.settle()
    other.settle()
    assert change(page.picture(), other.picture()) > 4 and change(same, other.picture()) > 4
    other.close()


def test_training_goes_further_pauses_and_stops(page):
    before = page.training()["curve"][-1]
    page.tab.wait_for_selector("#training-more:not([disabled])")
    page.tab.fill("#training-budget textarea, #training-budget input", "60s")
    page.tab.click("#training-more")
    page.tab.click("#training-pause:not([disabled])")
    page.wait_for_training("paused")
    held = page.training()["curve"]
    time.sleep(1.5)  # ten steps or more, were any taken
    assert page.training()["curve"] == held
    page.tab.click("#training-resume:not([disabled])")
    page.until("(await (await fetch('/api/training')).json()).curve.length > it + 3", len(held))
    page.tab.click("#training-stop:not([disabled])")
    page.wait_for_training("stopped")
    assert page.training()["curve"][-1][0] > before[0]


def test_a_newer_picture_takes_an_older_ones_place(page):
    found = page.tab.evaluate(
        """async () => {
        const view = window.sceneView.asked(1024, 1024), ask = (size) => fetch("/api/frame", { method: "POST",
          headers: { "Content-Type": "application/json", "X-Person": "somebody-else" },
          body: JSON.stringify({ ...view, width: size, height: size }) }).then((answer) => answer.status);
        const old = ask(2048);
        await new Promise((done) => setTimeout(done, 1000)); // by then the server draws it, for seconds
        return Promise.all([old, ask(40)]);
      }"""
    )
    assert found == [499, 200]
