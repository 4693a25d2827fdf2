"""People at the viewer's page, as a machine can play them: each in a browser of their own, doing what people do, all the time."""

from __future__ import annotations

import re
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from apps.browsing import chromium

PATIENCE = 120_000  # milliseconds that something on the page may take, beside a training and the others
PAUSE = 0.5, 3.0  # seconds between two things that somebody does
MODES = ("color", "depth", "opacity", "canonical", "warp")
# What the browser's console says of answers that a newer wish has overtaken, and of those for whom there was no room.
OVERTAKEN = re.compile("42[29]|499")


def pack(scene: Path, file: Path) -> Path:
    """A scene's folder as a .zip, to be dropped onto a page."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(scene.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(scene.parent))
    return file


def paint(file: Path) -> Path:
    """A photo of waves, to be fitted."""
    rows, columns = np.mgrid[:96, :128] / 8
    waves = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], -1)
    Image.fromarray((127.5 + 100 * waves).astype(np.uint8)).save(file)
    return file


class Visitor(threading.Thread):
    """Somebody at the page until `over` is set. The first one also sees to it that something is always trained.

    Args:
        trained: the scene that the first one trains, as the page calls it; None: it is somebody else's business.
        budget, downscale: of each training.
        scene, photo: what is dropped onto the page.

    Attributes:
        counts: what was done, and how often.
        errors: what couldn't be done, and why.
        console: what the page's own scripts complained of.
    """

    def __init__(
        self, address: str, number: int, over: threading.Event, scene: Path, photo: Path, trained: str | None, budget: str,
        downscale: int,
    ) -> None:  # fmt: skip
        super().__init__(name=f"visitor {number}", daemon=True)
        self.address, self.over, self.scene, self.photo = address, over, scene, photo
        self.trained, self.budget, self.downscale = trained, budget, downscale
        self.random = Random(number)
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self.console: list[str] = []
        self.page: Any = None
        self.context: Any = None

    def run(self) -> None:
        """Do now this and now that, until it is over."""
        try:
            with chromium() as self._browser:
                self._open()
                while not self.over.is_set():
                    if self.trained is not None and self._idle():
                        self._try("start a training", self._train)
                    name, action = self.random.choices(*zip(*self._habits()))[0]
                    self._try(name, action)
                    self.over.wait(self.random.uniform(*PAUSE))
                self.context.close()
        except Exception as error:  # of the browser itself; what it did so far counts
            if self.over.is_set():
                return  # a page that was being opened
            self.errors.append(f"browser: {type(error).__name__}: {str(error)[:300]}")

    def _habits(self) -> list[tuple[tuple[str, Callable[[], None]], int]]:
        """What people do, and how often each beside the others."""
        return [
            (("drag", self._drag), 8), (("zoom", self._zoom), 4), (("change the mode", self._mode), 4),
            (("scrub time", self._scrub), 4), (("compare with a photo", self._compare), 2), (("film", self._film), 1),
            (("fit a photo", self._fit), 1), (("drop a scene", self._drop), 1), (("leave and come back", self._return), 1),
        ]  # fmt: skip

    def _try(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
            self.counts[name] += 1
        except Exception as error:
            if self.over.is_set():
                return
            self.errors.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            self._return()  # to a page on which the next thing can be tried

    def _open(self) -> None:
        self.context = self._browser.new_context(viewport={"width": 1300, "height": 900})
        self.page = page = self.context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on(
            "console",
            lambda m: self.console.append(m.text) if m.type == "error" and not OVERTAKEN.search(m.text) else None,
        )
        page.goto(self.address)
        page.wait_for_selector("#scene-picture")
        self._until("window.sceneView?.scene?.ready && window.sceneView.frames.shown > 0")

    def _return(self) -> None:
        """Close the tab with all that it holds, and open another."""
        self.context.close()
        self._open()

    def _until(self, condition: str, about: Any = None) -> None:
        end = time.monotonic() + PATIENCE / 1000
        while not self.page.evaluate(f"async (it) => Boolean({condition})", about):
            if self.over.is_set():
                raise TimeoutError("the end")
            if time.monotonic() > end:
                raise TimeoutError(f"not within {PATIENCE // 1000} s: {condition}")
            time.sleep(0.1)

    def _tab(self, name: str) -> None:
        self.page.click(f"role=tab[name='{name}']")

    def _shown(self) -> int:
        return self.page.evaluate("() => window.sceneView.frames.shown")

    def _pictured(self, act: Callable[[], object]) -> None:
        """Do something to the scene, and wait until another picture of it came."""
        self._tab("Scene")
        before = self._shown()
        act()
        self._until("window.sceneView.frames.shown > it", before)

    def _drag(self) -> None:
        self._tab("Scene")
        self.page.locator("#scene-lines").scroll_into_view_if_needed()
        box = self.page.locator("#scene-lines").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        right, down = (self.random.uniform(-0.3, 0.3) * box["height"] for _ in range(2))

        def act() -> None:
            self.page.mouse.move(x, y)
            self.page.mouse.down()
            for step in range(1, 31):
                self.page.mouse.move(x + right * step / 30, y + 0.3 * down * step / 30)
                time.sleep(0.02)
            self.page.mouse.up()

        self._pictured(act)

    def _zoom(self) -> None:
        self._tab("Scene")
        self.page.hover("#scene-lines")
        self._pictured(lambda: self.page.mouse.wheel(0, self.random.choice((-240, 240))))
        if self.random.random() < 0.5:
            self.page.keyboard.press("r")

    def _mode(self) -> None:
        options = self.page.eval_on_selector_all("#scene-mode option", "(all) => all.map((one) => one.value)")
        now = self.page.input_value("#scene-mode")
        other = self.random.choice([mode for mode in MODES if mode in options and mode != now])
        self._pictured(lambda: self.page.select_option("#scene-mode", other))

    def _scrub(self) -> None:
        self._tab("Scene")
        for _ in range(8):
            self.page.evaluate(
                "(time) => { const slider = document.getElementById('scene-time'); if (slider) { slider.value = time;"
                " slider.dispatchEvent(new Event('input')); } }",
                self.random.random(),
            )
            time.sleep(0.1)

    def _compare(self) -> None:
        """Lay a photo beside the scene; asked again where the page says that a training is only beginning."""
        self._tab("Scene")
        end = time.monotonic() + PATIENCE / 1000
        while not self.over.is_set():
            count = self.page.evaluate("() => window.sceneView.scene.photos.length")
            self.page.select_option("#scene-photo", index=self.random.randint(1, count))
            self.page.click("#scene-compare")
            self.page.wait_for_selector("#scene-sheet", state="visible")
            if self.page.locator("#scene-sheet img").is_visible():
                return
            said = self.page.inner_text("#scene-sheet")
            if "try again" not in said or time.monotonic() > end:
                raise RuntimeError(said)
            self.over.wait(1.0)

    def _unfold(self, name: str, inside: str) -> None:
        self._tab("Scene")
        if not self.page.locator(inside).is_visible():
            self.page.click(f"#{name} button >> nth=0")
            self.page.wait_for_selector(inside)

    def _film(self) -> None:
        """Order a film, see it play, and take it home."""
        self._unfold("film", "#film-render")
        self.page.fill("#film-seconds input", "0.5")
        self.page.fill("#film-width input", "96")
        source = "(document.querySelector('#film-video video')?.currentSrc ?? '')"
        before = self.page.evaluate(f"() => {source}")
        self.page.click("#film-render")
        self._until(f"{source} !== it && document.querySelector('#film-video video')?.readyState >= 2", before)
        with self.page.expect_download() as coming:
            self.page.click("#film-files a[download$='.mp4'], #film-files a[href$='.mp4']")
        coming.value.delete()

    def _fit(self) -> None:
        self._tab("Images (SIREN)")
        self.page.set_input_files("#siren-file", self.photo)
        self.page.click("#siren-start")
        self._until("/[\\d.]+ dB/.test(document.getElementById('siren-status').innerText)")
        time.sleep(2)
        self.page.click("#siren-stop")
        self._until("document.getElementById('siren-status').innerText.includes('Stopped')")

    def _drop(self) -> None:
        """Drop a scene, look at what was made of it, and choose another; or close the tab on it."""
        self._tab("New scene")
        self.page.set_input_files("#upload-files", self.scene)
        self.page.wait_for_selector("#upload-summary", state="visible")
        if self.random.random() < 0.5:
            self.page.click("text=Choose another")
        else:
            self._return()

    def _idle(self) -> bool:
        """Whether nothing is trained."""
        state = self.page.evaluate("async () => (await (await fetch('/api/training')).json()).state")
        return state not in ("loading", "training", "paused", "measuring")

    def _train(self) -> None:
        self._unfold("training", "#training-start")
        self.page.wait_for_selector("#training-start:not([disabled])")
        self.page.fill("#training-budget textarea, #training-budget input", self.budget)
        self.page.get_by_label("Photos reduced by").fill(str(self.downscale))
        self.page.click("#training-scene input")
        self.page.get_by_role("option", name=self.trained, exact=True).click()
        self.page.click("#training-start")
        self._until("(await (await fetch('/api/training')).json()).state === 'training'")
