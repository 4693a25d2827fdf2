"""Multiresolution hash encoding (Mueller et al. 2022, "Instant Neural Graphics Primitives", section 3).

Every level lays a grid over the unit cube. A point's feature on a level is the trilinear mix of the features at the
eight corners of its cell; a corner's feature is a row of a table, found directly while the level's grid fits into
the table ("dense" level) and by a hash of its integer coordinates after that. The levels' features are concatenated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Equation 4: pi_1 = 1 keeps neighbours in x close in memory. As int32, so that products wrap as uint32's do.
PRIMES = (1, 2654435761, 805459861)


@dataclass(frozen=True)
class GridGeometry:
    """Where a hash grid's corners lie and which row of the table each one reads (section 3, table 1).

    Args:
        levels: number of resolutions L.
        features: features per row F.
        log2_rows: log2 of the most rows a level may have, T = 2 ** log2_rows.
        base_resolution: cells per side of the coarsest level, N_min.
        finest_resolution: cells per side of the finest level, N_max.
    """

    levels: int = 16
    features: int = 2
    log2_rows: int = 19
    base_resolution: int = 16
    finest_resolution: int = 2048

    def __post_init__(self) -> None:
        if min(self.levels, self.features, self.base_resolution) < 1 or not 1 <= self.log2_rows <= 24:
            raise ValueError(
                f"GridGeometry: expected positive levels, features and base_resolution, log2_rows in 1 to 24; found {self}"
            )
        if self.finest_resolution < self.base_resolution:
            raise ValueError(f"GridGeometry: expected finest_resolution >= base_resolution, found {self}")

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Cells per side of each level: N_l = floor(N_min b^l), b = exp((ln N_max - ln N_min) / (L - 1)) (equations 2, 3)."""
        if self.levels == 1:
            return (self.base_resolution,)
        growth = math.log(self.finest_resolution / self.base_resolution) / (self.levels - 1)
        # The epsilon keeps the last level at N_max where exp(log(N_max)) falls a rounding error short of it.
        return tuple(math.floor(self.base_resolution * math.exp(level * growth) + 1e-6) for level in range(self.levels))

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Rows of each level: (N_l + 1)^3, its corners, rounded up to a multiple of 8, at most 2 ** log2_rows."""
        return tuple(min(2**self.log2_rows, -(-((n + 1) ** 3) // 8) * 8) for n in self.resolutions)

    @cached_property
    def dense(self) -> tuple[bool, ...]:
        """Whether each level gives every corner a row of its own."""
        return tuple((n + 1) ** 3 <= 2**self.log2_rows for n in self.resolutions)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First row of each level in the one table that holds them all, and the table's number of rows at the end."""
        starts = [0]
        for count in self.rows:
            starts.append(starts[-1] + count)
        return tuple(starts)

    @property
    def width(self) -> int:
        """Features of an encoded point, levels * features."""
        return self.levels * self.features


def corners(
    x_unit: Float[Tensor, "p 3"], geometry: GridGeometry, level: int
) -> tuple[Int[Tensor, "p 8"], Tensor, Tensor]:
    """The rows of the level's table that each point reads, and how far into its cell the point lies.

    Returns:
        rows: "p 8" int32, counted from the level's first row; corner k is offset by (k & 1, k >> 1 & 1, k >> 2) in x, y, z.
        lower, upper: "p 3", the weights of the lower and the upper side of the cell on each axis; they add to 1.
    """
    n = geometry.resolutions[level]
    position = x_unit * n
    cell = position.detach().floor().clamp_(0, n - 1)
    upper = position - cell
    integer = cell.to(torch.int32)
    sides = torch.stack([integer, integer + 1], dim=-1)  # p 3 2
    if geometry.dense[level]:
        strides = (1, n + 1, (n + 1) ** 2)
        x, y, z = (sides[:, axis] * strides[axis] for axis in range(3))
        rows = z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]
    else:
        # int32 products wrap as the paper's uint32 ones do; the low bits, which are all that the mask keeps, agree.
        wrapped = [prime - 2**32 if prime >= 2**31 else prime for prime in PRIMES]
        x, y, z = (sides[:, axis] * wrapped[axis] for axis in range(3))
        rows = z[:, :, None, None] ^ y[:, None, :, None] ^ x[:, None, None, :]
        rows = rows & (geometry.rows[level] - 1)
    return rows.reshape(-1, 8), 1 - upper, upper


def trilinear(lower: Float[Tensor, "p 3"], upper: Float[Tensor, "p 3"]) -> Float[Tensor, "p 8"]:
    """Weights of a cell's eight corners, in the order of `corners`."""
    x, y, z = (torch.stack([lower[:, axis], upper[:, axis]], dim=-1) for axis in range(3))
    return (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).reshape(-1, 8)


class _LevelEncode(torch.autograd.Function):
    """One level: features[p] = sum over corners of weight * row. Backward in plain torch, so that it can be
    differentiated again; by hand, since autograd would keep eight rows a point and scatter them one by one."""

    @staticmethod
    def forward(ctx, table, x_unit, geometry, level):
        rows, lower, upper = corners(x_unit, geometry, level)
        ctx.save_for_backward(table, x_unit)
        ctx.geometry, ctx.level = geometry, level
        weights = trilinear(lower, upper)
        if table.dtype == torch.float32:  # gathers and sums in one pass
            return torch.nn.functional.embedding_bag(
                rows, table, per_sample_weights=weights.to(table.dtype), mode="sum"
            )
        return (table[rows.long()] * weights[..., None]).sum(1)

    @staticmethod
    def backward(ctx, grad):
        table, x_unit = ctx.saved_tensors
        rows, lower, upper = corners(x_unit, ctx.geometry, ctx.level)
        flat = rows.reshape(-1)
        grad_table = grad_x = None
        if ctx.needs_input_grad[0]:
            spread = trilinear(lower, upper)[..., None] * grad[:, None, :]
            grad_table = torch.zeros_like(table).index_add(0, flat, spread.reshape(-1, table.shape[1]))
        if ctx.needs_input_grad[1]:
            # d(feature)/d(weight of a corner) is that corner's row; the chain rule back to x runs through the weights.
            along = (table.index_select(0, flat).reshape(-1, 8, table.shape[1]) * grad[:, None, :]).sum(-1)
            a = along.reshape(-1, 2, 2, 2)  # p z y x
            x, y, z = (torch.stack([lower[:, axis], upper[:, axis]], dim=-1) for axis in range(3))
            over_x = (a * x[:, None, None, :]).sum(-1)  # p z y
            over_y = (a * y[:, None, :, None]).sum(2)  # p z x
            slope_x = ((over_y * z[:, :, None]).sum(1) * _SIGN.to(grad)).sum(-1)
            slope_y = ((over_x * z[:, :, None]).sum(1) * _SIGN.to(grad)).sum(-1)
            slope_z = ((over_x * y[:, None, :]).sum(-1) * _SIGN.to(grad)).sum(-1)
            grad_x = torch.stack([slope_x, slope_y, slope_z], dim=-1) * ctx.geometry.resolutions[ctx.level]
        return grad_table, grad_x, None, None


_SIGN = torch.tensor([-1.0, 1.0])


def hash_encode(
    x_unit: Float[Tensor, "p 3"], table: Float[Tensor, "n f"], geometry: GridGeometry
) -> Float[Tensor, "p lf"]:
    """Encode points of the unit cube with a multiresolution hash grid.

    Args:
        x_unit: points in [0, 1]^3; outside it the border cells' linear pieces go on.
        table: the rows of all levels, `geometry.offsets` says where each begins.
        geometry: resolutions, dense and hashed levels.

    Returns:
        "p (levels features)". Differentiable in `table` and in `x_unit` (piecewise: the slope of the cell that the
        point lies in), any number of times.
    """
    starts = geometry.offsets
    if table.shape != (starts[-1], geometry.features):
        raise ValueError(
            f"hash_encode: expected a table of shape {(starts[-1], geometry.features)}, found {tuple(table.shape)}"
        )
    levels = [
        _LevelEncode.apply(table[starts[level] : starts[level + 1]], x_unit, geometry, level)
        for level in range(geometry.levels)
    ]
    return torch.cat(levels, dim=-1)
