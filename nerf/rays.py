"""From photos to batches of rays."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.camera import Camera, Cameras
from data.photos import Photo, PhotoOnDisk, side_by_side
from data.scene import Frame
from nerf.kernels.space import constant
from nerf.model import Geometry
from nerf.pool import Pool

# Pixels of different lenses whose directions are kept rather than computed for every batch: 12 bytes and, where a lens has
# to be undone, a microsecond of one processor each.
MOST_KEPT, MOST_KEPT_ON_GPU = 1 << 23, 1 << 27


class Rays(NamedTuple):
    """A batch of rays and what belongs to each: the part of it to be sampled and its photo's codes.

    near, far are distances along the ray; far <= near where it misses the scene.
    """

    origins: Float[Tensor, "r 3"]
    directions: Float[Tensor, "r 3"]
    near: Float[Tensor, "r"]
    far: Float[Tensor, "r"]
    warp: Float[Tensor, "r k"] | None = None
    appearance: Float[Tensor, "r a"] | None = None

    def held(self) -> Rays:
        """The same rays without gradients to where they start and go."""
        return self._replace(origins=self.origins.detach(), directions=self.directions.detach())


class Batch(NamedTuple):
    """Training pixels: rays, the instant of each one's photo as an index into the codes, the photo's colour, its index
    among the training photos (several may share an instant), and the opacity of cut-out photos, whose colour is what they
    show on the scene's background."""

    origins: Float[Tensor, "r 3"]
    directions: Float[Tensor, "r 3"]
    instant: Int[Tensor, "r"]
    rgb: Float[Tensor, "r 3"]
    photo: Int[Tensor, "r"]
    opacity: Float[Tensor, "r"] | None = None


def clip(origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"], geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Near and far of each ray: the scene's, and where it has bounds also those of its cube (slab test)."""
    near = torch.full_like(origins[:, 0], geometry.near)
    far = torch.full_like(near, geometry.far)
    if geometry.box.contract:
        return near, far
    center = constant(geometry.box.center, origins)
    return between(origins, directions, near, far, center - geometry.box.half, center + geometry.box.half)


def between(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    low: Float[Tensor, "3"],
    high: Float[Tensor, "3"],
) -> tuple[Tensor, Tensor]:
    """Near and far of each ray within an axis-aligned box (slab test); far <= near where it misses the box."""
    # A direction along a slab divides by the smallest number instead of 0: both crossings move to +-infinity.
    safe = torch.where(directions.abs() < 1e-12, 1e-12, directions)
    a, b = (low - origins) / safe, (high - origins) / safe
    enter, leave = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
    return torch.maximum(near, enter), torch.minimum(far, leave)


class Kept(NamedTuple):
    """Unit directions through all pixels in camera axes, lens by lens, and where those of each photo begin."""

    local: Float[Tensor, "n 3"]
    starts: Int[Tensor, "f"]


def _keep(cameras: list[Camera], device: torch.device) -> Kept | None:
    """The directions of all lenses; None where there are too many to keep."""
    lenses = {camera.lens: camera for camera in cameras}
    sizes = [camera.width * camera.height for camera in lenses.values()]
    if sum(sizes) > (MOST_KEPT if device.type == "cpu" else MOST_KEPT_ON_GPU):
        return None
    begins = dict(zip(lenses, torch.tensor([0, *sizes]).cumsum(0).tolist()))
    starts = torch.tensor([begins[camera.lens] for camera in cameras])
    local = [
        Cameras.stack([camera]).to(device).local(slice(None), camera.pixel_centres().to(device))
        for camera in lenses.values()
    ]
    return Kept(torch.cat(local), starts.to(device))


class PixelSampler:
    """Draws training pixels uniformly over all photos; a mask that is not a cut-out's alpha excludes pixels.

    Args:
        frames: the training photos, of any sizes, all in memory or all on the disk.
        cut_out: the masks are the photos' opacity: they exclude nothing, and batches carry them.
        device: where all photos (of those on the disk, some pixels of each: nerf/pool.py) are kept, pixels drawn and batches made.
    """

    def __init__(self, frames: list[Frame], cut_out: bool = False, device: torch.device | str = "cpu") -> None:
        cameras = [frame.camera for frame in frames]
        self.cameras = Cameras.stack(cameras).to(device)
        self.kept = _keep(cameras, torch.device(device))
        self.widths = torch.tensor([camera.width for camera in cameras]).to(device)
        self.instants = torch.tensor([frame.warp_id for frame in frames]).to(device)
        self.opacities: Tensor | None = None
        self.allowed: Tensor | None = None
        self.pool: Pool | None = None
        photos = [frame.photo for frame in frames]
        distant = [photo for photo in photos if isinstance(photo, PhotoOnDisk)]
        if distant:
            self.pool = Pool(distant, cut_out, device)
            self.pixels, self.opacities, self.starts = self.pool.rgb, self.pool.opacities, self.pool.starts
        else:
            self._take([photo for photo in photos if isinstance(photo, Photo)], cut_out, device)

    def _take(self, photos: list[Photo], cut_out: bool, device: torch.device | str) -> None:
        """Lay whole photos one after the other."""
        sizes = torch.tensor([photo.image.shape[0] * photo.image.shape[1] for photo in photos])
        self.starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]).to(device)
        self.pixels = side_by_side(photos).to(device)
        if cut_out:
            full = [torch.full(p.image.shape[:2], 255, dtype=torch.uint8) if p.mask is None else p.mask for p in photos]
            self.opacities = torch.cat([mask.reshape(-1) for mask in full]).to(device)
        elif any(photo.masked for photo in photos):
            masks = [
                torch.ones(int(n), dtype=torch.bool) if p.mask is None else p.mask.reshape(-1) > 127
                for p, n in zip(photos, sizes)
            ]
            self.allowed = torch.cat(masks).nonzero().squeeze(1).to(device)

    def turn(self, step: int) -> None:
        """Have the pixels ready that a run draws from at this step."""
        if self.pool is not None:
            self.pool.turn(step)

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` pixels with replacement, each somewhere inside its square only at the centre."""
        total = len(self.pixels) if self.allowed is None else len(self.allowed)
        pick = torch.randint(total, (count,), generator=generator, device=self.pixels.device)
        index = pick if self.allowed is None else self.allowed[pick]
        frame = torch.searchsorted(self.starts, index, right=True) - 1
        within = index - self.starts[frame] if self.pool is None else self.pool.within[index].long()
        if self.kept is None:
            width = self.widths[frame]
            pixel = torch.stack([within % width, within // width], dim=-1) + 0.5
            local = self.cameras.local(frame, pixel)
        else:
            local = self.kept.local[self.kept.starts[frame] + within]
        origins, directions = self.cameras.turned(frame, local)
        opacity = None if self.opacities is None else self.opacities[index].float() / 255
        return Batch(origins, directions, self.instants[frame], self.pixels[index].float() / 255, frame, opacity)
