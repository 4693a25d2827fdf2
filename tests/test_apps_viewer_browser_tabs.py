"""The viewer's other tabs in a real browser, and the whole page behind a plain HTTP proxy."""

from __future__ import annotations

import shutil
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.ball import write_ball
from tests.browser import Page, change, chromium, plain_proxy, viewer
from tests.test_nerf_render import make_run


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def empty(browser, tmp_path_factory):
    """A viewer without a scene."""
    with viewer(tmp_path_factory.mktemp("empty")) as address:
        yield address


def test_a_broken_upload_is_named_and_a_whole_one_is_trained(browser, empty, tmp_path):
    page = Page(browser, empty)
    page.said("#scene-notice", "No scene yet")
    page.tab.click("role=tab[name='New scene']")
    (tmp_path / "ball").mkdir()
    good = write_ball(tmp_path / "ball", moving=False)
    broken = tmp_path / "broken"
    shutil.copytree(good, broken)
    photo = next(broken.rglob("*.png"))
    photo.write_bytes(photo.read_bytes()[:60])
    page.tab.set_input_files("#upload-folder", broken)
    page.tab.wait_for_selector("#upload-error", state="visible")
    said = page.said("#upload-error", photo.name)
    assert "expected" in said and str(tmp_path) not in said
    page.keep("broken-upload")
    page.open()
    page.tab.click("role=tab[name='New scene']")
    page.tab.set_input_files("#upload-folder", good)
    page.tab.wait_for_selector("#upload-summary", state="visible")
    page.said("#upload-summary", "photos of 24x24")
    page.keep("upload")
    page.tab.click("#upload-train")
    page.until("window.sceneView.frames.shown > 3 && window.sceneView.scene.name.startsWith('ball')")
    page.tab.click("role=tab[name='Scene']")
    page.tab.click("#training button")
    page.tab.click("#training-stop:not([disabled])")
    page.wait_for_training("stopped")
    page.close()


def test_an_image_is_fitted_and_zoomed(browser, empty, tmp_path):
    rows, columns = np.mgrid[:48, :64] / 8
    waves = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], -1)
    Image.fromarray((127.5 + 100 * waves).astype(np.uint8)).save(tmp_path / "waves.png")
    page = Page(browser, empty)
    page.tab.click("role=tab[name='Images (SIREN)']")
    page.tab.set_input_files("#siren-file", tmp_path / "waves.png")
    page.tab.click("#siren-start")
    page.until("Number((document.getElementById('siren-status').innerText.match(/([\\d.]+) dB/) ?? [0, 0])[1]) > 25")
    page.keep("siren")
    page.tab.click("#siren-stop")
    page.said("#siren-status", "Stopped")
    canvas = page.tab.locator("#siren-panel canvas").last
    before = canvas.screenshot()
    canvas.hover()
    page.tab.mouse.wheel(0, -900)
    until = time.monotonic() + 30
    while canvas.screenshot() == before and time.monotonic() < until:
        time.sleep(0.1)
    assert canvas.screenshot() != before
    page.keep("siren-zoomed")
    page.close()


def test_the_page_works_behind_a_plain_proxy(browser, tmp_path):
    run, here = make_run(tmp_path, False)[0], tmp_path / "here"
    here.mkdir()
    with viewer(here, "--run", run) as address, plain_proxy() as (proxy, passed):
        page = Page(browser, address, proxy={"server": proxy, "bypass": "<-loopback>"})
        page.settle()
        before = page.picture()
        page.drag(0.3, 0)
        page.settle()
        assert change(before, page.picture()) > 2
        page.tab.click("#training button")
        page.tab.wait_for_selector("#training-status >> text=idle")
        assert "/api/frame" in passed and "/page/view.js" in passed
        page.tab.click("#film button")
        page.tab.fill("#film-seconds input", "0.1")
        page.tab.click("#film-render")  # of a run that lies elsewhere
        page.until("document.querySelector('#film-video video')?.readyState >= 2")
        for name in ("config.json", "../scene/transforms_train.json"):
            file = f"{address}/gradio_api/file={(run / name).resolve()}"
            assert httpx.get(file).status_code == 403, name
        page.close()
