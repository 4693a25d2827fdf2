"""Whether a solution is a scene, and what a person should do better.

A scene needs half of its photos posed, eight at least, a mean reprojection error of at most 3 px at the size that features
were found at, and cameras that moved by 2 % of their distance to what they see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data.capturing.photos import Photo
from data.capturing.placing import Placed
from data.capturing.structure import Solution
from data.errors import CaptureError

SHARE, FEWEST, ERROR, MOVEMENT, POINTS = 0.5, 8, 3.0, 0.02, 50  # below them (ERROR: above), it is no scene
GOOD_SHARE, GOOD_ERROR, GOOD_MOVEMENT = 0.9, 1.3, 0.1  # below them (above), there is advice
TEXTURE = 250  # features of the median photo
SHARED = 120  # verified matches of the median photo, over all its pairs
BLURRED = 0.2  # of the photos


@dataclass
class Verdict:
    """`advice`: sentences, most important first; `unposed`, `blurred`: sources of photos."""

    posed: int
    photos: int
    reprojection: float
    movement: float
    unposed: list[str] = field(default_factory=list)
    blurred: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def require(name: str, solution: Solution, photos: Sequence[Photo], coarse: float) -> None:
    """Raise CaptureError, with the likeliest cause, for a solution that is no scene; its movement is judged once it is
    placed. `coarse`: photos are so many times as large as features were found at."""
    posed, total = len(solution.poses), len(photos)
    causes = (
        "; ".join(advise(solution, photos)) or "too little of the photos overlaps: take more, with less between them"
    )
    sharp = sum(p.name in solution.poses and not p.blurred for p in photos)
    if posed < SHARE * total or posed < FEWEST:
        wanted = max(FEWEST, int(np.ceil(SHARE * total)))
        raise CaptureError(
            f"{name}: poses: expected those of {wanted} photos or more, found {posed} of {total}: {causes}"
        )
    if sharp < FEWEST:
        raise CaptureError(f"{name}: photos: expected {FEWEST} sharp ones with poses, found {sharp}: {causes}")
    if not solution.reprojection <= ERROR * coarse:
        raise CaptureError(
            f"{name}: reprojection error: expected at most {ERROR * coarse:.1f} px, found {solution.reprojection:.1f}: {causes}"
        )
    if len(solution.points) < POINTS:
        raise CaptureError(f"{name}: points: expected {POINTS} or more, found {len(solution.points)}: {causes}")


def judge(name: str, solution: Solution, placed: Placed, photos: Sequence[Photo], coarse: float) -> Verdict:
    """The verdict on a solution that passed `require`. Raises CaptureError where the camera hardly moved."""
    if placed.movement < MOVEMENT:
        raise CaptureError(
            f"{name}: movement: expected the camera to move by {MOVEMENT:.0%} or more of its distance to what it sees, found "
            f"{placed.movement:.1%}: move the camera sideways, around the subject; turning it on the spot shows no depth"
        )
    unposed = [p.source for p in photos if p.name not in solution.poses]
    advice = []
    if len(unposed) > (1 - GOOD_SHARE) * len(photos) or solution.reprojection > GOOD_ERROR * coarse:
        advice = advise(solution, photos) or ["take more photos, with less between one and the next"]
    elif sum(p.blurred for p in photos) > BLURRED * len(photos):
        advice = advise(solution, photos)
    if placed.movement < GOOD_MOVEMENT:
        advice.append("move the camera farther to the sides: what it sees from one place alone has no depth")
    blurred = [p.source for p in photos if p.blurred]
    return Verdict(len(solution.poses), len(photos), solution.reprojection, placed.movement, unposed, blurred, advice)


def advise(solution: Solution, photos: Sequence[Photo]) -> list[str]:
    """What is likely amiss, from features, matches and blur."""
    features = float(np.median(list(solution.features.values()) or [0]))
    matches = float(np.median(list(solution.matches.values()) or [0]))
    blurred = sum(p.blurred for p in photos)
    advice = []
    if features < TEXTURE:
        advice.append(
            f"there is too little texture behind you ({features:.0f} features in a photo): shelves, plants or pictures help, "
            "a blank wall doesn't"
        )
    if blurred > BLURRED * len(photos):
        advice.append(f"turn less quickly, or with more light: {blurred} of {len(photos)} photos are blurred")
    if features >= TEXTURE and matches < SHARED:
        advice.append("turn less quickly: too little of one photo is seen in the next")
    if features >= TEXTURE and matches >= SHARED and len(solution.poses) < SHARE * len(photos):
        advice.append(
            "photos show the same, but from one place: move the camera sideways, around the subject, rather than turn it"
        )
    if solution.evidence.share > 0.5:
        advice.append("most of what is seen moves: leave more of the room in the picture, or give --masks")
    return advice
