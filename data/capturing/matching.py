"""Features of photos, and which of them show the same: pycolmap's SIFT, matched in pairs that are worth it."""

from __future__ import annotations

import math
import shutil
from itertools import combinations

import numpy as np

from data.capturing.job import Job
from data.capturing.progress import bar

EVERY_PAIR = 60  # photos up to which a film's, too, are all matched with each other
IN_ORDER = 200  # photos above which a folder's are taken to be in order
NEIGHBOURS = (1, 2, 3, 4, 5, 6, 8, 12, 16)  # frames apart
LOOPS = 30  # frames of a film that are matched with each other, which closes its loops
BLOCK = 64  # pairs between two movements of the bar
FEW = 8  # photos between two movements of the bar
FOCAL = 0.8  # of the longer side: a phone's, where nothing is known
WIDE, NARROW = 0.35, 3.0  # of the longer side: focal lengths that are believed


def pairs_of(count: int, ordered: bool, every_pair: bool = False) -> list[tuple[int, int]]:
    """Pairs of photos to match, by number, the smaller first: all of a small set; of a film, neighbours in time and a
    coarser set of frames with each other."""
    if count <= (IN_ORDER if every_pair or not ordered else EVERY_PAIR):
        return list(combinations(range(count), 2))
    near = {(i, i + step) for step in NEIGHBOURS for i in range(count - step)}
    coarse = np.unique(np.linspace(0, count - 1, LOOPS * (2 if every_pair else 1)).round().astype(int)).tolist()
    return sorted(near | set(combinations(coarse, 2)))


def find_features(job: Job) -> None:
    """Find features of all photos; those of one lens share a camera, whose focal length is the file's or a guess."""
    pycolmap, config = job.pycolmap, job.config
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size, options.num_threads, options.use_gpu = config.longest, config.threads, False
    options.sift.max_num_features = config.features
    options.sift.peak_threshold *= job.attempt.peak
    progress = bar(None, "features", "photo", len(job.photos))
    for lens in sorted({p.lens for p in job.photos}):
        mine = [p for p in job.photos if p.lens == lens]
        first = mine[0]
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model, reader.default_focal_length_factor = "SIMPLE_RADIAL", FOCAL
        if first.focal:
            values = (first.focal, first.width / 2, first.height / 2, 0.0)
            reader.camera_params = ",".join(repr(float(v)) for v in values)
        if job.masks is not None:
            reader.mask_path = job.masks
        for start in range(0, len(mine), FEW):
            block = mine[start : start + FEW]
            pycolmap.extract_features(
                job.database,
                job.folder,
                image_names=[p.file.name for p in block],
                camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=reader,
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
            if start == 0:
                with job.open() as database:
                    reader.existing_camera_id = database.read_image_with_name(first.file.name).camera_id
            progress.update(len(block))
    progress.close()


def match(job: Job) -> None:
    """Match the pairs, and keep what agrees with one geometry of two views."""
    pycolmap = job.pycolmap
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads, matching.use_gpu = job.config.threads, False
    pairs, names = pairs_of(len(job.photos), job.ordered, job.attempt.every_pair), [p.file.name for p in job.photos]
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = job.work / "pairs.txt"
    with bar(None, "matches", "pair", len(pairs)) as progress:
        for start in range(0, len(pairs), BLOCK):
            block = pairs[start : start + BLOCK]
            (job.work / "pairs.txt").write_text("".join(f"{names[i]} {names[j]}\n" for i, j in block))
            pycolmap.match_image_pairs(
                job.database,
                matching_options=matching,
                pairing_options=pairing,
                verification_options=job.geometry(),
                device=pycolmap.Device.cpu,
            )
            progress.update(len(block))


def guess_focal(job: Job) -> None:
    """Focal lengths that no file names, from what all pairs of photos say together; mapping refines them. What no lens of a
    phone or camera has is not believed."""
    if all(p.focal for p in job.photos):
        return
    draft = job.database.with_suffix(
        ".focal.db"
    )  # calibration also rewrites the pairs' geometry, which is wanted as it is
    shutil.copyfile(job.database, draft)
    options = job.pycolmap.ViewGraphCalibrationOptions()
    options.random_seed, options.reestimate_relative_pose = job.config.seed, False
    try:
        good = job.pycolmap.calibrate_view_graph(draft, options)
    except (RuntimeError, ValueError):  # too few pairs say anything
        good = False
    if not good:
        return
    with job.pycolmap.Database.open(draft) as calibrated, job.open() as database:
        for camera in calibrated.read_all_cameras():
            share = camera.mean_focal_length() / max(camera.width, camera.height)
            if math.isfinite(share) and WIDE < share < NARROW:
                database.update_camera(camera)  # those that a file named it left alone


def verify(job: Job) -> None:
    """Find the geometry of every matched pair anew, after matches were taken out or focal lengths became known."""
    with job.open() as database:
        database.clear_two_view_geometries()
    options = job.pycolmap.GeometricVerifierOptions()
    options.num_threads = job.config.threads
    job.pycolmap.geometric_verification(job.database, options, two_view_geometry_options=job.geometry())


def counts(job: Job) -> tuple[dict[str, int], dict[str, int]]:
    """Features of each photo, by its name, and verified matches of each."""
    with job.open() as database:
        ids = {i.image_id: i.name for i in database.read_all_images()}
        features = {name: database.num_keypoints_for_image(key) for key, name in ids.items()}
        matches = dict.fromkeys(features, 0)
        for pair, number in zip(*database.read_two_view_geometry_num_inliers()):
            for key in job.pycolmap.pair_id_to_image_pair(pair):
                matches[ids[key]] += number
    names = {p.file.name: p.name for p in job.photos}
    return {names[k]: v for k, v in features.items()}, {names[k]: v for k, v in matches.items()}
