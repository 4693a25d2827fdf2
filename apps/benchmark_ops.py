"""Every op on every backend: checked against the reference, then timed, beside what torch reaches at most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from apps.measure import Limits, best, busy, limits, relative
from nerf.kernels import Ops, available, load
from nerf.kernels.composite import ray_of_sample
from nerf.kernels.cpu_library import multiplies_bfloat16
from nerf.kernels.frame import Course, GridField
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.space import Space
from nerf.kernels.warp import WarpField

FIELD_WIDTHS = (32, 64, 64, 16)
GRIDS = {"16 x 2": GridGeometry(16, 2, 17, 16, 2048), "8 x 4": GridGeometry(8, 4, 17, 16, 2048)}


@dataclass(frozen=True)
class OpOptions:
    """Every op of a training step and of a picture."""

    points: int = 1 << 18
    """Samples of every op but look and frame."""
    rays: int = 1 << 14
    """Rays of march, look and frame, across a ball."""


class Task(NamedTuple):
    """What to time on a backend.

    run: the op on `Ops`; it returns what is compared. work: of what the rate counts. limit: how many of them a second
    torch's limit (apps/measure.py) stands for, for the format ("float32" or "bfloat16"), or None.
    """

    name: str
    run: Callable[[Ops, str], Any]
    work: int
    unit: str
    limit: Callable[[Limits, str], float] | None = None
    formats: tuple[str, ...] = ("float32",)


def leaves(*tensors: Tensor) -> list[Tensor]:
    """Fresh leaves that want gradients."""
    return [tensor.clone().requires_grad_() for tensor in tensors]


def hash_tasks(name: str, geometry: GridGeometry, points: int) -> list[Task]:
    """Forward, and backward to the table and to the points."""
    x, table = torch.rand(points, 3), torch.rand(geometry.offsets[-1], geometry.features) - 0.5
    grad = torch.rand(points, geometry.width) - 0.5

    def limit(reached: Limits, _: str) -> float:
        return reached.gathers / (8 * geometry.levels)

    def backward(ops: Ops, _: str, to: int) -> Any:
        inputs = leaves(x, table)
        out = ops.hash_encode(*(v if i == to else v.detach() for i, v in enumerate(inputs)), geometry)
        return lambda: torch.autograd.grad(out, inputs[to], grad, retain_graph=True)[0]

    return [
        Task(
            f"hash grid {name}",
            lambda ops, _: partial(ops.hash_encode, x, table, geometry),
            points,
            "M samples/s",
            limit,
        ),
        Task("  backward, table", partial(backward, to=1), points, "M samples/s", limit),
        Task("  backward, points", partial(backward, to=0), points, "M samples/s", limit),
    ]


def mlp_tasks(points: int) -> list[Task]:
    """A field's network forward, and forward and backward."""
    shapes = list(pairwise(FIELD_WIDTHS))
    weights, biases = [torch.randn(o, i) / i**0.5 for i, o in shapes], [torch.zeros(o) for _, o in shapes]
    x, grad = torch.randn(points, FIELD_WIDTHS[0]), torch.randn(points, FIELD_WIDTHS[-1])
    products = sum(i * o for i, o in shapes)

    def small(limit: Limits, dtype: str) -> float:
        return limit.small_float32 if dtype == "float32" else limit.small_bfloat16

    def forward(ops: Ops, dtype: str) -> Any:
        return lambda: ops.mlp(x, weights, biases, dtype=dtype)

    def both(ops: Ops, dtype: str) -> Any:
        inputs = leaves(x, *weights, *biases)
        w, b = inputs[1 : 1 + len(weights)], inputs[1 + len(weights) :]
        return lambda: torch.autograd.grad(ops.mlp(inputs[0], w, b, dtype=dtype), inputs, grad)

    name, formats = "mlp " + "-".join(map(str, FIELD_WIDTHS)), ("float32", "bfloat16")
    return [
        Task(name, forward, points, "M samples/s", lambda m, d: small(m, d) / (2 * products), formats),
        Task("  and backward", both, points, "M samples/s", lambda m, d: small(m, d) / (6 * products), formats),
    ]


def warp_tasks(points: int) -> list[Task]:
    """The instant preset's deformation of points on rays of 8 samples, forward, and forward and backward to codes and network."""
    bands, own = 6, 12
    shapes = list(pairwise((3 + 6 * bands + own, 64, 64, 64, 6)))
    weights, biases = [torch.randn(o, i) * 0.3 / i**0.5 for i, o in shapes], [torch.zeros(o) for _, o in shapes]
    x, codes = torch.rand(points, 3) * 1.8 - 0.9, torch.randn(-(-points // 8), own)
    space = Space((0.0, 0.0, 0.0), 1.0, True)
    ray, grad = torch.arange(points) // 8, torch.rand(points, 3) - 0.5
    field = WarpField(weights, biases, (), [], [], torch.ones(bands), 0.25, True)

    def both(ops: Ops, _: str) -> Any:
        inputs = leaves(codes, *weights, *biases)
        own = field._replace(weights=inputs[1 : 1 + len(weights)], biases=inputs[1 + len(weights) :])
        return lambda: torch.autograd.grad(ops.warp(x, inputs[0], ray, space, own), inputs, grad)

    return [
        Task("warp", lambda ops, _: lambda: ops.warp(x, codes, ray, space, field), points, "M samples/s"),
        Task("  warp and backward", both, points, "M samples/s"),
    ]


def composite_tasks(points: int) -> list[Task]:
    """Volume rendering of 16 samples a ray, forward and backward."""
    rays = points // 16
    offsets = torch.arange(rays + 1) * (points // rays)
    samples = int(offsets[-1])
    density, dt, rgb = torch.rand(samples) * 20, torch.full((samples,), 0.02), torch.rand(samples, 3)
    t, grad = torch.rand(samples), torch.rand(rays, 3)

    def both(ops: Ops, _: str) -> Any:
        inputs = leaves(density, rgb)
        return lambda: torch.autograd.grad(ops.composite(*inputs, t, dt, offsets).rgb, inputs, grad)

    # Read: density, dt, t, colour, weights twice and more backward; written: weights, two gradients.
    moved = 4 * (3 + 3 + 1) + 4 * (3 + 3 + 1) + 4 * (1 + 3)
    limit = lambda m, _: m.copied / moved  # noqa: E731
    return [Task("composite and backward", both, samples, "M samples/s", limit)]


def ball(ops: Ops, count: int) -> tuple[tuple[Tensor, ...], Course, GridField, Tensor]:
    """Rays that cross a cube with a ball of occupied cells, and a field in it."""
    resolution, space = 128, Space((0.0, 0.0, 0.0), 1.0, False)
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    occupied = ((x.square() + y.square() + z.square()).sqrt() - 0.6).abs().reshape(-1) < 0.05
    cells = occupied.view(1, 1, *[resolution] * 3).float()
    dilated = torch.nn.functional.max_pool3d(cells, 7, 1, 3).view(-1) > 0
    course = Course(occupied, resolution, space, 2 * 3**0.5 / 512, 0.0, None, dilated)
    side = round(count**0.5)
    u = torch.linspace(-0.8, 0.8, side)
    origins = torch.stack([*torch.meshgrid(u, u, indexing="ij"), torch.full((side, side), -2.0)], -1).reshape(-1, 3)
    directions = torch.tensor([0.0, 0.0, 1.0]).expand_as(origins).contiguous()
    near, far = torch.full((len(origins),), 1.0), torch.full((len(origins),), 3.0)
    geometry = GRIDS["8 x 4"]

    def network(*widths: int) -> tuple[list[Tensor], list[Tensor]]:
        shapes = list(pairwise(widths))
        return [torch.randn(o, i) / i**0.5 for i, o in shapes], [torch.zeros(o) for _, o in shapes]

    table = torch.randn(geometry.offsets[-1], geometry.features)
    field = GridField(table, geometry, *network(32, 64, 16), *network(32, 64, 64, 3), 2.0, 1.0)
    return (origins, directions, near, far), course, field, torch.randn(len(origins), 16)


def ray_tasks(count: int) -> list[Task]:
    """The march, the first look of a training step, and a picture."""
    rays, course, field, view = ball(load("reference"), count)
    n = len(rays[0])

    def look(ops: Ops, _: str) -> Any:
        return lambda: torch.bincount(ops.look(*rays, course, field, 1e-4, 1e-3).ray, minlength=n).float()

    # An eighth of the rays, from the middle: the reference keeps every step's numbers.
    half = max(n // 16, 1)
    few = tuple(value[n // 2 - half : n // 2 + half] for value in rays)
    t, dt, offsets = load("reference").march(*few, *course)
    packed = t, dt, offsets, ray_of_sample(offsets, len(t))
    grad = torch.rand(2 * half, 3)

    def step(ops: Ops, _: str) -> Any:
        lists = [leaves(*group) for group in (field[2], field[3], field[4], field[5])]
        (table,) = leaves(field.table)
        own = field._replace(
            table=table,
            density_weights=lists[0],
            density_biases=lists[1],
            color_weights=lists[2],
            color_biases=lists[3],
        )
        inputs = [table, *(value for group in lists for value in group)]
        seen = view[n // 2 - half : n // 2 + half]
        return lambda: torch.autograd.grad(ops.shade(*few[:2], *packed, course.space, own, seen).out.rgb, inputs, grad)

    return [
        Task("shade and backward", step, len(t), "M samples/s"),
        Task("march", lambda ops, _: lambda: ops.march(*rays, *course).t, n, "M rays/s"),
        Task("look", look, n, "M rays/s"),
        Task("frame", lambda ops, _: lambda: ops.frame(*rays, course, field, view, 1e-4, 1e-4).rgb, n, "M rays/s"),
    ]


def harmonics_task(count: int) -> Task:
    """What colour knows of the direction, a row a ray."""
    d = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    return Task("harmonics", lambda ops, _: partial(ops.harmonics, d), count, "M rays/s")


def adam_tasks() -> list[Task]:
    """A step of the optimiser on a table, a third of whose rows have a gradient."""
    rows = GRIDS["8 x 4"].offsets[-1]
    start, grad = torch.rand(rows, 4), torch.rand(rows, 4) * (torch.rand(rows, 1) < 1 / 3)

    def step(ops: Ops, _: str) -> Any:
        value, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)

        def run() -> Tensor:
            ops.adam(value, grad, mean, square, 1, 1e-2, (0.9, 0.99), 1e-15)
            return value

        return run

    # The gradient is read; of three others what is touched, read and written.
    return [Task("adam, a third touched", step, rows * 4, "M numbers/s", lambda m, _: m.copied / (4 + 3 * 8 / 3))]


def tasks(options: OpOptions) -> list[Task]:
    """All of them."""
    torch.manual_seed(0)
    grids = [task for name, geometry in GRIDS.items() for task in hash_tasks(name, geometry, options.points)]
    samples = [*mlp_tasks(options.points), *warp_tasks(options.points), *composite_tasks(options.points)]
    return grids + samples + [*ray_tasks(options.rays), harmonics_task(options.rays), *adam_tasks()]


def flat(result: Any) -> Tensor:
    """A result as one row of numbers."""
    parts = [result] if isinstance(result, Tensor) else list(result)
    return torch.cat([part.detach().reshape(-1) for part in parts])


# Errors above which a row isn't timed. bfloat16 rounds operands to 2^-9, which turns some rectifiers round and with them
# gradients (4e-2 was measured); a picture's rays now and then lose or gain a sample at the edge of what can be seen.
ALLOWED = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 6e-2}


def formats(task: Task, backend: str) -> tuple[str, ...]:
    """What a backend's products are timed in."""
    match backend:
        case "reference":
            return ("float32",)
        case "cuda":
            return ("float16", "bfloat16") if len(task.formats) > 1 else task.formats
    return tuple(dtype for dtype in task.formats if dtype != "bfloat16" or multiplies_bfloat16())


def op_rows(options: OpOptions, limit: Limits, repeats: int) -> list[dict[str, Any]]:
    """Checked and timed, the reference first; on a GPU too, where there is one (apps/roofline.py says what to expect).
    Raises RuntimeError where a backend's result is another."""
    rows = _rows(options, limit, repeats, ["reference"] + ([] if available()["cpu"] else ["cpu"]))
    if not available()["cuda"]:
        with load("cuda").device:  # where torch puts what is made
            rows += _rows(options, limits(repeats), repeats, ["reference", "cuda"])
    return rows


def _rows(options: OpOptions, limit: Limits, repeats: int, names: list[str]) -> list[dict[str, Any]]:
    """The rows of some backends whose tensors lie on torch's default device."""
    rows: list[dict[str, Any]] = []
    for task in tasks(options):
        expected, baseline = None, 0.0
        for name in names:
            for dtype in formats(task, name):
                run = task.run(load(name), dtype)
                found = flat(run())
                expected = found if expected is None else expected
                error = relative(found, expected)
                # These take the network's own format.
                fused = task.name.split()[0] in ("look", "frame", "shade", "warp")
                allowed = ALLOWED["bfloat16" if fused else dtype]
                how = f"{name}, {dtype}" if found.device.type == "cpu" else f"{name} (GPU), {dtype}"
                if not error < allowed:
                    raise RuntimeError(f"{task.name}, {name}, {dtype}: off by {error:.1e} of the reference's size")
                seconds = best(run, repeats if name != "reference" else 2)
                baseline = baseline or seconds
                kernels = busy(run, repeats) if found.is_cuda else None
                rows.append(
                    {
                        "what": task.name, "how": how, "rate": task.work / seconds, "unit": task.unit,
                        "ratio": baseline / seconds, "error": error, "kernels": kernels,
                        "share": None if task.limit is None else task.work / seconds / task.limit(limit, dtype),
                    }
                )  # fmt: skip
    return rows


def op_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text. Of a GPU's, the last column has the microseconds that its kernels take: a small op's time is that of
    the host, which launches them."""
    lines = [f"{'op':<26}{'backend':<22}{'rate':>22}{'ratio':>9}{'of torch':>10}{'error':>10}{'kernels':>12}"]
    for line in rows:
        share = "" if line["share"] is None else f"{line['share']:.0%}"
        rate = f"{line['rate'] / 1e6:.2f} {line['unit']}"
        alone = "" if line["kernels"] is None else f"{line['kernels'] * 1e6:.0f} us"
        lines.append(
            f"{line['what']:<26}{line['how']:<22}{rate:>22}{line['ratio']:>8.1f}x{share:>10}{line['error']:>10.1e}{alone:>12}"
        )
    return "\n".join(lines)
