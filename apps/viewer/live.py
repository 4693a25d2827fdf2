"""Training that people watch: started, paused, resumed and prolonged from the page."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.viewer.engine import Engine, Task
from apps.viewer.stage import Stage
from data.errors import SceneError
from data.scene import Scene
from nerf import checkpoint
from nerf.cli import Options, budget_seconds, length, open_run
from nerf.config import ConfigError, TrainConfig
from nerf.kernels import BackendError
from nerf.paths import Rig
from nerf.register import RegisterError
from nerf.train import Progress, train
from nerf.trainer import Collapse

SENTENCES = (SceneError, ConfigError, RegisterError, BackendError, Collapse, OSError)
SHOW_EVERY = 0.4  # seconds between states that pages are told of
POINTS = 400  # of a curve


@dataclass(frozen=True)
class Point:
    """A place on the curves: seconds of training, PSNR of the training rays (dB), loss."""

    seconds: float
    psnr: float
    loss: float


class Live:
    """The one training of a viewer, if there is one.

    Attributes:
        state: "idle", "loading", "training", "paused", "measuring", "done", "stopped" or "failed"; "paused" once the step
            that was under way has ended.
        progress: the last step's.
        curve: PSNR and loss over time, thinned.
        notes: what a person should read, latest last.
        error: why it failed, a sentence.
    """

    def __init__(self, engine: Engine, stage: Stage) -> None:
        self.engine, self.stage = engine, stage
        self._state, self.error, self.scene_name = "idle", "", ""
        self.progress: Progress | None = None
        self.curve: list[Point] = []
        self.notes: list[str] = []
        self.out: Path | None = None
        self._scene: Scene | None = None
        self._task: Task[None] | None = None
        self._lock = threading.RLock()  # of people who start, hold and end it; the engine's thread doesn't take it
        self._shown = self._spacing = self._due = 0.0

    @property
    def state(self) -> str:
        """Where the training stands, as above."""
        held = self._task is not None and self._task.held
        return "paused" if held and self._state in ("training", "measuring") else self._state

    @property
    def busy(self) -> bool:
        """Whether a training is under way, paused or not."""
        return self.state in ("loading", "training", "paused", "measuring")

    def begin(self, options: Options) -> None:
        """Train on a scene into `options.out` (default: runs/<scene>); reading the photos goes on beside the page.

        Raises ConfigError where another training is under way, or the options contradict each other.
        """
        length(options)
        with self._lock:
            if self.busy:
                raise ConfigError(f"{self.scene_name} is being trained; stop it first")
            self._state, self.error, self.notes, self.curve, self.progress = "loading", "", [], [], None
        self.scene_name = (options.out or options.scene).resolve().name
        self._spacing = self._due = 0.0
        threading.Thread(target=self._open, args=(options,), name="photos", daemon=True).start()

    def _open(self, options: Options) -> None:
        try:
            config, scene, out = open_run(options, self.notes.append)
            self.out, self._scene = out, scene
            self.stage.show(self.scene_name, out, None, Rig.of(scene), scene)
            self._go(config, options.resume)
        except Exception as error:  # whatever it is, the page must not wait for ever
            self._fail(error)

    def _go(self, config: TrainConfig, resume: bool) -> None:
        assert self._scene is not None and self.out is not None
        with self._lock:  # who pauses a training holds its task, not the one before
            self._state = "training"
            self._task = self.engine.start(self._work(config, self._scene, self.out, resume), "training")
        self._task.future.add_done_callback(lambda future: self._ended(future))

    def _work(self, config: TrainConfig, scene: Scene, out: Path, resume: bool) -> Generator[None, None, None]:
        steps = train(config, scene, out, resume)
        try:
            for progress in steps:
                self._see(progress)
                yield
        finally:
            steps.close()  # saves

    def _see(self, progress: Progress) -> None:
        """What a step brought."""
        self.progress = progress
        if progress.note:
            self.notes = [*self.notes[-99:], progress.note]
        if progress.stage:
            self._state = "measuring"
        elif progress.seconds >= self._due and progress.step:
            self.curve.append(Point(progress.seconds, progress.psnr, progress.loss))
            if len(self.curve) > POINTS:
                self.curve = self.curve[::2]
                self._spacing = 2 * progress.seconds / POINTS
            self._due = progress.seconds + self._spacing
        now = time.monotonic()
        other = progress.model is not self.stage.model
        if progress.model is not None and (other or now - self._shown > SHOW_EVERY or progress.metrics):
            self._shown = now
            if self.stage.run == self.out:  # nobody has put another scene on show
                self.stage.moved(progress.model)

    def _ended(self, future: Any) -> None:
        if future.cancelled():
            self._state = "stopped"
        elif future.exception() is not None:
            self._fail(future.exception())
        else:
            self._state = "done"

    def _fail(self, error: BaseException) -> None:
        self.error = str(error) if isinstance(error, SENTENCES) else f"{type(error).__name__}: {error}"
        self._state = "failed"

    def pause(self) -> None:
        """Take no further step until `resume`; the one under way still ends, and then the state is "paused"."""
        with self._lock:
            if self._task is not None and self.state == "training":
                self._task.paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        with self._lock:
            if self._task is not None:
                self._task.paused = False

    def stop(self) -> None:
        """End it; what was learnt so far is saved and stays on show."""
        with self._lock:
            if self._task is not None and self.busy:
                self._task.cancel()

    def more(self, budget: str) -> None:
        """Go on with a training that has ended, for so much longer ("5m"). Raises ConfigError where it can't be."""
        with self._lock:
            if self.state not in ("done", "stopped") or self.out is None or self._scene is None:
                raise ConfigError("expected a training that has ended, found none")
            extra = budget_seconds(budget)
            config = checkpoint.read_config(self.out).train
            spent = 0.0 if self.progress is None else self.progress.seconds
            self._go(dataclasses.replace(config, steps=None, budget=spent + extra), True)
