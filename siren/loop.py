"""The loop that every fit runs: Adam on an objective, progress, and a state on disk that Ctrl-C can't lose.

`fit` is a generator of `Progress`: a command prints it, a page can plot it, a test takes ten steps of it. Closing it, at
any step, saves; `resume=True` goes on with the bits that an uninterrupted fit would have had.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from data.files import optimizer_tensors, restore_optimizer, write_tensors

STATE = "state.safetensors"
SAVE_EVERY = 60.0  # seconds of fitting between states on disk

Objective = Callable[[torch.Generator], tuple[Tensor, dict[str, float]]]
"""From a source of randomness to the loss, and figures to show beside it (such as psnr)."""


class FitError(ValueError):
    """A fit that can't be had: bad input or settings. The message is one sentence for a person."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps, budget: stop after so many steps, or so many seconds; one of them is None.
        rate: Adam's learning rate.
        final: share of it that is left at the end, along a cosine; 1 keeps it, as the paper does.
        warmup: steps over which the rate rises from nothing.
        seed: of everything random.
    """

    steps: int | None = 500
    budget: float | None = None
    rate: float = 1e-4
    final: float = 1.0
    warmup: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.budget is None):
            raise FitError("--steps, --budget: expected one of them, found both or none")
        if self.steps is not None and self.steps < 1:
            raise FitError(f"--steps: expected at least 1, found {self.steps}")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise FitError(f"--budget: expected a positive number of seconds, found {self.budget}")
        if not 0 < self.rate < math.inf:
            raise FitError(f"--rate: expected a positive number, found {self.rate}")

    def factor(self, step: int, share: float) -> float:
        """The rate's factor at a step, `share` of the way through."""
        cosine = self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        return cosine * min(1.0, (step + 1) / self.warmup if self.warmup else 1.0)


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after a step.

    Attributes:
        step, share, seconds: steps, share of the fit and seconds of fitting so far.
        loss: this step's.
        figures: what the objective shows beside it.
        rate: steps a second.
        left: seconds that remain, an estimate where steps are counted.
    """

    step: int
    share: float
    seconds: float
    loss: float
    figures: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0
    left: float = 0.0


class Fit:
    """Everything that the next step depends on.

    Args:
        module: what is fitted.
        objective: its loss; draws what is random from the generator that it is given.
        schedule: how long and how fast.
    """

    def __init__(self, module: nn.Module, objective: Objective, schedule: Schedule) -> None:
        self.module, self.objective, self.schedule = module, objective, schedule
        trained = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=schedule.rate, foreach=True)
        self.generator = torch.Generator().manual_seed(schedule.seed)
        self.step, self.seconds = 0, 0.0

    @property
    def share(self) -> float:
        """How much of the fit is done, in [0, 1]."""
        if self.schedule.steps is not None:
            return self.step / self.schedule.steps
        return self.seconds / (self.schedule.budget or math.inf)

    def advance(self) -> Progress:
        """One step. Raises FitError where the loss is no number."""
        began = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate * self.schedule.factor(self.step, self.share)
        self.optimizer.zero_grad(set_to_none=True)
        loss, figures = self.objective(self.generator)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        value = float(loss.detach())
        self.seconds += time.perf_counter() - began
        if not math.isfinite(value):
            raise FitError(f"the loss is {value} at step {self.step}; try a smaller --rate than {self.schedule.rate}")
        share = min(self.share, 1.0)
        left = self.seconds * (1 / share - 1) if share > 0 else math.inf
        return Progress(self.step, share, self.seconds, value, figures, self.step / max(self.seconds, 1e-9), left)

    def save(self, folder: Path) -> None:
        """Write the state, so that whoever reads it finds the old one or the new."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        tensors["generator"] = self.generator.get_state()
        counters = json.dumps({"step": self.step, "seconds": self.seconds})
        write_tensors(folder / STATE, tensors, {"counters": counters})

    def restore(self, folder: Path) -> None:
        """Go back to where the fit in `folder` stopped. Raises FitError for a file that is missing or doesn't fit."""
        path = folder / STATE
        if not path.is_file():
            raise FitError(f"--resume: expected {path}, found none; fit without --resume first")
        try:
            with safe_open(path, "pt") as file:
                counters = json.loads((file.metadata() or {}).get("counters", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, json.JSONDecodeError, OSError) as error:
            raise FitError(f"{path}: expected a whole safetensors file, found a broken one: {error}") from None
        have = {name.removeprefix("module."): t for name, t in tensors.items() if name.startswith("module.")}
        expected = {name: tuple(value.shape) for name, value in self.module.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in have.items()}
        if expected != found or not isinstance(counters, dict) or "generator" not in tensors:
            raise FitError(f"{path}: expected tensors of shapes {expected}, found {found}; it is another fit's state")
        self.module.load_state_dict(have)
        restore_optimizer(self.optimizer, tensors)
        self.generator.set_state(tensors["generator"])
        self.step, self.seconds = int(counters["step"]), float(counters["seconds"])


def fit(
    module: nn.Module, objective: Objective, schedule: Schedule, out: Path | None = None, resume: bool = False
) -> Generator[Progress, None, None]:
    """Fit `module`, yielding after every step.

    Args:
        out: the folder where the state goes; None keeps nothing.
        resume: go on from the state in `out`.
    """
    fitting = Fit(module, objective, schedule)
    if resume:
        if out is None:
            raise FitError("--resume: expected --out, found none")
        fitting.restore(out)
    yield from steps(fitting, out)


def steps(fitting: Fit, out: Path | None) -> Generator[Progress, None, None]:
    """The steps that are left, with states saved in between and, whatever ends them, at the end."""
    saved = fitting.seconds
    try:
        while fitting.share < 1:
            progress = fitting.advance()
            if out is not None and fitting.seconds - saved > SAVE_EVERY:
                fitting.save(out)
                saved = fitting.seconds
            yield progress
    except FitError:
        raise  # a state that has gone nowhere must not replace one that can be resumed
    except BaseException:
        if out is not None:
            fitting.save(out)
        raise
    if out is not None:
        fitting.save(out)
