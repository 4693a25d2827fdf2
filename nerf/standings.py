"""How the scenes of a queue stand: their figures as a table, and why one failed."""

from __future__ import annotations

import json
import os
import platform
import signal
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from data.errors import shown
from data.files import write_draft
from nerf.claims import Claim
from nerf.evaluate import METRICS

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("psnr", "PSNR, dB", ".2f"), ("ssim", "SSIM", ".4f"), ("flip", "FLIP", ".4f"), ("train_seconds", "seconds", ".0f"),
)  # fmt: skip
TAIL = 1 << 14  # bytes of a log in which its last line is


def replace(path: Path, text: str) -> None:
    """Write a file that other machines may be writing too, each whole."""
    own = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}")
    os.replace(write_draft(own, text.encode()), path)


def figures(run: Path) -> dict[str, Any]:
    """A run's metrics.json; {} where there is none that can be read."""
    try:
        return dict(json.loads((run / METRICS).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def row(run: Path) -> str:
    """A finished run's figures in words."""
    found = figures(run)
    seconds = f"{found.get('train_seconds', 0):.0f} s"
    if not found.get("views"):
        return f"no view was held out, {seconds}"
    return f"{_cell(found, 'psnr', '.2f')} dB, SSIM {_cell(found, 'ssim', '.4f')}, {seconds}"


def outcome(code: int, log: Path) -> str:
    """Why a training failed: the last line that it said, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}{', as the system does where memory is short' * (name == 'SIGKILL')}; see {log}"
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        lines = []
    last = next(filter(None, reversed(lines)), f"exit code {code}")
    return shown(last.removeprefix("error: "), 300)


def markdown(out: Path, names: Sequence[str], claims: Mapping[str, Claim], foreign: Set[str]) -> str:
    """All scenes as a table in Markdown, with the means over those that have figures in the last row.

    Args:
        claims: the newest of each scene.
        foreign: scenes whose runs aren't the queue's.
    """
    lines = [
        "| scene | " + " | ".join(head for _, head, _ in COLUMNS) + " | machine | |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    whole: list[dict[str, Any]] = []
    for name in names:
        claim = claims.get(name)
        found = figures(out / name) if claim is not None and claim.state == "done" else {}
        if found.get("views"):
            whole.append(found)
        cells = [_cell(found, key, digits) for key, _, digits in COLUMNS]
        lines.append(_line(name, *cells, "" if claim is None else claim.host, _note(name, claim, found, foreign)))
    if whole:
        means = [_cell({"mean": _mean(whole, key)}, "mean", digits) for key, _, digits in COLUMNS]
        lines.append(_line(f"mean of {len(whole)}", *means, "", ""))
    return "\n".join(lines) + "\n"


def _note(name: str, claim: Claim | None, found: dict[str, Any], foreign: Set[str]) -> str:
    if claim is None:
        return "another's run is in its place" if name in foreign else "waits"
    notes: dict[str, Callable[[], str]] = {
        "done": lambda: "" if found.get("views") else "no view was held out" if found else "its run is gone",
        "failed": lambda: f"failed: {claim.said}",
        "stopped": lambda: "stopped",
        "held": lambda: f"trains since {claim.started}",
    }
    return notes.get(claim.state, lambda: claim.state)()


def _mean(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [found[key] for found in rows if isinstance(found.get(key), (int, float))]
    return sum(values) / len(values) if values else None


def _cell(found: Mapping[str, Any], key: str, digits: str) -> str:
    """A figure; a PSNR of None is that of pictures without any difference."""
    value = found.get(key)
    if isinstance(value, (int, float)):
        return format(value, digits)
    return "infinite" if key == "psnr" and found.get("views") else "-"


def _line(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
