"""The `cuda` backend as torch and a caller see it, on the emulated device; its numbers are tests/test_cuda_*.py's."""

from __future__ import annotations

import dataclasses
import warnings
from itertools import pairwise

import jaxtyping
import pytest
import torch
from torch import Tensor

from data.scene import load_scene
from nerf.cli import Options, configure
from nerf.kernels import (
    backends,
    cuda,
    cuda_check,
    cuda_grid,
    cuda_mlp_ops,
    cuda_ops,
    cuda_trials,
)
from nerf.kernels import hash_encode as grids
from nerf.kernels.frame import Course
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.space import Space
from nerf.picture import render_image
from nerf.presets import preset
from nerf.trainer import Trainer
from tests.ball import write_ball
from tests.cpu_levels import packed_samples, points_and_table, worst
from tests.cuda_emulated import GPU, NEEDS, emulated  # noqa: F401 (a fixture)
from tests.test_nerf_train import small

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]

GRID = GridGeometry(3, 2, 10, 4, 32)
SETTINGS = ("relu", "none", 30.0, "float16", 0)


def network(*widths: int) -> tuple[list[Tensor], list[Tensor]]:
    weights = [(torch.randn(o, i) / i**0.5).requires_grad_() for i, o in pairwise(widths)]
    return weights, [(torch.randn(o) * 0.3).requires_grad_() for o in widths[1:]]


@pytest.fixture
def here(monkeypatch):
    """The backend is one that can be had."""
    backends.available.cache_clear()
    backends.load.cache_clear()
    yield backends.load("cuda")
    backends.available.cache_clear()
    backends.load.cache_clear()


def samples() -> tuple[Tensor, ...]:
    return packed_samples(12)


CHECKED = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("op", ["hash_encode", "mlp", "composite", "transmittance", "march", "adam", "harmonics"])
def test_torch_finds_nothing_wrong_with_the_ops(op):
    rays = torch.rand(8, 3), torch.nn.functional.normalize(torch.randn(8, 3), dim=1), torch.zeros(8), torch.ones(8)
    density, rgb, t, dt, offsets = samples()
    arguments = {
        "hash_encode": lambda: (*points_and_table(20, GRID), cuda_ops.grid_numbers(GRID)),
        "mlp": lambda: (torch.randn(20, 16, requires_grad=True), *network(16, 32, 3), *SETTINGS),
        "composite": lambda: (density, rgb, t, dt, offsets, torch.rand(12, 3, requires_grad=True)),
        "transmittance": lambda: (density, dt.requires_grad_(), offsets),
        "march": lambda: (*rays, torch.rand(64) < 0.5, 4, [0.0, 0.0, 0.0], 1.0, False, 0.1, 0.0, None, None),
        "adam": lambda: (*torch.rand(4, 50), 1, 0.1, 0.9, 0.99, 1e-8),
        "harmonics": lambda: (torch.randn(20, 3),),
    }[op]()
    module = cuda_mlp_ops if op == "mlp" else cuda_ops
    found = torch.library.opcheck(getattr(module, op), arguments, test_utils=CHECKED)
    assert set(found.values()) == {"SUCCESS"}


def test_a_grid_and_a_network_compile_as_one_graph(monkeypatch):
    from torch._dynamo.testing import CompileCounterWithBackend  # seconds, which only this test should cost

    monkeypatch.setattr(
        jaxtyping.config, "jaxtyping_disable", True
    )  # the compiler can't see through these tests' checks
    x, table = points_and_table(50, GRID)
    weights, biases = network(GRID.width, 16, 3)

    def run(x, table, *parameters):
        return cuda.mlp(cuda.hash_encode(x, table, GRID), parameters[:2], parameters[2:], "relu", "sigmoid")

    inputs = [x, table, *weights, *biases]
    plain = run(*inputs)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(run, fullgraph=True, backend=counter)
    assert worst(compiled(*inputs), plain, inputs) < 1e-6
    assert counter.frame_count == 1


def test_second_derivatives_say_where_to_have_them():
    x, table = points_and_table(5, GRID)
    (slope,) = torch.autograd.grad(cuda.hash_encode(x, table, GRID).sum(), x, create_graph=True)
    with pytest.raises(
        RuntimeError, match="hash_encode_x: the cuda backend has no second derivatives; use backend refe"
    ):
        slope.sum().backward()
    weights, biases = network(16, 32, 3)
    x = torch.randn(5, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(cuda.mlp(x, weights, biases).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="mlp_backward: the cuda backend has no second derivatives"):
        slope.sum().backward()


def test_what_has_no_kernel_is_the_references():
    weights, biases = network(2, 32, 1)
    jet = cuda.mlp_jet(torch.randn(5, 2), weights, biases, torch.eye(2)[None])
    assert jet.second.requires_grad and jet.second.shape == (5, 1, 1)
    density, rgb, t, dt, offsets = samples()
    out = cuda.composite(density, rgb, t.requires_grad_(), dt, offsets)
    assert torch.autograd.grad(out.depth.sum(), t)[0].abs().sum() > 0
    x = torch.randn(5, 2)
    assert torch.equal(
        cuda.mlp(x, weights, biases, "sine", dtype="float32"),
        backends.load("reference").mlp(x, weights, biases, "sine"),
    )


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: cuda.hash_encode(torch.rand(2, 3), torch.rand(7, 2), GRID), ValueError, "expected a table of shape"),
        (lambda: cuda.hash_encode(*points_and_table(2, GRID, torch.float64), GRID), TypeError, "takes float32 tensors"),
        (lambda: cuda.mlp(torch.rand(2, 5), *network(4, 3)), ValueError, "don't follow one another"),
        (lambda: cuda.mlp(torch.rand(2, 4), *network(4, 3), "tanh"), ValueError, "expected one of none, relu"),
        (lambda: cuda.mlp(torch.rand(2, 4), network(4, 3)[0], [torch.rand(4)]), ValueError, "expected biases of lengths"),
        (lambda: cuda.mlp(torch.rand(2, 4), *network(4, 3), skips=(3,)), ValueError, "expected skips among the 1 layers"),
        (lambda: cuda.mlp(torch.rand(2, 4), *network(4, 3), dtype="int8"), ValueError, "expected dtype auto, float32, f"),
        (lambda: cuda.adam(*[torch.rand(4, 3).T] * 4, 1, 0.1, (0.9, 0.99), 1e-8), ValueError, "contiguous tensors"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_march_names_what_does_not_fit():
    rays = torch.rand(8, 3), torch.rand(8, 3), torch.zeros(8), torch.ones(8)
    space = Space((0.0, 0.0, 0.0), 1.0, False)
    with pytest.raises(ValueError, match=r"expected a flat bool grid of 4\^3, found torch.float32 \(64,\)"):
        cuda.check_course("march", rays, Course(torch.rand(64), 4, space, 0.1))
    with pytest.raises(ValueError, match="as many origins, directions, near and far"):
        cuda.check_course("march", (*rays[:3], torch.ones(9)), Course(torch.rand(64) < 1, 4, space, 0.1))


def test_a_kernel_that_computes_something_else_steps_back_and_says_so_once(monkeypatch):
    geometry = GridGeometry(2, 2, 8, 4, 8)  # not tried before
    right = cuda_grid.encode
    monkeypatch.setattr(cuda_grid, "encode", lambda *given: right(*given) * 1.001)
    x, table = points_and_table(30, geometry)
    with pytest.warns(UserWarning, match=r"backend cuda: hash_encode: result 0 differs from reference by .*e-0"):
        first = cuda.hash_encode(x, table, geometry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = cuda.hash_encode(x, table, geometry)
    expected = grids.hash_encode(x, table, geometry)
    assert torch.equal(first, expected) and torch.equal(again, expected)
    verdict = next(one for one in cuda_check.verdicts() if one.variant == geometry)
    assert 1e-4 < verdict.error < 1e-2 and "differs" in verdict.trouble


def test_a_kernel_that_does_not_launch_steps_back(monkeypatch):
    geometry = GridGeometry(2, 4, 8, 4, 8)
    monkeypatch.setattr(cuda_grid, "_BLOCK", 2048)
    x, table = points_and_table(30, geometry)
    with pytest.warns(UserWarning, match=r"hash_encode: .*: cuLaunchKernel"):
        found = cuda.hash_encode(x, table, geometry)
    assert torch.equal(found, grids.hash_encode(x, table, geometry))


def test_distances_are_of_the_numbers_and_of_nothing_less():
    one = torch.ones(100)
    assert cuda_check.distance(one, one) == 0 < cuda_check.distance(one * 1.01, one) < 0.0101
    for other in (one.double(), torch.ones(99), one * torch.nan):
        assert cuda_check.distance(other, one) == float("inf")


@pytest.mark.parametrize("activation", ["relu", "sine"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_limits_are_well_above_what_rounding_comes_to(activation, dtype):
    net = cuda_trials.Network(3, (64, 64, 3), (activation, "none"), 30.0, dtype, (), True, activation == "sine")
    pairs = cuda_trials._network_trial(net, torch.empty(0).device)
    assert len(pairs) == 8  # the result, x, three matrices and three vectors
    assert all(cuda_check.distance(pair.found, pair.expected) < pair.limit / 3 for pair in pairs)


def test_a_gpus_steps_are_larger(here, tmp_path):
    scene = load_scene(write_ball(tmp_path, moving=False))
    at_home, there = (configure(Options(tmp_path), scene, backend) for backend in ("reference", "cuda"))
    assert there.samples == 8 * at_home.samples and there.model == at_home.model
    paper = Options(tmp_path, preset="nerf")
    assert dataclasses.replace(configure(paper, scene, "cuda"), backend="reference") == configure(
        paper, scene, "reference"
    )


@pytest.mark.skipif(GPU, reason="a GPU draws other random numbers than the reference on the CPU")
def test_training_and_pictures_are_the_references(here, tmp_path):
    write_ball(tmp_path, moving=False)
    scene = load_scene(tmp_path)
    config = small(preset("instant", False, True), rays=64)
    losses, pictures = [], []
    for backend in ("cuda", "reference"):
        trainer = Trainer(dataclasses.replace(config, backend=backend), scene)
        losses.append([trainer.advance()["color"] for _ in range(6)])  # the last two look before they shade
        trainer.room = 1 << 13  # as a look on a GPU is given, so that it needn't wait
        losses[-1] += [trainer.advance()["color"] for _ in range(2)]
        pictures.append(render_image(trainer.model.eval(), scene.train[0].camera.scaled(0.25)))
    assert trainer.model.ops.name == "reference" and here.name == "cuda"
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert float((pictures[0].rgb - pictures[1].rgb).abs().max()) < 0.02
