"""Camera poses learned beside the scene: a small rigid motion a photo, from rays that are off to rays that meet.

Lin et al. 2021, "BARF" (bundle-adjusting radiance fields); the whitening is that of Park et al. 2023, "CamP: Camera
Preconditioning for Neural Radiance Fields".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data.camera import Camera
from nerf.kernels.screw import screw
from nerf.kernels.space import Space

GRID, DEPTHS = 8, 8  # rays along each side of a photo, and places along each, that say what a motion does to it
DAMPING = 0.1  # keeps motions that a photo hardly shows from being taken for large ones


class Moved(NamedTuple):
    """How far photos were moved, as means over them: degrees, and shares of the scene's size."""

    rotation: float
    translation: float


def move(
    origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"], twist: Float[Tensor, "r 6"], size: float
) -> tuple[Float[Tensor, "r 3"], Float[Tensor, "r 3"]]:
    """Rays of cameras that turn about their own centres and are carried along: o' = o + size v, d' = exp([r]) d.

    Turning and carrying are kept apart, as SO(3) x R^3: one motion of SE(3) about the world's origin, as BARF's, swings a
    camera the farther the farther away it stands. Gradients are finite at r = 0.

    Args:
        twist: (r, v) of each ray's camera, along the world's axes: r is the axis times the angle in radians, v in `size`s.
        size: of the scene, scene units.
    """
    r, v = twist.split(3, dim=-1)
    return origins + size * v, screw(directions, r, torch.zeros_like(r))


def move_poses(poses: Float[Tensor, "n 3 4"], twist: Float[Tensor, "n 6"], size: float) -> Float[Tensor, "n 3 4"]:
    """Cameras-to-world after the motion of `move`."""
    axes, eyes = poses[:, :, :3].transpose(1, 2).reshape(-1, 3), poses[:, :, 3]
    moved, turned = move(eyes.repeat_interleave(3, 0), axes, twist.repeat_interleave(3, 0), size)
    return torch.cat([turned.view(-1, 3, 3).transpose(1, 2), moved[::3, :, None]], dim=2)


def whitening(camera: Camera, space: Space) -> Float[Tensor, "6 6"]:
    """From six numbers that move a photo's picture equally far, and independently, to the camera's twist (CamP).

    To the photo a step aside looks much like a turn, and a step ahead like nothing at all: in (r, v) itself Adam, which
    scales each number alone, crawls along the valleys between them. A point at distance t in direction n is seen to turn
    by J (r, v) with J = ([n]x, -size / t (1 - n n^T)). The whitening is Sigma^(-1/2) of Sigma = mean J^T J + damping, over
    points from a half to one and a half times as far away as the scene's middle. One unit of each number turns what is
    seen by about a radian.
    """
    sides = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    pixels = torch.cartesian_prod(sides * camera.width, sides * camera.height)
    origins, n = camera.rays(pixels)
    reach = max(float((origins[0] - torch.tensor(space.center, dtype=n.dtype)).norm()), space.half)
    axes = torch.eye(3, dtype=n.dtype).expand(len(n), 3, 3)
    across = axes - n[:, :, None] * n[:, None, :]
    turns = torch.linalg.cross(n[:, None, :].expand_as(axes), axes).transpose(1, 2)
    sigma = torch.zeros(6, 6, dtype=n.dtype)
    for share in torch.linspace(0.5, 1.5, DEPTHS).tolist():
        jacobian = torch.cat([turns, -space.half / (share * reach) * across], dim=2)
        sigma += (jacobian.transpose(1, 2) @ jacobian).mean(0) / DEPTHS
    values, vectors = torch.linalg.eigh(sigma + DAMPING * torch.diag(sigma.diagonal()))
    return (vectors * values.rsqrt()) @ vectors.T


class PoseRefinement(nn.Module):
    """A twist a training photo, learned through its rays. All start at 0, where rays stay as they are.

    Scene and cameras may turn, drift and grow as one, and all photos stay the same. So that they don't, what the twists
    have of that in common is taken away: the mean of all r and of all v, and the cameras' common growth about their
    middle. The refined cameras then lie over the given ones as well as a similarity could lay them, so cameras that
    were not learned, held-out ones among them, keep their places in the scene. To hold one photo still instead would lay
    the error of that one on the whole scene.

    Args:
        photos: how many.
        space: the scene's cube. Its half side is the scene's size, that v is counted in: one rate suits every scene.
    """

    whitening: Tensor
    eyes: Tensor

    def __init__(self, photos: int, space: Space) -> None:
        super().__init__()
        self.space = space
        self.table = nn.Parameter(torch.zeros(photos, 6))
        self.register_buffer("whitening", torch.eye(6).repeat(photos, 1, 1))
        self.register_buffer("eyes", torch.zeros(photos, 3))

    def place(self, cameras: Sequence[Camera]) -> None:
        """Tell where the photos were thought to be taken, before the first step; a checkpoint keeps it."""
        self.whitening.copy_(torch.stack([whitening(camera, self.space) for camera in cameras]))
        self.eyes.copy_(torch.stack([camera.pose[:, 3] for camera in cameras]))

    @property
    def twists(self) -> Float[Tensor, "n 6"]:
        """(r, v) of each photo as `move` takes them."""
        twists = (self.whitening @ self.table[:, :, None]).squeeze(2)
        r, v = (twists - twists.mean(0)).split(3, dim=1)
        arms = self.eyes - self.eyes.mean(0)
        growth = (v * arms).sum() / arms.square().sum().clamp_min(1e-12)
        return torch.cat([r, v - growth * arms], dim=1)

    def forward(
        self, photo: Int[Tensor, "r"], origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]
    ) -> tuple[Float[Tensor, "r 3"], Float[Tensor, "r 3"]]:
        """Rays of training photos, by their indices, from where the photos are now thought to be taken."""
        return move(origins, directions, self.twists.index_select(0, photo), self.space.half)

    @torch.no_grad()
    def cameras(self, given: Sequence[Camera]) -> list[Camera]:
        """The training photos' cameras as they are now thought to be."""
        poses = torch.stack([camera.pose for camera in given])
        moved = move_poses(poses.double(), self.twists.to(poses).double(), self.space.half).to(poses)
        return [camera.with_pose(pose) for camera, pose in zip(given, moved)]

    @torch.no_grad()
    def moved(self) -> Moved:
        """How far photos were moved so far."""
        r, v = self.twists.split(3, dim=1)
        return Moved(float(r.norm(dim=1).mean().rad2deg()), float(v.norm(dim=1).mean()))
