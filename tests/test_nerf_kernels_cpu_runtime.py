"""The `cpu` backend as a citizen: threads, forks, bad arguments, missing levels, sanitizers."""

import os
import shutil
import subprocess
import threading

import pytest
import torch
from torch import Tensor

from nerf.kernels import cpu, cpu_library
from nerf.kernels.hash_encode import GridGeometry
from tests.cpu_levels import (
    CUDA,
    MARKS,
    network,
    points_and_table,
)

pytestmark = MARKS


def everything(p: int) -> list[Tensor]:
    """Results and gradients of all ops, for one seed."""
    torch.manual_seed(3)
    geometry = GridGeometry(levels=4, features=4, log2_rows=12, base_resolution=4, finest_resolution=256)
    x, table = points_and_table(p, geometry)
    weights, biases = network([16, 64, 3])
    encoded = cpu.hash_encode(x, table, geometry)
    out = cpu.mlp(encoded, weights, biases, "relu", "sigmoid")
    offsets = torch.arange(0, p + 1, 10)
    rendered = cpu.composite(out.sum(-1), out, torch.rand(p), torch.rand(p), offsets)
    inputs = [x, table, *weights, *biases]
    return [*rendered, *torch.autograd.grad(rendered.rgb.sum() + rendered.depth.square().sum(), inputs)]


def test_the_same_bits_again_and_on_any_number_of_threads(level):
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2, 7):
            torch.set_num_threads(count)
            runs.append(everything(20000))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


def test_callers_on_several_python_threads(level):
    expected, found = everything(5000)[0], []
    geometry = GridGeometry(levels=4, features=4, log2_rows=12)
    x, table = (tensor.detach() for tensor in points_and_table(20000, geometry))
    alone = cpu.hash_encode(x, table, geometry)
    callers = [threading.Thread(target=lambda: found.append(cpu.hash_encode(x, table, geometry))) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 6 and all(torch.equal(alone, other) for other in found)
    assert torch.equal(everything(5000)[0], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_threads_of_its_own():
    geometry = GridGeometry(levels=4, features=4, log2_rows=12)
    x, table = (tensor.detach() for tensor in points_and_table(20000, geometry))
    expected = cpu.hash_encode(x, table, geometry)
    child = os.fork()
    if child == 0:
        same = (cpu.hash_encode(x, table, geometry).numpy() == expected.numpy()).all()  # torch's own threads may hang
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_second_derivatives_say_where_to_find_them():
    weights, _ = network([3, 4, 1])
    x = torch.rand(4, 3).requires_grad_()
    (slope,) = torch.autograd.grad(cpu.mlp(x, weights, None).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="use backend reference"):
        slope.square().sum().backward()


def test_wrong_arguments_are_named():
    geometry = GridGeometry(levels=2, features=2, log2_rows=8)
    x, table = points_and_table(5, geometry)
    weights, biases = network([3, 4, 1])
    t = torch.rand(4)
    for message, op in {
        "expected a table of shape": lambda: cpu.hash_encode(x, table[1:], geometry),
        "all float32 or all float64": lambda: cpu.hash_encode(x.double(), table, geometry),
        "don't follow one another": lambda: cpu.mlp(torch.rand(2, 5), weights, biases),
        "expected biases of lengths": lambda: cpu.mlp(x, weights, biases[:1]),
        "expected one of none, relu": lambda: cpu.mlp(x, weights, biases, "gelu"),
        "expected dtype auto": lambda: cpu.mlp(x, weights, biases, dtype="float16"),
        "expected offsets that rise": lambda: cpu.composite(t, torch.rand(4, 3), t, t, torch.tensor([0, 3])),
        "no gradient to t and dt": lambda: cpu.composite(t, x[:4], t.clone().requires_grad_(), t, torch.tensor([0, 4])),
    }.items():
        with pytest.raises((ValueError, TypeError), match=message):
            op()


def test_a_level_that_is_not_there_is_a_reason(monkeypatch):
    monkeypatch.setenv("NERF_CPU_LEVEL", "v9")
    cpu_library.forget()
    assert "expected one of" in cpu.why_not() and "v9" in cpu.why_not()
    cpu_library.forget()


def test_an_install_without_libraries_says_so(monkeypatch):
    monkeypatch.setattr(cpu_library, "built", dict)
    cpu_library.forget()
    assert cpu.why_not().startswith("not built: ")
    with pytest.raises(cpu.KernelError, match="not built"):
        cpu.level()
    cpu_library.forget()


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++ and its sanitizers")
def test_sanitizers_find_nothing_and_would(tmp_path):
    sources = [str(path) for path in [*sorted((CUDA / "cpu").glob("*.cpp")), CUDA / "cpu/check/selfcheck.cpp"]]
    flags = ["-std=c++17", "-g1", "-ffp-contract=off", "-Wno-psabi", "-DNERF_CPU_LEVEL=check"]
    kinds = {"address,undefined": "short", "thread": "race"}
    builds = {}
    for kind in kinds:
        program = tmp_path / kind.partition(",")[0]
        # The address sanitizer doesn't see what AMX reads, but sees what stands in for it. Threads share their work alike in
        # every level, so one that most machines have will do for them.
        thread = kind == "thread"
        of_level = ["-mavx2", "-mfma", "-mf16c"] if thread else ["-march=native", "-DNERF_EMULATE_AMX"]
        level = "-O1" if thread else "-O0"  # what builds and runs in the least time together
        # Undefined behaviour ends the program without a word: the words would take a third of the build.
        sanitize = [f"-fsanitize={kind}", "-fno-sanitize-recover=all", "-fsanitize-undefined-trap-on-error"]
        command = ["g++", *flags, *of_level, level, *sanitize, *sources, "-pthread", "-o", program]
        builds[kind] = program, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for kind, (program, build) in builds.items():
        words = build.communicate()[1]
        if build.returncode and "cannot find" in words:
            pytest.skip(f"g++ without the {kind} sanitizer")
        assert build.returncode == 0, words
        check = subprocess.run([program], capture_output=True, text=True)
        assert check.returncode == 0 and "all well" in check.stdout, check.stdout + check.stderr
        first = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}  # one race is enough
        planted = subprocess.run([program, kinds[kind]], capture_output=True, text=True, env=first)
        assert planted.returncode != 0 and "Sanitizer" in planted.stderr, planted.stdout + planted.stderr
