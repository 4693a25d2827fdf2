"""How fast this project is here: `python -m apps.benchmark`.

Every row is checked against plain torch before it is timed, and stands beside what this machine reaches at most in the same
run. Times are the best of a few; ratios are what carries over to another machine.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from dataclasses import dataclass
from dataclasses import field as given
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import tyro

from apps.benchmark_ops import OpOptions, op_rows, op_table
from apps.benchmark_scene import SceneOptions, scene_rows, scene_table
from apps.benchmark_siren import SirenOptions, siren_rows, siren_table
from apps.benchmark_viewer import ViewerOptions, viewer_row, viewer_table
from apps.measure import Limits, limits
from data.errors import SceneError
from data.files import write_atomically
from nerf.config import ConfigError
from nerf.kernels import keep_memory

PARTS = ("ops", "siren", "scene", "viewer")


@dataclass(frozen=True)
class Options:
    """Time the kernels and a SIREN's training steps against plain torch and this machine's limits; with --scene.path, also
    a scene's PSNR against seconds of training; with --viewer.run, the viewer in a browser.

    All kernels:        python -m apps.benchmark --out benchmark.json

    A scene as well:    python -m apps.benchmark --scene.path lego --scene.budgets 15s 60s 150s --scene.plot lego.png

    The viewer alone:   python -m apps.benchmark --only viewer --viewer.run runs/lego
    """

    only: tuple[str, ...] = PARTS
    """Of ops, siren, scene and viewer, those that are wanted."""
    ops: OpOptions = given(default_factory=OpOptions)
    siren: SirenOptions = given(default_factory=SirenOptions)
    scene: SceneOptions = given(default_factory=SceneOptions)
    viewer: ViewerOptions = given(default_factory=ViewerOptions)
    repeats: int = 5
    """Of every measurement; the best counts."""
    threads: int | None = None
    """Of torch and of the kernels. Default: as many as there are cores."""
    out: Path | None = None
    """Write the figures there as JSON too."""


def said(limit: Limits) -> str:
    """The limits in a few words."""
    return (
        f"at most: products {limit.float32 / 1e9:.0f} GFLOP/s in float32, {limit.bfloat16 / 1e9:.0f} in bfloat16"
        f" (of 64 columns {limit.small_float32 / 1e9:.0f}, {limit.small_bfloat16 / 1e9:.0f}),"
        f" {limit.gathers / 1e6:.0f} M gathers/s, {limit.copied / 1e9:.1f} GB/s copied"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = tyro.cli(Options, args=arguments, prog="python -m apps.benchmark")
    unknown = set(options.only) - set(PARTS)
    if unknown:
        print(
            f"error: --only: expected some of {', '.join(PARTS)}, found {', '.join(sorted(unknown))}", file=sys.stderr
        )
        return 2
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    limit = limits(options.repeats)
    print(said(limit))
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "limits": dataclasses.asdict(limit)}
    try:
        if "siren" in options.only:  # first: its peers run with torch's own memory handling
            figures["siren"] = siren_rows(options.siren, limit, options.repeats)
            print(siren_table(figures["siren"]))
        keep_memory()
        if "ops" in options.only:
            figures["ops"] = op_rows(options.ops, limit, options.repeats)
            print(op_table(figures["ops"]))
        if "scene" in options.only and options.scene.path is not None:
            figures["scene"] = scene_rows(options.scene)
            print(scene_table(figures["scene"]))
        if "viewer" in options.only and options.viewer.run is not None:
            figures["viewer"] = viewer_row(options.viewer, options.repeats)
            print(viewer_table(figures["viewer"]))
    except (SceneError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out is not None:
        write_atomically(options.out, json.dumps(figures, indent=2).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
