"""The viewer in a real browser: turned, scrubbed, filmed, trained live, reloaded, by two people at once."""

from __future__ import annotations

import json
import re
import time

import imageio.v2 as imageio
import numpy as np
import pytest

from nerf.keyframes import load_path
from nerf.rig import Rig
from tests.browser import ROOT, Page, change, chromium, viewer

SIZE = 128  # pixels of the photos' longer side as trained on: 512 / 4


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def house(browser, tmp_path_factory):
    """A viewer that has been started with --train and watched until it was done: its address, folder, and what was seen."""
    folder = tmp_path_factory.mktemp("viewer")
    with viewer(folder, "--train", ROOT / "data" / "selfie", "--downscale", 4, "--budget", "26s") as address:
        page = Page(browser, address)
        seen = watch(page)
        page.keep("trained")
        page.close()
        yield address, folder, seen


def training(page: Page) -> dict:
    return page.tab.evaluate("() => fetch('/api/training').then((answer) => answer.json())")


def watch(page: Page, until: str = "done", seconds: float = 240) -> list[dict]:
    """Look at a training until it ends: its states, with the pictures shown by then."""
    seen, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        now = training(page)
        seen.append({**now, "shown": page.shown(), "text": page.tab.inner_text("#training-status")})
        if now["state"] in (until, "failed"):
            return seen
        if len(seen) == 12:
            page.keep("training")
        time.sleep(0.5)
    raise AssertionError(f"still {seen[-1]['state']} after {seconds} s")


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
    psnr = [value for _, value, _ in seen[-1]["curve"]]
    assert psnr[-1] > psnr[0] + 3 and psnr[-1] > 16
    assert during[-1]["shown"] > during[0]["shown"] + 3  # the view follows
    shown = [float(found[1]) for now in during if (found := re.search(r"train ([\d.]+) dB", now["text"]))]
    assert shown[-1] > shown[0] + 1  # and so does what is said
    metrics = json.loads((folder / "runs" / "selfie" / "metrics.json").read_text())
    assert (metrics["psnr"] > 18 and "held out" in seen[-1]["text"]) or seen[-1]["text"]


def test_a_drag_turns_the_scene_and_a_key_takes_it_back(page):
    before, shown = page.picture(), page.shown()
    page.drag(0.25, 0.05)
    assert page.shown() > shown  # while it moves, not only afterwards
    page.settle()
    turned = page.picture()
    assert change(before, turned) > 8
    page.tab.mouse.wheel(0, -240)
    page.settle()
    assert change(turned, page.picture()) > 4
    page.tab.keyboard.press("r")
    page.settle()
    assert change(before, page.picture()) < 1.5
    for key in ("ArrowLeft", "+", "Shift+ArrowUp"):
        page.tab.keyboard.press(key)
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
    page.settle()
    page.keep("cameras")
    assert page.tab.evaluate("() => window.sceneView.state.chosen") == 3
    page.tab.click("#scene-compare")
    page.tab.wait_for_selector("#scene-sheet img", state="visible")
    assert float(re.search(r"([\d.]+) dB", page.tab.inner_text("#scene-sheet"))[1]) > 17
    page.drag(0.1, 0)
    assert page.tab.evaluate("() => window.sceneView.state.chosen") == -1


def test_a_recorded_path_becomes_a_film_that_plays(page, house, tmp_path):
    page.tab.click("#film button")
    page.tab.click("#film-record")
    page.drag(0.15, 0.05)
    page.tab.click("#film-record")
    page.tab.click("#film-path input")
    page.tab.click("text=through my keyframes")
    page.tab.click("#film-show")
    page.tab.wait_for_function("() => window.sceneView.path?.places.length > 10")
    before, moment = page.tab.evaluate("() => [window.sceneView.camera.eye, window.sceneView.state.time]")
    page.tab.check("#scene-freeze")
    page.tab.click("#scene-play")  # along the line, the person frozen
    page.tab.wait_for_function("(eye) => Math.abs(window.sceneView.camera.eye[0] - eye[0]) > 1e-4", arg=before)
    page.tab.click("#scene-play")
    assert page.tab.evaluate("() => window.sceneView.state.time") == moment
    page.tab.fill("#film-seconds input", "0.375")
    page.tab.fill("#film-width input", "60")
    page.tab.click("#film-render")
    page.tab.wait_for_selector("#film-video video")
    page.tab.wait_for_function("() => document.querySelector('#film-video video').readyState >= 2")
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
    until = time.monotonic() + 30
    while not (exports.is_dir() and set(exports.iterdir()) - before) and time.monotonic() < until:
        time.sleep(0.1)
    assert set(exports.iterdir()) - before
    page.close()
    while set(exports.iterdir()) - before and time.monotonic() < until:
        time.sleep(0.1)
    assert set(exports.iterdir()) == before


def test_a_reload_loses_nothing(page):
    page.drag(0.2, 0)
    page.settle()
    page.tab.wait_for_function("() => sessionStorage.getItem(`scene:selfie`)")
    time.sleep(0.5)
    before, pose = page.picture(), page.tab.evaluate("() => window.sceneView.camera.pose")
    page.open()
    page.settle()
    assert page.tab.evaluate("() => window.sceneView.camera.pose") == pose
    assert change(before, page.picture()) < 1.5
    assert training(page)["state"] == "done"


def test_two_people_have_a_camera_each(browser, page):
    other = Page(browser, page.address)
    other.settle()
    same = page.picture()
    shown = page.shown(), other.shown()
    for _ in range(6):  # both at once, turn by turn
        page.drag(0.02, 0, 3)
        other.drag(-0.02, 0, 3)
    assert page.shown() > shown[0] and other.shown() > shown[1]
    page.settle()
    other.settle()
    assert change(page.picture(), other.picture()) > 4 and change(same, other.picture()) > 4
    other.close()


def test_training_goes_further_pauses_and_stops(page):
    before = training(page)["curve"][-1]
    page.tab.wait_for_selector("#training-more:not([disabled])")
    page.tab.fill("#training-budget textarea, #training-budget input", "30s")
    page.tab.click("#training-more")
    page.tab.click("#training-pause:not([disabled])")
    page.tab.wait_for_function("() => fetch('/api/training').then((a) => a.json()).then((t) => t.state === 'paused')")
    time.sleep(1)  # the step under way still ends
    held = training(page)["curve"]
    time.sleep(1.5)
    assert training(page)["curve"] == held
    page.tab.click("#training-resume:not([disabled])")
    page.tab.wait_for_function(
        "(count) => fetch('/api/training').then((a) => a.json()).then((t) => t.curve.length > count + 3)", arg=len(held)
    )
    page.tab.click("#training-stop:not([disabled])")
    page.tab.wait_for_function("() => fetch('/api/training').then((a) => a.json()).then((t) => t.state === 'stopped')")
    assert training(page)["curve"][-1][0] > before[0]


def test_a_newer_picture_takes_an_older_ones_place(page):
    found = page.tab.evaluate(
        """async () => {
        const view = window.sceneView.asked(1024, 1024), ask = (size) => fetch("/api/frame", { method: "POST",
          headers: { "Content-Type": "application/json", "X-Person": "somebody-else" },
          body: JSON.stringify({ ...view, width: size, height: size }) }).then((answer) => answer.status);
        const old = ask(2048);
        await new Promise((done) => setTimeout(done, 100));
        return Promise.all([old, ask(40)]);
      }"""
    )
    assert found == [499, 200]
