"""The roofline's arithmetic, and that docs/cuda.md shows what it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.roofline import GPUS, ROWS, Gpu, Kernel, kernels, main, seconds, step, table

DOCS = Path(__file__).parent.parent / "docs" / "cuda.md"


def test_the_slowest_of_memory_cache_and_products_counts():
    gpu = Gpu("a", bandwidth=1e9, products=1e12, cache=1000, cached=4e9)
    assert seconds(Kernel("k", streamed=100), gpu, 10) == pytest.approx(1e-6)
    assert seconds(Kernel("k", 100, operations=10**6), gpu, 10) == pytest.approx(1e-5)
    assert seconds(Kernel("k", 100, gathered=800, table=1000), gpu, 10) == pytest.approx(2e-6)
    assert seconds(Kernel("k", 100, gathered=800, table=1001), gpu, 10) == pytest.approx(9e-6)  # no cache holds it
    assert seconds(Kernel("k", 100, once=1000), gpu, 10) == pytest.approx(2e-6)


def test_rows_are_the_benchmarks():
    from apps.benchmark_ops import OpOptions, tasks

    names = [task.name for task in tasks(OpOptions(points=64, rays=16))]
    assert [kernel.name for kernel in kernels()] == [name for name in names if name not in (*SCENE, *COMPOSED)]
    assert OpOptions().points == ROWS


SCENE = ("shade and backward", "march", "look", "frame")  # whose work depends on it
COMPOSED = ("warp", "  warp and backward")  # of other rows' kernels


def test_a_networks_operations_are_those_of_its_matrices():
    by_name = {kernel.name: kernel for kernel in kernels()}
    assert by_name["mlp 32-64-64-16"].operations == 2 * (32 * 64 + 64 * 64 + 64 * 16)
    assert by_name["mlp 32-64-64-16"].streamed == 4 * (32 + 16)
    assert by_name["hash grid 8 x 4"].gathered == 8 * 8 * 32


def test_the_docs_show_the_table_and_the_step(capsys):
    said = DOCS.read_text(encoding="utf-8")
    assert table() in said
    for gpu in GPUS:
        assert f"{1e3 * step(gpu):.2f} ms" in said
    main()
    assert table() in capsys.readouterr().out
