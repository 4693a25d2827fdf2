"""From matches to poses: pycolmap's incremental mapping, and the largest model of those that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.capturing.job import Job
from data.capturing.progress import bar
from data.capturing.refining import refine


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
    return refine(job, model)


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
