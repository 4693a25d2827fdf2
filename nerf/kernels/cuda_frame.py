"""Launches the kernels of `look` and `frame` (cuda/gpu/frame.cu): checked tensors in, results out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_arguments import fields, place, ready
from nerf.kernels.cuda_grid import MOST_LEVELS, Levels, levels_of
from nerf.kernels.cuda_rays import UNCOUNTABLE, CourseArguments, course_arguments, offsets_from
from nerf.kernels.frame import Course, GridField, Looked, Seen

MOST_LAYERS = 8  # network::most_layers
FORMATS = {"float16": "Float16", "bfloat16": "Bfloat16"}
_BLOCKS = (256, 128, 64)  # threads; as many as shared memory has rows for
_THREADS = 512  # of a multiprocessor that the kernels have registers for
_SKEW = 8  # network::skew
_RESULTS = 32 * 5 * 4  # frame::Results
_room: dict[torch.device, int] = {}  # samples that the last look at rays laid down, and a quarter more


class _Layer(ctypes.Structure):
    """network::Layer."""

    _fields_ = fields(p="weight bias", i="inputs outputs weights_at biases_at")


class _Network(ctypes.Structure):
    """network::Network."""

    _fields_ = [("layer", _Layer * MOST_LAYERS), *fields(i="depth")]


class _Arguments(ctypes.Structure):
    """frame::FrameArgs."""

    _fields_ = [
        ("course", CourseArguments),
        ("grid", Levels),
        ("density", _Network),
        ("color", _Network),
        *fields(
            p="table view rgb depth opacity values t dt ray place counts counters",
            l="capacity", i="levels features seen stride rows_at row_bytes", f="bias scale stop faint value_scale",
        ),
    ]  # fmt: skip


class _SpreadArguments(ctypes.Structure):
    """frame::SpreadArgs."""

    _fields_ = fields(p="offsets spread", l="rays room")


class _SortArguments(ctypes.Structure):
    """frame::SortArgs."""

    _fields_ = fields(p="t dt ray place laid offsets near far out_t out_dt out_ray", l="capacity count rays")


class Plan(NamedTuple):
    """Where networks lie in a block's shared memory, and the warps' rows behind them.

    Args:
        places: of each network's layers, bytes before the matrix and before the biases.
        stride: numbers between two rows of a warp.
        rows_at: bytes before the first warp's rows.
        row_bytes: bytes of a warp's.
        block: threads.
    """

    places: tuple[tuple[tuple[int, int], ...], ...]
    stride: int
    rows_at: int
    row_bytes: int
    block: int

    @property
    def shared(self) -> int:
        """Bytes of a block."""
        return self.rows_at + self.row_bytes * self.block // 32


def _padded(count: int) -> int:
    return -(-count // 16) * 16


@cache
def plan(networks: tuple[tuple[int, ...], ...], limit: int) -> Plan | None:
    """The plan for networks of these widths, inputs first; None where `limit` bytes don't hold them."""
    at, places = 0, []
    for widths in networks:
        found = []
        for before, after in pairwise(map(_padded, widths)):
            found.append((at, at + after * (before + _SKEW) * 2))
            at = found[-1][1] + after * 4
        places.append(tuple(found))
    stride = max(_padded(width) for widths in networks for width in widths) + _SKEW
    row_bytes = 3 * 16 * stride * 2 + _RESULTS
    for block in _BLOCKS:
        made = Plan(tuple(places), stride, at, row_bytes, block)
        if made.shared <= limit:
            return made
    return None


def _widths(field: GridField, seen: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the density network and of the colour network, inputs first; `seen`: columns of view."""
    density = (field.geometry.width, *(len(weight) for weight in field.density_weights))
    return density, (density[-1] + seen, *(len(weight) for weight in field.color_weights))


def fits(field: GridField, seen: int, device: torch.device) -> bool:
    """Whether the kernels can take a field whose colour depends on `seen` numbers beside the place."""
    depth = max(len(field.density_weights), len(field.color_weights))
    small = depth <= MOST_LAYERS and field.geometry.levels <= MOST_LEVELS
    return small and plan(_widths(field, seen), cuda_driver.shared_limit(device)) is not None


def _network(weights: Sequence[Tensor], biases: Sequence[Tensor], places: Sequence[tuple[int, int]]) -> _Network:
    network = _Network(depth=len(weights))
    for index, (weight, bias, where) in enumerate(zip(weights, biases, places)):
        network.layer[index] = _Layer(place(weight), place(bias), weight.shape[1], weight.shape[0], *where)
    return network


class _Call(NamedTuple):
    """A launch's arguments, how its block is laid out, and the tensors that have to live until then."""

    arguments: _Arguments
    plan: Plan
    alive: list[object]


def _call(
    rays: Sequence[Tensor], course: Course, field: GridField, view: Tensor | None, limits: tuple[float, float]
) -> _Call:
    """What both kernels take; view None: without the colour network."""
    along, alive = course_arguments(rays, course)
    device, geometry = rays[2].device, field.geometry
    widths = _widths(field, 0 if view is None else view.shape[1])
    made = plan(widths if view is not None else widths[:1], cuda_driver.shared_limit(device))
    if made is None:
        raise ValueError(f"frame: networks of widths {widths} don't fit into the shared memory of {device}")
    networks = [(field.density_weights, field.density_biases), (field.color_weights, field.color_biases)]
    held = [[[ready(tensor) for tensor in group] for group in network] for network in networks]
    given = [_network(weights, biases, places) for (weights, biases), places in zip(held, made.places)]
    table = ready(field.table)
    arguments = _Arguments(along, levels_of(geometry), *given)
    arguments.table, arguments.levels, arguments.features = place(table), geometry.levels, geometry.features
    arguments.stride, arguments.rows_at, arguments.row_bytes = made.stride, made.rows_at, made.row_bytes
    arguments.bias, arguments.scale = field.density_bias, field.density_scale
    arguments.stop, arguments.faint = limits
    return _Call(arguments, made, [alive, held, table])


def _kernel(name: str, call: _Call, dtype: str, device: torch.device) -> cuda_driver.Kernel:
    features = call.arguments.features if call.arguments.features in (2, 4, 8) else 1
    options = (("FRAME_FORMAT", FORMATS[dtype]), ("FRAME_FEATURES", features), ("FRAME_BLOCK", call.plan.block))
    return cuda_driver.kernel("frame.cu", name, device, options)


def _launch(name: str, call: _Call, dtype: str, counters: Tensor) -> None:
    device, block = counters.device, call.plan.block
    resident = min(_THREADS // block, cuda_driver.shared_limit(device) // call.plan.shared)
    blocks = min(-(-call.arguments.course.rays // (block // 8)), cuda_driver.multiprocessors(device) * resident)
    call.arguments.counters = place(counters)
    cuda_driver.launch(_kernel(name, call, dtype, device), blocks, block, call.plan.shared, call.arguments)


def frame(
    rays: Sequence[Tensor], course: Course, field: GridField, view: Tensor, stop: float, faint: float, dtype: str
) -> Seen:
    """`nerf.kernels.frame.frame` of what stands still; samples behind `stop` are not asked for.

    A ray of 2^24 steps or more sees NaN: to refuse it would take to wait for the device.

    Args:
        rays: origins, directions, near, far.
        dtype: what the networks' products are of, one of FORMATS.
    """
    call, view = _call(rays, course, field, view, (stop, faint)), ready(view)
    count, like = len(rays[2]), rays[2]
    seen = Seen(like.new_empty(count, 3), like.new_empty(count), like.new_empty(count))
    call.arguments.view, call.arguments.seen = place(view), view.shape[1]
    call.arguments.rgb, call.arguments.depth, call.arguments.opacity = map(place, seen)
    _launch("frame_rays", call, dtype, torch.zeros(3, dtype=torch.int64, device=like.device))
    return seen


def look(
    rays: Sequence[Tensor],
    course: Course,
    field: GridField,
    stop: float,
    faint: float,
    values: Tensor | None,
    value_scale: float,
    dtype: str,
    room: int | None = None,
) -> Looked:
    """`nerf.kernels.frame.look`; samples behind `stop` are not asked for.

    Without `room`, waits once for the device: how many samples were kept is the shape of the results, and how many light
    reached is a number. Where they are more than there was memory for, they are looked for again.

    Args:
        rays: origins, directions, near, far.
        values: contiguous.
        dtype: what the network's products are of, one of FORMATS.
    """
    call, device, count = _call(rays, course, field, None, (stop, faint)), rays[2].device, len(rays[2])
    call.arguments.values, call.arguments.value_scale = place(values), value_scale
    if room is not None:
        room = room if count else 0
        laid = _lay_down(call, count, room, dtype, device)
        spread = torch.empty_like(laid.offsets)
        arguments = _SpreadArguments(place(laid.offsets), place(spread), count, room)
        cuda_driver.launch(_kernel("look_spread", call, dtype, device), count // 256 + 1, 256, 0, arguments)
        t, dt, ray = _in_order(call, laid._replace(offsets=spread), rays, room, dtype, False)
        numbers = laid.counters[1:].float()
        return Looked(t, dt, spread, ray, numbers[1], numbers[0])
    capacity = max(_room.get(device, 0), 8 * count, 1024)
    while True:
        laid = _lay_down(call, count, capacity, dtype, device)
        _, kept, lit = laid.counters.tolist()
        if lit >= UNCOUNTABLE:
            raise ValueError("look: expected fewer than 2^24 steps between near and far, found a ray with more")
        _room[device] = kept * 5 // 4
        if kept <= capacity:
            break
        capacity = kept
    t, dt, ray = _in_order(call, laid, rays, kept, dtype, True)
    return Looked(t, dt, laid.offsets, ray, lit, kept)


class _Laid(NamedTuple):
    """A look's samples as they were found, in any order; where each ray's begin, and the counters."""

    lengths: Tensor
    places: Tensor
    offsets: Tensor
    counters: Tensor


def _lay_down(call: _Call, rays: int, capacity: int, dtype: str, device: torch.device) -> _Laid:
    """Look; what is found beyond `capacity` is counted only."""
    arguments, counts = call.arguments, torch.empty(rays, dtype=torch.int64, device=device)
    lengths = torch.empty(2, capacity, device=device)
    places = torch.empty(2, capacity, dtype=torch.int32, device=device)
    counters = torch.zeros(3, dtype=torch.int64, device=device)
    arguments.counts, arguments.capacity = place(counts), capacity
    arguments.t, arguments.dt, arguments.ray, arguments.place = map(place, (*lengths, *places))
    _launch("look_rays", call, dtype, counters)
    return _Laid(lengths, places, offsets_from(counts), counters)


def _in_order(
    call: _Call, laid: _Laid, rays: Sequence[Tensor], count: int, dtype: str, all_found: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """t, dt and ray of `count` samples, in their rays' order; where not all of them were found, others have no length."""
    device = laid.lengths.device
    t, dt = torch.empty(2, count, device=device).unbind()
    ray = torch.empty(count, dtype=torch.int64, device=device)
    near, far = ready(rays[2]), ready(rays[3])
    where = (*laid.lengths, *laid.places, laid.counters[1:], laid.offsets, near, far, t, dt, ray)
    sort = _SortArguments(*map(place, where), laid.lengths.shape[1], count, len(near))
    for name in ("look_sort",) if all_found else ("look_fill", "look_sort"):
        cuda_driver.launch(_kernel(name, call, dtype, device), -(-count // 256), 256, 0, sort)
    return t, dt, ray
