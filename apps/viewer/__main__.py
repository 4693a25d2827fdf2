"""`python -m apps.viewer`: scenes in the browser."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tyro

from apps.viewer.engine import Engine
from apps.viewer.films import Films
from apps.viewer.fits import Fits
from apps.viewer.live import Live
from apps.viewer.scenes import Scenes
from apps.viewer.server import House, serve
from apps.viewer.stage import Stage
from apps.viewer.uploads import Uploads
from data.errors import SceneError
from nerf.checkpoint import load_model
from nerf.cli import Options as TrainOptions
from nerf.config import ConfigError
from nerf.kernels import BackendError, choose, keep_memory
from nerf.paths import PathError, Rig

LOCAL = ("127.0.0.1", "localhost", "::1")
UPLOADS = "uploads"  # folder of what is dropped onto pages, among the runs


@dataclass(frozen=True)
class Options:
    """Turn a trained scene in the browser, watch one being trained, make films, fit images.

    A trained scene:    python -m apps.viewer --run runs/selfie

    One that appears:   python -m apps.viewer --train data/selfie
    """

    run: Path | None = None
    """A run's folder, as python -m nerf.train made it."""
    train: Path | None = None
    """A folder of posed photos to train on, with the page as its window."""
    budget: str | None = None
    """With --train: for how long, such as 90s or 5m. Default: 5m."""
    downscale: int = 1
    """With --train: read the photos reduced by this whole factor."""
    warp: bool = True
    """With --train: --no-warp treats a moving scene as if it were rigid."""
    out: Path | None = None
    """With --train: the run's folder. Default: runs/<scene>."""
    resume: bool = False
    """With --train: go on with the run in that folder."""
    port: int = 7860
    """Of the page's address."""
    host: str = "127.0.0.1"
    """Who may open the page: 127.0.0.1 is this machine alone, 0.0.0.0 everybody who reaches it. There is no password."""
    name: str | None = None
    """The host's name in the address under which a proxy shows the page of --host 127.0.0.1. Default: none does."""
    upload_limit: int = 2000
    """Megabytes that a scene dropped onto the page may have."""
    backend: str = "auto"
    """Kernels: auto takes the fastest there is (python -m nerf.kernels lists them)."""


def build(options: Options, home: Path = Path("runs")) -> tuple[House, Scenes]:
    """Everything behind the page; what the options name is opened. Raises the readers' errors."""
    if options.run is not None and options.train is not None:
        raise ConfigError("--run, --train: expected one of them, found both")
    engine, stage = Engine(), Stage()
    try:
        live = Live(engine, stage)
        uploads = Uploads(home / UPLOADS, options.upload_limit * 1_000_000)
        house = House(engine, stage, live, Films(engine, stage), Fits(engine), uploads)
        scenes = Scenes(live, home, options.backend, uploads.keep)
        uploads.gone = scenes.gone
        shipped = Path("data/selfie")
        for folder in (shipped, options.train):
            if folder is not None and folder.is_dir():
                scenes.add(folder)
        if options.run is not None:
            rig = Rig.load(options.run)
            model, _ = load_model(options.run, options.backend)
            stage.show(options.run.resolve().name, options.run, model, rig)
        if options.train is not None:
            live.begin(
                TrainOptions(
                    options.train, budget=options.budget, downscale=options.downscale, out=options.out,
                    resume=options.resume, warp=options.warp, backend=options.backend,
                )
            )  # fmt: skip
    except BaseException:
        engine.stop()
        raise
    return house, scenes


def listening(host: str, port: int) -> socket.socket:
    """The port, taken and open before anything slow begins. Raises ConfigError where it can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, as asyncio spares small answers the wait for more (Nagle) only where it is.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # whoever comes before the server is up waits for it
    except (OSError, OverflowError) as error:
        found.close()
        raise ConfigError(f"--host {host} --port {port}: expected a free port, found: {error}") from None
    return found


def names(options: Options) -> frozenset[str] | None:
    """This machine's names in the addresses that it answers to; None: any, where everybody is let in."""
    if options.host not in LOCAL:
        return None
    return frozenset({*LOCAL, *([options.name.lower()] if options.name else [])})


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, or 2 for bad input."""
    options = tyro.cli(Options, args=arguments, prog="python -m apps.viewer")
    keep_memory(shared=True)  # a viewer is on for long, and starts threads all the time
    home = Path("runs")
    try:
        print(choose(options.backend)[1])
        taken = listening(options.host, options.port)
        house, scenes = build(options, home)
    except (ConfigError, SceneError, PathError, BackendError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        _run(house, scenes, taken, home, options)
    finally:
        if house.live.busy:
            print("saving what was learnt ...")
        house.engine.stop()
    return 0


def _run(house: House, scenes: Scenes, taken: socket.socket, home: Path, options: Options) -> None:
    os.environ["GRADIO_TEMP_DIR"] = str((home / "page").resolve())  # Gradio's own copies of files
    import uvicorn

    from apps.viewer.page import mount  # Gradio takes seconds to import

    app = mount(serve(house, scenes, names(options)), house, scenes)
    gc.collect()
    gc.freeze()  # 360 thousand objects that stay: to look for garbage among them took a quarter of a second each time
    port = taken.getsockname()[1]
    host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    print(f"open http://{f'[{host}]' if ':' in host else host}:{port}  (Ctrl-C ends it)", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    # A tab that is still open at the end keeps its streams, and their ends are no news.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
    with suppress(KeyboardInterrupt):  # which it raises again once it has shut down
        server.run(sockets=[taken])


if __name__ == "__main__":
    sys.exit(main())
