"""Posed photos in one form, whatever the folder's format.

    scene = load_scene("data/selfie", downscale=2)
    print(scene.summary())

`python -m data.scene PATH --plot out.png` draws the cameras, the box and the points, so that a bad capture is seen
before it is trained on.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data.bounds import find_bounds, find_up, focus, move_poses
from data.camera import Camera
from data.checks import check_bounds, check_rays, moved_points, warn_of_little
from data.errors import SceneError, mismatch
from data.formats import find_reader
from data.images import plain_background
from data.motion import SurfaceMotion, read_motion
from data.photos import Loaded, Photo, PhotoOnDisk, load_photos, plan
from data.shots import Capture, Shot
from data.sizes import bytes_of, said

_WHITE = (1.0, 1.0, 1.0)


@dataclass
class Frame:
    """One photo, in memory, or on the disk and decoded whenever it is looked at.

    Ids index tables of latent codes and are dense over the training photos; a held-out photo has the ids of a training
    photo of the same instant, else of the nearest one. `time` in [0, 1] is the photo's place in the capture, over
    all photos.
    """

    name: str
    camera: Camera
    photo: Photo | PhotoOnDisk
    warp_id: int
    appearance_id: int
    camera_id: int
    time: float

    @property
    def image(self) -> UInt8[Tensor, "h w 3"]:
        """Its colours."""
        return self.photo.image

    @property
    def mask(self) -> UInt8[Tensor, "h w"] | None:
        """255 on the subject, 0 elsewhere: the file's alpha, or a mask file; None: no mask."""
        return self.photo.mask

    @property
    def covisible(self) -> UInt8[Tensor, "h w"] | None:
        """255 where enough training photos see what a held-out one shows (Gao et al. 2022, section 4), 0 elsewhere;
        None: the files don't say."""
        return self.photo.covisible


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
        kind = ("moving" if self.moving else "static") + (", on a plain colour" if self.background else "")
        points = "" if self.points is None else f", {len(self.points)} points"
        return (
            f"{self.path.name} ({self.format}, {kind}): {len(frames)} photos of {size}, {_held(frames)}; "
            f"{len(self.train)} to train on, {len(self.test)} held out; "
            f"near {self.near:.3g}, far {self.far:.3g}{points}"
        )


def _held(frames: Sequence[Frame]) -> str:
    """What the photos take in memory, in words."""
    inside, outside, drawn = 0, 0, 0.0
    for frame in frames:
        if isinstance(frame.photo, PhotoOnDisk):
            pixels = frame.camera.width * frame.camera.height
            outside, drawn = outside + 3 * pixels, drawn + frame.photo.share * pixels
        else:
            parts = frame.image, frame.mask, frame.covisible
            inside += sum(part.numel() for part in parts if part is not None)
    return f"{said(outside)} on the disk, {drawn / 1e6:.1f} M pixels at a time in memory" if outside else said(inside)


def load_scene(path: str | Path, downscale: int = 1, split_every: int = 8, memory: int | None = None) -> Scene:
    """Load a folder of posed photos: Blender, instant-ngp, nerfstudio, Nerfies, NR-NeRF, LLFF, COLMAP,
    Polycam or Record3D.

    `downscale` divides the photos' width and height (by area averages; intrinsics follow). Where the files name no
    split, every `split_every`-th photo is held out, from the first; 0 holds out none. `memory` is how many bytes the photos
    may take; those of a larger scene stay on the disk, and training draws from some pixels of each (data/photos.py).
    None: half of what the machine has to spare. Raises SceneError, whose message is one sentence naming file, field, expected and
    found, as soon as something is amiss.
    """
    return _assemble(read_capture(path, downscale, split_every), downscale, memory)


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


def _assemble(capture: Capture, downscale: int, memory: int | None) -> Scene:
    """Decode, normalise, number the ids."""
    shots = capture.shots
    photos = load_photos(shots, capture.source, downscale, plan(shots, capture.source, downscale, memory))
    masks_are_alpha = any(p.photo.cut_out for p in photos)
    background = _WHITE if masks_are_alpha else _plain_background(shots, photos)
    found = find_bounds(capture, background is not None)
    check_bounds(found, capture.source)
    poses = torch.from_numpy(move_poses(np.stack([s.pose for s in shots]), found.transform)).float()
    times = _times(shots)
    ids = _dense_ids(shots, times)
    frames = [
        Frame(shot.name, found.lens.with_pose(poses[i]), found.photo, *ids[i], times[i])
        for i, (shot, found) in enumerate(zip(shots, photos))
    ]
    points = None if capture.points is None else moved_points(capture.points, found.transform, capture.source)
    training = [i for i, s in enumerate(shots) if not s.test]
    warn_of_little(
        [photos[i].span for i in training], np.stack([shots[i].pose[:, 3] for i in training]), capture.source
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


def _plain_background(shots: Sequence[Shot], photos: Sequence[Loaded]) -> tuple[float, float, float] | None:
    """The colour in [0, 1] behind an object that photos without alpha show whole, looking inward at it; else None."""
    trained = [(s, p) for s, p in zip(shots, photos) if not s.test]
    if any(p.photo.masked for p in photos) or focus(np.stack([s.pose for s, _ in trained])) is None:
        return None
    found = plain_background([p.border for _, p in trained])
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code: 0, or 2 for a scene that can't be read."""
    parser = argparse.ArgumentParser(
        prog="python -m data.scene", description="Check a folder of posed photos, and draw where they were taken."
    )
    parser.add_argument("path", help="a folder of posed photos, of any format that nerf.train reads")
    parser.add_argument("--downscale", type=int, default=1, metavar="K", help="divide width and height by K")
    parser.add_argument("--memory", metavar="SIZE", help="what photos may take in memory: 500MB, 2GB")
    parser.add_argument("--plot", metavar="FILE", help="write cameras, box and points as a picture (png, pdf, svg)")
    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            scene = load_scene(options.path, options.downscale, memory=bytes_of(options.memory))
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
