"""Posed photos in one form, whatever the folder's format.

    scene = load_scene("data/selfie", downscale=2)
    print(scene.summary())

`python -m data.scene PATH --plot out.png` draws the cameras, the box and the points, so that a bad capture is seen
before it is trained on.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from data.bounds import find_bounds, find_up, focus, move_poses
from data.camera import Camera
from data.checks import check_bounds, check_rays, moved_points, warn_of_little
from data.errors import SceneError, mismatch
from data.formats import find_reader
from data.images import area_average, composite, image_size, plain_background, read_mask, read_pixels, to_uint8
from data.motion import SurfaceMotion, read_motion
from data.shots import Capture, Shot, fit_lens, read_covisible

_WHITE = (1.0, 1.0, 1.0)
LARGE = 1 << 25  # pixels of a photo that is decoded by itself: eight at once might be more than the memory holds
_ONE_LARGE = threading.Lock()


@dataclass
class Frame:
    """One photo. `mask` is 255 on the subject, 0 elsewhere: the file's alpha, or a mask file; None: no mask.
    `covisible` is 255 where enough training photos see what a held-out one shows (Gao et al. 2022, section 4), 0
    elsewhere; None: the files don't say.

    Ids index tables of latent codes and are dense over the training photos; a held-out photo has the ids of a training
    photo of the same instant, else of the nearest one. `time` in [0, 1] is the photo's place in the capture, over
    all photos.
    """

    name: str
    camera: Camera
    image: UInt8[Tensor, "h w 3"]
    mask: UInt8[Tensor, "h w"] | None
    warp_id: int
    appearance_id: int
    camera_id: int
    time: float
    covisible: UInt8[Tensor, "h w"] | None = None


@dataclass
class Scene:
    """A loaded capture, in scene units (NOTE [Conventions] in data/camera.py; rules for units in data/bounds.py).

    box              what the fields model, (min, max)
    near, far        the range of distances along rays
    bounded          all that is visible lies in the box, before the background colour or `far`; False: photos
                     whose background goes on beyond the box
    points           points of the static background
    background       colour behind everything: photos with alpha are composited on it, others show it all along their edges;
                     None: photos fill the frame
    moving           photos show different instants of something that moves
    up               mean of the cameras' y axes, unit length
    transform        takes the file's world to the scene's
    interpolate_test held-out photos' latent codes are to be interpolated by `time` from the training photos next to
                     them; False: they share a training photo's ids
    masks_are_alpha  masks are the alpha of cut-out photos
    motion           how surfaces really moved, where the files say: for measuring
    """

    path: Path
    format: str
    train: list[Frame]
    test: list[Frame]
    box: Float[Tensor, "2 3"]
    near: float
    far: float
    bounded: bool
    points: Float[Tensor, "n 3"] | None
    background: tuple[float, float, float] | None
    moving: bool
    up: Float[Tensor, "3"]
    transform: Float[Tensor, "4 4"]
    interpolate_test: bool
    masks_are_alpha: bool
    motion: SurfaceMotion | None = None

    def summary(self) -> str:
        """One line: format, images, resolution, memory, split, and what the trainer makes of it."""
        frames = self.train + self.test
        sizes = sorted({(f.camera.width, f.camera.height) for f in frames})
        size = f"{sizes[0][0]}x{sizes[0][1]}"
        size += f" to {sizes[-1][0]}x{sizes[-1][1]}" if len(sizes) > 1 else ""
        used = sum(p.numel() for f in frames for p in (f.image, f.mask, f.covisible) if p is not None)
        kind = ("moving" if self.moving else "static") + (", on a plain colour" if self.background else "")
        points = "" if self.points is None else f", {len(self.points)} points"
        return (
            f"{self.path.name} ({self.format}, {kind}): {len(frames)} photos of {size}, {used / 1e6:.1f} MB; "
            f"{len(self.train)} to train on, {len(self.test)} held out; "
            f"near {self.near:.3g}, far {self.far:.3g}{points}"
        )


def load_scene(path: str | Path, downscale: int = 1, split_every: int = 8) -> Scene:
    """Load a folder of posed photos: Blender, instant-ngp, nerfstudio, Nerfies, NR-NeRF, LLFF, COLMAP,
    Polycam or Record3D.

    `downscale` divides the photos' width and height (by area averages; intrinsics follow). Where the files name no
    split, every `split_every`-th photo is held out, from the first; 0 holds out none. Raises SceneError, whose message
    is one sentence naming file, field, expected and found, as soon as something is amiss.
    """
    return _assemble(read_capture(path, downscale, split_every), downscale)


def read_capture(path: str | Path, downscale: int = 1, split_every: int = 8) -> Capture:
    """What the folder's files say of its photos, in the files' own units, with nothing decoded yet. Arguments and errors
    are those of `load_scene`."""
    path = Path(path).expanduser()
    if path.is_file() and path.suffix in (".json", ".npy"):
        path = path.parent  # people point at the transforms.json itself
    if not path.is_dir():
        raise mismatch(path, "scene", "a folder", "a file" if path.exists() else "nothing")
    if downscale < 1:
        raise mismatch(path, "downscale", "a whole number from 1", downscale)
    capture = find_reader(path)(path, downscale, split_every)
    if all(s.test for s in capture.shots):
        raise mismatch(capture.source, "training split", "at least one photo", f"none of {len(capture.shots)}")
    return capture


def _assemble(capture: Capture, downscale: int) -> Scene:
    """Decode, normalise, number the ids."""
    shots = capture.shots
    photos = _load_all(shots, capture.source, downscale)
    masks_are_alpha = any(p.cut_out for p in photos)
    background = _WHITE if masks_are_alpha else _plain_background(shots, photos)
    found = find_bounds(capture, background is not None)
    check_bounds(found, capture.source)
    poses = torch.from_numpy(move_poses(np.stack([s.pose for s in shots]), found.transform)).float()
    times = _times(shots)
    ids = _dense_ids(shots, times)
    frames = []
    for i, (shot, photo) in enumerate(zip(shots, photos)):
        mask = photo.mask
        if masks_are_alpha and mask is None:
            mask = torch.full(photo.image.shape[:2], 255, dtype=torch.uint8)
        camera = photo.lens.with_pose(poses[i])
        frames.append(Frame(shot.name, camera, photo.image, mask, *ids[i], times[i], photo.covisible))
    points = None if capture.points is None else moved_points(capture.points, found.transform, capture.source)
    training = [i for i, s in enumerate(shots) if not s.test]
    warn_of_little(
        [photos[i].image for i in training], np.stack([shots[i].pose[:, 3] for i in training]), capture.source
    )
    check_rays([f.name for f in frames], [f.camera for f in frames], capture.source)
    trained = {s.warp_id if s.warp_id is not None else t for s, t in zip(shots, times) if not s.test}
    held_out = {s.warp_id if s.warp_id is not None else t for s, t in zip(shots, times) if s.test}
    return Scene(
        path=capture.path,
        format=capture.format,
        train=[f for f, s in zip(frames, shots) if not s.test],
        test=[f for f, s in zip(frames, shots) if s.test],
        box=torch.from_numpy(found.box).float(),
        near=found.near,
        far=found.far,
        bounded=found.bounded or background is not None,
        points=points,
        background=background,
        moving=capture.moving,
        up=find_up(poses),
        transform=torch.from_numpy(found.transform).float(),
        interpolate_test=capture.moving and not held_out <= trained,
        masks_are_alpha=masks_are_alpha,
        motion=read_motion(capture.path, [s for s in shots if not s.test], found.transform),
    )


def _plain_background(shots: Sequence[Shot], photos: Sequence[_Photo]) -> tuple[float, float, float] | None:
    """The colour in [0, 1] behind an object that photos without alpha show whole, looking inward at it; else None."""
    trained = [(s, p) for s, p in zip(shots, photos) if not s.test]
    if any(p.mask is not None for p in photos) or focus(np.stack([s.pose for s, _ in trained])) is None:
        return None
    found = plain_background([p.image.numpy() for _, p in trained])
    return None if found is None else (found[0] / 255, found[1] / 255, found[2] / 255)


def _times(shots: Sequence[Shot]) -> list[float]:
    """Each photo's place in the capture: its time, else its warp id (where they differ), else its order; in [0, 1]."""
    warps = len({s.warp_id for s in shots}) > 1
    order = {id(s): i for i, s in enumerate(sorted(shots, key=lambda s: s.name))} if _one_folder(shots) else {}
    raw = []
    for i, s in enumerate(shots):
        raw.append(
            s.time if s.time is not None else s.warp_id if warps and s.warp_id is not None else order.get(id(s), i)
        )
    low, high = min(raw), max(raw)
    return [(float(v) - low) / (high - low) if high > low else 0.0 for v in raw]


def _one_folder(shots: Sequence[Shot]) -> bool:
    return len({s.image.parent for s in shots}) == 1


def _dense_ids(shots: Sequence[Shot], times: list[float]) -> list[tuple[int, int, int]]:
    """Warp, appearance and camera ids of all photos, numbered from 0 without gaps over the training photos."""
    moments = sorted(set(times))
    raw = []
    for s, t in zip(shots, times):
        place = moments.index(t) if s.warp_id is None else s.warp_id
        raw.append((place, place if s.appearance_id is None else s.appearance_id, s.camera_id))
    train = [i for i, s in enumerate(shots) if not s.test]
    tables = [{v: k for k, v in enumerate(sorted({raw[i][j] for i in train}))} for j in range(3)]
    result = []
    for r, t in zip(raw, times):
        stand_in = raw[min(train, key=lambda i: abs(times[i] - t))]
        warp, look, lens = (table.get(v, table[w]) for table, v, w in zip(tables, r, stand_in))
        result.append((warp, look, lens))
    return result


@dataclass
class _Photo:
    image: Tensor
    mask: Tensor | None
    cut_out: bool  # the mask is the file's alpha
    lens: Camera
    covisible: Tensor | None


def _load_all(shots: Sequence[Shot], source: Path, downscale: int) -> list[_Photo]:
    """Decode in threads; a bar appears where that takes more than two seconds."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(_load, s, source, downscale) for s in shots]
        try:
            bar = tqdm(jobs, desc="photos", unit="photo", delay=2, leave=False, disable=not sys.stderr.isatty())
            return [job.result() for job in bar]
        except BaseException:
            for job in jobs:
                job.cancel()
            raise


def _load(shot: Shot, source: Path, downscale: int) -> _Photo:
    width, height = image_size(shot.image)
    with _ONE_LARGE if width * height > LARGE else nullcontext():
        return _decode(shot, source, downscale)


def _decode(shot: Shot, source: Path, downscale: int) -> _Photo:
    rgb, opacity = read_pixels(shot.image, (shot.lens.width, shot.lens.height))
    size = rgb.shape[1], rgb.shape[0]
    lens = fit_lens(shot.lens, size, shot.image, source)
    left = max(1.0, downscale / shot.reduced)
    width, height = (max(1, round(s / left)) for s in size)
    transparent = opacity is not None and bool((opacity < 255).any())
    cut_out = transparent and not shot.alpha_masks
    image = to_uint8(area_average(composite(rgb, opacity if cut_out else None, 1.0), width, height))
    mask = opacity if cut_out else None
    if mask is None and shot.mask is not None:
        mask = read_mask(shot.mask)
        if mask.shape != rgb.shape[:2]:
            raise mismatch(shot.mask, "size", f"{size[0]}x{size[1]} as the photo", f"{mask.shape[1]}x{mask.shape[0]}")
    elif transparent and shot.alpha_masks:
        mask = opacity
    return _Photo(
        image=torch.from_numpy(image),
        mask=_fitted(mask, width, height),
        cut_out=cut_out,
        lens=lens.scaled(1 / left, width, height),
        covisible=_fitted(read_covisible(shot, size), width, height),
    )


def _fitted(mask: np.ndarray | None, width: int, height: int) -> Tensor | None:
    return None if mask is None else torch.from_numpy(to_uint8(area_average(mask[..., None], width, height))[..., 0])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code: 0, or 2 for a scene that can't be read."""
    parser = argparse.ArgumentParser(
        prog="python -m data.scene", description="Check a folder of posed photos, and draw where they were taken."
    )
    parser.add_argument("path", help="a folder of posed photos, of any format that nerf.train reads")
    parser.add_argument("--downscale", type=int, default=1, metavar="K", help="divide width and height by K")
    parser.add_argument("--plot", metavar="FILE", help="write cameras, box and points as a picture (png, pdf, svg)")
    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            scene = load_scene(options.path, options.downscale)
        for warning in caught:
            print(f"warning: {warning.message}", file=sys.stderr)
        print(scene.summary())
        if options.plot:
            from data.plot import plot_scene  # matplotlib takes a second to import

            plot_scene(scene, Path(options.plot))
            print(f"wrote {options.plot}")
    except SceneError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
