"""A scene in a network: codes and warp where it moves, one field (or a coarse and a fine one), and how rays sample it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field as given

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.scene import Scene
from nerf.field import HashField, HashFieldConfig, NerfField, NerfFieldConfig, build_field
from nerf.kernels.backends import Ops, load
from nerf.kernels.space import Space
from nerf.occupancy import OccupancyConfig, OccupancyGrid
from nerf.rig import find_focus
from nerf.warp import Codes, Warp, WarpConfig


@dataclass(frozen=True)
class MarchConfig:
    """March through an occupancy grid, then let only samples that light reaches be trained on.

    Attributes:
        steps: across the cube's diagonal, all of the same length, where the scene stands before a plain background.
        cone: photographs have no such scale: a step at the distance t is cone * t long, as a pixel's footprint is.
        stop: samples behind this transmittance are dropped.
        faint: samples with a smaller opacity than this are dropped, once the grid has settled.
        occupancy: the grid.
    """

    steps: int = 512
    cone: float = 1 / 256
    stop: float = 1e-4
    faint: float = 1e-3
    occupancy: OccupancyConfig = given(default_factory=OccupancyConfig)


@dataclass(frozen=True)
class HierarchicalConfig:
    """Stratified samples for a coarse field, then more where it found something for a fine one (NeRF, section 5.2).

    Attributes:
        coarse, fine: samples per ray, N_c = 64 and N_f = 128.
        last: length that a ray's last sample stands for.
    """

    coarse: int = 64
    fine: int = 128
    last: float = 1e10


@dataclass(frozen=True)
class ModelConfig:
    """What the scene's network consists of. `appearance`: length of each photo's appearance code, 0 for none."""

    field: HashFieldConfig | NerfFieldConfig = given(default_factory=HashFieldConfig)
    sampling: MarchConfig | HierarchicalConfig = given(default_factory=MarchConfig)
    warp: WarpConfig | None = None
    appearance: int = 0


@dataclass(frozen=True)
class Geometry:
    """What a model must know of its scene, kept with the checkpoint so that a run renders without the photos.

    Attributes:
        space: the cube that grids and encodings are laid over.
        near, far: scene units.
        reach: largest distance from a camera to the far end of the cube.
        background: colour behind everything, or None where the photos fill the frame.
        subject: the cube that the cameras look at: around the point nearest to their axes, as far as they stand from it.
            Warps measure in it, for a person is small in a room.
        times: instant of each deformation code, in [0, 1].
    """

    space: Space
    near: float
    far: float
    reach: float
    background: tuple[float, float, float] | None
    subject: Space
    times: tuple[float, ...]

    @staticmethod
    def of(scene: Scene) -> Geometry:
        """Read it off a scene: the cube around its box, contracted space beyond it where the scene has no bounds."""
        low, high = scene.box[0].double(), scene.box[1].double()
        center, half = (low + high) / 2, float((high - low).max() / 2)
        eyes = torch.stack([frame.camera.pose[:, 3] for frame in scene.train]).double()
        reach = float((eyes - center).norm(dim=-1).max()) + math.sqrt(3) * half
        instants = {frame.warp_id: frame.time for frame in scene.train}
        times = tuple(instants[index] for index in sorted(instants))
        space = Space((float(center[0]), float(center[1]), float(center[2])), half, not scene.bounded)
        focus = find_focus(np.stack([frame.camera.pose.numpy() for frame in scene.train]), scene.near, scene.far)
        away = float((eyes - torch.from_numpy(focus)).norm(dim=-1).median())
        subject = Space((float(focus[0]), float(focus[1]), float(focus[2])), min(away, half), True)
        return Geometry(space, scene.near, scene.far, reach, scene.background, subject, times)


class SceneModel(nn.Module):
    """x_world, photo -> density and colour.

    Args:
        config: what it consists of.
        geometry: the scene's frame.
        ops: kernels' backend.
        generator: draws the initial weights.
    """

    def __init__(
        self, config: ModelConfig, geometry: Geometry, ops: Ops | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config, self.geometry, self.ops = config, geometry, ops or load("reference")
        space, times = geometry.space, torch.tensor(geometry.times)
        self.warp: Warp | None = None
        if config.warp is not None:
            self.warp = Warp(config.warp, geometry.subject, self.ops, generator)
            self.warp_codes = Codes(times, config.warp.code, generator, config.warp.start)
        self.appearance_codes = Codes(times, config.appearance, generator) if config.appearance else None
        self.field: NerfField | HashField = build_field(config.field, space, config.appearance, self.ops, generator)
        self.coarse: NerfField | HashField | None = None
        self.occupancy: OccupancyGrid | None = None
        match config.sampling:
            case HierarchicalConfig():
                self.coarse = build_field(config.field, space, config.appearance, self.ops, generator)
            case MarchConfig(steps=steps, cone=cone, occupancy=occupancy):
                plain = geometry.background is not None
                self.step = 2 * math.sqrt(3) * space.half / steps if plain else cone * geometry.near
                self.cone = 0.0 if plain else cone
                self.occupancy = OccupancyGrid(occupancy, space, self.step, self.cone, geometry.reach)

    def codes(self, time: Float[Tensor, "r"]) -> tuple[Tensor | None, Tensor | None]:
        """Deformation and appearance codes "r k" at any instants; exactly a photo's own at its own."""
        warp = self.warp_codes.at(time) if self.warp is not None else None
        return warp, self.appearance_codes.at(time) if self.appearance_codes is not None else None

    def to_canonical(
        self, x_world: Float[Tensor, "p 3"], code: Tensor | None, bands: float | None = None
    ) -> Float[Tensor, "p 3"]:
        """Undo the photo's deformation. A rigid scene, or a code of None, is canonical as it is."""
        return x_world if self.warp is None or code is None else self.warp(x_world, code, bands)

    @property
    def bands(self) -> int:
        """Frequency bands that the warp's annealing ends at."""
        return 0 if self.config.warp is None else self.config.warp.bands

    @torch.no_grad()
    def density_somewhen(
        self, x_world: Float[Tensor, "p 3"], generator: torch.Generator, bands: float | None = None
    ) -> Float[Tensor, "p"]:
        """Density of each point at a random photo's instant: how occupancy gathers over all frames."""
        code = None
        if self.warp is not None:
            code = self.warp_codes(torch.randint(len(self.warp_codes.times), (len(x_world),), generator=generator))
        return self.field.density(self.to_canonical(x_world, code, bands))[0]
