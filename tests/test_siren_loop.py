"""The loop of every fit: schedules, progress, and a state that loses nothing."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from siren.fit import main
from siren.loop import STATE, Fit, FitError, Schedule, fit


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.5, -0.5]))


def noisy(line: Line):
    """A stochastic objective whose minimum is slope = (2, 3)."""

    def objective(generator):
        x = torch.rand(16, 2, generator=generator)
        loss = ((line.slope - torch.tensor([2.0, 3.0])) * x).square().mean()
        return loss, {"first": float(line.slope[0].detach())}

    return objective


def test_a_fit_finds_the_minimum():
    line = Line()
    last = list(fit(line, noisy(line), Schedule(400, rate=0.05, final=0.01)))[-1]
    torch.testing.assert_close(line.slope.detach(), torch.tensor([2.0, 3.0]), rtol=1e-2, atol=1e-2)
    assert last.step == 400 and last.share == 1 and last.left == 0 and last.rate > 0


def test_the_rate_follows_its_schedule():
    schedule = Schedule(100, rate=1.0, final=0.1, warmup=10)
    assert schedule.factor(0, 0.0) == pytest.approx(0.1)
    assert schedule.factor(9, 0.0) == pytest.approx(1.0)
    assert schedule.factor(50, 0.5) == pytest.approx(0.55)
    assert schedule.factor(100, 1.0) == pytest.approx(0.1)
    assert Schedule(10).factor(7, 0.7) == 1


def test_a_budget_is_seconds():
    line = Line()
    last = list(fit(line, noisy(line), Schedule(None, 0.2)))[-1]
    assert 0.2 <= last.seconds < 2 and last.step > 1


def test_resume_has_the_bits_of_an_uninterrupted_fit(tmp_path):
    whole, parted = Line(), Line()
    list(fit(whole, noisy(whole), Schedule(30, rate=0.01, final=0.1)))
    steps = fit(parted, noisy(parted), Schedule(30, rate=0.01, final=0.1), tmp_path)
    for _ in range(13):
        next(steps)
    steps.close()  # as Ctrl-C does
    again = Line()
    last = list(fit(again, noisy(again), Schedule(30, rate=0.01, final=0.1), tmp_path, resume=True))[-1]
    assert last.step == 30 and torch.equal(whole.slope, again.slope)
    assert not (tmp_path / (STATE + ".tmp")).exists()


def test_a_loss_that_is_no_number_ends_it_and_keeps_the_state(tmp_path):
    line = Line()
    list(fit(line, noisy(line), Schedule(3), tmp_path))
    kept = (tmp_path / STATE).read_bytes()
    with pytest.raises(FitError, match=r"the loss is nan at step 1; try a smaller --rate"):
        list(fit(line, lambda g: (line.slope.sum() * math.nan, {}), Schedule(3), tmp_path))
    assert (tmp_path / STATE).read_bytes() == kept


def test_broken_states_are_refused(tmp_path):
    line = Line()
    with pytest.raises(FitError, match=r"--resume: expected .*state.safetensors, found none"):
        list(fit(line, noisy(line), Schedule(3), tmp_path, resume=True))
    list(fit(line, noisy(line), Schedule(3), tmp_path))
    data = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(data[:-5])
    with pytest.raises(FitError, match="expected a whole safetensors file"):
        Fit(line, noisy(line), Schedule(3)).restore(tmp_path)
    (tmp_path / STATE).write_bytes(data)
    with pytest.raises(FitError, match="it is another fit's state"):
        Fit(nn.Linear(2, 2), noisy(line), Schedule(3)).restore(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 3, "budget": 2.0}, "expected one of them, found both or none"),
        ({"steps": None}, "expected one of them, found both or none"),
        ({"steps": 0}, "--steps: expected at least 1, found 0"),
        ({"steps": None, "budget": math.inf}, "--budget: expected a positive number"),
        ({"rate": 0.0}, "--rate: expected a positive number"),
    ],
)
def test_schedules_that_are_none_are_named(values, message):
    with pytest.raises(FitError, match=message):
        Schedule(**values)


def test_ctrl_c_saves_and_resume_goes_on(tmp_path, monkeypatch):
    Image.new("L", (40, 30), 90).save(tmp_path / "photo.png")
    arguments = ["photo.png", "--width", "16", "--layers", "2", "--out", "run"]
    command = [sys.executable, "-m", "siren.fit", *arguments, "--budget", "1h"]
    fitting = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert fitting.stderr is not None
    while "step" not in fitting.stderr.read(40):  # the bar shows that steps are being taken
        assert fitting.poll() is None
    fitting.send_signal(signal.SIGINT)
    said, _ = fitting.communicate(timeout=60)
    assert fitting.returncode == 130 and "--resume" in said, said
    with safe_open(tmp_path / "run" / STATE, "pt") as file:
        step = json.loads(file.metadata()["counters"])["step"]
    monkeypatch.chdir(tmp_path)
    main([*arguments, "--steps", str(step + 5), "--resume"])  # another process, which has imported torch already
    assert json.loads((tmp_path / "run/metrics.json").read_text())["steps"] == step + 5
