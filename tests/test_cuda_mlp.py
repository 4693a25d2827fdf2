"""The fused networks' CUDA kernels, emulated, beside a float64 network that rounds where they do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nerf.kernels import cuda_mlp, cuda_mlp_rows, cuda_mlp_wide
from nerf.kernels.mlp import ACTIVATIONS, mlp
from tests import emulator
from tests.cpu_levels import network
from tests.cuda_emulated import NEEDS, distance, emulated  # noqa: F401 (a fixture)
from tests.rounded import FORMATS, rounded_mlp

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]
# Now and then a number lies so close between two of the format's that float32's error decides which one it becomes; that
# is what is left, and sines of several layers multiply it. Measured: 6e-5 at most, and 3e-4 behind sines.
LIMIT, LIMIT_OF_SINES = 1.5e-4, 6e-4
ONE_PASS, BY_LAYERS, WIDE = [32, 64, 64, 16], [20, 128, 128, 7], [20, 130, 5]
ROUTES = {"one pass": ONE_PASS, "by layers": BY_LAYERS, "wide": WIDE}  # which programs run


def parameters(
    widths: list[int], bias: bool = True, skips: tuple[int, ...] = (), scale: float = 1.0
) -> tuple[list[Tensor], list[Tensor]]:
    weights, biases = network(widths, bias, scale=scale)
    for layer in skips:
        weights[layer] = torch.randn(widths[layer + 1], widths[layer] + widths[0]) / widths[layer] ** 0.5
    return [weight.detach() for weight in weights], [vector.detach() for vector in biases or ()]


def errors(
    p: int,
    widths: list[int],
    activations: tuple[str, str] = ("relu", "none"),
    dtype: str = "float16",
    bias: bool = True,
    omega: float = 3.0,
    skips: tuple[int, ...] = (),
    size: float = 1.0,
    scale: float = 1.0,
) -> dict[str, float]:
    """How far results and gradients are from a float64 network that rounds where the kernels do.

    Args:
        size: of the gradients that come in.
        scale: of the weights.
    """
    weights, biases = parameters(widths, bias, skips, scale)
    x, grad = torch.randn(p, widths[0]), torch.randn(p, widths[-1]) * size
    given = (x, weights, biases, *activations, omega, dtype, list(skips))
    out = cuda_mlp.forward(*given)
    to_x, *made = cuda_mlp.backward(grad, *given, True)
    expected = rounded_mlp(x, weights, biases, activations, omega, dtype, grad, skips)
    pairs = {"out": (out, expected.out), "to_x": (to_x, expected.to_x)}
    named = enumerate(zip(made, [*expected.to_weights, *expected.to_biases]))
    assert len(made) == len(weights) + len(biases) and all(tensor.dtype == torch.float32 for tensor in (out, *made))
    pairs |= {f"parameter {index}": pair for index, pair in named}
    return {name: distance(*pair) for name, pair in pairs.items()}


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("p", [0, 1, 15, 16, 17, 64, 200])
@pytest.mark.parametrize("widths", ROUTES.values(), ids=ROUTES)
def test_any_number_of_rows(widths, p, dtype):
    assert max(errors(p, widths, dtype=dtype).values()) < LIMIT


@pytest.mark.parametrize("hidden, last", zip(ACTIVATIONS, [*ACTIVATIONS[2:], *ACTIVATIONS[:2]]))
@pytest.mark.parametrize("widths", [[5, 16, 16, 3], [5, 130, 3]], ids=["one pass", "wide"])
def test_every_activation(widths, hidden, last):
    found = errors(50, widths, (hidden, last), omega=2.5, scale=0.7)
    assert max(found.values()) < (LIMIT_OF_SINES if hidden == "sine" else LIMIT)


def test_sines_by_layers():
    found = errors(50, [3, 100, 100, 3], ("sine", "sine"), dtype="bfloat16", omega=2.5)
    assert max(found.values()) < 8 * LIMIT_OF_SINES  # measured: 2e-3, a step of the format


@pytest.mark.parametrize(
    "widths, dtype, skips",
    [
        ([16, 10], "float16", ()),
        ([3, 16, 1], "bfloat16", ()),
        ([45, 32, 20, 32, 31], "float16", ()),
        ([128, 64, 17], "float16", ()),
        ([9, 128, 128], "bfloat16", ()),
        ([27, 128, 128, 128, 100], "float16", ()),
        ([13, 32, 32, 32, 32, 32, 32, 32, 4], "float16", (3, 7)),
        ([13, 72, 50, 3], "bfloat16", (1, 2)),
        ([13, 140, 50, 3], "float16", (0, 1, 2)),
        ([283, 128, 3], "bfloat16", ()),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_any_widths_depths_and_inputs_that_enter_again(widths, dtype, skips, bias):
    assert max(errors(70, widths, dtype=dtype, bias=bias, skips=skips).values()) < LIMIT


@pytest.mark.parametrize("size", [1e-25, 1e-9, 1e9, 1e25])
@pytest.mark.parametrize("widths", ROUTES.values(), ids=ROUTES)
def test_gradients_of_any_size_come_through_float16(widths, size):
    assert max(errors(40, widths, size=size).values()) < LIMIT


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("widths", [ONE_PASS, BY_LAYERS], ids=["one pass", "by layers"])
def test_whichever_thread_runs_first(widths, schedule):
    with emulator.schedule(schedule, seed=5):
        assert max(errors(500, widths).values()) < LIMIT


@pytest.mark.parametrize("widths", [[2, 64, 3], [3, 130, 1]], ids=["one pass", "wide"])
def test_a_sines_phase_keeps_its_bits(widths):
    (weights, _), x = parameters(widths), torch.rand(200, widths[0]) * 2 - 1
    expected = mlp(x.double(), [weight.double() for weight in weights], None, "sine", omega=100.0)

    def error(x: Tensor, first: Tensor) -> float:
        return distance(cuda_mlp.forward(x, [first, weights[1]], [], "sine", "none", 100.0, "float16", ()), expected)

    # Measured: 3e-4; 8e-3 and more where coordinates or the first matrix are rounded.
    assert (
        error(x, weights[0])
        < 1e-3
        < 4e-3
        < min(error(x.half().float(), weights[0]), error(x, weights[0].half().float()))
    )


@pytest.mark.parametrize("widths", [[5, 16, 16, 3], [5, 130, 3]], ids=["one pass", "wide"])
def test_the_definition_but_for_rounding(widths):
    (weights, biases), x = parameters(widths, scale=0.7), torch.randn(64, widths[0])
    exact = [tensor.double().requires_grad_() for tensor in (x, *weights, *biases)]
    expected = mlp(exact[0], exact[1 : 1 + len(weights)], exact[1 + len(weights) :], "softplus", "exponential")
    grad = torch.randn(expected.shape)
    given = (x, weights, biases, "softplus", "exponential", 2.5, "float16", ())
    assert distance(cuda_mlp.forward(*given), expected) < 2e-3
    for found, wanted in zip(cuda_mlp.backward(grad, *given, True), torch.autograd.grad(expected, exact, grad)):
        assert distance(found, wanted) < 2e-3  # measured: 6e-4


def test_rows_are_taken_by_chunks(monkeypatch):
    monkeypatch.setattr(cuda_mlp_rows, "_CHUNK", 128)
    monkeypatch.setattr(cuda_mlp_wide, "_CHUNK", 128)
    for widths in (BY_LAYERS, WIDE):
        assert max(errors(300, widths).values()) < LIMIT


@pytest.mark.parametrize("widths", ROUTES.values(), ids=ROUTES)
def test_a_row_that_is_no_number_harms_no_other(widths):
    (weights, biases), x = parameters(widths), torch.randn(40, widths[0])
    given = (weights, biases, "relu", "none", 1.0, "float16", ())
    whole = cuda_mlp.forward(x, *given)
    x[7, 3], x[20, 0] = torch.nan, torch.inf
    found, others = cuda_mlp.forward(x, *given), [row for row in range(40) if row not in (7, 20)]
    assert torch.equal(found[others], whole[others]) and found[7].isnan().any() and not found[20].isfinite().all()


@pytest.mark.parametrize("widths", ROUTES.values(), ids=ROUTES)
def test_slices_are_read_where_they_lie_and_x_needs_no_gradient(widths):
    weights, biases = parameters(widths)
    apart, wide = torch.randn(50, widths[0] + 3), torch.randn(51 * widths[0] + 1)
    for x in (apart[:, 1:-2], wide[1 : 1 + 50 * widths[0]].view(50, -1)):
        grad = torch.randn(50, widths[-1] + 1)[:, 1:]
        given = (weights, biases, "relu", "none", 1.0, "bfloat16", ())
        to_x, *made = cuda_mlp.backward(grad, x, *given, False)
        both = cuda_mlp.backward(grad.clone(), x.clone(), *given, True)
        assert to_x.numel() == 0 and both[0].shape == x.shape
        assert all(torch.equal(a, b) for a, b in zip(made, both[1:]))


def test_what_auto_rounds_to():
    assert cuda_mlp.format_of("auto", ("relu", "exponential"), 86) == "float16"
    assert cuda_mlp.format_of("auto", ("exponential", "none"), 86) == "bfloat16"
    assert cuda_mlp.format_of("auto", ("exponential", "none"), 75) == ""
    assert cuda_mlp.format_of("float32", ("relu", "none"), 86) == ""
    with pytest.raises(ValueError, match="bfloat16 needs a GPU of sm_80 or newer, this one is sm_75"):
        cuda_mlp.format_of("bfloat16", ("relu", "none"), 75)
    with pytest.raises(ValueError, match="expected dtype auto, float32, float16 or bfloat16, found 'half'"):
        cuda_mlp.format_of("half", ("relu", "none"), 86)
