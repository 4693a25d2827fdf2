"""The faults that `python -m apps.reliability` causes, a few of each kind, and that it would notice what is wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch

from apps import reliability
from apps.faults import cage, crash, numbers, seeds
from apps.faults.clock import Clock, interruptible
from apps.faults.mutate import spoilt
from apps.faults.target import Target, Wrong, attempt, clear, put, rounds
from apps.faults.targets import targets
from data.errors import SceneError
from data.scene import load_scene
from nerf.checkpoint import saved

CASES = 8  # of each target


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """A scene and a run on it."""
    home = tmp_path_factory.mktemp("faults")
    scene, run = home / "scene", home / "run"
    put(scene, seeds.nerfies())
    crash.train(scene, run, 3)
    return scene, run


@pytest.mark.parametrize("name", seeds.SCENES)
def test_every_seed_is_good(name, tmp_path):
    put(tmp_path, seeds.SCENES[name]())
    scene = load_scene(tmp_path)
    assert len(scene.train) + len(scene.test) == seeds.COUNT and len(scene.test) in (1, 2)


def test_cases_are_read_or_refused_in_a_sentence(made, tmp_path):
    taken: Counter[str] = Counter()
    for target in targets(made[1]):
        for case in range(CASES if target.rare == 1 else 2):
            clear(tmp_path / "case")
            target.prepare(tmp_path / "case", Random(f"{target.name} {case}"))
            taken[target.name] += attempt(target, tmp_path / "case")
    assert set(taken) == {target.name for target in targets(made[1])} and 10 < sum(taken.values()) < 120


def test_rare_targets_are_tried_in_some_rounds():
    often, rare = (Target(name, lambda *_: None, lambda _: None, (), rare=k) for name, k in (("a", 1), ("b", 3)))
    assert [target.name for target in rounds([often, rare])] == ["a", "b", "a", "a"]


def test_a_case_is_its_number():
    for make in seeds.SCENES.values():
        assert spoilt(make(), Random(5)) == spoilt(make(), Random(5)) != spoilt(make(), Random(6))


@pytest.mark.parametrize("said", ["", "two\nlines", "x" * 2000])
def test_a_refusal_that_is_no_sentence_is_noticed(said, tmp_path):
    def take(_: Path) -> None:
        raise SceneError(said)

    target = Target("t", lambda folder, random: None, take, (SceneError,))
    with pytest.raises(Wrong, match="expected one sentence"):
        attempt(target, tmp_path)
    with pytest.raises(SceneError):
        attempt(Target("t", target.prepare, take, (KeyError,)), tmp_path)


CAGED = """
import sys
from pathlib import Path
from apps.faults import cage
sys.addaudithook(cage.WATCH)
folder = Path(sys.argv[1])
cage.bound()
for name in ("in/a.txt", "../outside", "/etc/passwd"):
    try:
        with cage.watched(folder):
            try:
                (folder / name).read_text()
            except OSError:
                pass
        print("quiet")
    except cage.Outside:
        print("noticed")
try:
    bytearray(2 << 30)
    print("unbounded")
except MemoryError:
    print("bounded")
"""


def test_the_cage_sees_files_outside_and_bounds_memory(tmp_path):
    (tmp_path / "case").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CAGED, str(tmp_path / "case")], capture_output=True, text=True, cwd=cage._HOME
    )
    assert done.stdout.split() == ["quiet", "noticed", "noticed", "bounded"], done.stderr


def test_a_child_tries_cases_and_tells_of_them(made, tmp_path):
    found = cage.fuzz(made[1], tmp_path, Clock("readers", 0.1), 1, first=5)
    assert sum(map(sum, found["counts"].values())) == 1 and found["faults"] == [] and found["peak"] > 1e7
    assert (found["workers"], found["first"]) == (1, 5)


def test_spoilt_states_are_passed_over(made, tmp_path, monkeypatch):
    clock = Clock("states", 0)
    left = iter([True] * 12 + [False])
    monkeypatch.setattr(clock, "running", lambda: next(left))
    figures = crash.spoilt(made[1], tmp_path, clock, Random(0))
    assert figures["read wrongly"] == 0 and figures["read, an older state with a note"] >= 8
    kinds = ("cut short", "bits turned", "pages of zeros", "parts overwritten")
    assert all(figures[kind] for kind in kinds)
    first = saved(made[1])[0]
    assert crash.same(crash.learned(made[1]), crash.learned(first.parent))
    other = crash.learned(made[1]) | {"generator": torch.zeros(3)}
    assert not crash.same(crash.learned(made[1]), other)


def test_the_page_gets_its_figures(tmp_path):
    counts = {"scene: LLFF": [1500, 20], "a view": [3, 4]}
    readers = {"counts": counts, "faults": [], "peak": 5e8, "seconds": 1201.2, "workers": 1, "first": 40}
    ended = {"runs that ended": 2, "with the undisturbed run's bits": 2}
    odd = {"results": {"one photo": "refused"}, "wrong": []}
    figures = {
        "kills": {"killed": 7} | ended,
        "numbers": odd,
        "disks": "no mounts",
        "states": {"cut": 1},
        "readers": readers,
    }
    text = reliability.markdown(figures)
    assert "| scene: LLFF | 1,520 | 1,500 | 20 |" in text and "| **all** | **1,527** | 1,503 | 24 |" in text
    assert "| one photo | refused |" in text
    assert "| killed | 7 |" in text and "not tried (no mounts)" in text
    assert "20 minutes, 1 at a time, from case 40. Faults found: 0. The most memory of a process: 500 MB" in text
    assert reliability.markdown({"states": {"cut": 1}}).count("|---|") == 1
    assert reliability.main(["--budget", "soon", "--out", "None"]) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"readers": {"faults": [{}]}},
        {"kills": {"runs that ended": 2, "with the undisturbed run's bits": 1}},
        {"kills": {"failed": 1}},
        {"states": {"read wrongly": 1}},
        {"numbers": {"results": {}, "wrong": ["x"]}},
        {"disks": {"disks that were full": 1}},
    ],
)
def test_what_is_wrong_is_told_by_the_exit_code(change):
    assert reliability.wrong(change) and not reliability.wrong({"disks": "no mounts", "readers": {"faults": []}})


def test_kills_are_aimed_at_writes(tmp_path):
    """A stand-in for a process that writes states of 100 bytes: the wait is over in the second one, half of it written."""
    draft, seen = tmp_path / "checkpoint.safetensors.tmp", []
    sizes = iter([None, 0, 60, None, 10, 40, 50, 100, None])
    draft.write_bytes(bytes(70))  # what an earlier kill left

    def alive() -> bool:
        size = next(sizes)
        seen.append(size)
        draft.unlink(missing_ok=True) if size is None else draft.write_bytes(bytes(size))
        return True

    crash._wait_for_write(alive, tmp_path, 2, 50)
    assert seen == [None, 0, 60, None, 10, 40, 50]


def test_odd_scenes_are_refused_warned_of_or_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "STEPS", 4)
    names = ("as it should be", "a million units wide", "NaN in a pose", "all photos black")
    chosen = {name: numbers.CASES[name] for name in names}
    monkeypatch.setattr(numbers, "CASES", chosen | {"wrong": numbers.Case(chosen["NaN in a pose"].make, ("trained",))})
    found = numbers.numbers(tmp_path, Clock("numbers", 0))
    came = [found["results"][name].split(":")[0] for name in names]
    assert came == [numbers.SAME, numbers.SAME, "refused", numbers.WARNED]
    assert len(found["wrong"]) == 1 and "expected trained, found refused" in found["wrong"][0]


def test_lines_come_twice_a_minute_and_ctrl_c_ends_all_parts(capsys):
    clock = Clock("readers", 100)
    clock.tell("too soon")
    clock.told -= 31
    clock.tell("5 cases")
    assert capsys.readouterr().out in ("readers: 5 cases; 1:40 left\n", "readers: 5 cases; 1:39 left\n")
    with interruptible():
        assert clock.running()
        signal.raise_signal(signal.SIGINT)
        assert not clock.running()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert clock.running()
