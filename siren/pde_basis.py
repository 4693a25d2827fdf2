"""What a linear equation's solver is made of: plane waves, points, checked functions and normal equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from nerf.kernels import Ops
from siren.loop import FitError
from siren.network import Siren, SirenConfig

Function = Callable[[Tensor], Tensor]
"""From points, "p d" in float64, to one number each, "p"."""


def plane_waves(frequencies: Float[Tensor, "n d"], outputs: int, seed: int, ops: Ops | None = None) -> Siren:
    """A SIREN of one sine layer with these angular frequencies and random phases.

    Its first_omega puts the weights into the paper's interval (-1/d, 1/d); only how they fill it is ours.
    """
    count, dims = frequencies.shape
    omega = dims * max(float(frequencies.abs().max()), 1e-3)
    generator = torch.Generator().manual_seed(seed)
    config = SirenConfig(dims, outputs, count, 1, omega, omega)
    siren = Siren(config, ops, generator)
    phases = (torch.rand(count, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    with torch.no_grad():
        siren.weights[0].copy_(frequencies / omega)
        siren.biases[0].copy_(phases / omega)
    return siren


def disc(count: int, radius: float, seed: int) -> Float[Tensor, "n 2"]:
    """Frequencies that fill a disc evenly (a Sobol sequence); half of it, since a sine has both signs."""
    unit = torch.quasirandom.SobolEngine(2, True, seed).draw(count).double()
    r, angle = radius * unit[:, 0].sqrt(), math.pi * unit[:, 1]
    return torch.stack((r * angle.cos(), r * angle.sin()), 1)


def box(low: Sequence[float], high: Sequence[float], count: int, seed: int) -> Float[Tensor, "n d"]:
    """Points that fill a box evenly."""
    unit = torch.quasirandom.SobolEngine(len(low), True, seed).draw(max(count, 1)).double()
    start, stop = (torch.tensor(list(side), dtype=torch.float64) for side in (low, high))
    return start + unit * (stop - start)


def rim(low: Sequence[float], high: Sequence[float], share: Float[Tensor, " p"]) -> Float[Tensor, "p 2"]:
    """Points on a rectangle's edge, a share in [0, 1] of the way around it."""
    (x0, y0), (x1, y1) = low, high
    a, b = x1 - x0, y1 - y0
    along = share * 2 * (a + b)
    x = x0 + along.clamp(0, a) - (along - a - b).clamp(0, a)
    y = y0 + (along - a).clamp(0, b) - (along - 2 * a - b).clamp(0, b)
    return torch.stack((x, y), 1)


def nothing(x: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
    """Zero everywhere."""
    return torch.zeros(len(x), dtype=torch.float64)


def ask(function: Function, x: Float[Tensor, "p d"], name: str) -> Float[Tensor, " p"]:
    """A caller's function at points. Raises FitError where it gives anything but one finite number a point."""
    found = torch.as_tensor(function(x), dtype=torch.float64)
    if found.shape in ((), (1,)):
        found = found.expand(len(x))
    if found.shape == (len(x), 1):
        found = found[:, 0]
    if found.shape != (len(x),):
        raise FitError(f"{name}: expected one number a point, shape ({len(x)},), found shape {tuple(found.shape)}")
    if not torch.isfinite(found).all():
        where = x[~torch.isfinite(found)][0].tolist()
        raise FitError(f"{name}: expected finite numbers, found {float(found[~torch.isfinite(found)][0])} at {where}")
    return found


class Normal:
    """A least-squares problem's normal equations, filled row by row; only their upper half is computed."""

    def __init__(self, unknowns: int) -> None:
        self.real = torch.zeros(unknowns, unknowns, dtype=torch.float64)
        self.imaginary: Tensor | None = None
        self.right = torch.zeros(unknowns, dtype=torch.complex128)

    def add(self, rows: Inexact[Tensor, "p n"], target: Inexact[Tensor, " p"]) -> None:
        """Equations rows @ c = target. Real ones cost a quarter of complex ones."""
        self.right += rows.mH.to(torch.complex128) @ target.to(torch.complex128)
        step = -(-rows.shape[1] // 4)
        for start in range(0, rows.shape[1], step):
            part = (slice(start, start + step), slice(start, None))
            product = rows[:, part[0]].mH @ rows[:, part[1]]
            if product.is_complex():
                if self.imaginary is None:
                    self.imaginary = torch.zeros_like(self.real)
                self.imaginary[part] += product.imag
                product = product.real
            self.real[part] += product

    def solve(self, tikhonov: float) -> Inexact[Tensor, " n"]:
        """The c of least squares plus (tikhonov)^2 trace |c|^2."""
        whole = self.real if self.imaginary is None else torch.complex(self.real, self.imaginary)
        whole = whole.triu() + whole.triu(1).mH
        right = self.right if whole.is_complex() else self.right.real
        trace = float(self.real.trace())
        for factor in (1.0, 10.0, 100.0, 1000.0):  # rounding can leave the sum indefinite
            whole.diagonal().add_((factor * tikhonov) ** 2 * trace)
            triangle, failed = torch.linalg.cholesky_ex(whole)
            if not failed:
                return torch.cholesky_solve(right[:, None], triangle)[:, 0]
        raise FitError("the least-squares problem has no solution in float64; try other --features")
