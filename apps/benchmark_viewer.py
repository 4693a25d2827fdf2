"""The viewer as a person meets it: measured inside a real browser that drags over the picture."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.browsing import chromium, viewer
from apps.measure import best
from nerf.checkpoint import load_model
from nerf.modes import sized
from nerf.paths import Rig, path
from nerf.picture import render_image

# A drag of `seconds` over the picture, with a move at every frame of the screen, and when pictures came.
DRAG = """async ([seconds, size]) => {
  const view = window.sceneView, frames = view.frames, lines = view.lines, box = lines.getBoundingClientRect();
  frames.least = frames.most = frames.coarse = size;
  const shown = [], watch = new MutationObserver(() => shown.push([performance.now(), Number(view.picture.dataset.size)]));
  watch.observe(view.picture, { attributes: true, attributeFilter: ["data-frames"] });
  const send = (kind, x, y) => lines.dispatchEvent(new PointerEvent(kind, { pointerId: 7, clientX: box.x + x, clientY: box.y + y,
    buttons: kind === "pointerup" ? 0 : 1, bubbles: true, cancelable: true }));
  lines.setPointerCapture = () => {};
  const tick = () => new Promise(requestAnimationFrame), middle = [box.width / 2, box.height / 2];
  send("pointerdown", ...middle);
  const began = performance.now();
  let now = began;
  while (now - began < 1000 * seconds) {
    const turn = (now - began) / 1000;
    send("pointermove", middle[0] + 0.4 * box.width * Math.sin(turn), middle[1] + 0.1 * box.height * Math.sin(3 * turn));
    await tick();
    now = performance.now();
  }
  send("pointerup", ...middle);
  const full = view.state.size;
  while (!shown.length || shown[shown.length - 1][1] < full) await tick();
  watch.disconnect();
  return { first: shown[0][0] - began, during: shown.filter(([at]) => at < now).length / seconds,
           full: shown[shown.length - 1][0] - now, size: full };
}"""


@dataclass(frozen=True)
class ViewerOptions:
    """The browser viewer, driven by Chromium (pip install playwright; apt install chromium)."""

    run: Path | None = None
    """A run's folder. Default: no viewer."""
    drags: int = 3
    """How often; the median counts."""
    seconds: float = 4.0
    """A drag's length."""
    size: int = 256
    """Longer side of the pictures while dragging, in pixels."""


def viewer_row(options: ViewerOptions, repeats: int) -> dict[str, Any]:
    """Drag, and measure. Raises ConfigError where the run or a browser is missing."""
    assert options.run is not None
    model, _ = load_model(options.run)
    camera = sized(path(Rig.load(options.run), "orbit", 1)[0][0], None, longest=options.size)
    moving = model.warp is not None
    alone = best(lambda: render_image(model, camera, 0.5 if moving else None), repeats)
    del model
    with (
        tempfile.TemporaryDirectory() as folder,
        viewer(["--run", str(options.run.resolve())], Path(folder), Path(folder) / "viewer.log") as (address, _),
        chromium() as browser,
    ):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(address)
        page.wait_for_function(
            "() => window.sceneView?.scene?.ready && window.sceneView.frames.shown > 0", timeout=60_000
        )
        # Twice unmeasured: the first pictures also tell the page what this machine can do.
        found = [page.evaluate(DRAG, [options.seconds, options.size]) for _ in range(options.drags + 1)][1:]
    middle = {
        name: sorted(drag[name] for drag in found)[len(found) // 2] for name in ("first", "during", "full", "size")
    }
    return {
        "run": options.run.resolve().name, "size": options.size, "full_size": middle["size"],
        "first_ms": middle["first"], "pictures_per_second": middle["during"], "full_ms": middle["full"],
        "renderer_per_second": 1 / alone, "share_of_renderer": middle["during"] * alone,
    }  # fmt: skip


def viewer_table(row: dict[str, Any]) -> str:
    """The figures in words."""
    return (
        f"viewer, {row['run']}, in the browser: first picture {row['first_ms']:.0f} ms after a drag begins, "
        f"{row['pictures_per_second']:.1f} a second of {row['size']} pixels while dragging "
        f"({100 * row['share_of_renderer']:.0f} % of what the renderer alone reaches), "
        f"{row['full_size']} pixels {row['full_ms']:.0f} ms after its end"
    )
