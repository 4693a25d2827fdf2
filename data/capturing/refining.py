"""A model's last adjustments: by what stands still, with as much of a lens as the photos tell.

A person at arm's length is near, and moves little from one frame to the next: much of them passes for background that stands
still, is given points, and bends the poses (of the selfie that ships, by a tenth of the way that the camera goes). Two things
tell these points. They last for a few frames only; and over longer, they fit worse than what really stands still, the more so
once the worst of them are gone. So they are dropped in turns with adjusting the rest.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from data.capturing.job import Job

LASTING = 4  # frames that a film's point must be seen in
TURNS, MISFIT = 3, 2.0  # times that points are dropped whose error is so many times the median point's
HOLD = 40  # points that every frame keeps, where it has them
ENOUGH = 8  # posed photos that a lens needs before more of it is refined than focal length and one coefficient
FOLDED = 0.5  # coefficients above it are no lens's, but too little known
PARALLAX = 0.25  # cameras that move by less of their distance to what they see say nothing of tangential distortion


def refine(job: Job, model: Any) -> Any:
    """Adjust a pycolmap Reconstruction to its points, for films without those that move; the lens becomes COLMAP's RADIAL or
    OPENCV where photos tell its coefficients."""
    model.update_point_3d_errors()
    if job.ordered:
        lasts = {key for key in model.point3D_ids() if model.point3D(key).track.length() >= LASTING}
        _keep(model, lasts)
        for _ in range(TURNS):
            _adjust(job, model, rough=True)
            errors = {key: model.point3D(key).error for key in model.point3D_ids()}
            if not errors:
                break
            limit = MISFIT * float(np.median(list(errors.values())))
            _keep(model, {key for key, error in errors.items() if error <= limit})
    _adjust(job, model)
    return _with_finer_lens(job, model)


def _with_finer_lens(job: Job, model: Any) -> Any:
    """The model with more coefficients; as it was where that isn't a lens that there can be, or the error doesn't fall."""
    keys = [model.image(key).camera_id for key in model.reg_image_ids()]
    if min(keys.count(key) for key in keys) < ENOUGH:
        return model
    finer = job.pycolmap.Reconstruction(model)
    tangential = _parallax(model) >= PARALLAX
    for key in set(keys):
        camera = finer.camera(key)
        f, cx, cy, k = camera.params
        kind = job.pycolmap.CameraModelId
        camera.model = kind.OPENCV if tangential else kind.RADIAL
        camera.params = [f, f, cx, cy, k, 0.0, 0.0, 0.0] if tangential else [f, cx, cy, k, 0.0]
    _adjust(job, finer)
    lenses = [np.asarray(finer.camera(key).params) for key in keys]
    possible = all(np.isfinite(p).all() and (np.abs(p[-4 if tangential else -2 :]) < FOLDED).all() for p in lenses)
    if tangential:
        possible = possible and all(0.9 < p[0] / p[1] < 1.1 for p in lenses)
    better = finer.compute_mean_reprojection_error() <= model.compute_mean_reprojection_error()
    return finer if possible and better else model


def _keep(model: Any, wanted: Collection[int]) -> None:
    """Delete all other points, but for those of photos that hardly have any wanted ones."""
    held: dict[int, int] = dict.fromkeys(model.reg_image_ids(), 0)
    tracks = {key: [e.image_id for e in model.point3D(key).track.elements] for key in model.point3D_ids()}
    for key in wanted:
        for image in tracks[key]:
            held[image] += 1
    for key in tracks.keys() - set(wanted):
        if all(held[image] >= HOLD for image in tracks[key]):
            model.delete_point3D(key)


def _adjust(job: Job, model: Any, rough: bool = False) -> None:
    """Bundle adjustment of all of a model, in place, by a loss that grows slowly with what is wrong."""
    pycolmap = job.pycolmap
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.solver_options.num_threads = job.config.threads
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    if rough:
        options.ceres.solver_options.max_num_iterations = 25
    wanted = pycolmap.BundleAdjustmentConfig()
    for key in model.reg_image_ids():
        wanted.add_image(key)
    wanted.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_ceres_bundle_adjuster(options, wanted, model).solve()
    model.update_point_3d_errors()


def _parallax(model: Any) -> float:
    """How far the cameras are spread, as a share of their median distance to the points."""
    centres = {key: model.image(key).projection_center() for key in model.reg_image_ids()}
    places = np.stack(list(centres.values()))
    spread = 2 * np.sqrt(((places - places.mean(0)) ** 2).sum(1).mean())
    points = [model.point3D(key) for key in model.point3D_ids()]
    reach = [np.linalg.norm(p.xyz - centres[e.image_id]) for p in points for e in p.track.elements[:4]]
    return float(spread / np.median(reach)) if reach else 0.0
