"""Claims: one winner whoever races, dead holders found without clocks that agree, and none that a slow decision could harm."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nerf.claims import BEAT, PATIENCE, Claim, Claims, born, machine

PROCESSES, NAMES = 6, [f"scene {k}/half.0001" for k in range(12)]  # names with what file names and claims use


def alter(claims: Claims, claim: Claim, **changes: object) -> None:
    """Let a claim's file say something else."""
    path = claims.place(claim.name, claim.number)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def race(folder: Path, start, end, won) -> None:
    """Take every name that is free or whose holder is dead, and stay until all have tried."""
    claims = Claims(folder)
    start.wait()
    for name in NAMES:
        claim = claims.newest().get(name)
        if (claim is None or claims.dead(claim)) and claims.take(name, claim) is not None:
            won.put(name)
    end.wait()


def winners(folder: Path) -> list[str]:
    """The names that were won, one entry a win, when many processes race."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nerf.claims"])
    start, end, won = context.Barrier(PROCESSES), context.Barrier(PROCESSES + 1), context.SimpleQueue()
    processes = [context.Process(target=race, args=(folder, start, end, won)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    end.wait(60)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = []
    while not won.empty():
        found.append(won.get())
    return sorted(found)


def test_of_many_that_race_one_wins_and_of_those_that_take_over_too(tmp_path):
    assert winners(tmp_path) == sorted(NAMES)
    assert winners(tmp_path) == sorted(NAMES)  # all holders of the first race are dead
    assert {claim.number for claim in Claims(tmp_path).newest().values()} == {1}


def test_a_holder_elsewhere_is_dead_when_its_file_rests_by_our_clock(tmp_path):
    now = 1000.0
    other, claims = Claims(tmp_path), Claims(tmp_path, lambda: now)
    other.take("fox", None)
    alter(other, other.newest()["fox"], machine="elsewhere", pid=gone(), host="alpha")
    claim = claims.newest()["fox"]
    assert not claims.dead(claim) and not claims.alive(claim)  # nothing is known yet
    assert claim.host == "alpha" and claim.state == "held"
    now += PATIENCE - 1
    os.utime(claims.place("fox", 0), (1e6, 1e6))  # by a clock that stands in 1970
    claim = claims.newest()["fox"]
    assert not claims.dead(claim) and claims.alive(claim)
    now += PATIENCE - 1
    claim = claims.newest()["fox"]
    assert claims.alive(claim)
    now += 2
    claim = claims.newest()["fox"]
    assert claims.dead(claim) and not claims.alive(claim)
    assert claims.take("fox", claim) is not None


def test_a_beat_is_what_others_see(tmp_path, monkeypatch):
    ours, theirs = Claims(tmp_path), Claims(tmp_path)
    held = ours.take("fox", None)
    assert held is not None
    alter(theirs, theirs.newest()["fox"], machine="elsewhere")
    os.utime(ours.place("fox", 0), (1e6, 1e6))
    before = theirs.newest()["fox"].touched
    assert held.beat() and theirs.newest()["fox"].touched == before  # not every time
    monkeypatch.setattr("nerf.claims.time.monotonic", lambda start=held._beaten: start + BEAT)
    assert held.beat() and theirs.newest()["fox"].touched > before


@pytest.mark.skipif(not machine(), reason="the system doesn't tell one process from another")
def test_a_process_that_is_gone_from_this_machine_is_dead_at_once(tmp_path):
    claims = Claims(tmp_path)
    claims.take("fox", None)
    assert claims.alive(claims.newest()["fox"])
    alter(claims, claims.newest()["fox"], pid=gone())
    assert claims.dead(claims.newest()["fox"])
    alter(claims, claims.newest()["fox"], pid=os.getpid(), born="1")  # the number was given to another
    assert claims.dead(claims.newest()["fox"]) and born(os.getpid()) != "1"


def test_who_decided_on_what_is_past_takes_nothing(tmp_path):
    claims = Claims(tmp_path)
    claims.take("fox", None)
    seen = claims.newest()["fox"]  # by one who then thinks for long
    second = claims.take("fox", seen)
    assert second is not None
    second.release("stopped")
    third = claims.take("fox", claims.newest()["fox"])
    assert third is not None and claims.take("fox", seen) is None and claims.take("fox", None) is None
    assert third.beat()


def test_one_that_was_taken_for_dead_learns_it_and_harms_nothing(tmp_path):
    claims = Claims(tmp_path)
    slept = claims.take("fox", None)
    assert slept is not None and slept.beat()
    other = claims.take("fox", claims.newest()["fox"])
    assert other is not None and not slept.beat() and other.beat()
    slept.release("done")
    assert claims.newest()["fox"].state == "held" and claims.newest()["fox"].number == 1
    before = claims.before(other)
    assert before is not None and before.state == "done"  # which the other can see
    other.release("failed", "no light")
    assert (claims.newest()["fox"].state, claims.newest()["fox"].said) == ("failed", "no light")


def test_a_claim_whose_holder_died_before_it_wrote_its_name_is_one(tmp_path):
    now = 0.0
    claims = Claims(tmp_path, lambda: now)
    claims.place("fox", 0).touch()
    claims.place("owl", 0).write_text("[1, 2]")
    for name in ("fox", "owl"):
        assert claims.newest()[name].state == "held" and not claims.dead(claims.newest()[name])
        assert claims.take(name, None) is None
    now += PATIENCE + 1
    assert all(claims.dead(claim) for claim in claims.newest().values())
