"""A point cloud of a trained scene, from where the light of the photos' rays ends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from nerf.meshes import open3d
from nerf.moment import RAYS, Moment, Wrap, ends_of, inside, quiet
from nerf.paint import colors, normals
from nerf.rig import Photo, Rig
from nerf.sculpt import Crop, World, rays_of, region
from nerf.surface import MeshError

PIXELS, SLOW = 1 << 20, 1 << 17  # rays, over all photos; where they take their time
SHARP = 4  # samples, at most, between where a quarter and three quarters of a ray's light have ended at one surface


class Cloud(NamedTuple):
    """Points in the file's coordinates, with unit normals and colours in [0, 1]; `voxel`: their spacing."""

    points: Float[np.ndarray, "p 3"]
    normals: Float[np.ndarray, "p 3"]
    rgb: Float[np.ndarray, "p 3"]
    voxel: float


def cloud(
    moment: Moment,
    rig: Rig,
    photos: list[Photo],
    resolution: int = 256,
    crop: Crop | None = None,
    opacity: float = 0.5,
    progress: Wrap = quiet,
) -> Cloud:
    """Points spread evenly over what photos see, at most one in each voxel: the mean of those in it.

    A ray gives a point where half of its light has been met, unless it is too faint, or its light is met in two places: at
    the edge of one thing before another the middle of the light is where nothing is. Normals are the density's; where they
    point away from the photo's camera, they are the way back to it instead.

    Args:
        resolution: voxels along the longest side of the box.
        crop: as `sculpt`'s.
        opacity: least share of a ray's light that must not come from the background.

    Raises:
        MeshError: no ray ends in the box.
    """
    world = World(rig.transform)
    low, high = region(moment, world, crop)
    voxel = float((high - low).max()) / resolution
    origins, directions = rays_of([photo.camera for photo in photos], SLOW if moment.slow else PIXELS)
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    for first in progress(range(0, len(origins), RAYS), "rays"):
        o, d = origins[first : first + RAYS], directions[first : first + RAYS]
        ends = ends_of(moment, o, d, low, high)
        good = (
            (ends.opacity >= opacity) & (ends.far - ends.near < SHARP * moment.stride) & inside(o, d, ends, low, high)
        )
        parts.append(((o + d * ends.median[:, None])[good], d[good]))
    x, d = (torch.cat(part) for part in zip(*parts))
    if not len(x):
        raise MeshError(
            f"expected rays of the photos to end in the box, found none of {len(origins)} with opacity {opacity:g}"
        )
    o3d = open3d()
    every = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(x.double().numpy()))
    every.normals = o3d.utility.Vector3dVector(-d.double().numpy())
    fewer = every.voxel_down_sample(voxel)
    places, towards = np.asarray(fewer.points), torch.from_numpy(np.asarray(fewer.normals)).float()
    found = normals(moment, torch.from_numpy(places).float(), voxel, torch.nn.functional.normalize(towards, dim=-1))
    eyes = torch.stack([photo.camera.pose[:, 3] for photo in rig.trained])
    rgb = colors(moment, torch.from_numpy(places).float(), found, eyes, progress)
    return Cloud(world.back(places), found.double().numpy(), rgb.double().numpy(), voxel / world.scale)
