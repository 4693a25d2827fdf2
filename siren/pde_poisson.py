"""The Poisson equation u_xx + u_yy = f on a rectangle, with u given on its edges (Dirichlet data)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nerf.kernels import Ops
from nerf.kernels.mlp_jet import Jet
from siren.loop import FitError
from siren.pde_basis import Function, ask, box, disc, plane_waves, rim
from siren.pde_linear import Condition, Problem, Solution, Wrap, climb, project

FEATURES = 4000  # at most, unless asked for


def poisson(
    rhs: Function,
    boundary: Function,
    low: Sequence[float] = (-1.0, -1.0),
    high: Sequence[float] = (1.0, 1.0),
    features: int = FEATURES,
    tolerance: float = 1e-4,
    seed: int = 0,
    ops: Ops | None = None,
    wrap: Wrap = iter,
) -> Solution:
    """Solve the equation on the rectangle from corner `low` to corner `high`.

    Args:
        rhs: f, from points "p 2".
        boundary: u on the edges, from points "p 2".
        features: the sine layer's width, at most.
        tolerance: relative residual at which no more features are tried.
        wrap: a progress bar for a list.

    Returns:
        The field, real at points "p 2".

    Raises:
        FitError: a rectangle without area, or functions that give anything but one finite number a point.

    Example:
        >>> field = poisson(lambda x: 0 * x[:, 0] + 4, lambda x: x.square().sum(1))  # u = x^2 + y^2
    """
    sides = [float(b) - float(a) for a, b in zip(low, high)]
    if len(low) != 2 or len(high) != 2 or not all(0 < side < math.inf for side in sides):
        raise FitError(f"low, high: expected the corners of a rectangle, found {tuple(low)}, {tuple(high)}")

    def attempt(radius: float, count: int) -> Solution:
        problem = equations(rhs, boundary, low, high, radius)
        siren = plane_waves(disc(count, radius, seed), 1, seed, ops)
        seconds = project(siren, problem, seed, wrap)
        about = {"equation": "poisson", "low": list(low), "high": list(high), "features": count, "seconds": seconds}
        return Solution(siren, problem, about)

    def modes(radius: float) -> float:  # the last two terms matter for a thin rectangle
        return sides[0] * sides[1] * radius**2 / (4 * math.pi) + sum(sides) * radius / math.pi + 8

    return climb(attempt, modes, 10 / max(sides), features, tolerance)


def equations(rhs: Function, boundary: Function, low: Sequence[float], high: Sequence[float], radius: float) -> Problem:
    """The equation inside and the values on the edges."""

    def curvature(x: Tensor, jet: Jet) -> list[Tensor]:
        return [jet.second[..., 0], jet.second[..., 1]]

    def edges(n: int, s: int) -> Tensor:
        return rim(low, high, box([0.0], [1.0], round(8 * math.sqrt(n)), s)[:, 0])

    # An error of f at frequency k is one of u divided by k^2, k from 1 / side to the radius: between the two.
    weight = (max(b - a for a, b in zip(low, high)) / (8 * radius)) ** 2
    forms = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    return Problem(
        (
            Condition("equation", lambda n, s: box(low, high, n, s), curvature, lambda x: ask(rhs, x, "rhs"), weight),
            Condition("edges", edges, lambda x, jet: [jet.value], lambda x: ask(boundary, x, "boundary")),
        ),
        forms,
    )
