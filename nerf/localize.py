"""Cameras in a scene whose poses were learned beside it: the training photos', and those of photos that it never saw.

A held-out photo's pose is as far off as a training photo's was, and nothing has corrected it, so its picture would be
compared with a place next to it. As BARF does (Lin et al. 2021, section 4.1, and NeRF-- before it), held-out cameras are
first laid into the learned frame as the training cameras were, which `PoseRefinement` keeps the given one, and then
fitted to their photos while the scene stands still.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from data.camera import Camera
from data.scene import Frame, Scene
from nerf.losses import photometric
from nerf.model import SceneModel
from nerf.poses import move, move_poses, whitening
from nerf.rays import PixelSampler, Rays, clip
from nerf.volume import render_rays

STEPS, RAYS = 100, 512  # of a photo's fit
RATE, FINAL = 2e-3, 0.03  # Adam's, in radians by which what the photo shows turns; it falls to so much of itself


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
    sampler, generator = PixelSampler([frame], cut_out), torch.Generator().manual_seed(0)
    size, basis = model.geometry.space.half, whitening(frame.camera, model.geometry.space).float()
    numbers = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([numbers], lr=RATE)
    with torch.no_grad():
        codes = model.codes(torch.tensor([time]), frame.camera_id)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * FINAL ** (step / STEPS)
        batch = sampler.sample(RAYS, generator)
        origins, directions = move(batch.origins, batch.directions, (basis @ numbers).expand(RAYS, 6), size)
        near, far = clip(origins.detach(), directions.detach(), model.geometry)
        rays = Rays(origins, directions, near, far, *(None if c is None else c.expand(RAYS, -1) for c in codes))
        loss = photometric(render_rays(model, rays).out.rgb, batch.rgb)
        (numbers.grad,) = torch.autograd.grad(loss, [numbers])
        optimizer.step()
    with torch.no_grad():
        pose = frame.camera.pose[None]
        moved = move_poses(pose.double(), (basis @ numbers)[None].double(), size)
    return frame.camera.with_pose(moved[0].to(pose))
