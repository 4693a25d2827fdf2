"""Several machines on one folder: each scene once, whatever dies. Trainings are a small program's, which notes what it was told."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from nerf import worker
from nerf.claims import Claims, born
from nerf.worker import OWN, TABLE, Worker, gpus

TRAINING = """
import json, os, signal, sys, time
from pathlib import Path
scene, out = (Path(sys.argv[sys.argv.index(name) + 1]) for name in ("--scene", "--out"))
def stop(*_):
    (out / "checkpoint.safetensors").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
told = {"scene": scene.name, "pid": os.getpid(), "resume": "--resume" in sys.argv, "cards": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": os.environ.get("OMP_NUM_THREADS")}
with open(scene.parent / "trained.jsonl", "a") as file:
    file.write(json.dumps(told) + "\\n")
if scene.name == "broken":
    sys.exit("error: photos: expected light, found none")
if scene.name == "long" and not told["resume"]:
    (out / "checkpoint.safetensors").touch()
    time.sleep(100)
time.sleep(0.3)
(out / "metrics.json").write_text(json.dumps({"psnr": 30.0 + len(scene.name), "ssim": 0.9, "flip": None, "views": [1],
                                               "train_seconds": 2.0}))
"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Where scenes, the program and the runs lie."""
    (tmp_path / "training.py").write_text(TRAINING)
    monkeypatch.setattr(worker, "program", lambda: [sys.executable, str(tmp_path / "training.py")])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def begin(house: Path, names: list[str], workers: int = 1, cards: tuple[str, ...] = (), wait: bool = False) -> Worker:
    return Worker(house, names, house / "runs", [], workers, list(cards), wait)


def machine(house: Path, names: list[str]) -> None:
    """A process' work: what the command does, with the small program."""
    worker.program = lambda: [sys.executable, str(house / "training.py")]
    sys.exit(begin(house, names).run())


def start(house: Path, names: list[str]) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nerf.worker"])
    process = context.Process(target=machine, args=(house, names))
    process.start()
    return process


def trained(house: Path, count: int = 0) -> list[dict]:
    """What the trainings so far were told, once there are `count`."""
    path, end = house / "trained.jsonl", time.monotonic() + 60
    while time.monotonic() < end:
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if len(rows) >= count:
            return rows
        time.sleep(0.05)
    raise AssertionError(f"fewer than {count} trainings")


def states(house: Path) -> dict[str, str]:
    return {name: claim.state for name, claim in Claims(house / "runs" / OWN).newest().items()}


def test_two_machines_train_every_scene_once_and_a_broken_one_stops_none(house):
    names = ["a", "broken", "c", "d", "e"]
    both = [start(house, names), start(house, names)]
    for process in both:
        process.join(60)
    assert sorted(row["scene"] for row in trained(house)) == names
    assert states(house) == {name: "failed" if name == "broken" else "done" for name in names}
    assert {process.exitcode for process in both} <= {0, 1} and 1 in {process.exitcode for process in both}
    table = (house / "runs" / TABLE).read_text()
    assert "| broken | - | - | - | - |" in table and "failed: photos: expected light, found none |" in table
    assert "| mean of 4 | 31.00 | 0.9000 | - | 2 |" in table

    second = begin(house, names)  # tries what failed again, and only that
    assert second.run() == 1
    assert [row["scene"] for row in trained(house)][5:] == ["broken"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed parent's child goes on")
def test_a_machine_that_is_killed_leaves_nothing_at_work_and_another_goes_on_with_its_scene(house):
    first = start(house, ["long", "next"])
    child = trained(house, 1)[0]["pid"]
    first.kill()
    first.join(60)
    assert begin(house, ["long", "next"]).run() == 0
    assert not born(child)
    assert [(row["scene"], row["resume"]) for row in trained(house)] == [
        ("long", False),
        ("long", True),
        ("next", False),
    ]
    assert states(house) == {"long": "done", "next": "done"}


def test_ctrl_c_is_passed_on_once_and_the_same_command_goes_on(house):
    first = start(house, ["long", "next"])
    trained(house, 1)
    os.kill(first.pid, signal.SIGINT)
    first.join(60)
    assert first.exitcode == 130 and states(house) == {"long": "stopped"}
    assert begin(house, ["long", "next"]).run() == 0
    assert [row["resume"] for row in trained(house)] == [False, True, False]


def test_a_machine_leaves_what_another_is_seen_to_train(house, capsys):
    other = Claims(house / "runs" / OWN).take("a", None)
    assert other is not None
    assert begin(house, ["a", "b"]).run() == 0
    assert "still trained elsewhere: a (" in capsys.readouterr().out
    assert [row["scene"] for row in trained(house)] == ["b"]

    threading.Timer(0.5, other.release, ("stopped",)).start()
    assert begin(house, ["a", "b"], wait=True).run() == 0  # or it takes up what the other lets go
    assert [row["scene"] for row in trained(house)] == ["b", "a"]


def test_what_was_taken_over_is_let_go_of(house, capsys):
    ours = begin(house, ["long"])

    def take_over() -> None:
        trained(house, 1)
        claims = Claims(house / "runs" / OWN)
        claims.take("long", claims.newest()["long"])

    threading.Thread(target=take_over).start()
    assert ours.run() == 0
    assert "taken over by another machine" in capsys.readouterr().out
    assert not born(trained(house)[0]["pid"])
    assert states(house) == {"long": "held"}


def test_workers_share_gpus_and_processors(house, monkeypatch):
    assert begin(house, ["a", "b", "c"], workers=3, cards=("4", "7")).run() == 0
    assert sorted(row["cards"] for row in trained(house)) == ["4", "4", "7"]
    assert {row["threads"] for row in trained(house)} == {str(max(1, len(os.sched_getaffinity(0)) // 3))}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8f")
    assert gpus("auto") == ["5", "GPU-8f"] and gpus("cpu") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus("cuda") == ["0", "1"]


def test_a_run_of_somebody_else_is_left_alone_and_one_that_was_removed_is_made_again(house, capsys):
    (house / "runs" / "a").mkdir(parents=True)
    (house / "runs" / "a" / "metrics.json").write_text("{}")
    assert begin(house, ["a", "b"]).run() == 1
    assert "holds a run that isn't this queue's" in capsys.readouterr().out
    assert (house / "runs" / "a" / "metrics.json").read_text() == "{}"
    (house / "runs" / "b" / "metrics.json").unlink()
    begin(house, ["b"]).run()
    assert [row["scene"] for row in trained(house)] == ["b", "b"]
