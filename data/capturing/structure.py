"""Where photos were taken from: features, matches and mapping, tried again with relaxed thresholds until enough are posed.

    solution = solve(folder, photos, work, ordered=True)

What moves against the dominant epipolar geometry of a film is left out, so that poses come from the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.camera import Camera
from data.capturing.job import ATTEMPTS, Attempt, Job, SolveConfig, pycolmap_or_sentence
from data.capturing.mapping import map_photos
from data.capturing.matching import counts, find_features, guess_focal, match, verify
from data.capturing.moving import Evidence, find_moving, forget
from data.capturing.photos import Photo
from data.shots import plain_lens

_MODELS = {
    "SIMPLE_RADIAL": 1,
    "RADIAL": 1,
    "OPENCV": 2,
}  # how many focal lengths come first; then cx cy and our own coefficients


@dataclass
class Solution:
    """What was solved, in units of the reconstruction's own.

    poses         camera-to-world "3 4" float64 in our axes, by the photo's name; a photo without is not posed
    lenses        by the photo's lens, at the photos' size
    points        "n 3"
    errors        "n", px: each point's mean reprojection error
    lengths       "n": photos that saw it
    sightings     "m 2": (photo's place in the list that was given, point)
    reprojection  px, mean over all sightings
    features, matches  of each photo, by its name: found, and verified
    evidence      what moved against the rest
    attempt       what did it
    """

    poses: dict[str, np.ndarray]
    lenses: dict[int, Camera]
    points: np.ndarray
    errors: np.ndarray
    lengths: np.ndarray
    sightings: np.ndarray
    reprojection: float
    features: dict[str, int] = field(default_factory=dict)
    matches: dict[str, int] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
    attempt: str = ""


def solve(
    folder: Path,
    photos: Sequence[Photo],
    work: Path,
    ordered: bool,
    masks: Path | None = None,
    config: SolveConfig | None = None,
    attempts: Sequence[Attempt] = ATTEMPTS,
) -> Solution:
    """Pose the photos that lie in `folder`; without any poses where no two of them come together.

    Args:
        work: a folder for files on the way.
        ordered: photos are in order of time, and neighbours show nearly the same.
        masks: a folder of pictures `<photo's file>.png`, black where features are to be left out.
    """
    config, pycolmap = config or SolveConfig(), pycolmap_or_sentence()
    best, base, evidence = _nothing(), Path(), Evidence()
    for number, attempt in enumerate(attempts):
        fresh = number == 0 or (attempt.peak, attempt.every_pair) != (
            attempts[number - 1].peak,
            attempts[number - 1].every_pair,
        )
        base = work / f"attempt{number}.db" if fresh else base
        job = Job(pycolmap, base, folder, photos, work, ordered, masks, attempt, config)
        if fresh:
            pycolmap.set_random_seed(config.seed)
            find_features(job)
            match(job)
            guess_focal(job)
            evidence = _look_for_motion(job) if ordered and masks is None else Evidence()
        model = map_photos(job)
        found = _nothing() if model is None else _read(job, model)
        if len(found.poses) >= len(best.poses):
            best = found
            best.features, best.matches = counts(job)
            best.evidence, best.attempt = evidence, attempt.name
        if len(best.poses) >= config.enough * len(photos):
            break
    return best


def _look_for_motion(job: Job) -> Evidence:
    """What moves in a film, taken out of its matches."""
    verify(job)  # with a focal length, geometry is stricter
    evidence = find_moving(job)
    if evidence.moves:
        forget(job, evidence)
        verify(job)
    return evidence


def _nothing() -> Solution:
    empty = np.zeros(0)
    return Solution({}, {}, np.zeros((0, 3)), empty, empty, np.zeros((0, 2), int), float("nan"))


def _read(job: Job, model: Any) -> Solution:
    """A pycolmap Reconstruction in our terms."""
    places = {p.file.name: i for i, p in enumerate(job.photos)}
    poses, lenses = {}, {}
    for key in model.reg_image_ids():
        image = model.image(key)
        photo = job.photos[places[image.name]]
        poses[photo.name] = _pose(image.cam_from_world().matrix())
        lenses[photo.lens] = _lens(model.camera(image.camera_id))
    keys = sorted(model.point3D_ids())
    points = [model.point3D(key) for key in keys]
    seen = [(places[model.image(e.image_id).name], i) for i, p in enumerate(points) for e in p.track.elements]
    return Solution(
        poses,
        lenses,
        points=np.array([p.xyz for p in points]).reshape(-1, 3),
        errors=np.array([p.error for p in points]),
        lengths=np.array([p.track.length() for p in points]),
        sightings=np.array(seen, dtype=int).reshape(-1, 2),
        reprojection=float(model.compute_mean_reprojection_error()),
    )


def _pose(to_camera: np.ndarray) -> np.ndarray:
    """Camera-to-world in our axes, from world-to-camera "3 4" in OpenCV's."""
    rotation, shift = to_camera[:, :3], to_camera[:, 3]
    return np.concatenate((rotation.T * np.array([1.0, -1.0, -1.0]), (-rotation.T @ shift)[:, None]), 1)


def _lens(camera: Any) -> Camera:
    values = np.asarray(camera.params, dtype=float)
    focals = _MODELS[camera.model.name]
    cx, cy, *lens = values[focals:]
    return plain_lens(camera.width, camera.height, values[0], values[focals - 1], cx, cy, distortion=tuple(lens))
