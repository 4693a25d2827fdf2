"""The form that films are ordered with, in the page's Scene tab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from apps.viewer.films import Film, Films, Order
from apps.viewer.server import SENTENCES

PATHS = [("round the subject", "orbit"), ("spiral", "spiral"), ("through my keyframes", "keyframes")]
LOOK = 0.25  # seconds between looks at a film under way


class _Desk:
    """Takes orders and follows each page's film to its end."""

    def __init__(self, films: Films) -> None:
        self.films = films
        self.shown: set[Path] = set()  # folders
        self.asked: dict[str, Film] = {}  # the film that each page waits for

    def make(
        self, keyframes: str, now: float, path: str, seconds: float, fps: float, width: float, freeze: str, mode: str,
        request: gr.Request, progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio looks for it there)
    ) -> Iterator[Any]:  # fmt: skip
        person = request.session_hash or "film"
        try:
            frames = max(1, round(seconds * fps))
            order = Order(path, keyframes, frames, float(fps), int(width) or None, freeze, float(now), mode)  # type: ignore[arg-type]
            film = self.films.start(order, person)
        except (*SENTENCES, ValueError, TypeError, OverflowError) as error:
            raise gr.Error(str(error), print_exception=False) from None
        self.asked[person] = film
        assert film.task is not None
        try:
            for _ in self._until_done(film, progress):
                yield gr.skip(), gr.skip()
            if film.task.future.cancelled():
                return
            failure = film.task.future.exception()
            if failure is not None:
                raise gr.Error(str(failure), print_exception=False)
            files = [str(film.file), str(film.path)]
            # Of all the disk, Gradio shows the folders that films lie in, from the first film on; as they are: it would keep
            # a copy of each film otherwise, for ever.
            if (folder := film.file.parent.resolve()) not in self.shown:
                self.shown.add(folder)
                gr.set_static_paths([folder])
            yield gr.update(value=files[0], visible=True), gr.update(value=files, visible=True)
        finally:
            film.task.cancel()
            self.asked.pop(person, None)

    def _until_done(self, film: Film, progress: gr.Progress) -> Iterator[None]:
        began = time.monotonic()
        while film.task is not None and not film.task.done:
            rate = film.done / max(time.monotonic() - began, 1e-3)
            progress((film.done, film.frames), desc=f"{rate:.1f} frames/s", unit="frames")
            yield
            time.sleep(LOOK)

    def stop(self, request: gr.Request) -> None:
        film = self.asked.get(request.session_hash or "film")
        if film is not None and film.task is not None:
            film.task.cancel()


def film_form(page: gr.Blocks, films: Films) -> None:
    """Path, what holds still, length, and the film once it is made."""
    desk = _Desk(films)
    with gr.Accordion("Film", open=False, elem_id="film"):
        keyframes = gr.Textbox(visible=False)
        now = gr.Number(0.5, visible=False)
        path = gr.Dropdown(PATHS, value="orbit", label="Path", elem_id="film-path")
        with gr.Row():
            record = gr.Button("Record this camera", size="sm", elem_id="film-record")
            clear = gr.Button("Clear keyframes", size="sm", elem_id="film-clear")
            show = gr.Button("Show the path", size="sm", elem_id="film-show")
        freeze, mode, seconds, fps, width = _choices()
        with gr.Row():
            render = gr.Button("Render", variant="primary", elem_id="film-render")
            halt = gr.Button("Stop", variant="stop", elem_id="film-stop")
        video = gr.Video(label="Film", interactive=False, elem_id="film-video", autoplay=True, loop=True, visible=False)
        files = gr.Files(
            label="Film, and its path for nerf.render", interactive=False, elem_id="film-files", visible=False
        )
    record.click(None, js="() => window.sceneView.record()")
    clear.click(None, js="() => window.sceneView.forget()")
    show.click(None, [path], js="(path) => window.sceneView.preview({ path })")
    made = render.click(
        desk.make, [keyframes, now, path, seconds, fps, width, freeze, mode], [video, files], concurrency_limit=8,
        js="(_, __, ...rest) => [window.sceneView.recorded(), window.sceneView.state.time, ...rest]",
    )  # fmt: skip
    halt.click(desk.stop, cancels=[made])
    page.unload(desk.stop)


def _choices() -> tuple[gr.Dropdown, gr.Dropdown, gr.Number, gr.Number, gr.Number]:
    """What holds still, what is shown, seconds, frames a second, width."""
    with gr.Row():
        freeze = gr.Dropdown(
            [("nothing", "none"), ("the person", "person"), ("the camera", "camera")], value="none",
            label="Hold still (moving scenes)", elem_id="film-freeze", min_width=120,
        )  # fmt: skip
        mode = gr.Dropdown(
            ["color", "depth", "opacity", "canonical", "warp", "both"], value="color", label="Show", min_width=120
        )
    with gr.Row():
        seconds = gr.Number(5, label="Seconds", minimum=0.01, min_width=80, elem_id="film-seconds")
        fps = gr.Number(24, label="Frames a second", minimum=1, min_width=80)
        width = gr.Number(0, label="Width (0: the photos')", precision=0, min_width=80, elem_id="film-width")
    return freeze, mode, seconds, fps, width
