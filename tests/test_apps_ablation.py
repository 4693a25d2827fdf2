"""The ablation's runs, its table and where it goes, on a scene that trains in a second."""

from __future__ import annotations

import dataclasses
import json

import pytest

from apps.ablation import MARKERS, VARIANTS, Options, insert, main, markdown, run
from nerf.config import ConfigError
from nerf.presets import preset
from tests.ball import write_ball


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_ball(tmp_path_factory.mktemp("moving"), moving=True)


def test_each_variant_is_the_full_model_but_for_one_thing():
    full = dataclasses.replace(preset("instant", True, False), scene="somewhere")
    changed = {name: change(full) for name, change in VARIANTS.items()}
    assert changed["full"] == full
    assert changed["without elastic"].loss == dataclasses.replace(full.loss, elastic=0.0)
    assert changed["without background"].loss == dataclasses.replace(full.loss, background=0.0)
    assert changed["without annealing"].loss == dataclasses.replace(full.loss, anneal=0.0)
    assert changed["all hash levels from the start"].loss == dataclasses.replace(full.loss, anneal_levels=None)
    assert changed["translation"].model.warp.kind == "translation" and full.model.warp.kind == "se3"
    assert changed["no warp (NeRF)"].model.warp is None
    assert [changed[f"HyperNeRF, {kind}"].model.warp.slicing.kind for kind in ("plane", "sheet")] == ["plane", "sheet"]
    for name, config in changed.items():
        assert (config == full) == (name == "full")


def test_runs_are_made_once_and_their_figures_put_in_the_text(place, tmp_path, capsys):
    text = tmp_path / "page.md"
    text.write_text(f"before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n")
    names = ("full", "HyperNeRF, sheet", "no warp (NeRF)")
    options = Options((place,), steps=2, variants=names, runs=tmp_path / "runs", out=text)
    found = run(options)
    written = text.read_text()
    assert written.startswith(f"before\n{MARKERS[0]}") and written.endswith(f"{MARKERS[1]}\nafter\n")
    assert found in written and "old" not in written and "2 steps each" in written
    folders = tmp_path / "runs" / place.name
    figures = {f.name: json.loads((f / "metrics.json").read_text()) for f in folders.iterdir()}
    assert set(figures) == {"full", "HyperNeRF-sheet", "no-warp-NeRF"}
    for name, folder in zip(names, ("full", "HyperNeRF-sheet", "no-warp-NeRF")):
        assert f"| {name} | {figures[folder]['psnr']:.2f} |" in written
    assert (tmp_path / "runs" / f"{place.name}.png").stat().st_size > 1000
    # What is there is read: a figure changed by hand comes back.
    file = folders / "full" / "metrics.json"
    file.write_text(json.dumps(figures["full"] | {"psnr": 77.0}))
    assert "| full | 77.00 |" in run(options)
    # Another length is another run.
    assert "| full | 77.00 |" not in run(dataclasses.replace(options, steps=3, variants=("full",)))


def test_figures_that_no_row_has_are_no_column():
    rows = {"a": {"psnr": 20.0, "ssim": 0.5, "flip": 0.1}, "b": {"psnr": None, "ssim": 0.6, "flip": 0.2}}
    assert markdown(rows).splitlines() == [
        "|  | PSNR, dB | SSIM | FLIP |", "|---|---|---|---|", "| a | 20.00 | 0.5000 | 0.1000 |",
        "| b | - | 0.6000 | 0.2000 |",
    ]  # fmt: skip
    moved = markdown({"a": rows["a"] | {"motion": {"share": 0.613}}, "b": rows["b"]}).splitlines()
    assert moved[0].endswith("| point error, share of the motion |")
    assert moved[2].endswith("| 61 % |") and moved[3].endswith("| - |")


def test_what_cannot_be_compared_is_a_sentence(place, tmp_path, capsys):
    assert main(["--scenes", str(place), "--variants", "full", "other", "--out", "None"]) == 2
    assert "error: --variants: expected some of 'full'" in capsys.readouterr().err
    page = tmp_path / "page.md"
    page.write_text("no markers")
    assert main(["--scenes", str(place), "--out", str(page), "--runs", str(tmp_path)]) == 2
    assert f"error: {page}: expected the lines <!-- ablation -->" in capsys.readouterr().err
    (tmp_path / "still").mkdir()
    still = write_ball(tmp_path / "still", moving=False)
    assert main(["--scenes", str(still), "--out", "None", "--runs", str(tmp_path)]) == 2
    assert "expected photos of something that moves" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="expected the lines"):
        insert(f"{MARKERS[1]} {MARKERS[0]}", "", page)
