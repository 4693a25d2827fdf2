"""A scene in a network: codes and warp where it moves, one field (or a coarse and a fine one), and how rays sample it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field as given

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data.scene import Scene
from nerf.field import HashField, HashFieldConfig, NerfField, NerfFieldConfig, build_field
from nerf.kernels.backends import Ops, load
from nerf.kernels.frame import Motion
from nerf.kernels.space import Space
from nerf.occupancy import OccupancyConfig, OccupancyGrid
from nerf.poses import PoseRefinement
from nerf.rig import find_focus
from nerf.slicing import Slicing
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
    """What the scene's network consists of.

    Attributes:
        appearance: length of each photo's appearance code, 0 for none.
        cameras, camera: how many cameras have a code for what their colours share, and its length (Nerfies, section 4: 2);
            0: no codes.
        poses: training photos whose poses are learned beside the scene, all of them; 0: they stay as they were given.
    """

    field: HashFieldConfig | NerfFieldConfig = given(default_factory=HashFieldConfig)
    sampling: MarchConfig | HierarchicalConfig = given(default_factory=MarchConfig)
    warp: WarpConfig | None = None
    appearance: int = 0
    cameras: int = 0
    camera: int = 2
    poses: int = 0


@dataclass(frozen=True)
class Geometry:
    """What a model must know of its scene, kept with the checkpoint so that a run renders without the photos.

    Attributes:
        space: the cube that an occupancy grid, a hash grid and a warp are laid over. Before a plain background it is the
            scene's box. In photographs it is the cube that the cameras look at, around the point nearest to their axes
            and as far as they stand from it; the rest of the world is contracted around it.
        near, far: scene units.
        reach: largest distance from a camera to the far end of the cube.
        background: colour behind everything, or None where the photos fill the frame.
        box: the cube around the scene's box, for the papers' networks.
        times: instant of each deformation code, in [0, 1].
    """

    space: Space
    near: float
    far: float
    reach: float
    background: tuple[float, float, float] | None
    box: Space
    times: tuple[float, ...]

    @staticmethod
    def of(scene: Scene) -> Geometry:
        """Read it off a scene."""
        eyes = torch.stack([frame.camera.pose[:, 3] for frame in scene.train]).double()
        low, high = scene.box[0].double(), scene.box[1].double()
        space = box = _cube((low + high) / 2, float((high - low).max() / 2), not scene.bounded)
        if scene.background is None:
            # What the cameras look at gets the grids' resolution; what lies farther off is also seen from farther off.
            poses = np.stack([frame.camera.pose.numpy() for frame in scene.train])
            focus = torch.from_numpy(find_focus(poses, scene.near, scene.far))
            space = _cube(focus, min(float((eyes - focus).norm(dim=-1).median()), box.half), True)
        center = torch.tensor(space.center, dtype=torch.float64)
        reach = float((eyes - center).norm(dim=-1).max()) + math.sqrt(3) * space.half
        instants = {frame.warp_id: frame.time for frame in scene.train}
        times = tuple(instants[index] for index in sorted(instants))
        return Geometry(space, scene.near, scene.far, reach, scene.background, box, times)


def _beside(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else torch.cat([first, second], dim=1)


def _cube(center: Tensor, half: float, contract: bool) -> Space:
    x, y, z = center.tolist()
    return Space((x, y, z), half, contract)


class SceneModel(nn.Module):
    """x_world, photo -> density and colour.

    Args:
        config: what it consists of.
        geometry: the scene's frame.
        ops: kernels' backend.
        generator: draws the initial weights.
    """

    annealed: Tensor
    sliced: Tensor
    sheen: Tensor

    def __init__(
        self, config: ModelConfig, geometry: Geometry, ops: Ops | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config, self.geometry, self.ops = config, geometry, ops or load("reference")
        hierarchical = isinstance(config.sampling, HierarchicalConfig)
        space, times = geometry.box if hierarchical else geometry.space, torch.tensor(geometry.times)
        self.warp: Warp | None = None
        # Where the schedules stand: an unfinished run must be shown as it was trained. The bands that the warp has, those of
        # ambient coordinates, and the share of colour's dependence on direction and photo that is let in.
        self.register_buffer("annealed", torch.tensor(float(self.bands)))
        self.register_buffer("sheen", torch.ones(()))
        if config.warp is not None:
            self.warp = Warp(config.warp, space, self.ops, generator)
            self.warp_codes = Codes(times, config.warp.code, generator, config.warp.start, 6 * config.warp.parts)
        self.slicing: Slicing | None = None
        if config.warp is not None and config.warp.slicing is not None:
            slices = config.warp.slicing
            self.slicing = Slicing(slices, space, config.warp.code, config.warp.fade, self.ops, generator)
            self.register_buffer("sliced", torch.tensor(float(slices.ambient_bands)))
        self.appearance_codes = Codes(times, config.appearance, generator) if config.appearance else None
        self.camera_codes: Codes | None = None
        if config.cameras:
            self.camera_codes = Codes(torch.arange(config.cameras).float(), config.camera, generator)
        self.poses = PoseRefinement(config.poses, geometry.space) if config.poses else None
        self.field: NerfField | HashField = self._field(space, generator)
        self.near_scale: float | None = None  # distance up to which samples' gradients are scaled down
        self.coarse: NerfField | HashField | None = None
        self.occupancy: OccupancyGrid | None = None
        match config.sampling:
            case HierarchicalConfig():
                self.coarse = self._field(space, generator)
            case MarchConfig(steps=steps, cone=cone, occupancy=occupancy):
                plain = geometry.background is not None
                self.step = 2 * math.sqrt(3) * space.half / steps if plain else cone * geometry.near
                self.cone = 0.0 if plain else cone
                self.near_scale = None if plain else space.half
                self.occupancy = OccupancyGrid(occupancy, space, self.step, self.cone, geometry.reach)

    def _field(self, space: Space, generator: torch.Generator | None) -> NerfField | HashField:
        ambient = 0 if self.slicing is None else self.slicing.width
        looks = self.config.appearance + (self.config.camera if self.config.cameras else 0)
        return build_field(self.config.field, space, looks, self.ops, generator, ambient)

    @property
    def device(self) -> torch.device:
        """Where its kernels run: once it is `at_home`, rays and points that it is asked have to be there too."""
        return self.ops.device

    def at_home(self) -> SceneModel:
        """The model on the device that its kernels run on. Single numbers stay with the host, whose schedules they are:
        reading them from a GPU would wait for it each time."""
        self.to(self.ops.device)
        for module in self.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if not buffer.ndim:
                    module.register_buffer(name, buffer.cpu(), name not in module._non_persistent_buffers_set)
        return self

    def codes(self, time: Float[Tensor, "r"], camera: int | None = None) -> tuple[Tensor | None, Tensor | None]:
        """Deformation and appearance codes "r k" at any instants; exactly a photo's own at its own.

        camera: whose colours are shown, by its code; None: the mean of all cameras'.
        """
        time = time.to(self.device)
        warp = self.warp_codes.at(time) if self.warp is not None else None
        look = self.appearance_codes.at(time) if self.appearance_codes is not None else None
        if self.camera_codes is not None:
            table = self.camera_codes.table
            own = table.mean(0) if camera is None else table[camera]
            look = _beside(look, own.expand(len(time), -1))
        return warp, look

    def look_of(self, instant: Int[Tensor, "r"], camera: Int[Tensor, "r"]) -> Tensor | None:
        """What training photos' colours depend on beside place and direction, "r a", by the indices of their codes."""
        look = self.appearance_codes(instant) if self.appearance_codes is not None else None
        return look if self.camera_codes is None else _beside(look, self.camera_codes(camera))

    def to_canonical(
        self,
        x_world: Float[Tensor, "p 3"],
        code: Float[Tensor, "r k"] | None,
        bands: float | None = None,
        ray: Int[Tensor, "p"] | None = None,
    ) -> Float[Tensor, "p 3"]:
        """Undo the photo's deformation. A rigid scene, or a code of None, is canonical as it is.

        Args:
            code: a row a point; a row a ray, where `ray` says which ray each point is of.
            bands: frequency bands that the warp has; None: those that training had last.
        """
        if self.warp is None or code is None:
            return x_world
        return self.warp(x_world, code, float(self.annealed) if bands is None else bands, ray)

    def ambient(
        self, x_world: Float[Tensor, "p 3"], code: Tensor | None, bands: float | None = None
    ) -> Float[Tensor, "p e"] | None:
        """Encoded ambient coordinates (HyperNeRF) of points in a photo's space; None: the scene isn't sliced.

        code, bands: as `to_canonical` takes them; a code of None is the slice w = 0.
        """
        if self.slicing is None:
            return None
        return self.slicing(x_world, code, float(self.annealed) if bands is None else bands, float(self.sliced))

    def motion(self, time: float, size: int | None = None) -> Motion | None:
        """The warp at an instant as `render_waves` takes it, with the bands that training had last; None: it can't.

        It is known where the occupancy grid holds anything now, at `size` lattice points an axis. Default: 65, and twice
        as fine for each band that the warp has beyond six (up to 257).
        """
        if self.warp is None or not self.warp.bakes or self.occupancy is None or not self.field.plain:
            return None
        if size is None:
            size = 64 * 2 ** min(max(math.ceil(float(self.annealed)) - 6, 0), 2) + 1
        code = self.warp_codes.at(torch.tensor([time]).to(self.device))[0]
        return self.warp.bake(code, float(self.annealed), size, self.occupancy.corners(size))

    def view(self, directions: Float[Tensor, "r 3"], appearance: Float[Tensor, "r a"] | None) -> Float[Tensor, "r v"]:
        """What colour depends on beside the place, per ray, as far as training has let it in."""
        return self.field.view(directions, appearance) * self.sheen

    @property
    def bands(self) -> int:
        """Frequency bands that the warp's annealing ends at."""
        return 0 if self.config.warp is None else self.config.warp.bands
