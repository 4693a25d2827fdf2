"""Differential equations: closed forms, finite differences, and the files of the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import hankel1, j0, jn_zeros, jv, jvp

from siren.loop import FitError, Schedule
from siren.network import Siren, SirenConfig
from siren.pde import grid_slowness, helmholtz, main, poisson, wave
from siren.pde_basis import Normal, rim
from siren.pde_linear import hidden_jet

ROOT = Path(__file__).parent.parent


def points(count: int, *sides: tuple[float, float], seed: int = 0) -> torch.Tensor:
    unit = torch.rand(count, len(sides), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.stack([low + (high - low) * unit[:, i] for i, (low, high) in enumerate(sides)], 1)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach() - expected).norm() / expected.norm())


def bump(x: torch.Tensor, centre: tuple[float, ...], width: float) -> torch.Tensor:
    return torch.exp(-(x - torch.tensor(centre, dtype=torch.float64)).square().sum(1) / (2 * width**2))


def outgoing(x: torch.Tensor, sources: list[tuple[float, float]], k: float, width: float) -> torch.Tensor:
    r = (x[:, None] - torch.tensor(sources, dtype=torch.float64)).norm(dim=-1).numpy()
    return 0.25j * math.exp(-((k * width) ** 2) / 2) * torch.from_numpy(hankel1(0, k * r)).sum(1)


@pytest.mark.parametrize(
    ("k", "sources", "width"), [(9.0, [(0.3, -0.2)], 0.09), (14.0, [(-0.3, 0.3), (0.2, -0.1)], 0.02)]
)
def test_waves_leave_as_hankel_functions(k, sources, width):
    field = helmholtz(k, sources, width, extent=0.5, features=1100)
    x = points(2000, (-0.5, 0.5), (-0.5, 0.5))
    beyond = ((x[:, None] - torch.tensor(sources)).norm(dim=-1) > 4 * field.about["solved_width"]).all(1)
    assert beyond.sum() > 500
    assert error(field(x)[beyond], outgoing(x, sources, k, width)[beyond]) < 0.02
    # The network itself, in float32, is what was asked for.
    value = field.siren(x[beyond].float()).double()
    assert error(torch.complex(value[:, 0], value[:, 1]), field(x)[beyond]) < 1e-3


def scattered(x: torch.Tensor, source: tuple[float, float], k: float, radius: float, inside: float) -> torch.Tensor:
    """A line source beside a cylinder of another wave number at the origin: the series over angular orders, outside."""
    rho, phi = x.norm(dim=1).numpy(), torch.atan2(x[:, 1], x[:, 0]).numpy()
    away, angle = math.hypot(*source), math.atan2(source[1], source[0])
    whole = 0.25j * hankel1(0, k * np.hypot(x[:, 0].numpy() - source[0], x[:, 1].numpy() - source[1]))
    for n in range(-30, 31):
        j, dj = jv(n, k * radius), k * jvp(n, k * radius)
        h, dh = hankel1(n, k * radius), k * (hankel1(n - 1, k * radius) - hankel1(n + 1, k * radius)) / 2
        i, di = jv(n, inside * radius), inside * jvp(n, inside * radius)
        share = -(j * di - dj * i) / (h * di - dh * i)
        whole = whole + 0.25j * share * hankel1(n, k * away) * hankel1(n, k * rho) * np.exp(1j * n * (phi - angle))
    return torch.from_numpy(whole)


def test_a_slower_cylinder_scatters_as_its_series_says():
    k, radius, squared, source, width = 8.0, 0.2, 2.0, (0.35, 0.3), 0.03

    def medium(x: torch.Tensor) -> torch.Tensor:
        return 1 + (squared - 1) * torch.sigmoid((radius - x.norm(dim=1)) / 0.01)

    field = helmholtz(k, [source], width, medium, extent=0.5, features=1300)
    x = points(3000, (-0.5, 0.5), (-0.5, 0.5))
    outside = (x.norm(dim=1) > 1.15 * radius) & (
        (x - torch.tensor(source)).norm(dim=1) > 4 * field.about["solved_width"]
    )
    expected = math.exp(-((k * width) ** 2) / 2) * scattered(x, source, k, radius, k * math.sqrt(squared))[outside]
    free = outgoing(x, [source], k, width)[outside]
    assert error(free, expected) > 0.3  # the cylinder matters
    assert error(field(x)[outside], expected) < 0.05


def leapfrog(initial, velocity, speed: float, times: list[float], extent: float, side: int) -> list[np.ndarray]:
    """Finite differences with u = 0 on the edges of a square, at interior nodes, at the steps nearest to `times`."""
    axis = np.linspace(-extent, extent, side)
    h = axis[1] - axis[0]
    dt = 0.5 * h / speed
    grid = torch.from_numpy(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))
    u, v = (f(grid).numpy().reshape(side, side).copy() for f in (initial, velocity))

    def push(u):
        out = np.zeros_like(u)
        out[1:-1, 1:-1] = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]
        return (speed * dt / h) ** 2 * out

    u[[0, -1]] = u[:, [0, -1]] = 0
    before, now = u, u + dt * v + push(u) / 2
    found, step = [], 1
    for time in times:
        while step < round(time / dt):
            before, now = now, 2 * now - before + push(now)
            step += 1
        found.append(now.copy())
    return found


@pytest.mark.parametrize("boundary", ["free", "dirichlet"])
def test_a_plane_wave_field_agrees_with_finite_differences(boundary):
    speed, side = 1.3, 241
    initial = lambda x: bump(x, (0.2, -0.1), 0.16) - 0.5 * bump(x, (-0.3, 0.2), 0.2)  # noqa: E731
    velocity = lambda x: 3 * bump(x, (-0.2, -0.2), 0.2)  # noqa: E731
    duration = 0.6
    field = wave(initial, velocity, speed, duration, boundary=boundary, features=1400, tolerance=4e-3)
    # Free space is a square so much larger that its edges aren't felt.
    extent, side = (1.0, 201) if boundary == "dirichlet" else (2.0, 401)
    times = [0.25, duration]
    axis = np.linspace(-extent, extent, side)
    dt = 0.5 * (axis[1] - axis[0]) / speed
    near = np.abs(axis) <= 1 + 1e-9
    x = torch.from_numpy(np.stack(np.meshgrid(axis[near], axis[near], indexing="ij"), -1).reshape(-1, 2))
    for time, expected in zip(times, leapfrog(initial, velocity, speed, times, extent, side)):
        exactly = torch.full_like(x[:, :1], round(time / dt) * dt)
        found = field(torch.cat((exactly, x), 1))
        assert error(found, torch.from_numpy(expected[np.ix_(near, near)].ravel())) < 0.01


def test_a_string_moves_as_d_alembert_says_even_after_its_pulse_has_left():
    speed, duration, width = 1.5, 1.2, 0.06
    field = wave(lambda x: bump(x, (0.2,), width), lambda x: -2 * bump(x, (-0.1,), width), speed, duration, dims=1)
    x = points(2000, (0, duration), (-1, 1))
    ahead, behind = x[:, 1] + speed * x[:, 0], x[:, 1] - speed * x[:, 0]
    area = lambda z: math.sqrt(math.pi / 2) * width * torch.erf((z + 0.1) / (width * math.sqrt(2)))  # noqa: E731
    expected = (bump(ahead[:, None], (0.2,), width) + bump(behind[:, None], (0.2,), width)) / 2
    expected -= (area(ahead) - area(behind)) / speed
    assert error(field(x), expected) < 1e-3
    assert field.residual < 1e-2


def test_a_string_held_at_both_ends_repeats():
    field = wave(
        lambda x: torch.sin(1.5 * math.pi * (x[:, 0] + 1)), speed=2.0, duration=3.0, dims=1, boundary="dirichlet"
    )
    x = points(2000, (0, 3), (-1, 1))
    expected = torch.sin(1.5 * math.pi * (x[:, 1] + 1)) * torch.cos(3 * math.pi * x[:, 0])
    assert error(field(x), expected) < 1e-3


@pytest.mark.parametrize(
    ("low", "high", "u", "f"),
    [
        ((-1, -1), (1, 1), lambda x, y: torch.sin(3 * x) * torch.cosh(2 * y) + x, lambda x, y: -5 * torch.sin(3 * x) * torch.cosh(2 * y)),
        ((0, 2), (5, 3), lambda x, y: torch.exp(0.3 * x * y), lambda x, y: 0.09 * (x**2 + y**2) * torch.exp(0.3 * x * y)),
        ((-1, -1), (1, 1), lambda x, y: 0 * x, lambda x, y: 0 * x),
        ((-0.01, 0), (0.01, 0.02), lambda x, y: 1e4 * x * x * y, lambda x, y: 2e4 * y),
    ],
)  # fmt: skip
def test_poisson_finds_the_solution_that_its_data_were_made_from(low, high, u, f):
    field = poisson(lambda x: f(x[:, 0], x[:, 1]), lambda x: u(x[:, 0], x[:, 1]), low, high, features=900)
    x = points(2000, *zip(low, high))
    expected = u(x[:, 0], x[:, 1])
    assert (field(x) - expected).norm() <= 2e-4 * expected.norm()


def test_poisson_meets_a_membrane_s_mode():
    # J0(z r) vanishes nowhere on a square, so its edge values matter as much as its right side.
    z = float(jn_zeros(0, 4)[-1])
    u = lambda x: torch.from_numpy(j0(z * x.norm(dim=1).numpy()))  # noqa: E731
    field = poisson(lambda x: -(z**2) * u(x), u, features=900)
    x = points(1000, (-1, 1), (-1, 1))
    assert error(field(x), u(x)) < 1e-3


def test_features_have_the_derivatives_of_autograd():
    generator = torch.Generator().manual_seed(0)
    siren = Siren(SirenConfig(2, 1, 6, 2, 7.0, 9.0), generator=generator).double()
    x = points(5, (-1, 1), (-1, 1))
    form = torch.tensor([[[1.0, 0.5], [0.5, -2.0]]], dtype=torch.float64)
    jet = hidden_jet(siren, x, form)
    for point in range(len(x)):

        def features(z: torch.Tensor) -> torch.Tensor:
            weights, biases = siren.layers()
            for weight, bias in zip(weights[:-1], biases[:-1]):
                z = torch.sin(7.0 * (weight @ z + bias))
            return z

        torch.testing.assert_close(jet.value[point, :-1], features(x[point]))
        torch.testing.assert_close(jet.gradient[point, :-1], torch.autograd.functional.jacobian(features, x[point]))
        for n in range(6):
            hessian = torch.autograd.functional.hessian(lambda z, n=n: features(z)[n], x[point])
            torch.testing.assert_close(jet.second[point, n, 0], (form[0] * hessian).sum())
    assert jet.value[:, -1].tolist() == [1.0] * 5 and jet.gradient[:, -1].abs().max() == 0


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_normal_equations_give_the_least_squares_solution(kind):
    generator = torch.Generator().manual_seed(1)
    rows, target = torch.randn(60, 9, generator=generator, dtype=kind), torch.randn(60, generator=generator, dtype=kind)
    rows[:20] = rows[:20].real.to(kind)
    normal = Normal(9)
    normal.add(rows[:20].real if kind.is_complex else rows[:20], target[:20])
    normal.add(rows[20:], target[20:])
    torch.testing.assert_close(normal.solve(1e-12), torch.linalg.lstsq(rows, target[:, None]).solution[:, 0])


def test_points_on_an_edge_are_even():
    x = rim([-1.0, 0.0], [2.0, 1.0], torch.linspace(0, 1, 4097, dtype=torch.float64)[:-1])
    on = [(x[:, 0] == -1), (x[:, 0] == 2), (x[:, 1] == 0), (x[:, 1] == 1)]
    assert torch.stack(on).any(0).all()
    assert [float(side.double().mean()) for side in on] == pytest.approx([1 / 8, 1 / 8, 3 / 8, 3 / 8], abs=1e-3)


def test_refining_never_makes_it_worse(tmp_path):
    field = poisson(lambda x: 0 * x[:, 0] + 4, lambda x: x.square().sum(1), features=64, tolerance=1e-9)
    before = field.residual
    last = list(field.refine(Schedule(5, rate=1e-3), batch=64, out=tmp_path))[-1]
    assert last.step == 5 and field.residual <= before * 1.001


def test_a_grid_is_read_with_its_top_row_at_the_top():
    read = grid_slowness(np.array([[1.0, 2.0], [3.0, 5.0]]), extent=2.0)
    x = torch.tensor([[-2.0, 2.0], [2.0, 2.0], [-2.0, -2.0], [2.0, -2.0], [0.0, 0.0]], dtype=torch.float64)
    assert read(x).tolist() == [1, 2, 3, 5, 2.75]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: helmholtz(-1), "wavenumber: expected a positive number, found -1"),
        (lambda: helmholtz(200), r"features: expected \d+ or more for wave number 200, found 4500"),
        (lambda: helmholtz(5, [(0.0, 1.5)]), "sources: expected points of"),
        (lambda: helmholtz(5, []), "sources: expected one or more pairs"),
        (lambda: helmholtz(5, slowness=lambda x: x[:, 0]), "slowness: expected positive"),
        (lambda: wave(lambda x: x, dims=2), r"initial: expected one number a point, shape \(40000,\), found"),
        (lambda: wave(lambda x: x[:, 0] / 0), "initial: expected finite numbers"),
        (lambda: wave(lambda x: x[:, 0], duration=0), "duration: expected a positive number, found 0"),
        (lambda: poisson(lambda x: x[:, 0], lambda x: x[:, 0], (1, 0), (0, 1)), "low, high: expected the corners"),
        (lambda: poisson(lambda x: x[:, 0].log(), lambda x: x[:, 0]), "rhs: expected finite numbers, found"),
    ],
)
def test_what_cannot_be_solved_is_said(call, said):
    with pytest.raises(FitError, match=said):
        call()


def test_the_command_writes_its_files(tmp_path):
    arguments = ["poisson", "--features", "200", "--width", "0.4", "--steps", "2", "--out", str(tmp_path)]
    main(arguments)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["relative_error"] < 0.05 and metrics["steps"] == 2
    assert (tmp_path / "field.png").stat().st_size > 5000 and (tmp_path / "network.safetensors").is_file()


def test_the_command_refuses_what_is_no_medium(tmp_path, capsys):
    file = tmp_path / "m.npy"
    for values, said in [
        (None, "expected an array"),
        (np.ones(4), "shape h w"),
        (-np.ones((4, 4)), "expected positive"),
    ]:
        if values is not None:
            np.save(file, values)
        with pytest.raises(SystemExit) as stopped:
            main(["helmholtz", "--slowness", str(file), "--out", str(tmp_path)])
        assert stopped.value.code == 2 and said in capsys.readouterr().err
