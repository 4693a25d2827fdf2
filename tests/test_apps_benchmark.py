"""The benchmark: it checks before it times, its peer is the peers' network, and its table is its JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from apps.benchmark import Peer, differentiated_twice, row
from siren.network import Siren, SirenConfig


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


def test_the_command_prints_what_it_writes(tmp_path):
    out = tmp_path / "figures.json"
    small = ["--points", "512", "--jet-points", "256", "--repeats", "1", "--threads", "2", "--out", str(out)]
    done = subprocess.run([sys.executable, "-m", "apps.benchmark", *small], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert {line["what"] for line in figures["rows"]} == {"fit", "gradient", "gradient and Laplacian"}
    for line in figures["rows"]:
        assert f"{1 / line['seconds']:.2f}" in done.stdout and line["seconds"] > 0
        assert line["error"] < 0.05
    assert all(rate > 1e8 for rate in figures["matrix_rates"].values())
