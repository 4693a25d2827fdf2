"""Finds and opens the C++ kernels of the `cpu` backend: one library per instruction-set level, called with ctypes.

The environment variable NERF_CPU_LEVEL (v2, v3, v4, v4bf16, amx, generic) takes another level than the processor's highest.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from nerf.kernels.frame import Course
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.march import distance_to_steps

INTERFACE = 8  # nerf_cpu_interface in cuda/cpu/module.cpp; both change with what functions there are and what they take
LEVELS = ("generic", "v2", "v3", "v4", "v4bf16", "amx")  # each runs what the ones before it run


class KernelError(RuntimeError):
    """A kernel of the cpu backend can't be had, or failed. The message says why."""


def built() -> dict[str, Path]:
    """The library of every level that was built when the package was installed."""
    here = Path(__file__).parent
    found = {level: sorted([*here.glob(f"_cpu_{level}.*so"), *here.glob(f"_cpu_{level}.*dylib")]) for level in LEVELS}
    return {level: paths[0] for level, paths in found.items() if paths}


# What each function takes: i int, l int64, d double, p pointer.
_HASH = "iliipppp"  # threads, points, levels, features, resolutions, dense, first rows, x
# threads, format, points, depth, widths, inputs again, activations, omega, weights, biases, x, and the result
_MLP = "iilippiidpppp"
_RAYS = "illpppppp"  # threads, rays, background's rows, offsets, density, rgb, t, dt, background
# The march: threads, rays, origins, directions, first step, steps, occupied, dilated, resolution, contract, numbers; the
# grid: levels, features, resolutions, dense, first rows, table; the network: format, depth, widths, weights, biases.
_FRAME = "ilppppppiip" + "iipppp" + "iippp"
# A warp: turns, bands, window, code's width, parts, fade; its network: depth, widths, inputs again, weights, biases; the
# parts': depth, widths, weights, biases.
_WARP = "iipiid" + "ipppp" + "ippp"
_BY_TYPE = {
    "nerf_hash_encode": _HASH + "pp",
    "nerf_hash_encode_table": _HASH + "pp",
    "nerf_hash_encode_x": _HASH + "ppp",
    "nerf_composite": _RAYS + "pppp",
    "nerf_composite_backward": _RAYS + "ppppppp",
    "nerf_transmittance": "ilpppp",
}
_ARGUMENTS = {
    **{f"{name}_{suffix}": codes for name, codes in _BY_TYPE.items() for suffix in ("f32", "f64")},
    "nerf_mlp": _MLP,
    "nerf_mlp_backward": _MLP + "ppp",
    "nerf_mlp_squared_error": _MLP + "ppp",
    "nerf_mlp_jet": _MLP[:-1] + "ipipp",  # coordinates, tangents, how many forms, the forms, and the result
    "nerf_mlp_jet_backward": _MLP[:-1] + "ipipppppp",
    "nerf_march": "ilppppppiippp",
    "nerf_march_take": "ippp",
    "nerf_warp": "ilipppp" + _WARP + "p",
    "nerf_warp_backward": "ilipppp" + _WARP + "lpppppp",
    "nerf_look": _FRAME + _WARP + "p" + "pppp",
    "nerf_look_take": "ipppp",
    "nerf_frame": _FRAME + _WARP + "p" + "pi" + "ipppp" + "ppp",
    "nerf_adam": "ilppppddddd",
    "nerf_harmonics": "ilpp",
    "nerf_unit_points": "ilppppipp",
    "nerf_to_unit": "ilpipp",
    "nerf_to_unit_gradient": "ilpippp",
    "nerf_view_gradient": "ilpiipp",
    "nerf_color_inputs": "ilpipipddpp",
    "nerf_near_gradient": "ilpdpp",
    "nerf_feature_gradient": "ilipipddpp",
}
_TYPES = {"i": ctypes.c_int, "l": ctypes.c_int64, "d": ctypes.c_double, "p": ctypes.c_void_p}


def _open(path: Path) -> ctypes.CDLL:
    """The library, each of its functions told what it takes; all return a sentence, or null where all went well."""
    library = ctypes.CDLL(str(path))
    try:
        version = library.nerf_cpu_interface()
        library.nerf_cpu_highest_level.restype = ctypes.c_char_p
    except AttributeError:
        version = 0
    if version != INTERFACE:
        raise OSError(f"built from other sources (interface {version}, not {INTERFACE}); run pip install again")
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes = [_TYPES[code] for code in arguments]
        function.restype = ctypes.c_char_p
    return library


@cache
def _select() -> tuple[str, str]:
    """The level to use, and why there is none."""
    found = built()
    if not found:
        if sys.platform == "win32":
            return "", "not built: its C++ sources need GCC or Clang, which Windows packages are not made with"
        return "", (
            "not built: there was no C++17 compiler when the package was installed, or it failed"
            " (install g++ or clang++ and run pip install again; pip install -v shows the compiler's words)"
        )
    forced = os.environ.get("NERF_CPU_LEVEL", "")
    lowest = next(iter(found))
    try:
        highest = _open(found[lowest]).nerf_cpu_highest_level().decode()
        usable = [level for level in found if LEVELS.index(level) <= LEVELS.index(highest)]
        if forced and forced not in usable:
            return "", f"NERF_CPU_LEVEL: expected one of {', '.join(usable)}, found {forced!r}"
        if not usable:
            return "", f"built for {', '.join(found)}, but this processor stops at {highest}"
        _open(found[forced or usable[-1]])
    except OSError as error:
        return "", f"its library does not load: {error}"
    return forced or usable[-1], ""


def why_not() -> str:
    """Why this backend can't be used, as a sentence; "" where it can."""
    return _select()[1]


def level() -> str:
    """The instruction-set level in use."""
    chosen, why = _select()
    if why:
        raise KernelError(f"backend cpu: {why}")
    return chosen


def multiplies_bfloat16() -> bool:
    """Whether the level in use has instructions for products of bfloat16 numbers."""
    return level() in ("v4bf16", "amx")


@cache
def _library() -> ctypes.CDLL:
    return _open(built()[level()])


def call(name: str, *arguments: object) -> None:
    """Run a kernel on as many threads as torch uses. Tensors go in as the addresses of their numbers."""
    plain = (value.data_ptr() if isinstance(value, Tensor) else value for value in arguments)
    message = getattr(_library(), name)(torch.get_num_threads(), *plain)
    if message:
        raise KernelError(f"{name}: {message.decode()}")


def suffix(op: str, *tensors: Tensor) -> str:
    """Ending of the kernel's name for these tensors, which must be of one type that the kernels know."""
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) != 1 or not dtypes <= {torch.float32, torch.float64}:
        found = ", ".join(str(tensor.dtype) for tensor in tensors)
        raise TypeError(f"{op}: the cpu backend takes tensors that are all float32 or all float64, found {found}")
    if any(tensor.device.type != "cpu" for tensor in tensors):
        raise ValueError(f"{op}: the cpu backend takes tensors on the CPU, found {[str(t.device) for t in tensors]}")
    return "f32" if dtypes == {torch.float32} else "f64"


@cache
def grid_arguments(geometry: GridGeometry) -> tuple[object, ...]:
    """What the kernels take of a hash grid before its tensors."""
    levels = geometry.levels
    return (
        levels,
        geometry.features,
        (ctypes.c_int32 * levels)(*geometry.resolutions),
        (ctypes.c_uint8 * levels)(*geometry.dense),
        (ctypes.c_int64 * (levels + 1))(*geometry.offsets),
    )


def march_arguments(
    op: str, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, course: Course
) -> tuple[tuple[object, ...], tuple[float, ...]]:
    """What the kernels take of a march: everything up to its numbers, and these; checked."""
    occupied, resolution, space, step, cone, jitter, dilated = course
    if suffix(op, origins, directions, near, far) != "f32":
        raise TypeError(f"{op}: the cpu backend takes float32 rays; use backend reference for float64")
    rays = len(near)
    if not origins.shape == directions.shape == (rays, 3) or far.shape != (rays,):
        found = [tuple(tensor.shape) for tensor in (origins, directions, near, far)]
        raise ValueError(f"{op}: expected as many origins, directions, near and far, found {found}")
    for grid in (occupied,) if dilated is None else (occupied, dilated):
        if grid.shape != (resolution**3,) or grid.dtype != torch.bool:
            have = f"{grid.dtype} {tuple(grid.shape)}"
            raise ValueError(f"{op}: expected a flat bool grid of {resolution}^3, found {have}")
    start = (distance_to_steps(near, step, cone) + (0 if jitter is None else jitter)).contiguous()
    count = (distance_to_steps(far, step, cone) - start).clamp_min(0).contiguous()
    longest = float(count.max()) if rays else 0.0
    if not longest < 2**24:  # beyond it, float32 can't count
        raise ValueError(f"{op}: expected fewer than 2^24 steps between near and far, found {longest}")
    tensors = (origins.contiguous(), directions.contiguous(), start, count, occupied.contiguous())
    dilated = None if dilated is None else dilated.contiguous()
    return (*tensors, dilated, resolution, space.contract), (*space.center, space.half, step, cone)


def check_offsets(op: str, offsets: Tensor, samples: int) -> Tensor:
    """Offsets as the kernels read them; they'd write out of bounds where these are wrong."""
    offsets = offsets.to(torch.int64).contiguous()
    good = offsets.ndim == 1 and len(offsets) > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == samples
    if not good or bool((offsets.diff() < 0).any()):
        raise ValueError(f"{op}: expected offsets that rise from 0 to the {samples} samples, found {offsets}")
    return offsets


def forget() -> None:
    """Choose anew at the next call: for tests, which go through the levels."""
    _select.cache_clear()
    _library.cache_clear()


class _FirstDerivative(torch.autograd.Function):
    """Passes gradients on, and says what to do where they are differentiated once more."""

    @staticmethod
    def forward(ctx, op, *grads):
        ctx.op = op
        return grads

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(f"{ctx.op}: the cpu backend has no second derivatives; use backend reference for them")


def first_derivatives(op: str, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients that an op's backward returns: each a fresh tensor, or None."""
    if not torch.is_grad_enabled():
        return grads
    given = iter(_FirstDerivative.apply(op, *(grad.requires_grad_() for grad in grads if grad is not None)))
    return tuple(None if grad is None else next(given) for grad in grads)
