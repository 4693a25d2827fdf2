"""Two processes that train one scene: what they tell each other, and that a step of theirs is one process's step."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nerf import together
from nerf.exchange import stop, touched_rows
from tests import ranks
from tests.ball import write_ball


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where two ranks have done all that tests/ranks.py asks of them."""
    place = tmp_path_factory.mktemp("ranks")
    for name in ("still", "moving"):
        (place / name).mkdir()
        write_ball(place / name, moving=name == "moving")
    ranks.start(place)
    return place


@pytest.fixture(scope="module")
def seen(folder) -> list[dict]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def tensors(folder) -> list[dict[str, torch.Tensor]]:
    return [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]


def test_messages_reach_every_rank_in_order(seen):
    for rank in (0, 1):
        assert seen[rank]["gathered"] == ["x", "xxx"]
        assert seen[rank]["merged"] == ["a by 0", "b by 1", "c by 0"]
        assert seen[rank]["anyone"] == [True, False]
        assert seen[rank]["part"] == [4 - rank, 4]
        assert seen[rank]["threads"] == max(seen[rank]["processors"] // 2, 1)
    assert seen[0]["pictures"] == [[[value] * 3] * 2 for value in (0, 11, 20)] and seen[1]["pictures"] == []


def test_a_job_goes_on_with_a_run_of_its_own_name_alone(seen):
    assert [s["new"] for s in seen] == [False, False]  # a checkpoint, but not this job's
    assert [s["known"] for s in seen] == [[True, False]] * 2


def test_touched_rows_and_whole_tables_have_the_same_sums(seen, tensors):
    parts = [ranks.rows_of(rank) for rank in (0, 1)]
    for rank in (0, 1):
        assert torch.equal(tensors[rank]["rows"], parts[0] + parts[1])
        assert torch.equal(tensors[rank]["whole"], parts[0] + parts[1])
    most = max(sum(bool(row.any()) for row in part) for part in parts)
    assert [s["row bytes"] for s in seen] == [most * (4 + 16)] * 2


def test_a_row_counts_as_touched_where_any_number_is_not_0():
    for features in (1, 2, 3, 4):
        gradient = torch.zeros(20, features)
        for row, column in ((3, 0), (7, features - 1), (19, features // 2)):
            gradient[row, column] = 1e-45  # the smallest there is
        assert touched_rows(gradient).tolist() == [3, 7, 19]


def test_a_step_of_two_ranks_is_one_processs_step_on_the_rays_of_both(folder, seen, tensors):
    terms, gradients = ranks.one_step(ranks.without_chance(folder / "moving"), folder / "moving")
    assert {"color", "distortion", "elastic"} < terms.keys() and terms["rays"] == 256
    found = {name.removeprefix("gradient."): v for name, v in tensors[0].items() if name.startswith("gradient.")}
    assert found.keys() == gradients.keys() and any("warp" in name for name in found)
    for name, value in gradients.items():
        assert torch.equal(found[name], tensors[1][f"gradient.{name}"]), name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()), msg=name)
    for rank in (0, 1):
        assert seen[rank]["terms"] == pytest.approx(terms, rel=1e-4)


def test_ranks_stop_after_the_same_step_with_one_clock_and_other_rays(seen):
    assert seen[0]["stopped"] == seen[1]["stopped"] == 21  # told after step 20, they hear of it in the next
    assert seen[0]["seconds"] == seen[1]["seconds"] > 0
    assert seen[0]["kept"] == seen[1]["kept"]
    assert seen[0]["drawn"] != seen[1]["drawn"]


def test_the_rank_with_the_checkpoint_hands_it_to_the_others(folder, seen, tensors):
    assert [s["opened"] for s in seen] == [None, 34]  # told by its options alone, and by the run
    assert [s["went on at"] for s in seen] == [22, 22] and [s["ended at"] for s in seen] == [34, 34]
    # After steps 32 and 33 of its own: the same parameters, occupancy and march on both, to the bit.
    names = [name for name in tensors[0] if name.startswith("model.")]
    different = [name for name in names if not torch.equal(tensors[0][name], tensors[1][name])]
    assert different in ([], ["model.occupancy.values"])  # what each has seen since they were last compared
    assert "model.occupancy.occupied" in names
    # The first rank writes, into its own folder, and only it; each writes the pictures of its own views.
    assert (folder / "third run" / "metrics.json").is_file() and not (folder / "second run" / "metrics.json").exists()
    pictures = [sorted(p.stem for p in (folder / n / "evaluation").iterdir()) for n in ("third run", "second run")]
    assert pictures == [["test_r_0", "test_r_2"], ["test_r_1"]]
    views = [row["name"] for row in seen[0]["metrics"]["views"]]
    assert len(views) == 3 and views == sorted(views) and seen[0]["metrics"]["processes"] == 2
    assert seen[0]["metrics"]["psnr"] == seen[1]["metrics"]["psnr"] > 5
    assert 0 < seen[1]["own bytes"] < seen[0]["own bytes"]  # the first one also levels the others


def test_ranks_that_start_again_dont_meet_those_that_are_gone():
    store, met = torch.distributed.HashStore(), []

    def arrive(rank: int, names: dict[int, str]) -> None:
        names[rank] = together.meeting(store, rank, 3)

    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):  # what the round before has left is there when the first one comes
        names: dict[int, str] = {}
        threads = [threading.Thread(target=arrive, args=(rank, names), daemon=True) for rank in order]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join(20)
        assert len(names) == 3 and len(set(names.values())) == 1
        met.append(names[0])
    assert len(set(met)) == 3


def test_alone_everything_is_ones_own(tmp_path, monkeypatch):
    assert together.alone() and together.first() and together.part(7) == 7 and together.own([1, 2]) == [1, 2]
    assert together.merged([1]) == [1] and together.anyone(True) and not together.anyone(False)
    assert not together.goes_on(tmp_path, there=True)
    monkeypatch.setattr(stop, "asked", True)
    assert stop.now(training=True) and stop.now(training=False)
    # The only rank that torchrun started goes on after a fault, and where its job has been at work before.
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    together.join()
    assert together.alone() and not together.goes_on(tmp_path, there=True)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert together.goes_on(tmp_path, there=True) and not together.goes_on(tmp_path, there=False)
    together.mark(tmp_path)
    assert not list(tmp_path.iterdir())  # a name that every job has says nothing
