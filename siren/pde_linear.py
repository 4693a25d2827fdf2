"""Linear differential equations solved with a SIREN: the last layer by least squares, the sine layers by Adam if asked.

Section 4.3 of the paper fits u(x; theta) to the residual of an equation with Adam. Where the equation is linear, so is its
residual in the weights of the last layer: with the sine layers held, the best last layer is a linear least-squares problem
in the residuals at points of the domain (variable projection), solved here in float64, in seconds. What the sine layers
then need is to span the solution: one wide layer whose frequencies cover a disc of the frequency plane (`plane_waves`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor
from torch.nn import functional as F

from nerf.kernels.mlp_jet import Jet, derivatives
from siren.loop import Progress, Schedule, fit
from siren.network import Siren
from siren.pde_basis import Function, Normal

CHUNK = 1024  # points whose features are held at once
COVER = 1.5  # features for each degree of freedom of band-limited functions; 1.25 leaves gaps
AMPLE = 3.0  # with as many, smooth functions are met to float32's accuracy
OVERSAMPLE = 4.0  # points for each feature
TIKHONOV = 1e-8  # of the features' overall size; what float64 can tell from nothing in normal equations

Wrap = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Condition:
    """One family of equations that the solution satisfies at each of infinitely many points.

    Attributes:
        name: what it is called in residuals.
        sample: points, "p d" in float64, from their number and a seed; their share of the `count` that is asked for.
        terms: the left side's terms at points x, linear in a jet: each "p o", as the jet's value is.
        target: the right side.
        weight: of its mean square in the sum that is minimised.
    """

    name: str
    sample: Callable[[int, int], Tensor]
    terms: Callable[[Tensor, Jet], list[Tensor]]
    target: Function
    weight: float = 1.0


@dataclass(frozen=True)
class Problem:
    """An equation with what holds on its domain's edges.

    Attributes:
        conditions: all that must hold.
        forms: the second derivatives that the conditions use, as `Siren.jet` takes them.
        outputs: 1 for a real field, 2 for the real and imaginary part of a complex one.
    """

    conditions: tuple[Condition, ...]
    forms: Float[Tensor, "m d d"]
    outputs: int = 1


@dataclass
class Solution:
    """A SIREN that satisfies a problem's conditions as well as it can.

    Attributes:
        siren: the network; its inputs are the equation's coordinates in the problem's order.
        problem: what it satisfies.
        about: how it was found: numbers and names.
    """

    siren: Siren
    problem: Problem
    about: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x: Float[Tensor, "p d"]) -> Inexact[Tensor, " p"]:
        """The field at points, evaluated in float64: complex128 for a complex one."""
        parts = []
        with torch.no_grad():
            weights, biases = self.siren.layers()
            for chunk in x.double().split(16 * CHUNK):
                value = chunk
                for layer, (weight, bias) in enumerate(zip(weights, biases)):
                    value = F.linear(value, weight.double(), bias.double())
                    if layer < len(weights) - 1:
                        value = torch.sin(self.siren.config.omega * value)
                parts.append(value)
        whole = torch.cat(parts) if parts else x.new_zeros(0, self.problem.outputs).double()
        return torch.complex(whole[:, 0], whole[:, 1]) if self.problem.outputs == 2 else whole[:, 0]

    def residuals(self, count: int = 8192, seed: int = 1) -> dict[str, float]:
        """Each condition's root mean square residual at fresh points, relative to its size."""
        return {c.name: relative(self.siren, self.problem, c, count, seed) for c in self.problem.conditions}

    @property
    def residual(self) -> float:
        """The largest of `residuals`."""
        return max(self.residuals().values())

    def refine(
        self, schedule: Schedule, batch: int = 2048, out: Path | None = None, resume: bool = False
    ) -> Generator[Progress, None, None]:
        """Move all layers with Adam, as the paper does, then solve the last again; kept only where the residual fell."""
        before = {name: value.clone() for name, value in self.siren.state_dict().items()}
        least = weighted(self.siren, self.problem)
        yield from fit(self.siren, objective(self.siren, self.problem, batch), schedule, out, resume)
        project(self.siren, self.problem, schedule.seed)
        better = weighted(self.siren, self.problem) < least
        if not better:
            self.siren.load_state_dict(before)
        self.about["refined"] = better


def hidden_jet(siren: Siren, x: Float[Tensor, "p d"], forms: Float[Tensor, "m d d"]) -> Jet:
    """Jets of the last sine layer's features, and of the constant 1 that the last bias multiplies, in float64.

    What `nerf.kernels.mlp_jet` computes, less its last layer: with n features that would be n^2 work a point.
    """
    weights, biases = siren.layers()
    points, dims = x.shape
    value, second = x, x.new_zeros(len(forms), points, dims)
    slope = torch.eye(dims, dtype=x.dtype)[:, None, :].expand(dims, points, dims)
    for weight, bias in zip(weights[:-1], biases[:-1]):
        weight, bias = weight.detach().double(), bias.detach().double()
        dz, d2z = F.linear(slope, weight), F.linear(second, weight)
        value, first, curve = derivatives(F.linear(value, weight, bias), "sine", siren.config.omega)
        slope, squares = first * dz, torch.zeros_like(d2z)
        for m, i, j in forms.nonzero().tolist():
            squares[m] += forms[m, i, j] * dz[i] * dz[j]
        second = curve * squares + first * d2z
    one = F.pad(value, (0, 1), value=1.0)
    return Jet(one, F.pad(slope, (0, 1)).permute(1, 2, 0), F.pad(second, (0, 1)).permute(1, 2, 0))


def project(siren: Siren, problem: Problem, seed: int = 0, wrap: Wrap = iter) -> float:
    """Set the last layer to the least-squares solution of all conditions, and return the seconds it took.

    Args:
        wrap: takes the list of chunks and gives them back one by one: a progress bar.
    """
    began = time.perf_counter()
    count = round(OVERSAMPLE * siren.config.width)
    work = []
    for number, condition in enumerate(problem.conditions):
        x = condition.sample(count, seed + number)
        scale = math.sqrt(condition.weight / len(x))
        work += [(condition, scale, chunk) for chunk in x.split(CHUNK)]
    normal = Normal(siren.config.width + 1)
    with torch.no_grad():
        for condition, scale, x in wrap(work):
            rows = total(condition.terms(x, hidden_jet(siren, x, problem.forms)))
            normal.add(scale * rows, scale * condition.target(x))
        found = normal.solve(TIKHONOV)
        parts = [found.real, found.imag][: problem.outputs] if found.is_complex() else [found]
        for output, part in enumerate(parts):
            siren.weights[-1][output] = part[:-1]
            siren.biases[-1][output] = part[-1]
    return time.perf_counter() - began


def total(terms: list[Tensor]) -> Tensor:
    """Their sum."""
    whole = terms[0]
    for term in terms[1:]:
        whole = whole + term
    return whole


def combined(terms: Tensor) -> Tensor:
    """One number a point from one for each of the network's outputs: "p o" -> "p"."""
    return terms[:, 0] if terms.shape[1] == 1 else terms[:, 0] + 1j * terms[:, 1]


def evaluate(siren: Siren, problem: Problem, condition: Condition, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The field's terms and the target at points, in float64."""
    with torch.no_grad():
        weight = torch.cat((siren.weights[-1], siren.biases[-1][:, None]), 1).double()
        jet = hidden_jet(siren, x, problem.forms)
        gradient, second = (torch.einsum("pnd,on->pod", part, weight) for part in (jet.gradient, jet.second))
        terms = condition.terms(x, Jet(jet.value @ weight.T, gradient, second))
        return [combined(term) for term in terms], condition.target(x)


def mean_squares(siren: Siren, problem: Problem, condition: Condition, count: int, seed: int) -> tuple[float, float]:
    """Means over fresh points of the squared residual, and of what is largest in it: a term or the target."""
    squares, number, largest = 0.0, 0, torch.zeros(0)
    for x in condition.sample(count, 7919 + seed).split(CHUNK):
        terms, target = evaluate(siren, problem, condition, x)
        squares += float((total(terms) - target).abs().square().sum())
        sizes = torch.stack([part.abs().square().sum() for part in (*terms, target)])
        largest = sizes if not len(largest) else largest + sizes
        number += len(x)
    return squares / number, float(largest.max()) / number


def relative(siren: Siren, problem: Problem, condition: Condition, count: int = 8192, seed: int = 1) -> float:
    """A condition's relative residual at fresh points; where all is 0, 0.

    Relative to the largest of: its target, its terms, and its terms over the first condition's points (so that "u = 0 on
    the edge" is measured against u in the domain).
    """
    square, size = mean_squares(siren, problem, condition, count, seed)
    inside, sizes = problem.conditions[0].sample(count // 4, 104729 + seed), []
    for x in inside.split(CHUNK):
        sizes.append(torch.stack([term.abs().square().sum() for term in evaluate(siren, problem, condition, x)[0]]))
    size = max(size, float(torch.stack(sizes).sum(0).max()) / len(inside))
    return math.sqrt(square / max(size, 1e-300))


def weighted(siren: Siren, problem: Problem, count: int = 8192, seed: int = 1) -> float:
    """The sum that is minimised, at fresh points."""
    return sum(c.weight * mean_squares(siren, problem, c, count, seed)[0] for c in problem.conditions)


def objective(
    siren: Siren, problem: Problem, batch: int
) -> Callable[[torch.Generator], tuple[Tensor, dict[str, float]]]:
    """The weighted mean squares at `batch` random points, differentiable in all weights (equation 13)."""

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        whole = torch.zeros(())
        for condition in problem.conditions:
            x = condition.sample(batch, int(torch.randint(2**31, (), generator=generator)))
            jet = siren.jet(x.float(), problem.forms)
            left = combined(total(condition.terms(x, jet)))
            whole = whole + condition.weight * (left - condition.target(x)).abs().square().mean().float()
        return whole, {}

    return loss


def climb(
    attempt: Callable[[float, int], Solution],
    modes: Callable[[float], float],
    radius: float,
    features: int,
    tolerance: float,
) -> Solution:
    """Solve with higher and higher frequencies, until the residual is small or there are enough features.

    Args:
        attempt: the solution for frequencies up to a radius and a number of features.
        modes: degrees of freedom up to a radius.
        radius: where to begin.
        features: at most.
        tolerance: relative residual that is small.

    Returns:
        The solution with the smallest residual.
    """
    best, least, cover, seconds = None, math.inf, AMPLE, 0.0
    while True:
        count = math.ceil(cover * modes(radius))
        full = count >= features
        while full and radius > 1e-9 and cover * modes(radius) > features:
            radius *= 0.99
        solution = attempt(radius, features if full else max(count, 32))
        found, seconds = solution.residual, seconds + solution.about["seconds"]
        if best is None or found < least:
            best, least = solution, found
        if least <= tolerance or (full and cover == COVER):
            best.about["seconds"] = seconds
            return best
        if full:
            cover = COVER  # the highest frequencies that so many features can cover
        radius *= 1.5
