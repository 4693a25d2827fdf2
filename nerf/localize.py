"""Cameras in a scene whose poses were learned beside it: the training photos', and those of photos that it never saw.

A held-out photo's pose is as far off as a training photo's was, and nothing has corrected it, so its picture would be
compared with a place next to it. As BARF does (Lin et al. 2021, section 4.1, and NeRF-- before it), held-out cameras are
first laid into the learned frame as the training cameras were, which `PoseRefinement` keeps the given one, and then
fitted to their photos while the scene stands still. Not through the field's gradients, as they do, but as a tracker lays
one picture over another (Lucas and Kanade 1981; coarse to fine; Levenberg and Marquardt's damping): what a motion of the
camera does to a picture follows from the picture's own gradients and its depth, so a step costs one small rendering.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from data.camera import Camera
from data.images import area_average
from data.scene import Frame, Scene
from nerf.kernels.space import Space
from nerf.model import SceneModel
from nerf.picture import Picture, render_image
from nerf.poses import move_poses, whitening

SIZES = (32, 64, 128)  # pixels of the longer side that pictures are laid over each other at, one after the other
STEPS = 10  # at most, of a size
FINER = 2  # renderings are so many times as wide, and averaged, as a photo made smaller is
STILL = 0.02  # pixels: a step that moves the picture by less is the last of its size
ROBUST = 0.1  # residuals beyond it count by their size, not their square (Huber): the scene isn't right everywhere
NUDGE = 1e-4  # of the numbers, for differences of what a motion does

Look = Callable[[Camera], Picture]


def refined(model: SceneModel, scene: Scene) -> Scene:
    """The scene with its training photos where the model has learned that they are; held-out ones stay as given."""
    if model.poses is None:
        return scene
    cameras = model.poses.cameras([frame.camera for frame in scene.train])
    return replace(scene, train=[replace(frame, camera=camera) for frame, camera in zip(scene.train, cameras)])


def remark(poses: dict[str, float]) -> str:
    """What a run's figures say of its poses, as a line."""
    return (
        f"poses refined: photos were moved by {poses['rotation']:.2f} degrees and {100 * poses['translation']:.2f} % of the "
        "scene's size on average; held-out ones were fitted to the scene before they were compared"
    )


def localize(model: SceneModel, frame: Frame, time: float, cut_out: bool = False) -> Camera:
    """The camera near the frame's own from which the scene looks most like its photo; the scene itself is not touched.

    Args:
        time: the instant that the photo shows, as `render_image` takes it.
        cut_out: the frame's mask is its opacity, not what to look at.
    """
    mask = None if frame.mask is None or cut_out else frame.mask
    return lay_over(
        lambda camera: render_image(model, camera, time, lens=frame.camera_id),
        frame.camera, frame.image, mask, model.geometry.space,
    )  # fmt: skip


def lay_over(look: Look, camera: Camera, photo: Tensor, mask: Tensor | None, space: Space) -> Camera:
    """The camera near `camera` from which what `look` sees lies best over `photo`, "h w 3" in bytes.

    Args:
        look: the picture from a camera of any size, with depth.
        mask: "h w" in bytes; what it excludes (under 128) doesn't count.
        space: the scene's cube: its half side is what motions are counted in, as in `PoseRefinement`.
    """
    longest = max(camera.width, camera.height)
    numbers = torch.zeros(6, dtype=torch.float64)
    basis = whitening(camera, space)
    for size in sorted({min(size, longest) for size in SIZES}):
        numbers = _Level.of(camera, photo, mask, size, basis, space.half).fit(look, numbers)
    return _moved(camera, basis @ numbers, space.half)


def _moved(camera: Camera, twist: Tensor, size: float) -> Camera:
    pose = move_poses(camera.pose[None].double(), twist[None], size)[0]
    return camera.with_pose(pose.to(camera.pose))


@dataclass(frozen=True)
class _Level:
    """The photo at one size, and what is compared with it."""

    camera: Camera
    photo: Float[Tensor, "3 h w"]
    weight: Float[Tensor, "h w"]
    basis: Float[Tensor, "6 6"]
    size: float

    @staticmethod
    def of(camera: Camera, photo: Tensor, mask: Tensor | None, longer: int, basis: Tensor, size: float) -> _Level:
        factor = longer / max(camera.width, camera.height)
        small = camera.scaled(factor).with_pose(camera.pose.double())
        w, h = small.width, small.height
        pixels = torch.from_numpy(area_average(photo.numpy(), w, h)) / 255
        weight = torch.ones(h, w)
        if mask is not None:
            weight = (torch.from_numpy(area_average(mask.numpy()[..., None], w, h))[..., 0] > 127).float()
        return _Level(small, pixels.permute(2, 0, 1), weight, basis, size)

    def fit(self, look: Look, numbers: Tensor) -> Tensor:
        """`numbers` after Levenberg and Marquardt's steps: one that makes the misfit worse isn't taken, and shortened."""
        damping, rgb, depth = 1e-3, *self._see(look, numbers)
        for _ in range(STEPS):
            slope, flow = self._slope(rgb, depth, numbers)
            miss = self.photo - rgb
            weight = self.weight * ROBUST / miss.abs().amax(0).clamp_min(ROBUST)
            normal = (slope * weight.double().flatten().repeat(3)) @ slope.T
            toward = (slope * weight.double().flatten().repeat(3)) @ miss.double().flatten()
            step = torch.linalg.solve(normal + (damping * normal.diagonal() + 1e-9).diag(), toward)
            seen = self._see(look, numbers + step)
            if self._misfit(seen[0]) < self._misfit(rgb):
                numbers, (rgb, depth), damping = numbers + step, seen, damping / 10
            else:
                damping = 10 * damping + 1e-3
            if float((step @ flow.flatten(1)).view(flow.shape[1:]).norm(dim=-1).mean()) < STILL:
                break
        return numbers

    def _at(self, numbers: Tensor) -> Camera:
        return _moved(self.camera, self.basis @ numbers, self.size)

    def _see(self, look: Look, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Colours and depth at this size. Depth where there is nothing, at a silhouette's outer side, is that of the rest."""
        w, h = self.camera.width, self.camera.height
        picture = look(self._at(numbers).scaled(FINER, FINER * w, FINER * h))
        shown = torch.cat([picture.rgb, (picture.depth * picture.opacity)[..., None], picture.opacity[..., None]], 2)
        rgb, depth, opacity = avg_pool2d(shown.permute(2, 0, 1), FINER).split([3, 1, 1])
        solid = opacity > 0.5
        depth = depth / opacity.clamp_min(1e-6)
        middle = depth[solid].median() if solid.any() else depth.new_tensor(self.size)
        return rgb, torch.where(solid, depth, middle)[0]

    def _misfit(self, rgb: Tensor) -> float:
        miss = (self.photo - rgb).abs().amax(0)
        huber = torch.where(miss < ROBUST, miss.square(), ROBUST * (2 * miss - ROBUST))
        return float((self.weight * huber).double().sum())

    def _slope(self, rgb: Tensor, depth: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """How colours "6 (3 h w)" change with each number, and how far pixels move, "6 (h w) 2": -gradient times motion.

        The gradients are the mean of photo's and picture's, exact to second order (Malis 2004): a foggy picture's own
        say too little.
        """
        here = self._at(numbers)
        origins, directions = here.rays(here.pixel_centres().double())
        x_world = origins + depth.double().reshape(-1, 1) * directions
        stand = here.project(x_world)
        nudged = numbers + NUDGE * torch.eye(6, dtype=numbers.dtype)
        flow = torch.stack([self._at(n).project(x_world) - stand for n in nudged]) / NUDGE
        flow = torch.where(flow.isfinite(), flow, torch.zeros_like(flow))
        gradient = _gradient((rgb + self.photo) / 2).double().flatten(2)  # 2 3 (h w)
        return -torch.einsum("dcp,kpd->kcp", gradient, flow).flatten(1), flow


def _gradient(picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "2 3 h w"]:
    """Central differences, by column and by row."""
    wide = pad(picture[None], (1, 1, 1, 1), mode="replicate")[0]
    return torch.stack([wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2], wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]]) / 2
