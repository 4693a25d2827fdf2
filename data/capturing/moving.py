"""What moves in a film, from features alone: matches that break the geometry of two views, and break it together.

The dominant geometry of two frames is that of what stands still: the background, if enough of it shows. A match that it
doesn't explain is wrong, or of something that moves. Wrong ones point anywhere; those of a person move as their neighbours
do. A feature whose matches do so in several pairs is taken to move, and so is one amid such features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data.capturing.job import Job

APART = 8  # frames between two of a pair: more, and looks differ as much as places
NEAREST = 4  # neighbours that a match must move like
NEAR, LIKE = 0.06, 0.012  # of the diagonal: how far neighbours may be, and by how much their motions differ
AGREE = 0.2  # of a motion's own length, which may differ in addition
VOTES = 1  # pairs, at least, that must say that a feature moves, and half of all that know it
SPREAD = 0.035  # of the diagonal: how far a feature speaks for its surroundings
LEAST = 6  # moving features that make a frame one in which something moves
SHARE = 0.15  # of the frames: something moves in the film


@dataclass
class Evidence:
    """What moves. `features`: by COLMAP's image id, "n" bool; `share`: of all features that were matched, those that
    move; `frames`: share of frames with some."""

    features: dict[int, np.ndarray] = field(default_factory=dict)
    share: float = 0.0
    frames: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether something moves in enough of the frames."""
        return self.frames >= SHARE


def find_moving(job: Job) -> Evidence:
    """Ask all pairs of frames that are close in time."""
    place = {p.file.name: i for i, p in enumerate(job.photos)}
    kind = job.pycolmap.TwoViewGeometryConfiguration
    kinds = [int(k) for k in (kind.CALIBRATED, kind.UNCALIBRATED)]
    with job.open() as database:
        if all(c.has_prior_focal_length for c in database.read_all_cameras()):
            # Where focal lengths are unknown, a plane's geometry is one that all before the plane breaks, moving or not.
            kinds.append(int(kind.PLANAR_OR_PANORAMIC))
    with job.open() as database:
        images = {i.image_id: place[i.name] for i in database.read_all_images()}
        points = {key: database.read_keypoints(key)[:, :2].astype(np.float64) for key in images}
        votes = {key: np.zeros((len(p), 2)) for key, p in points.items()}  # moves, stands
        for number, geometry in zip(*database.read_two_view_geometries()):
            a, b = job.pycolmap.pair_id_to_image_pair(number)
            if abs(images[a] - images[b]) > APART or geometry.config not in kinds:
                continue
            raw, agreed = database.read_matches(a, b).astype(int), np.asarray(geometry.inlier_matches, dtype=int)
            _vote(votes, points, a, b, raw, agreed, _diagonal(job, images[a]))
    moving = {k: _spread(points[k], v, _diagonal(job, images[k])) for k, v in votes.items()}
    known = {k: v.sum(1) > 0 for k, v in votes.items()}
    some = [int(m.sum()) >= LEAST for m in moving.values()]
    share = sum(int((moving[k] & known[k]).sum()) for k in known) / max(sum(int(k.sum()) for k in known.values()), 1)
    return Evidence(moving, share, float(np.mean(some)) if some else 0.0)


def forget(job: Job, evidence: Evidence) -> None:
    """Take moving features out of all matches."""
    with job.open() as database:
        for pair, matches in zip(*database.read_all_matches()):
            a, b = job.pycolmap.pair_id_to_image_pair(pair)
            still = ~(evidence.features[a][matches[:, 0]] | evidence.features[b][matches[:, 1]])
            if still.all():
                continue
            database.delete_matches(a, b)
            database.write_matches(a, b, matches[still])


def _diagonal(job: Job, place: int) -> float:
    return float(np.hypot(job.photos[place].width, job.photos[place].height))


def _vote(
    votes: dict[int, Any], points: dict, a: int, b: int, raw: np.ndarray, agreed: np.ndarray, size: float
) -> None:
    """Count one pair's matches: those that agree, and those that break the geometry together."""
    np.add.at(votes[a][:, 1], agreed[:, 0], 1)
    np.add.at(votes[b][:, 1], agreed[:, 1], 1)
    broken = raw[~np.isin(raw[:, 0], agreed[:, 0])]
    if len(broken) <= NEAREST:
        return
    start, motion = points[a][broken[:, 0]], points[b][broken[:, 1]] - points[a][broken[:, 0]]
    together = broken[_together(start, motion, size)]
    np.add.at(votes[a][:, 0], together[:, 0], 1)
    np.add.at(votes[b][:, 0], together[:, 1], 1)


def _together(start: np.ndarray, motion: np.ndarray, size: float) -> np.ndarray:
    """Which of the motions "n 2" are like those of the nearest others, and not all of them nothing; "n" bool."""
    away = np.linalg.norm(start[:, None] - start[None], axis=-1)
    np.fill_diagonal(away, np.inf)
    near = np.argpartition(away, NEAREST - 1, axis=1)[:, :NEAREST]
    differ = np.linalg.norm(motion[near] - motion[:, None], axis=-1)
    tolerance = LIKE * size + AGREE * np.linalg.norm(motion, axis=1)
    close = np.take_along_axis(away, near, 1) < NEAR * size
    return ((differ < tolerance[:, None]) & close).sum(1) >= NEAREST - 1


def _spread(points: np.ndarray, votes: np.ndarray, size: float) -> np.ndarray:
    """Which features move: by their own votes, and by those around them."""
    own = (votes[:, 0] >= VOTES) & (votes[:, 0] >= votes[:, 1])
    known = np.flatnonzero(votes.sum(1) > 0)
    if own.sum() < LEAST:
        return np.zeros(len(points), dtype=bool)
    # Each feature that anything is known of has one voice; a grid of cells keeps this linear.
    cell = np.floor(points / (SPREAD * size)).astype(int)
    columns = int(cell[:, 0].max()) + 3
    index = (cell[:, 1] + 1) * columns + cell[:, 0] + 1
    total = np.zeros((int(index.max()) + columns + 2, 2))
    np.add.at(total, index[known], np.stack((own[known], ~own[known]), 1).astype(float))
    steps = [dy * columns + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    around = sum(total[np.clip(index + s, 0, len(total) - 1)] for s in steps)
    most = around[:, 0] > around[:, 1]
    return (own & (2 * around[:, 0] > around[:, 1])) | most
