"""Scenes whose surface is known in closed form: a real model, its field replaced by a ball's or a ring's density."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from nerf.field import HashField, HashFieldConfig
from nerf.model import Geometry, MarchConfig, ModelConfig, SceneModel
from nerf.occupancy import OccupancyConfig
from nerf.rig import Rig
from nerf.warp import WarpConfig
from tests.tiny import scene

SHARP = 0.02  # scene units over which density changes by e
LEVEL = 100.0  # density on the surface itself


class Solid(HashField):
    """Density LEVEL * exp(depth / SHARP), where depth is how far inside a place lies, colour a function of the place.

    kind: "ball" of radius 0.5 about `center`; "ring", a torus of radii 0.5 and 0.2 about the z axis.
    """

    def __init__(self, kind: str = "ball", center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        nn.Module.__init__(self)  # none of a hash grid's parts
        self.kind, self.center, self.asked = kind, center, 0

    def depth(self, x: Tensor) -> Tensor:
        x = x - torch.tensor(self.center, dtype=x.dtype)
        if self.kind == "ball":
            return 0.5 - x.norm(dim=-1)
        return 0.2 - torch.hypot(torch.hypot(x[:, 0], x[:, 1]) - 0.5, x[:, 2])

    def at(self, x: Tensor) -> Tensor:
        """Density at places."""
        self.asked += len(x)
        return LEVEL * torch.exp((self.depth(x) / SHARP).clamp(-30, 6))

    def density(self, x, noise=None, ambient=None):
        return self.at(x), x

    def view(self, d, appearance):
        return d

    def color(self, features, view):
        return paint(features)

    def grid_field(self):
        return None


def paint(x: Tensor) -> Tensor:
    """The solids' colour at places."""
    return (0.5 + 0.4 * torch.sin(3 * x)).clamp(0, 1)


def model_of(solid: Solid, moving: bool = False, resolution: int = 32) -> tuple[SceneModel, Rig]:
    """The model and its cameras: eight in a ring about the cube [-1, 1]^3, a scene with white behind it."""
    given = scene(8, moving)
    field = HashFieldConfig(levels=2, features=2, log2_rows=8, base_resolution=4, finest_resolution=8, width=16)
    warp = WarpConfig(width=16, depth=2, skip=4, bands=2, code=4) if moving else None
    march = MarchConfig(steps=192, occupancy=OccupancyConfig(resolution=resolution))
    model = SceneModel(ModelConfig(field, march, warp), Geometry.of(given), generator=torch.Generator().manual_seed(0))
    model.field = solid
    rig = Rig.of(given)
    photos = tuple(replace(photo, camera=photo.camera.scaled(4)) for photo in rig.photos)
    return model.eval().requires_grad_(False), replace(rig, photos=photos)


def radius_at(level: float) -> float:
    """Of the ball on which density is `level`."""
    return 0.5 - SHARP * math.log(level / LEVEL)
