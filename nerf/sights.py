"""What the photos' cameras see of a scene's space, and what is hidden from all of them: shadow maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from data.camera import Camera
from nerf.modes import sized
from nerf.moment import Moment, Wrap, quiet
from nerf.picture import render_image

CAMERAS, LONGEST = 40, 256  # that look, and their pictures' longer side in pixels
FEW, SMALL = 16, 64  # the same where no occupancy grid spares a big network anything
BEHIND = 2.0  # samples behind what a camera sees, from which on a place is hidden from it


class Sights:
    """Depths of a scene as seen from some of the training cameras, spread evenly over the capture.

    Args:
        cameras: all of them, in order of time.
    """

    def __init__(self, moment: Moment, cameras: Sequence[Camera], progress: Wrap = quiet) -> None:
        count, longest = (FEW, SMALL) if moment.model.occupancy is None else (CAMERAS, LONGEST)
        some = np.unique(np.linspace(0, len(cameras) - 1, count).round().astype(int))
        chosen = [sized(cameras[i], None, longest=longest) for i in some]
        self.margin = BEHIND * moment.stride
        self.views: list[tuple[Camera, Tensor]] = []
        for camera in progress(chosen, "views"):
            picture = render_image(moment.model, camera, moment.time)
            # Through a pixel that is mostly background everything can be seen.
            depth = torch.where(picture.opacity > 0.5, picture.depth, torch.inf)
            # A pixel has one depth; on a slope, and at an edge, its own area and its neighbours' have others.
            self.views.append((camera, max_pool2d(depth[None], 3, stride=1, padding=1)[0]))

    @torch.no_grad()
    def hidden(self, x_world: Float[Tensor, "p 3"]) -> Bool[Tensor, "p"]:
        """Whether places lie behind what is seen from every camera that has them in its picture, and there is one."""
        seen, covered = (torch.zeros(len(x_world), dtype=torch.bool) for _ in range(2))
        for camera, depth in self.views:
            left = (~seen).nonzero().squeeze(1)
            if not len(left):
                break
            x = x_world[left]
            column, row = camera.project(x).nan_to_num(-1, -1, -1).unbind(-1)
            inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
            left, x = left[inside], x[inside]
            ends = depth[row[inside].long(), column[inside].long()]
            covered[left] = True
            seen[left] = (x - camera.pose[:, 3]).norm(dim=-1) < ends + self.margin
        return covered & ~seen
