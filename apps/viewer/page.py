"""The page: Gradio's tabs and forms round the scene, whose own scripts in static/ do what forms can't."""

from __future__ import annotations

from typing import Any

import gradio as gr
from fastapi import FastAPI

from apps.viewer.film_form import film_form
from apps.viewer.scenes import Scenes
from apps.viewer.server import SENTENCES, House
from nerf.config import ConfigError

HELP = (
    "Drag to turn, wheel or pinch to zoom, shift-drag or two fingers to pan; arrow keys, **+** **-**; **R** resets, "
    "**[** **]** go from photo to photo, **C** shows the cameras, **K** records a keyframe, **space** plays."
)
HEAD = """<link rel="stylesheet" href="/page/page.css"><link rel="stylesheet" href="/page/upload.css">
<link rel="stylesheet" href="/page/siren.css"><script type="module" src="/page/view.js"></script>
<script type="module" src="/page/tabs.js"></script>"""
THEME = gr.themes.Default(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
TICK = 1.0  # seconds between looks at the training
SESSIONS = 64  # visits whose forms Gradio remembers; it would keep ten thousand, each with a copy of all settings


def mount(app: FastAPI, house: House, scenes: Scenes) -> FastAPI:
    """The whole page on top of the server's own addresses."""
    with gr.Blocks(title="nerf-siren", analytics_enabled=False, fill_width=True) as page, gr.Tabs(elem_id="tabs"):
        with gr.Tab("Scene", id="scene"):
            with gr.Row():
                with gr.Column(scale=3, min_width=320):
                    gr.HTML('<div id="scene-view"></div>', padding=False)
                    gr.Markdown(HELP)
                with gr.Column(scale=1, min_width=320):
                    gr.HTML('<div id="scene-panel"></div>', padding=False)
            with gr.Row():
                with gr.Column(min_width=400):
                    _training(page, house, scenes)
                with gr.Column(min_width=400):
                    film_form(page, house.films)
        with gr.Tab("New scene", id="new"):
            gr.HTML('<div id="upload-zone"></div>')
        with gr.Tab("Images (SIREN)", id="siren"):
            gr.HTML('<div id="siren-panel"></div>')
    page.state_session_capacity = SESSIONS
    return gr.mount_gradio_app(app, page, path="/", head=HEAD, theme=THEME, footer_links=[], allowed_paths=[])


def _training(page: gr.Blocks, house: House, scenes: Scenes) -> None:
    """Start, pause, resume, budget, and the curves."""
    live = house.live

    def status() -> str:
        progress = live.progress
        lines = [f"**{live.state}** {live.scene_name}"]
        if progress is not None:
            lines.append(
                f"step {progress.step}, {progress.seconds:.0f} s, train **{progress.psnr:.2f} dB**, loss {progress.loss:.4f}; "
                f"{progress.samples_per_second / 1e6:.2f} M samples/s, {progress.left:.0f} s left"
            )
            if progress.stage:
                lines.append(progress.stage)
            if progress.metrics and progress.metrics.get("psnr") is not None:
                m = progress.metrics
                lines.append(f"held out: **{m['psnr']:.2f} dB**, SSIM {m['ssim']:.4f}, FLIP {m['flip']:.4f}")
        lines += [f"**error:** {live.error}"] if live.error else live.notes[-1:]
        return "  \n".join(lines)

    def tick(seen: tuple[str, list[str]]) -> tuple[Any, ...]:
        now = live.state, scenes.names()
        if seen == now:
            return status(), seen, *(gr.skip(),) * 6
        states = (
            not live.busy, live.state == "training", live.state == "paused", live.busy, live.state in ("done", "stopped"),
        )  # fmt: skip
        choices = gr.update(choices=now[1])
        return status(), now, choices, *(gr.update(interactive=able) for able in states)

    def begin(name: str | None, budget: str, downscale: float, warp: bool, register: bool) -> None:
        if not name:
            raise gr.Error("choose a scene first, or drop one under New scene", print_exception=False)
        _say(lambda: scenes.train(name, budget, int(downscale), warp, register))

    with gr.Accordion("Training", open=live.busy, elem_id="training"):
        told = gr.Markdown(elem_id="training-status")
        with gr.Row():
            hold = gr.Button("Pause", size="sm", interactive=False, elem_id="training-pause")
            go = gr.Button("Resume", size="sm", interactive=False, elem_id="training-resume")
            halt = gr.Button("Stop", size="sm", variant="stop", interactive=False, elem_id="training-stop")
        gr.HTML('<div id="training-curves" class="curves-empty"></div>', padding=False)
        scene = gr.Dropdown(scenes.names(), label="Scene", elem_id="training-scene")
        with gr.Row():
            budget = gr.Textbox("5m", label="Budget", min_width=90, elem_id="training-budget")
            downscale = gr.Number(1, label="Photos reduced by", precision=0, minimum=1, min_width=90)
        with gr.Row():
            warp = gr.Checkbox(True, label="The scene may move")
            register = gr.Checkbox(False, label="Follow points first")
        with gr.Row():
            start = gr.Button("Train", variant="primary", interactive=False, elem_id="training-start")
            more = gr.Button("Train further", interactive=False, elem_id="training-more")
        seen = gr.State(("", [""]))
        timer = gr.Timer(TICK)
    for look in (page.load, timer.tick):  # until the first, no button can be pressed
        look(tick, [seen], [told, seen, scene, start, hold, go, halt, more], show_progress="hidden", queue=False)
    start.click(begin, [scene, budget, downscale, warp, register])
    more.click(lambda text: _say(lambda: live.more(text)), [budget])
    hold.click(live.pause)
    go.click(live.resume)
    halt.click(live.stop)


def _say(what: Any) -> None:
    """Do it; what goes wrong is shown on the page."""
    try:
        what()
    except (*SENTENCES, ConfigError) as error:
        raise gr.Error(str(error), print_exception=False) from None
