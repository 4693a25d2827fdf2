"""The wave equation u_tt = c^2 (u_xx + u_yy), in one or two dimensions (section 4.3 and the supplement's section on it).

A SIREN's first layer is plane waves sin(k x - w t + b). Here their frequencies lie on the cone w = c |k|, where each of
them is a solution itself; what is left for the least squares are the initial displacement and velocity and the edges.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.kernels import Ops
from nerf.kernels.mlp_jet import Jet
from siren.loop import FitError
from siren.pde_basis import Function, ask, box, nothing, plane_waves, rim
from siren.pde_linear import Condition, Problem, Solution, Wrap, climb, project

Boundary = Literal["free", "dirichlet"]
FEATURES = 4500  # at most, unless asked for


def wave(
    initial: Function,
    velocity: Function = nothing,
    speed: float = 1.0,
    duration: float = 0.5,
    dims: int = 2,
    boundary: Boundary = "free",
    extent: float = 1.0,
    features: int = FEATURES,
    tolerance: float = 2e-3,
    seed: int = 0,
    ops: Ops | None = None,
    wrap: Wrap = iter,
) -> Solution:
    """Solve the equation on [-extent, extent]^dims for times from 0 to `duration`.

    Args:
        initial, velocity: u and u_t at t = 0, from points "p dims".
        speed: c.
        boundary: "free": waves leave. The equation is then solved on a domain so large that nothing comes back from its
            edges in time, and the two functions are asked for values there. "dirichlet": u = 0 on the edges.
        features: the sine layer's width, at most.
        tolerance: relative residual at which no more features are tried.
        wrap: a progress bar for a list.

    Returns:
        The field, real at points "p 1+dims" with columns t, x, y.

    Raises:
        FitError: settings that can't be met, or functions that give anything but one finite number a point.

    Example:
        >>> pulse = lambda x: torch.exp(-x.square().sum(1) / 0.02)
        >>> field = wave(pulse, speed=1.5, duration=0.4)  # doctest: +SKIP
    """
    for name, value in (("speed", speed), ("duration", duration), ("extent", extent), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise FitError(f"{name}: expected a positive number, found {value}")
    if dims not in (1, 2) or boundary not in ("free", "dirichlet"):
        raise FitError(f"dims, boundary: expected 1 or 2, and free or dirichlet, found {dims}, {boundary!r}")
    half, walls = extent, True
    if boundary == "free":
        half, walls = roomy(initial, velocity, speed * duration, dims, extent)

    def attempt(radius: float, count: int) -> Solution:
        problem = equations(initial, velocity, speed, duration, dims, half, radius, walls)
        siren = plane_waves(cone(count, radius, speed, dims, seed), 1, seed, ops)
        seconds = project(siren, problem, seed, wrap)
        about = {
            "equation": "wave", "speed": speed, "duration": duration, "dims": dims, "boundary": boundary,
            "extent": extent, "solved_extent": half, "features": count, "seconds": seconds,
        }  # fmt: skip
        return Solution(siren, problem, about)

    def modes(radius: float) -> float:
        # Of functions of x - ct, so of an interval longer by ct; twice, since waves go both ways.
        side = 2 * half + speed * duration
        return 2 * (side * radius / math.pi if dims == 1 else (side * radius) ** 2 / (4 * math.pi))

    return climb(attempt, modes, (30 if dims == 1 else 10) / half, features, tolerance)


def cone(count: int, radius: float, speed: float, dims: int, seed: int) -> Float[Tensor, "n 1+{dims}"]:
    """Frequencies (w, k) with w = c |k|, k filling a ball: each of them a wave that travels along -k."""
    unit = torch.quasirandom.SobolEngine(2, True, seed).draw(count).double()
    if dims == 1:
        k = radius * (2 * unit[:, :1] - 1)
    else:
        r, angle = radius * unit[:, 0].sqrt(), 2 * math.pi * unit[:, 1]
        k = torch.stack((r * angle.cos(), r * angle.sin()), 1)
    return torch.cat((speed * k.norm(dim=1, keepdim=True), k), 1)


def roomy(initial: Function, velocity: Function, way: float, dims: int, extent: float) -> tuple[float, bool]:
    """Half the side of a domain whose walls aren't felt in [-extent, extent], and whether u = 0 holds on them.

    What starts within s and comes back from walls at h has gone (h - s) + (h - extent), which must exceed the waves' `way`.
    At h = extent + way nothing from beyond h matters, whatever starts there.
    """
    furthest = extent + way
    x = box([-furthest] * dims, [furthest] * dims, 40_000, 0)
    support = 0.0
    for name, function in (("initial", initial), ("velocity", velocity)):
        size = ask(function, x, name).abs()
        felt = x[size > 1e-5 * float(size.max())].abs()
        support = max(support, float(felt.max()) if len(felt) else 0.0)
    half = max(extent, (way + support + extent) / 2, support)
    return min(half, furthest), half < furthest


def equations(
    initial: Function,
    velocity: Function,
    speed: float,
    duration: float,
    dims: int,
    half: float,
    radius: float,
    walls: bool,
) -> Problem:
    """The equation inside, both initial conditions and, with `walls`, u = 0 on the edges."""
    low, high = [-half] * dims, [half] * dims
    forms = torch.zeros(2, 1 + dims, 1 + dims, dtype=torch.float64)
    forms[0, 0, 0] = 1
    forms[1, 1:, 1:] = torch.eye(dims)

    def acceleration(x: Tensor, jet: Jet) -> list[Tensor]:
        return [jet.second[..., 0], -(speed**2) * jet.second[..., 1]]

    def start(n: int, seed: int) -> Tensor:
        x = box(low, high, n // 2, seed)
        return torch.cat((torch.zeros(len(x), 1, dtype=x.dtype), x), 1)

    def edges(n: int, seed: int) -> Tensor:
        if dims == 1:
            t = box([0.0], [duration], n // 4, seed)
            return torch.cat([torch.cat((t, torch.full_like(t, side)), 1) for side in (-half, half)])
        x = box([0.0, 0.0], [duration, 1.0], n // 2, seed)
        return torch.cat((x[:, :1], rim(low, high, x[:, 1])), 1)

    unit = 1 / (speed * radius)  # of time; what weighs is in units of u
    conditions = [
        Condition("equation", lambda n, s: box([0.0, *low], [duration, *high], n // 16, s), acceleration, nothing, unit**4),
        Condition("displacement", start, lambda x, jet: [jet.value], lambda x: ask(initial, x[:, 1:], "initial")),
        Condition("velocity", start, lambda x, jet: [jet.gradient[..., 0]],
                  lambda x: ask(velocity, x[:, 1:], "velocity"), (4 * unit) ** 2),
    ]  # fmt: skip
    if walls:
        conditions.append(Condition("edges", edges, lambda x, jet: [jet.value], nothing))
    return Problem(tuple(conditions), forms)
