"""A trained scene for other programs: a mesh, points, depth maps or cameras. `python -m nerf.export --run DIR --out FILE`.

Whatever is written is in the coordinates of the file that posed the photos: training centres and scales scenes, and that
is undone. Axes are that file's too, but for GLB, whose +y is up as glTF says: there the scene's vertical, as its cameras
show it, is turned to +y.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

from data.errors import SceneError
from data.films import VideoError
from data.images import image_size
from data.scene import read_capture
from data.transforms import Posed, write_transforms
from nerf.checkpoint import load_model, read_config
from nerf.cloud import cloud
from nerf.config import ConfigError
from nerf.depths import write_depth
from nerf.kernels import BackendError, choose, keep_memory
from nerf.meshes import MESHES, open3d, write_mesh, write_points
from nerf.model import SceneModel
from nerf.modes import sized
from nerf.moment import Moment
from nerf.paths import PathError
from nerf.rig import Photo, Rig
from nerf.sculpt import Crop, Recipe, World, sculpt
from nerf.surface import MeshError, marching_cubes

Format = Literal["mesh", "points", "depth", "cameras"]
Views = Literal["train", "held-out", "all"]

FINEST = 2048  # cells along a side


@dataclass(frozen=True)
class Options:
    """Take a trained scene to other programs: as a mesh, points, depth maps or cameras.

    A mesh with colours:          python -m nerf.export --run runs/lego --out lego.glb --resolution 512

    Of a moving scene's instant:  python -m nerf.export --run runs/selfie --time 0.3 --faces 100000 --out me.ply

    Points, depth maps, cameras:  ... --format points --out fox.ply, --format depth --out depth, --format cameras --out
    fox/transforms.json

    Coordinates and units are those of the file that posed the photos; GLB is turned so that +y is up.
    """

    run: Path
    """The run's folder, as python -m nerf.train made it."""
    out: Path
    """mesh: FILE.ply, FILE.obj or FILE.glb; points: FILE.ply; depth: a folder; cameras: FILE.json."""
    format: Format = "mesh"
    """mesh; points, spread over what photos see; depth, along the optical axis, 32-bit TIFF and PNG a view; cameras, refined
    where poses were, as transforms.json with the photos beside it."""
    time: float | None = None
    """Of a moving scene, the instant: 0 (first photo) to 1 (last). Default: 0.5, or the photo's; for depth, each view's own."""
    photo: str | None = None
    """A photo's name: its instant; for depth, its view alone."""
    canonical: bool = False
    """Of a moving scene, its undeformed shape instead of an instant's."""
    resolution: int = 256
    """mesh: cells, points: voxels, along the longest side of the box."""
    crop: Crop | None = None
    """mesh, points: only what lies in the box X0 Y0 Z0 X1 Y1 Z1. Default: the cube that the cameras look at."""
    threshold: float | None = None
    """mesh: density at the surface, 1 / unit. Default: that which lies nearest to where the photos' light ends."""
    faces: int | None = None
    """mesh: at most so many triangles. Default: all."""
    components: int | None = None
    """mesh: so many of the largest connected pieces. Default: all but specks."""
    closed: bool = False
    """mesh: a closed surface, with walls where the box ends, and behind what photos saw. Default: it ends there."""
    views: Views | None = None
    """depth: of which photos. Default: held-out ones, where there are any. points: from which. Default: train."""
    opacity: float = 0.5
    """depth, points: least share of a pixel that isn't background."""
    width: int | None = None
    """depth: of a map, in pixels. Default: as trained on."""
    scene: Path | None = None
    """cameras: the photos' folder, where it is no longer the one that the run was trained on."""
    backend: str = "auto"
    """Kernels: auto takes the fastest there is (python -m nerf.kernels lists them)."""


USED: dict[str, tuple[str, ...]] = {  # which options say something to which format
    "mesh": ("time", "photo", "canonical", "resolution", "crop", "threshold", "faces", "components", "closed"),
    "points": ("time", "photo", "canonical", "resolution", "crop", "views", "opacity"),
    "depth": ("time", "photo", "canonical", "views", "opacity", "width"),
    "cameras": ("scene",),
}
ENDINGS = {"mesh": MESHES, "points": (".ply",), "depth": ("",), "cameras": (".json",)}
ALWAYS = ("run", "out", "format", "backend")


def check(options: Options) -> None:
    """Raises MeshError where options contradict each other or make no sense, before anything is loaded."""
    kind, ending = options.format, options.out.suffix.lower()
    if ending not in ENDINGS[kind]:
        wanted = "a folder" if kind == "depth" else " or ".join(f"FILE{e}" for e in ENDINGS[kind])
        raise MeshError(f"--out: expected {wanted} for --format {kind}, found {options.out}")
    for field in fields(Options):
        given = field.name not in ALWAYS and getattr(options, field.name) != field.default
        if given and field.name not in USED[kind]:
            able = " or ".join(k for k, names in USED.items() if field.name in names)
            raise MeshError(f"--{field.name}: expected --format {able} with it, found --format {kind}")
    for name, low, high in (
        ("resolution", 2, FINEST), ("faces", 4, None), ("components", 1, None), ("width", 2, 16384),
        ("time", 0, 1), ("opacity", 0, 1),
    ):  # fmt: skip
        value = getattr(options, name)
        if value is not None and not (low <= value and (high is None or value <= high)):
            raise MeshError(
                f"--{name}: expected {f'at least {low}' if high is None else f'{low} to {high}'}, found {value}"
            )
    if options.canonical and (options.time is not None or options.photo is not None):
        raise MeshError("--canonical: expected no instant with it, found --time or --photo")


def instant(options: Options, model: SceneModel, rig: Rig) -> float | None:
    """The instant to take the scene at; None: the canonical scene."""
    if options.canonical:
        if model.warp is None:
            raise PathError(f"--canonical: expected a scene that moves, found one without a warp in {options.run}")
        return None
    if options.time is not None:
        return options.time
    return rig.photo(options.photo).time if options.photo is not None else 0.5


def bar(steps: Sequence[Any], name: str) -> Iterable[Any]:
    """A bar for each stage that takes time."""
    return tqdm(steps, desc=name, dynamic_ncols=True, leave=False)


def export_mesh(options: Options) -> str:
    """The mesh; returns what is to be said of it."""
    open3d(), marching_cubes()  # said now where they are missing, not after the work
    rig, (model, _) = Rig.load(options.run), load_model(options.run, options.backend)
    recipe = Recipe(
        options.resolution, options.threshold, options.faces, options.components, options.crop, options.closed
    )
    moment = Moment(model, instant(options, model, rig))
    made = sculpt(moment, rig, recipe, bar)
    write_mesh(options.out, made.mesh, made.normals, made.rgb, rig.up)
    low, high = made.mesh.vertices.min(0), made.mesh.vertices.max(0)
    size = np.linalg.norm(high - low)
    how = "given" if options.threshold is not None else "found"
    kept = "the largest" if options.components is not None else "all but specks"
    said = (
        f"{options.out}: {len(made.mesh.vertices)} vertices, {len(made.mesh.faces)} triangles, cells of {made.step:.3g}, "
        f"of {made.found} pieces {kept}; density {made.threshold:.4g} ({how}); from {_place(low)} to {_place(high)}"
    )
    if made.apart is None:
        return said
    chamfer, off, beyond = made.apart
    return said + (
        f"\nChamfer distance to where rays of {'held-out' if any(p.held_out for p in rig.photos) else 'the'} photos end: "
        f"{chamfer:.3g}, {100 * chamfer / size:.3f} % of the diagonal ({off:.3g} from rays to mesh, {beyond:.3g} back)"
    )


def _place(x: np.ndarray) -> str:
    """As --crop takes it."""
    return " ".join(f"{value:.4g}" for value in x)


def chosen(rig: Rig, views: Views) -> list[Photo]:
    """The photos asked for. Raises PathError where there are none."""
    found = [p for p in rig.photos if views == "all" or p.held_out == (views == "held-out")]
    if not found:
        raise PathError(
            "--views held-out: expected held-out photos, found none in this run; --views all takes the others"
        )
    return found


def export_points(options: Options) -> str:
    """The point cloud; returns what is to be said of it."""
    open3d()
    rig, (model, _) = Rig.load(options.run), load_model(options.run, options.backend)
    moment = Moment(model, instant(options, model, rig))
    photos = chosen(rig, options.views or "train")
    made = cloud(moment, rig, photos, options.resolution, options.crop, options.opacity, bar)
    write_points(options.out, made.points, made.normals, made.rgb)
    return f"{options.out}: {len(made.points)} points from {len(photos)} photos, {made.voxel:.3g} apart"


def export_depth(options: Options) -> str:
    """The depth maps; returns what is to be said of them."""
    rig, (model, _) = Rig.load(options.run), load_model(options.run, options.backend)
    if options.photo is not None:
        photos = [rig.photo(options.photo)]
    else:
        some = any(photo.held_out for photo in rig.photos)
        photos = chosen(rig, options.views or ("held-out" if some else "all"))
    fixed = None if options.time is None and not options.canonical else (instant(options, model, rig),)
    for photo in bar(photos, "views"):
        time = photo.time if fixed is None else fixed[0]
        camera = sized(photo.camera, options.width)
        write_depth(model, photo, camera, time, World(rig.transform).scale, options.opacity, options.out)
    return f"{options.out}: {len(photos)} depth maps (NAME.tiff, and NAME.png to look at), along the optical axis"


def export_cameras(options: Options) -> str:
    """The cameras; returns what is to be said of them."""
    rig, run = Rig.load(options.run), read_config(options.run).train
    place = Path(run.scene) if options.scene is None else options.scene
    if not place.expanduser().exists():
        raise ConfigError(
            f"{options.run}: expected its photos at {place}, found nothing; --scene DIR says where they are"
        )
    shots = {shot.name: shot for shot in read_capture(place).shots}
    lost = next((photo.name for photo in rig.photos if photo.name not in shots), None)
    if lost is not None:
        raise ConfigError(f"{place}: expected the run's photo {lost}, found none; --scene DIR says where they are")
    if options.out.exists() and options.out.resolve().is_relative_to(place.expanduser().resolve()):
        raise MeshError(f"{options.out}: expected a new file, since the photos' own poses may be in it, found one")
    world, listed = World(rig.transform), []
    for photo in rig.photos:
        shot = shots[photo.name]
        width, height = image_size(shot.image)
        pose = photo.camera.pose.double().clone()
        pose[:, 3] = torch.from_numpy(world.back(pose[:, 3].numpy()[None])[0])
        camera = photo.camera.scaled(width / photo.camera.width, width, height).with_pose(pose)
        listed.append(Posed(shot.image, camera, photo.held_out, photo.time if rig.moving else None, shot.mask))
    copied = write_transforms(options.out, listed)
    refined = ", poses as training refined them" if run.model.poses else ""
    return f"{options.out}: {len(listed)} cameras{refined}; {copied} photos and masks copied beside it"


MAKERS = {"mesh": export_mesh, "points": export_points, "depth": export_depth, "cameras": export_cameras}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    options: Any = tyro.cli(Options, args=arguments, prog="python -m nerf.export")
    keep_memory()
    try:
        check(options)
        print(choose(options.backend)[1])
        print(MAKERS[options.format](options))
    except (MeshError, PathError, VideoError, ConfigError, BackendError, SceneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {options.out} is not whole", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
