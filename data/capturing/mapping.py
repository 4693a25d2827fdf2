"""From matches to poses: pycolmap's incremental mapping, the largest model, its lens refined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data.capturing.job import Job, bar

REFINED = 8  # posed photos a lens needs before more of it is refined than focal length and one coefficient
LASTING, HOLD = 4, 40  # frames that a film's point must be seen in, and such points a frame, where it has them
FOLDED = 0.5  # tangential and radial coefficients above this are no lens's, but too little known


def map_photos(job: Job) -> Any | None:
    """The largest model that comes of the matches, as pycolmap's Reconstruction; None: no two photos came together."""
    out = Path(job.work) / f"model-{job.database.stem}-{job.attempt.relax:g}"
    out.mkdir()
    with bar(None, f"poses, {job.attempt.name}", "photo", len(job.photos)) as progress:

        def another() -> None:
            # Of several models, each begins anew; the bar shows the photos taken in so far, and never more than there are.
            progress.update(min(1, len(job.photos) - progress.n))

        models = job.pycolmap.incremental_mapping(
            job.database, job.folder, out, options=_options(job), next_image_callback=another
        )
    if not models:
        return None
    model = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()))
    return _refine(job, model)


def _options(job: Job) -> Any:
    relax, config = job.attempt.relax, job.config
    options = job.pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.extract_colors = config.threads, config.seed, False
    options.min_model_size = min(10, max(3, len(job.photos) // 4))
    options.ba_global_function_tolerance = 1e-6
    mapper = options.mapper
    mapper.num_threads, mapper.random_seed = config.threads, config.seed
    options.triangulation.random_seed = config.seed
    mapper.init_min_num_inliers = round(mapper.init_min_num_inliers * relax)
    mapper.init_min_tri_angle *= relax
    mapper.abs_pose_min_num_inliers = round(mapper.abs_pose_min_num_inliers * relax)
    mapper.abs_pose_min_inlier_ratio *= relax
    mapper.filter_min_tri_angle *= relax
    options.triangulation.min_angle *= relax
    options.min_num_matches = max(8, round(options.min_num_matches * relax))
    return options


def _refine(job: Job, model: Any) -> Any:
    """One more bundle adjustment, of what lasts, with OpenCV's lens of two radial and two tangential coefficients.

    In a film, what moves is seen at one place for a few frames only: its points, which bend the poses of those frames, are
    left out where enough others hold them. The lens stays as it was where the finer one isn't one that there can be.
    """
    if job.ordered:
        _drop_passing(job, model)
    model.update_point_3d_errors()
    finer = job.pycolmap.Reconstruction(model)
    keys = [model.image(key).camera_id for key in model.reg_image_ids()]
    if min(keys.count(key) for key in keys) < REFINED:
        return _adjust(job, model)
    for key in set(keys):
        camera = finer.camera(key)
        f, cx, cy, k = camera.params
        camera.model = job.pycolmap.CameraModelId.OPENCV
        camera.params = [f, f, cx, cy, k, 0.0, 0.0, 0.0]
    _adjust(job, finer)
    lenses = [np.asarray(finer.camera(key).params) for key in keys]
    possible = all(np.isfinite(p).all() and (np.abs(p[4:]) < FOLDED).all() and 0.9 < p[0] / p[1] < 1.1 for p in lenses)
    better = finer.compute_mean_reprojection_error() <= model.compute_mean_reprojection_error()
    return finer if possible and better else _adjust(job, model)


def _drop_passing(job: Job, model: Any) -> None:
    """Delete the points that are seen for a few frames only, but for those of photos that hardly have others."""
    held: dict[int, int] = dict.fromkeys(model.reg_image_ids(), 0)
    tracks = {key: [e.image_id for e in model.point3D(key).track.elements] for key in model.point3D_ids()}
    for images in tracks.values():
        if len(images) >= LASTING:
            for image in images:
                held[image] += 1
    for key, images in tracks.items():
        if len(images) < LASTING and all(held[image] >= HOLD for image in images):
            model.delete_point3D(key)


def _adjust(job: Job, model: Any) -> Any:
    """Bundle adjustment of all of a model, in place, by a loss that grows slowly with what is wrong."""
    pycolmap = job.pycolmap
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.solver_options.num_threads = job.config.threads
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    wanted = pycolmap.BundleAdjustmentConfig()
    for key in model.reg_image_ids():
        wanted.add_image(key)
    wanted.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_ceres_bundle_adjuster(options, wanted, model).solve()
    model.update_point_3d_errors()
    return model
