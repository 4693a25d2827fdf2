"""What a capture came to, for a person and for programs: a page of text, capture.json and a picture of the cameras."""

from __future__ import annotations

import json
from pathlib import Path

from data.capturing.judge import Verdict
from data.capturing.placing import Placed
from data.capturing.structure import Solution

NAMED = 12  # photos named in the page; capture.json names all


def page(verdict: Verdict, solution: Solution, placed: Placed, moving: str) -> str:
    """The report: posed photos, error, what is known of the scene, photos to look at, advice. `moving`: a clause."""
    share = verdict.posed / verdict.photos
    lines = [
        f"posed {verdict.posed} of {verdict.photos} photos ({share:.0%}, {solution.attempt}), "
        f"reprojection error {verdict.reprojection:.2f} px, {len(placed.points)} points of the background",
        f"lens: {'; '.join(_lens(solution, key) for key in sorted(solution.lenses))}",
        f"the camera moved by {verdict.movement:.0%} of its distance to what it sees; {moving}",
    ]
    if verdict.unposed:
        lines.append(f"not posed, and left out: {_some(verdict.unposed)}")
    if verdict.blurred:
        lines.append(f"blurred, and left out: {_some(verdict.blurred)}")
    lines += [f"advice: {sentence}" for sentence in verdict.advice]
    return "\n".join(lines)


def write_report(folder: Path, source: str, text: str, verdict: Verdict, solution: Solution, moving: bool) -> None:
    """`report.txt`, `capture.json` and `capture.png` (cameras, box and points: data/plot.py) beside the scene's files.

    Reads the scene back as a trainer would, so a scene that can't be read is found here. Raises SceneError then.
    """
    from data.plot import plot_scene  # matplotlib takes a second to import
    from data.scene import load_scene

    record = {
        "source": source,
        "photos": verdict.photos,
        "posed": verdict.posed,
        "reprojection_px": round(verdict.reprojection, 4),
        "movement": round(verdict.movement, 4),
        "moving": moving,
        "moving_features": round(solution.evidence.share, 4),
        "attempt": solution.attempt,
        "unposed": verdict.unposed,
        "blurred": verdict.blurred,
        "advice": verdict.advice,
    }
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
    (folder / "capture.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    plot_scene(load_scene(folder), folder / "capture.png")


def _lens(solution: Solution, key: int) -> str:
    lens = solution.lenses[key]
    return f"{lens.width}x{lens.height}, focal length {lens.fx:.0f} px"


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
