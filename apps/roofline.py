"""What the `cuda` backend's kernels can reach at most on some GPUs: `python -m apps.roofline` (docs/cuda.md has its tables).

Every kernel moves so many bytes and does so many operations a row (Williams et al. 2009, "Roofline"): its time is at least
that of the slowest of them, at the bandwidths of the GPU's memory and L2 cache and at its rate of matrix products.
`python -m apps.benchmark --only ops` measures the same rows where there is a GPU.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from apps.benchmark_ops import FIELD_WIDTHS, GRIDS

ROWS = 1 << 18  # samples of every op, as the benchmark takes them
SECTOR = 32  # bytes that memory and the L2 cache deal in


class Gpu(NamedTuple):
    """A GPU as its maker describes it.

    Attributes:
        bandwidth: of its memory, bytes a second.
        products: operations a second of float16 matrix products with float32 sums, dense.
        cache: L2, bytes.
        cached: bytes a second that L2 gives. NVIDIA publishes none: about what microbenchmarks find, an estimate.
    """

    name: str
    bandwidth: float
    products: float
    cache: int
    cached: float


# NVIDIA: Ampere GA102 GPU Architecture whitepaper (table 2, appendix A); Ada GPU Architecture whitepaper (appendix A);
# H100 Tensor Core GPU datasheet (SXM5). The consumer cards do half as many operations where sums are float32.
GPUS = (
    Gpu("RTX 3090", 936e9, 71e12, 6 << 20, 2e12),
    Gpu("RTX 4090", 1008e9, 165.2e12, 72 << 20, 5e12),
    Gpu("H100 SXM", 3350e9, 989.4e12, 50 << 20, 5.5e12),
)


class Kernel(NamedTuple):
    """One row of the benchmark's table.

    Attributes:
        streamed: bytes a row that are read or written once, in order.
        gathered: bytes a row of a table's sectors, wherever they lie, that come from L2 where it holds what is in use.
        table: bytes of that: of one level, since the grid's kernels go through it level by level.
        operations: of matrix products, a row.
        once: bytes of a call, whatever its rows.
    """

    name: str
    streamed: int
    gathered: int = 0
    table: int = 0
    operations: int = 0
    once: int = 0


def kernels() -> list[Kernel]:
    """Those whose work doesn't depend on the scene; one number is four bytes."""
    found = []
    for name, geometry in GRIDS.items():
        rows, point, features = 8 * geometry.levels, 4 * 3, 4 * geometry.width
        row, touched = 4 * geometry.features, rows * SECTOR
        level, every = row * max(geometry.rows), row * geometry.offsets[-1]
        found += [
            Kernel(f"hash grid {name}", point + features, touched, level),
            # The gradient starts as zeros; an atomic sum reads its sector and writes it.
            Kernel("  backward, table", point + features, 2 * touched, level, once=every),
            Kernel("  backward, points", 2 * point + features, touched, every),
        ]
    products = 2 * sum(a * b for a, b in pairwise(FIELD_WIDTHS))
    ends = 4 * (FIELD_WIDTHS[0] + FIELD_WIDTHS[-1])
    backward = 4 * (2 * FIELD_WIDTHS[0] + FIELD_WIDTHS[-1])
    name = "mlp " + "-".join(map(str, FIELD_WIDTHS))
    found += [
        Kernel(name, ends, operations=products),
        # Backward computes forward again, and twice as much beside it; float16's scale takes one more look at the gradient.
        Kernel("  and backward", ends + backward + 4 * FIELD_WIDTHS[-1], operations=4 * products),
        # Forward reads density, rgb, t, dt and writes weights. Backward reads density and dt, leaves the light, comes back
        # to it with weights, rgb, t and dt, and writes gradients of density and rgb.
        Kernel("composite and backward", 4 * (6 + 1) + 4 * (2 + 1) + 4 * (1 + 1 + 3 + 1 + 1) + 4 * (1 + 3)),
        Kernel("harmonics", 4 * (3 + 16)),
        # All gradients are read; of a third, three others are read and written.
        Kernel("adam, a third touched", 4 + 3 * 8 // 3),
    ]
    return found


def seconds(kernel: Kernel, gpu: Gpu, rows: int = ROWS) -> float:
    """The least time for so many rows."""
    moved = kernel.streamed + (kernel.gathered if kernel.table > gpu.cache else 0)
    memory, cache = (rows * moved + kernel.once) / gpu.bandwidth, rows * kernel.gathered / gpu.cached
    return max(memory, cache, rows * kernel.operations / gpu.products)


def table() -> str:
    """Bytes and operations a row, and for each GPU the least microseconds of ROWS rows and the rate, as Markdown."""
    heads = [f"{gpu.name}, us" for gpu in GPUS] + [f"{gpu.name}, M/s" for gpu in GPUS]
    names = ["op", "bytes", "gathered", "operations", *heads]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for kernel in kernels():
        times = [seconds(kernel, gpu) for gpu in GPUS]
        cells = [kernel.name.replace("  ", "- "), kernel.streamed, kernel.gathered or "", kernel.operations or ""]
        cells += [f"{1e6 * time:.0f}" for time in times] + [f"{ROWS / time / 1e6:.0f}" for time in times]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def step(gpu: Gpu) -> float:
    """The least seconds of a training step on ROWS points without rays: a 16 x 2 grid and a network, both ways, and Adam."""
    every = {kernel.name: kernel for kernel in kernels()[:3] + kernels()[6:]}
    geometry = GRIDS["16 x 2"]
    parts = ("hash grid 16 x 2", "  backward, table", "  and backward")
    numbers = geometry.features * geometry.offsets[-1]
    return sum(seconds(every[name], gpu) for name in parts) + seconds(every["adam, a third touched"], gpu, numbers)


def main() -> None:
    """Print the table, and the step beside it."""
    print(table())
    print("\nstep: " + ", ".join(f"{gpu.name} {1e3 * step(gpu):.2f} ms" for gpu in GPUS))


if __name__ == "__main__":
    main()
