"""Depth maps of photos' views: 32-bit TIFF to measure with, PNG to look at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, TiffImagePlugin
from torch import Tensor

from data.camera import Camera
from data.files import file_stem, write_atomically
from data.films import write_png
from nerf.model import SceneModel
from nerf.picture import Picture, render_image
from nerf.rig import Photo
from nerf.surface import MeshError
from nerf.video import depth_colors, depth_range, to_bytes

DESCRIPTION = 270  # the TIFF tag for what a picture shows
UNIT = "depth along the optical axis (z-depth), in units of the file that posed the photos; 0 where nothing is seen"


def z_depth(camera: Camera, picture: Picture, opacity: float) -> Float[Tensor, "h w"]:
    """Distance from the camera's plane, scene units, of what each pixel shows; 0 where less than `opacity` of it is seen.

    A rendering's depth is the distance along the ray; this is its share along the optical axis, as depth sensors and
    other programs mean it.
    """
    _, directions = camera.rays(None)
    slant = (directions @ -camera.pose[:, 2]).view(picture.depth.shape)
    return torch.where(picture.opacity >= opacity, picture.depth * slant, 0.0)


def write_depth(
    model: SceneModel, photo: Photo, camera: Camera, time: float | None, scale: float, opacity: float, folder: Path
) -> Path:
    """Render a photo's view and write NAME.tiff and NAME.png; returns the former.

    Args:
        camera: the photo's, at the size wanted.
        time: the instant shown; None: the canonical scene.
        scale: scene units in one of the file's.
        opacity: see `z_depth`.
    """
    picture = render_image(model, camera, time)
    depth = z_depth(camera, picture, opacity)
    seen = (depth > 0).float()
    near, far = depth_range(depth.flatten(), seen.flatten(), (model.geometry.near, model.geometry.far))
    path = folder / f"{file_stem(photo.name)}.tiff"
    write_png(path.with_suffix(".png"), to_bytes(depth_colors(depth, seen, near, far)))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[DESCRIPTION] = UNIT
    data = io.BytesIO()
    Image.fromarray((depth / scale).numpy().astype(np.float32)).save(data, "TIFF", tiffinfo=tags)
    try:
        write_atomically(path, data.getvalue())
    except OSError as error:
        raise MeshError(f"{path}: expected a place that can be written, found: {error}") from None
    return path
