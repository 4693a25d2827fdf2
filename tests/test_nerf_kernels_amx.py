"""What is built on AMX's tile registers, with plain loops in the instructions' place: on any processor with bfloat16."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest
import torch

from nerf.kernels import cpu, cpu_library
from tests import test_nerf_kernels_cpu as networks
from tests import test_nerf_kernels_mlp_jet as jets
from tests import test_nerf_kernels_mlp_jet_tangents as tangents
from tests.cpu_levels import CUDA, MARKS, levels, use_level

pytestmark = [
    *MARKS,
    pytest.mark.skipif("v4bf16" not in levels(), reason="this processor doesn't multiply bfloat16 numbers"),
    pytest.mark.skipif(not shutil.which("g++"), reason="needs g++"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The kernels with emulated tiles, as if they were the level below."""
    flags = ["-std=c++17", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-w"]
    path = tmp_path_factory.mktemp("amx") / "_cpu_v4bf16.so"
    sources = sorted(map(str, (CUDA / "cpu").glob("*.cpp")))
    defines = ["-DNERF_CPU_LEVEL=v4bf16", "-DNERF_EMULATE_AMX"]
    subprocess.run(["g++", "-O0", "-fPIC", "-shared", *flags, *defines, *sources, "-pthread", "-o", path], check=True)
    return path


@pytest.fixture(autouse=True)
def emulated(library, monkeypatch):
    monkeypatch.setattr(cpu_library, "built", lambda: {"v4bf16": library})
    yield from use_level("v4bf16", monkeypatch)


def test_it_is_tiles_that_are_tested(library):
    assert ctypes.CDLL(str(library)).nerf_mlp_has_tiles() == 1


@pytest.mark.parametrize("activation", ["none", "relu", "softplus", "sigmoid"])
def test_tiles_round_operands_only(activation):
    networks.test_mlp_in_bfloat16_rounds_operands_only(activation)


def test_jets_on_tiles():
    jets.test_a_siren_in_bfloat16_keeps_its_phase()
    tangents.test_a_jet_in_bfloat16_rounds_operands_only()


def test_inputs_enter_again_on_tiles():
    networks.test_inputs_enter_again_as_in_the_reference("v4bf16", "none")


@pytest.mark.parametrize("points", [1, 31, 33, 700])
def test_float32_beside_tiles(points):
    weights = [torch.randn(48, 20), torch.randn(3, 48)]
    x = torch.randn(points, 20)
    expected = torch.relu(x @ weights[0].T) @ weights[1].T
    torch.testing.assert_close(cpu.mlp(x, weights, None, dtype="float32"), expected, rtol=1e-4, atol=1e-4)
    rounded = cpu.mlp(x, weights, None, dtype="bfloat16")
    assert 1e-4 < float((rounded - expected).norm() / expected.norm()) < 1e-2
