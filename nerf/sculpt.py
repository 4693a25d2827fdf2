"""From a trained scene to a mesh with normals and colours, in the coordinates of the photos' own poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data.camera import Camera
from nerf.agreement import Agreement, Cast, agreement
from nerf.level import find_threshold
from nerf.meshes import decimate, largest, vertex_normals
from nerf.moment import Moment, Wrap, ends_of, inside, quiet
from nerf.paint import colors, normals
from nerf.rig import Rig
from nerf.sights import Sights
from nerf.surface import Lattice, Mesh, MeshError, extract

Crop = tuple[float, float, float, float, float, float]

PROBES = 1 << 13  # rays from which the threshold is found
RENDERED, SLOW = 1 << 17, 1 << 15  # rays that a mesh is compared with; where rays take their time


class World:
    """The photos' own coordinates: those of the file that posed them, before the scene was centred and scaled.

    Args:
        transform: takes the file's world to the scene's; a similarity without rotation.
    """

    def __init__(self, transform: Float[np.ndarray, "4 4"]) -> None:
        self.scale, self.shift = float(np.cbrt(np.linalg.det(transform[:3, :3]))), transform[:3, 3]

    def into(self, x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """From the file's units to the scene's."""
        return x * self.scale + self.shift

    def back(self, x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """From the scene's units to the file's."""
        return (x - self.shift) / self.scale


def region(moment: Moment, world: World, crop: Crop | None) -> tuple[Tensor, Tensor]:
    """Low and high corner of the box to look in, scene units: the cube that the cameras look at, or the `crop`.

    The crop is in the file's units. Where the scene ends at its cube, so does the crop; in photographs that go on beyond
    it, a crop may too.
    """
    space = moment.space
    low = torch.tensor(space.center) - space.half
    high = low + 2 * space.half
    if crop is None:
        return low, high
    if not (np.isfinite(crop).all() and all(a < b for a, b in zip(crop[:3], crop[3:]))):
        raise MeshError(
            f"--crop: expected X0 Y0 Z0 X1 Y1 Z1 with X0 < X1 and so on, found {' '.join(f'{c:g}' for c in crop)}"
        )
    first, last = (torch.from_numpy(part).float() for part in world.into(np.array(crop).reshape(2, 3)))
    if not space.contract:
        first, last = torch.maximum(first, low), torch.minimum(last, high)
    if not (first < last).all():
        box = world.back(torch.stack([low, high]).double().numpy()).ravel()
        found = " ".join(f"{c:g}" for c in crop)
        raise MeshError(
            f"--crop: expected a box that meets the scene's, {' '.join(f'{c:.4g}' for c in box)}, found {found}"
        )
    return first, last


def rays_of(cameras: Sequence[Camera], count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rays through about `count` random places of cameras' pictures, the same number for each."""
    generator = torch.Generator().manual_seed(seed)
    each = max(1, count // len(cameras))
    rays = []
    for camera in cameras:
        size = torch.tensor([camera.width, camera.height])
        rays.append(camera.rays(torch.rand(each, 2, generator=generator) * size))
    origins, directions = (torch.cat(part) for part in zip(*rays))
    return origins, directions


@dataclass(frozen=True)
class Recipe:
    """How a mesh is made.

    Attributes:
        resolution: cells along the longest side of the box.
        threshold: density at the surface, 1 / unit of the file; None: found, see `find_threshold`.
        faces: at most so many triangles; None: all.
        pieces: so many of the largest connected pieces; None: all but specks.
        crop: X0 Y0 Z0 X1 Y1 Z1 in the file's units; None: the whole cube.
        closed: no edges: walls where the box or what photos saw ends.
    """

    resolution: int = 256
    threshold: float | None = None
    faces: int | None = None
    pieces: int | None = None
    crop: Crop | None = None
    closed: bool = False


class Sculpture(NamedTuple):
    """A mesh in the file's coordinates, and what is to be said of it.

    Args:
        threshold: in 1 / unit of the file.
        step: of the lattice, the file's units.
        found: how many pieces there were.
        apart: from where rays end that other cameras see; None: no such ray ends in the box.
    """

    mesh: Mesh
    normals: Float[np.ndarray, "v 3"]
    rgb: Float[np.ndarray, "v 3"]
    threshold: float
    step: float
    found: int
    apart: Agreement | None


def sculpt(moment: Moment, rig: Rig, recipe: Recipe, progress: Wrap = quiet) -> Sculpture:
    """Make a mesh.

    Raises:
        MeshError: there is no surface, or the crop misses the scene.
    """
    world = World(rig.transform)
    low, high = region(moment, world, recipe.crop)
    trained = [photo.camera for photo in rig.trained]
    if recipe.threshold is None:
        threshold = world.scale * find_threshold(moment, *rays_of(trained, PROBES), low, high, progress)
    else:
        threshold = recipe.threshold
    lattice = Lattice.over(low.tolist(), high.tolist(), recipe.resolution)
    sights = Sights(moment, trained, progress)
    mesh = extract(
        lambda x: world.scale * moment.density(x),  # so that what is said of it is in the file's units
        lattice,
        threshold,
        moment.known,
        sights.hidden,
        recipe.closed,
        None,
        lambda planes: progress(planes, "surface"),
    )
    hidden = sights.hidden(torch.from_numpy(mesh.vertices).float()).numpy()
    mesh, found = largest(mesh, recipe.pieces, hidden)
    if recipe.faces is not None:
        for whole in progress([mesh], "fewer faces"):
            mesh = decimate(whole, recipe.faces)
    points = torch.from_numpy(mesh.vertices).float()
    normal = normals(moment, points, lattice.step, torch.from_numpy(vertex_normals(mesh)).float())
    rgb = colors(moment, points, normal, torch.stack([camera.pose[:, 3] for camera in trained]), progress)
    apart = _apart(moment, rig, mesh, low, high, progress)
    if apart is not None:
        apart = Agreement(*(distance / world.scale for distance in apart))
    return Sculpture(
        Mesh(world.back(mesh.vertices), mesh.faces), normal.double().numpy(), rgb.double().numpy(),
        threshold, lattice.step / world.scale, found, apart,
    )  # fmt: skip


def _apart(moment: Moment, rig: Rig, mesh: Mesh, low: Tensor, high: Tensor, progress: Wrap = quiet) -> Agreement | None:
    """The mesh against where rays end in the box, of held-out photos where there are any."""
    cameras = [photo.camera for photo in rig.photos if photo.held_out] or [photo.camera for photo in rig.trained]

    def cast(origins: Tensor, directions: Tensor) -> Cast:
        ends = ends_of(moment, origins, directions, low, high, progress)
        stopped, within = ends.opacity > 0.5, inside(origins, directions, ends, low, high)
        return Cast(origins + directions * ends.median[:, None], stopped & within, stopped & ~within)

    rays = rays_of(cameras, SLOW if moment.slow else RENDERED, seed=1)
    return agreement(mesh, cast, rays, cameras, rig.near)
