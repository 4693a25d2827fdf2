"""Launches the hash grid's kernels (cuda/gpu/hash_encode.cu): checked tensors in, results out, no gradients."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_arguments import fields, place, ready
from nerf.kernels.hash_encode import GridGeometry

MOST_LEVELS = 32  # hash::most_levels
_BLOCK = 128


class _Level(ctypes.Structure):
    """grid::Level."""

    _fields_ = [
        ("resolution", ctypes.c_int32),
        ("dense", ctypes.c_bool),
        ("rows", ctypes.c_uint32),
        ("first", ctypes.c_int64),
    ]


class Levels(ctypes.Structure):
    """hash::Levels."""

    _fields_ = [("level", _Level * MOST_LEVELS)]


class _Arguments(ctypes.Structure):
    """hash::HashArgs."""

    _fields_ = [*fields(p="x table grad out", l="points", i="levels features"), ("grid", Levels)]


@cache
def levels_of(geometry: GridGeometry) -> Levels:
    """A grid's levels as the kernels take them."""
    if geometry.levels > MOST_LEVELS:
        raise ValueError(f"hash_encode: the cuda backend takes at most {MOST_LEVELS} levels, found {geometry.levels}")
    levels = Levels()
    for index in range(geometry.levels):
        rows = geometry.resolutions[index], geometry.dense[index], geometry.rows[index], geometry.offsets[index]
        levels.level[index] = _Level(*rows)
    return levels


def _launch(
    name: str, geometry: GridGeometry, x: Tensor, table: Tensor | None, grad: Tensor | None, out: Tensor
) -> None:
    """A kernel's variant for as many features as can be had at once, over all points, and all levels unless it loops."""
    points, features = len(x), geometry.features
    where = (place(x), place(table), place(grad), place(out))
    arguments = _Arguments(*where, points, geometry.levels, features, levels_of(geometry))
    at_once, lanes = features if features in (2, 4, 8) else 1, 1
    if name == "hash_encode_table" and cuda_driver.capability(x.device) < 90:
        name, lanes = f"{name}_lanes", at_once
    kernel = cuda_driver.kernel("hash_encode.cu", f"{name}_{at_once}", x.device)
    levels = 1 if name == "hash_encode_x" else geometry.levels
    cuda_driver.launch(kernel, (-(-points * lanes // _BLOCK), levels), _BLOCK, 0, arguments)


def encode(x: Float[Tensor, "p 3"], table: Float[Tensor, "n f"], geometry: GridGeometry) -> Float[Tensor, "p lf"]:
    """`nerf.kernels.hash_encode.hash_encode`."""
    out = x.new_empty(len(x), geometry.width)
    _launch("hash_encode", geometry, ready(x), ready(table), None, out)
    return out


def encode_table(x: Float[Tensor, "p 3"], grad: Float[Tensor, "p lf"], geometry: GridGeometry) -> Float[Tensor, "n f"]:
    """The table's gradient. Its sums are atomic: their order, and with it their last bits, vary from run to run."""
    out = torch.zeros(geometry.offsets[-1], geometry.features, dtype=x.dtype, device=x.device)
    _launch("hash_encode_table", geometry, ready(x), None, ready(grad), out)
    return out


def encode_x(
    x: Float[Tensor, "p 3"], table: Float[Tensor, "n f"], grad: Float[Tensor, "p lf"], geometry: GridGeometry
) -> Float[Tensor, "p 3"]:
    """The points' gradient."""
    out = torch.empty_like(x)
    _launch("hash_encode_x", geometry, ready(x), ready(table), ready(grad), out)
    return out
