"""The Helmholtz equation in free space, with perfectly matched layers (section 4.3 and the supplement's section on it).

    u_xx + u_yy + k^2 m(x) u = -f          f: normalised Gaussians, m: squared slowness

on a square where waves leave through all sides. Around it lies a layer in which coordinates are stretched into the
complex plane, d/dx -> (1/e) d/dx with e = 1 + i sigma, so that outgoing waves, u ~ exp(i k r), die out before they come
to its outer edge, where u = 0 (time goes as exp(-i w t); the paper's e = 1 - i sigma / w is the conjugate convention).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.kernels import Ops
from nerf.kernels.mlp_jet import Jet
from siren.loop import FitError
from siren.pde_basis import Function, ask, box, disc, nothing, plane_waves, rim
from siren.pde_linear import COVER, Condition, Problem, Solution, Wrap, project

FEATURES = 4500  # at most, unless asked for; half a minute on two slow cores
FEWEST = 2000  # unless asked for; fewer save no time worth having, and resolve the layer less well
REACH = 2.5  # a Gaussian of width s is resolved by frequencies up to REACH / s
ABSORPTION = math.log(1000)  # a wave that crosses the layer and comes back has lost this exponent
_FORMS = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)


def helmholtz(
    wavenumber: float,
    sources: Sequence[tuple[float, float]] = ((0.0, 0.0),),
    width: float = 0.05,
    slowness: Function | None = None,
    strengths: Sequence[float] | None = None,
    extent: float = 1.0,
    layer: float | None = None,
    features: int | None = None,
    seed: int = 0,
    ops: Ops | None = None,
    wrap: Wrap = iter,
) -> Solution:
    """Solve the equation on [-extent, extent]^2; the absorbing layer lies outside of it.

    A source narrower than the features can resolve is replaced by a wider one with the same field beyond it: a normalised
    Gaussian of width s has the far field of a point times exp(-k^2 s^2 / 2). `about` says the width that was solved for.

    Args:
        wavenumber: k, where m is 1.
        sources: centres of the Gaussians.
        width: their standard deviation s.
        slowness: m, positive, at points "p 2"; beyond the square it is as on its edge. None: 1.
        strengths: the Gaussians' integrals; None: 1 each.
        layer: the absorbing layer's thickness.
        features: the sine layer's width; None: as many as k and the width need, up to 4500.
        wrap: a progress bar for a list.

    Returns:
        The field, complex at points "p 2". Beyond a source in a uniform medium: (i/4) exp(-k^2 s^2 / 2) H0^(1)(k r).

    Raises:
        FitError: settings that can't be met.

    Example:
        >>> field = helmholtz(20, [(0.2, -0.1)], 0.05)  # doctest: +SKIP
        >>> field(torch.rand(5, 2))  # doctest: +SKIP
    """
    centres, strength = checked(wavenumber, sources, width, strengths, extent, layer)
    layer = layer or min(max(0.35 * 2 * math.pi / wavenumber, 0.3 * extent), extent)
    half = extent + layer

    def medium(x: Tensor) -> Tensor:
        if slowness is None:
            return torch.ones(len(x), dtype=x.dtype)
        return positive(ask(slowness, x.double().clamp(-extent, extent), "slowness"))

    fastest = wavenumber * math.sqrt(float(medium(box([-extent] * 2, [extent] * 2, 8192, 0)).max()))
    radius, count = resolution(fastest, width, extent, half, features)
    solved = max(width, REACH / radius)
    strength = strength * torch.exp((solved**2 - width**2) / 2 * wavenumber**2 * medium(centres))
    absorption = 3 * ABSORPTION / (2 * wavenumber * layer)
    problem = equations(wavenumber, medium, gaussians(centres, strength, solved), extent, layer, absorption, radius)
    siren = plane_waves(disc(count, radius, seed), 2, seed, ops)
    seconds = project(siren, problem, seed, wrap)
    about = {
        "equation": "helmholtz", "wavenumber": wavenumber, "sources": centres.tolist(), "width": width,
        "solved_width": solved, "extent": extent, "layer": layer, "features": count, "seconds": seconds,
    }  # fmt: skip
    return Solution(siren, problem, about)


def checked(
    wavenumber: float,
    sources: Sequence[tuple[float, float]],
    width: float,
    strengths: Sequence[float] | None,
    extent: float,
    layer: float | None,
) -> tuple[Float[Tensor, "s 2"], Float[Tensor, " s"]]:
    """Centres and strengths as tensors. Raises FitError."""
    for name, value in (("wavenumber", wavenumber), ("width", width), ("extent", extent), ("layer", layer)):
        if value is not None and not 0 < value < math.inf:
            raise FitError(f"{name}: expected a positive number, found {value}")
    try:
        centres = torch.tensor([list(source) for source in sources], dtype=torch.float64)
    except (TypeError, ValueError):
        centres = torch.zeros(0)
    if centres.ndim != 2 or centres.shape[1] != 2:
        raise FitError(f"sources: expected one or more pairs (x, y), found {sources}")
    if not bool((centres.abs() <= extent).all()):
        raise FitError(f"sources: expected points of [-{extent}, {extent}]^2, found {centres.tolist()}")
    strength = torch.ones(len(centres)) if strengths is None else torch.tensor(list(strengths))
    if strength.shape != (len(centres),) or not bool(strength.isfinite().all()):
        raise FitError(f"strengths: expected {len(centres)} numbers, one a source, found {strengths}")
    return centres, strength.double()


def positive(squared: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """A squared slowness, checked."""
    if not bool((squared > 0).all()):
        raise FitError(f"slowness: expected positive squared slownesses, found {float(squared.min())}")
    return squared


def resolution(fastest: float, width: float, extent: float, half: float, features: int | None) -> tuple[float, int]:
    """The largest angular frequency of the features, and their number; `fastest`: the medium's largest wave number."""
    modes = (2 * half) ** 2 / (4 * math.pi)  # times a radius^2: degrees of freedom of functions of the square
    highest = math.sqrt((features or FEATURES) / (COVER * modes))
    least, good = 1.2 * fastest + 5 / extent, 1.7 * fastest + 10 / extent
    if highest < least:
        needed = math.ceil(COVER * modes * least**2)
        raise FitError(
            f"features: expected {needed} or more for wave number {fastest:.4g}, found {features or FEATURES}"
        )
    few = math.sqrt(FEWEST / (COVER * modes))
    radius = highest if features is not None else min(max(good, REACH / width, few), highest)
    return radius, features or math.ceil(COVER * modes * radius**2)


def gaussians(centres: Float[Tensor, "s 2"], strength: Float[Tensor, " s"], width: float) -> Function:
    """Minus the sources' sum, the equation's right side."""

    def right(x: Tensor) -> Tensor:
        square = (x[:, None] - centres).square().sum(-1)
        return -(strength * torch.exp(-square / (2 * width**2))).sum(-1) / (2 * math.pi * width**2)

    return right


def equations(
    k: float, medium: Function, right: Function, extent: float, layer: float, absorption: float, radius: float
) -> Problem:
    """The equation in the square and in the layer, and u = 0 at the layer's outer edge."""
    half = extent + layer

    def inner(x: Tensor, jet: Jet) -> list[Tensor]:
        return [jet.second[..., 0], jet.second[..., 1], (k * k * medium(x))[:, None] * jet.value]

    def outer(x: Tensor, jet: Jet) -> list[Tensor]:
        depth = (x.abs() - extent).clamp_min(0) / layer
        e = 1 + 1j * absorption * depth**2
        slope = 2j * absorption * depth * x.sign() / layer  # de/dx
        # (1/e) d/dx (1/e) du/dx, the paper's form divided by e_x e_y: a row's scale is free.
        second = [
            jet.second[..., i] / e[:, i : i + 1] ** 2 - jet.gradient[..., i] * (slope / e**3)[:, i : i + 1]
            for i in (0, 1)
        ]
        return [*second, (k * k * medium(x))[:, None] * jet.value]

    share = (extent / half) ** 2
    weight = 1 / radius**4  # in units of u

    def edges(n: int, s: int) -> Tensor:
        return rim([-half] * 2, [half] * 2, box([0.0], [1.0], round(6 * math.sqrt(n)), s)[:, 0])

    return Problem(
        (
            Condition("inside", lambda n, s: box([-extent] * 2, [extent] * 2, round(n * share), s), inner, right,
                      weight * share),
            Condition("layer", lambda n, s: frame(extent, half, n, s), outer, right, weight * (1 - share)),
            Condition("edge", edges, lambda x, jet: [jet.value], nothing, 0.05),
        ),
        _FORMS,
        2,
    )  # fmt: skip


def frame(inner: float, outer: float, count: int, seed: int) -> Float[Tensor, "p 2"]:
    """Points between two squares, about as many as `count` in the outer one would leave there."""
    x = box([-outer] * 2, [outer] * 2, max(count, 64), seed)
    return x[(x.abs() > inner).any(1)]
