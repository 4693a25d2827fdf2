"""What `look`, `frame` and `shade` of the `cuda` backend are tried with at their first use, as cuda_trials does for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from nerf.kernels import cuda_frame, cuda_shade, cuda_trials
from nerf.kernels import frame as frames
from nerf.kernels import shade as shading
from nerf.kernels.composite import ray_of_sample
from nerf.kernels.cuda_check import Pair, usable, with_gradients
from nerf.kernels.frame import Course, GridField
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.shade import Shaded

# The reference rounds what the kernels round, so what is left is the order of sums: emulated, 4e-6 at most of a picture. Two
# or three samples of a look that are barely seen, or barely not, may fall to either side.
FRAME_LIMIT, LOOK_LIMIT = 1e-3, 1e-2
# Gradients are rounded on their way down, and a sum between two numbers of a format may round to either: emulated, 8e-4
# and 3.4e-3 at most.
SHADE_LIMIT = {"float16": 1e-2, "bfloat16": 5e-2}
STOP, FAINT = 1e-3, 1e-3


class Field(NamedTuple):
    """What tells one field's kernels from another's.

    Attributes:
        rows: widths of the density network's layers, and of the colour network's.
        seen: numbers that colour depends on beside the place; 0 where colour isn't asked for.
        dtype: what the networks' products are of.
    """

    geometry: GridGeometry
    rows: tuple[tuple[int, ...], tuple[int, ...]]
    seen: int
    dtype: str


def field(shape: Field, device: torch.device) -> bool:
    """Looking along rays into a random field, or its picture where colour is asked for."""
    op = "frame" if shape.seen else "look"
    return usable(op, shape, device, lambda: _frame(shape, device) if shape.seen else _look(shape, device))


def _random(shape: Field, device: torch.device, generator: torch.Generator) -> GridField:
    widths = [
        (shape.geometry.width, *shape.rows[0]),
        (shape.rows[0][-1] + max(shape.seen, 1), *shape.rows[1]),
    ]
    weights = [[torch.randn(b, a, generator=generator) / a**0.5 for a, b in pairwise(wide)] for wide in widths]
    biases = [[0.3 * torch.randn(b, generator=generator) for b in wide[1:]] for wide in widths]
    table = torch.randn(shape.geometry.offsets[-1], shape.geometry.features, generator=generator)
    (density, color), (to_density, to_color) = (
        [[tensor.to(device) for tensor in net] for net in group] for group in (weights, biases)
    )
    return GridField(table.to(device), shape.geometry, density, to_density, color, to_color, 0.5, 2.0)


def _steps(shape: Field) -> frames.Steps:
    """`reference`'s ops, of networks that round what the kernels' round."""
    return frames.reference_steps()._replace(mlp=cuda_trials.rounding(shape.dtype))


Rays = tuple[Tensor, Tensor, Tensor, Tensor]


def _rays(device: torch.device) -> tuple[Rays, Course]:
    origins, directions, near, far, *course = cuda_trials.rays(device, 0.0, True)  # no point lies outside the grid
    return (origins, directions, near, far), Course(*course)


def _frame(shape: Field, device: torch.device) -> list[Pair]:
    generator = cuda_trials.seeded()
    drawn, (rays, course) = _random(shape, device, generator), _rays(device)
    view = torch.randn(len(rays[2]), shape.seen, generator=generator).to(device)
    with torch.no_grad():
        found = cuda_frame.frame(rays, course, drawn, view, STOP, FAINT, shape.dtype)
        steps = _steps(shape)
        asked = frames.asked(rays, course, drawn, None, None, steps)
        expected = frames.painted(asked, len(view), drawn, view, STOP, FAINT, steps)
    return [Pair(name, one, other, FRAME_LIMIT) for name, one, other in zip(found._fields, found, expected)]


def _look(shape: Field, device: torch.device) -> list[Pair]:
    drawn, (rays, course) = _random(shape, device, cuda_trials.seeded()), _rays(device)
    cells = [torch.zeros(course.resolution**3, device=device) for _ in range(2)]
    with torch.no_grad():
        found = cuda_frame.look(rays, course, drawn, STOP, FAINT, cells[0], 1.0, shape.dtype)
        asked = frames.asked(rays, course, drawn, None, None, _steps(shape))
        expected = frames.looked(asked, len(rays[2]), course, STOP, FAINT, cells[1], 1.0)
    sums = [cuda_trials.per_ray(looked.t, looked.dt, looked.offsets) for looked in (found, expected)]
    lit = [torch.tensor([float(looked.lit)]) for looked in (found, expected)]
    named = zip(("count", "t", "dt", "lit", "values"), [*sums[0], lit[0], cells[0]], [*sums[1], lit[1], cells[1]])
    return [Pair(name, one, other, LOOK_LIMIT) for name, one, other in named]


def shade(shape: Field, device: torch.device) -> bool:
    """A training step on a random field: what rays see, and the gradients of the table and the networks."""
    return usable("shade", shape, device, lambda: _shade(shape, device))


def _shade(shape: Field, device: torch.device) -> list[Pair]:
    generator = cuda_trials.seeded()
    drawn, ((origins, directions, *_), course) = _random(shape, device, generator), _rays(device)
    (_, _, t, dt), offsets = cuda_trials.samples(device, generator)
    rays = len(offsets) - 1
    view = torch.randn(rays, shape.seen, generator=generator).to(device)
    along, samples = (origins[:rays], directions[:rays], view), (t, dt, offsets, ray_of_sample(offsets, len(t)))
    background = torch.rand(1, 3, generator=generator).to(device)
    depths = [len(group) for group in drawn[2:6]]
    flat = [drawn.table, *(tensor for group in drawn[2:6] for tensor in group)]

    def run(op: Callable[[GridField], Shaded]) -> Callable[..., Sequence[Tensor]]:
        def with_field(table: Tensor, *parameters: Tensor) -> Sequence[Tensor]:
            parts = iter(parameters)
            lists = [[next(parts) for _ in range(depth)] for depth in depths]
            bias, scale = drawn.density_bias, drawn.density_scale
            return op(GridField(table, shape.geometry, lists[0], lists[1], lists[2], lists[3], bias, scale)).out

        return with_field

    def ours(field: GridField) -> Shaded:
        return cuda_shade.shade(along, samples, course.space, field, background, 1.0, shape.dtype)

    def theirs(field: GridField) -> Shaded:
        return shading.shaded(along, samples, course.space, field, background, 1.0, None, _steps(shape))

    return with_gradients(run(ours), run(theirs), flat, SHADE_LIMIT[shape.dtype], generator)
