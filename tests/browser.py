"""A viewer as a person starts it, and a real browser in front of it."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
# Headless on a machine without a screen, and silent towards the outside.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium; tests that need one are skipped where there is none, but not in continuous integration."""
    driver = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with driver.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        except driver.Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"needs Chromium (apt install chromium, or playwright install chromium): {error}"[:200])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def viewer(folder: Path, *arguments: object) -> Iterator[str]:
    """`python -m apps.viewer` in that folder; its address. Ends it with Ctrl-C, and sees that it ends well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    log = folder / "viewer.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "apps.viewer", "--port", "0", *map(str, arguments)],
            cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        try:
            yield _address(process, log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"open (http://\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    raise AssertionError(log.read_text())


class Page:
    """A tab with the viewer, its errors and the addresses that it asked for."""

    def __init__(self, browser: Any, address: str, **how: Any) -> None:
        self.address, self.errors, self.outside = address, [], []
        self.context = browser.new_context(viewport={"width": 1300, "height": 900}, **how)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(30_000)
        self.tab.on("pageerror", lambda error: self.errors.append(error.stack or str(error)))
        self.tab.on(
            "console",
            lambda m: self.errors.append(m.text) if m.type == "error" and not re.search("42[29]|499", m.text) else None,
        )
        self.tab.on("request", lambda request: self._watch(request.url))
        self.open()

    def _watch(self, url: str) -> None:
        if not url.startswith((self.address, "blob:", "data:")):
            self.outside.append(url)

    def open(self) -> None:
        """(Re)load it."""
        self.tab.goto(self.address)
        self.tab.wait_for_selector("#scene-picture")
        self.until("window.sceneView")

    def close(self) -> None:
        """Close the tab, which must have had no error and no need of any other server."""
        self.context.close()
        assert self.errors == [] and self.outside == [], (self.errors, self.outside)

    def shown(self) -> int:
        """How many pictures of the scene it has shown."""
        return int(self.tab.get_attribute("#scene-picture", "data-frames") or 0)

    def settle(self, seconds: float = 40) -> None:
        """Wait for the full picture, after something has moved."""
        self.until(
            "window.sceneView.scene?.ready && !window.sceneView.frames.flying && !window.sceneView.frames.wanted"
            " && window.sceneView.frames.reached >= window.sceneView.state.size",
            seconds=seconds,
        )

    def until(self, condition: str, about: Any = None, seconds: float = 40) -> None:
        """Wait until this JavaScript holds, of `it`, which is `about`. It may await: Playwright's own
        `wait_for_function` takes a promise for true."""
        end = time.monotonic() + seconds
        while not self.tab.evaluate(f"async (it) => Boolean({condition})", about):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}, of {about}"
            time.sleep(0.05)

    def training(self) -> dict[str, Any]:
        """What the server says of the training."""
        return self.tab.evaluate("() => fetch('/api/training').then((answer) => answer.json())")

    def wait_for_training(self, state: str) -> None:
        """Wait until the server says that the training stands there."""
        self.until("(await (await fetch('/api/training')).json()).state === it", state)

    def said(self, selector: str, text: str) -> str:
        """What an element says, once that is part of it."""
        self.until("document.querySelector(it[0])?.innerText.includes(it[1])", [selector, text])
        return self.tab.inner_text(selector)

    def pose(self) -> list[Any]:
        """Where the camera is, as its matrix."""
        return self.tab.evaluate("() => window.sceneView.camera.pose")

    def moved_by(self, action: Callable[[], object]) -> None:
        """Do something that moves the camera, and wait until the page has heard of it."""
        before = self.pose()
        action()
        self.until("JSON.stringify(window.sceneView.camera.pose) !== JSON.stringify(it)", before)

    def picture(self) -> np.ndarray:
        """The pixels of the scene's canvas, without the lines over it, "h w 3" in [0, 255]."""
        url = self.tab.evaluate("() => document.getElementById('scene-picture').toDataURL('image/png')")
        return np.asarray(Image.open(BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")).astype(float)

    def drag(self, right: float, down: float, steps: int = 12) -> None:
        """Drag over the picture, in shares of its height; it is let go of once another picture was seen on the way."""
        self.tab.locator("#scene-lines").scroll_into_view_if_needed()
        box = self.tab.locator("#scene-lines").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        shown = self.shown()
        self.tab.mouse.move(x, y)
        self.tab.mouse.down()
        for i in range(1, steps + 1):
            self.tab.mouse.move(x + right * box["height"] * i / steps, y + down * box["height"] * i / steps)
            time.sleep(0.02)
        self.until("window.sceneView.frames.shown > it", shown)
        self.tab.mouse.up()

    def keep(self, name: str) -> None:
        """A screenshot, where continuous integration keeps them."""
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            self.tab.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean absolute difference of two pictures, in gray levels."""
    return float(np.abs(before - after).mean())


class _Forward(BaseHTTPRequestHandler):
    """A plain HTTP proxy: whole requests, answers as they come, and no tunnels or upgrades."""

    passed: list[str]

    def _pass(self) -> None:
        parts = urlsplit(self.path)
        self.passed.append(parts.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        names = ("connection", "proxy-connection", "upgrade", "keep-alive")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in names}
        with closing(HTTPConnection(parts.netloc, timeout=60)) as there:
            there.request(self.command, f"{parts.path}?{parts.query}".rstrip("?"), body, headers)
            answer = there.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            with suppress(ConnectionError):
                while piece := answer.read1(1 << 16):
                    self.wfile.write(piece)

    do_GET = do_POST = do_PUT = do_DELETE = _pass

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def plain_proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy's address, and the paths that went through it."""
    handler = type("Forward", (_Forward,), {"passed": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.passed
    finally:
        server.shutdown()
        server.server_close()
