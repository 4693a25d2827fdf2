"""One process against two on the same samples, and what more would take: `python -m apps.benchmark_ranks --scene DIR`."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro

from data.scene import load_scene
from nerf.cli import Options as TrainOptions
from nerf.cli import configure
from nerf.exchange import ROW, touched_rows
from nerf.kernels import choose, keep_memory
from nerf.trainer import Trainer

WORKERS = (1, 2, 8, 64)
NETWORKS = (  # name, bytes a second, seconds from one worker to the next
    ("1 Gbit/s, 10 ms", 125e6, 10e-3),
    ("1 Gbit/s, 0.1 ms", 125e6, 1e-4),
    ("10 Gbit/s, 0.05 ms", 1.25e9, 5e-5),
    ("100 Gbit/s, 0.01 ms", 12.5e9, 1e-5),
)


@dataclass(frozen=True)
class Options:
    """Train a scene with one process and with two, and predict more."""

    scene: Path
    """Folder of posed photos."""
    steps: int = 400
    """Of every run."""
    downscale: int = 8
    """Read the photos reduced by this whole factor."""
    seeds: int = 3
    """Pairs of runs; 0: none, the prediction alone."""
    warp: bool = True
    """--no-warp treats a moving scene as if it were rigid."""
    settled: int = 300
    """Steps before those that the prediction is measured on."""


class Share(NamedTuple):
    """What a worker has to do in a step when there are `workers` of them.

    seconds: its computing, on one thread; rows: of the hash table that it touches; table: rows of the whole table;
    row: bytes of a row; small: bytes of all other gradients; grid: bytes of the occupancy grid in a step's mean.
    """

    workers: int
    seconds: float
    rows: int
    table: int
    row: int
    small: int
    grid: float


def moved(share: Share) -> tuple[float, int]:
    """Bytes that a worker sends in a step, and how many messages one after the other go round: nerf/exchange.py's."""
    n = share.workers
    ring = 2 * (n - 1) / n
    rows, whole = (n - 1) * share.rows * (ROW + share.row), ring * share.table * share.row
    # What is added up goes round twice, what is collected once. The grid goes every 16 steps.
    hops = 2 * (n - 1) + ((n - 1) if rows < whole else 2 * (n - 1)) + 2 * (n - 1) / 16
    return ring * share.small + min(rows, whole) + ring * share.grid, round(hops)


def predicted(share: Share, rate: float, delay: float, adding: float) -> float:
    """Seconds a step: computing, adding up the rows of all, bytes over the network, and waits for messages.

    Args:
        rate: bytes a second that a worker sends.
        delay: seconds that a message takes to the next worker.
        adding: seconds to add a row of another worker to the gradient.
    """
    sent, hops = moved(share)
    return (
        share.seconds + (adding * share.rows * share.workers if share.workers > 1 else 0) + sent / rate + hops * delay
    )


def _command(options: Options, processes: int, seed: int, out: Path) -> list[str]:
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--nproc-per-node", str(processes), "-m"]
    return [
        *start, "nerf.train", "--scene", str(options.scene), "--steps", str(options.steps), "--downscale",
        str(options.downscale), "--seed", str(seed), "--no-video", "--out", str(out),
        *(() if options.warp else ("--no-warp",)),
    ]  # fmt: skip


def compare(options: Options) -> None:
    """Runs of one process and of two from the same seeds, as a table."""
    print("| seed | processes | PSNR | samples | seconds of training | MB sent a step |\n|---|---|---|---|---|---|")
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as place:
        for seed in range(options.seeds):
            for processes in (1, 2):
                out = Path(place) / f"{seed}-{processes}"
                done = subprocess.run(_command(options, processes, seed, out), capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"nerf.train: expected code 0, found {done.returncode}: {done.stderr[-2000:]}")
                metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
                found[processes].append(metrics["psnr"])
                samples = metrics["samples_per_second"] * metrics["train_seconds"]
                print(
                    f"| {seed} | {processes} | {metrics['psnr']:.2f} dB | {samples / 1e6:.2f} M | "
                    f"{metrics['train_seconds']:.0f} | {metrics.get('bytes_per_step', 0) / 1e6:.2f} |", flush=True,
                )  # fmt: skip
    one, two = (statistics.mean(values) for values in found.values())
    print(f"means: {one:.2f} dB with one process, {two:.2f} with two: {two - one:+.2f} dB")
    if options.seeds > 1:
        print("standard deviations: " + ", ".join(f"{statistics.stdev(v):.2f}" for v in found.values()))


def measure(options: Options) -> tuple[list[Share], float]:
    """What workers would do in a step of a run that is under way, on one thread, and seconds to add a row."""
    torch.set_num_threads(1)
    scene = load_scene(options.scene, options.downscale)
    asked = TrainOptions(options.scene, steps=4 * options.settled, downscale=options.downscale, warp=options.warp)
    trainer = Trainer(configure(asked, scene, choose("auto")[0]), scene)
    for _ in range(options.settled):
        trainer.advance()
    config, rays = trainer.config, trainer.rays
    trainer.step -= trainer.step % 16
    shares = []
    for workers in WORKERS:
        loss = dataclasses.replace(
            config.loss,
            elastic_points=max(config.loss.elastic_points // workers, 1 if config.loss.elastic_points else 0),
            background_points=max(config.loss.background_points // workers, 1),
        )
        trainer.config = dataclasses.replace(config, loss=loss, samples=0)  # 0: the number of rays stays
        trainer.rays = max(rays // workers, 1)
        took, rows = [], []
        for _ in range(32):  # two updates of the occupancy grid
            began = time.process_time()  # of the one thread: others' work beside it doesn't count
            trainer.advance()
            took.append(time.process_time() - began)
            rows.append(len(touched_rows(_gradient(trainer))))
        gradient, grid = _gradient(trainer), trainer.model.occupancy
        small = sum(p.nbytes for p in trainer.model.parameters() if p.requires_grad) - gradient.nbytes
        shares.append(
            Share(
                workers,
                statistics.mean(took),
                max(rows),
                len(gradient),
                gradient[0].nbytes,
                small,
                0.0 if grid is None else grid.values.nbytes / grid.config.every,
            )
        )
    return shares, _adding(_gradient(trainer))


def _gradient(trainer: Trainer) -> torch.Tensor:
    (gradient,) = (p.grad for name, p in trainer.model.named_parameters() if name.endswith("grid.table"))
    assert gradient is not None
    return gradient


def _adding(gradient: torch.Tensor) -> float:
    rows = torch.randperm(len(gradient))[: len(gradient) // 4].sort().values
    values = gradient[rows]
    began = time.process_time()
    for _ in range(5):
        gradient[rows] += values
    return (time.process_time() - began) / 5 / len(rows)


def foresee(shares: list[Share], adding: float) -> None:
    """The prediction as tables."""
    print(f"\nadding a row of another worker: {1e9 * adding:.1f} ns; small gradients: {shares[0].small / 1e3:.0f} kB")
    print(
        "\n| workers | ms of computing a step | rows touched | MB sent a step | messages in a row |\n|---|---|---|---|---|"
    )
    for share in shares:
        sent, hops = moved(share)
        part = 100 * share.rows / share.table
        print(f"| {share.workers} | {1e3 * share.seconds:.1f} | {part:.0f} % | {sent / 1e6:.2f} | {hops} |")
    alone = shares[0].seconds
    print(
        "\n| network | " + " | ".join(f"{s.workers} workers" for s in shares[1:]) + " |\n" + "|---" * len(shares) + "|"
    )
    for name, rate, delay in NETWORKS:
        steps = [predicted(share, rate, delay, adding) for share in shares[1:]]
        print(f"| {name} | " + " | ".join(f"{1e3 * s:.0f} ms, {alone / s:.1f} times as fast" for s in steps) + " |")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    options = tyro.cli(Options, args=arguments, prog="python -m apps.benchmark_ranks")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for the runs: ranks that wait must not take others' cores
    keep_memory()
    if options.seeds:
        compare(options)
    foresee(*measure(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
