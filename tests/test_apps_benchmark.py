"""The benchmark: it checks before it times, its peer is the peers' network, and its tables are its JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from apps import benchmark, benchmark_ops, benchmark_scene
from apps.benchmark_ops import OpOptions, op_rows, op_table, tasks
from apps.benchmark_scene import SceneOptions, scene_rows, scene_table
from apps.benchmark_siren import Peer, differentiated_twice, row
from apps.measure import Limits
from data.scene import load_scene
from nerf import trainer
from nerf.config import ConfigError
from nerf.kernels import Ops, available, load
from siren.network import Siren, SirenConfig
from tests.trees import write_blender

LIMITS = Limits(1e11, 2e11, 5e10, 1e11, 1e8, 1e10)


def test_the_peer_is_the_papers_formula():
    siren = Siren(SirenConfig(width=12, layers=2), generator=torch.Generator().manual_seed(0))
    x = torch.rand(5, 2)
    h = x
    for index, (weight, bias) in enumerate(zip(siren.weights, siren.biases)):
        h = h @ weight.T + bias
        h = torch.sin(30 * h) if index < 2 else h
    torch.testing.assert_close(Peer(siren)(x), h)
    value, gradient, laplacian = differentiated_twice(Peer(siren), x)
    torch.testing.assert_close(gradient, siren.gradient(x)[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(laplacian, siren.laplacian(x), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(value, h)


def test_a_wrong_answer_is_not_timed():
    assert row("fit", "cpu, float32", 0.5, 2.0, 1e-7)["ratio"] == 4
    with pytest.raises(RuntimeError, match=r"fit, cpu, float32: off by 1.0e-03"):
        row("fit", "cpu, float32", 0.5, 2.0, 1e-3)


@pytest.mark.skipif(bool(available()["cpu"]), reason="no backend cpu")
def test_a_backend_that_computes_something_else_is_not_timed(monkeypatch):
    def lying(name: str) -> Ops:
        ops = load(name)
        return (
            ops
            if name == "reference"
            else dataclasses.replace(ops, composite=lambda d, c, *a: ops.composite(2 * d, c, *a))
        )

    monkeypatch.setattr(benchmark_ops, "load", lying)
    with pytest.raises(RuntimeError, match="composite and backward, cpu, float32: off by"):
        op_rows(OpOptions(points=512, rays=64), LIMITS, 1)


def test_every_op_of_a_backend_is_there():
    asked: set[str] = set()

    def noting(name: str, op):
        return lambda *arguments, **more: asked.add(name) or op(*arguments, **more)

    ops = load("reference")
    noted = {f.name: noting(f.name, getattr(ops, f.name)) for f in dataclasses.fields(Ops) if f.name != "name"}
    for task in tasks(OpOptions(points=256, rays=64)):
        task.run(Ops("reference", **noted), "float32")()
    # The derivatives' ops are timed as steps of a SIREN; transmittance is a part of composite and look.
    assert asked == {field.name for field in dataclasses.fields(Ops)} - {
        "name", "mlp_jet", "mlp_squared_error", "transmittance"
    }  # fmt: skip


def test_shares_are_of_the_limits():
    rows = op_rows(OpOptions(points=2048, rays=64), LIMITS, 1)
    by_name = {(line["what"], line["how"]): line for line in rows}
    grid = by_name["hash grid 16 x 2", "reference, float32"]
    assert grid["share"] == pytest.approx(grid["rate"] * 8 * 16 / LIMITS.gathers) and grid["ratio"] == 1
    network = by_name["mlp 32-64-64-16", "reference, float32"]
    assert network["share"] == pytest.approx(network["rate"] * 2 * (32 * 64 + 64 * 64 + 64 * 16) / LIMITS.small_float32)
    for line in rows:
        assert f"{line['rate'] / 1e6:.2f} {line['unit']}" in op_table(rows) and line["rate"] > 0


def test_a_scene_is_trained_for_every_budget(tmp_path, monkeypatch):
    scene = tmp_path / "scene"
    write_blender(scene)
    plot = tmp_path / "curve.png"
    # A clock of its own, on which a step takes an eighth of a second: on the wall's, a busy machine decides how many fit.
    ticks = (0.125 * tick for tick in itertools.count())
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
        rows = scene_rows(SceneOptions(scene, ("1s", "2s"), plot=plot))
    assert [line["seconds"] for line in rows] == [1, 2] and [line["steps"] for line in rows] == [8, 16]
    assert all(f"{line['psnr']:.2f} dB" in scene_table(rows) for line in rows)
    assert plot.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ConfigError, match=r"--scene\.budgets: expected times"):
        scene_rows(SceneOptions(scene, ("soon",)))
    loaded = dataclasses.replace(load_scene(scene), test=[])
    monkeypatch.setattr(benchmark_scene, "load_scene", lambda *_: loaded)
    with pytest.raises(ConfigError, match=r"--scene\.path: expected photos of which some are held out"):
        scene_rows(SceneOptions(scene, ("1s",)))


def test_the_command_prints_what_it_writes(tmp_path, capsys):
    out = tmp_path / "figures.json"
    small = ["--siren.points", "512", "--siren.jet-points", "256", "--ops.points", "1024", "--ops.rays", "256"]
    command = [sys.executable, "-m", "apps.benchmark", *small, "--repeats", "1", "--threads", "2", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert {line["what"] for line in figures["siren"]} == {"fit", "gradient", "gradient and Laplacian"}
    for line in figures["siren"]:
        assert f"{1 / line['seconds']:.2f}" in done.stdout and line["seconds"] > 0
        assert line["error"] < 0.05
    assert len(figures["ops"]) >= 12 and "scene" not in figures
    assert all(value > 1e6 for value in figures["limits"].values())
    assert benchmark.main(["--only", "everything"]) == 2
    assert "--only: expected some of" in capsys.readouterr().err
