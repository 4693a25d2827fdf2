"""Normals and colours of surface points, asked of the field itself."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.moment import Moment, Wrap, quiet

SAMPLES = 8  # along the way into the surface
BLOCK = 1 << 14  # points at once
FAINT = 1e-12  # density below which its logarithm says nothing more


def normals(
    moment: Moment, points: Float[Tensor, "p 3"], step: float, guess: Float[Tensor, "p 3"] | None = None
) -> Float[Tensor, "p 3"]:
    """Unit normals: the direction in which density falls, from the logarithm's differences over `step` (scene units).

    The lattice's step is the scale to ask at: a hash grid's own gradient is that of its finest cells, and changes at their
    walls from one value to another.

    Args:
        guess: unit vectors, such as the triangles' normals. They stay where the density tells nothing, or the opposite,
            as it does behind what is thinner than a step.
    """
    found = []
    for x in points.split(BLOCK):
        slopes = []
        for axis in range(3):
            aside = torch.zeros(3)
            aside[axis] = step / 2
            ahead, behind = moment.density(torch.cat([x + aside, x - aside])).clamp_min(FAINT).log().split(len(x))
            slopes.append(behind - ahead)
        found.append(torch.stack(slopes, dim=-1))
    slope = torch.cat([points[:0], *found])
    length = slope.norm(dim=-1, keepdim=True)
    normal = slope / length.clamp_min(1e-9)
    if guess is None:
        return normal
    return torch.where(((normal * guess).sum(-1, keepdim=True) > 0) & (length > 1e-6), normal, guess)


def colors(
    moment: Moment,
    points: Float[Tensor, "p 3"],
    normal: Float[Tensor, "p 3"],
    eyes: Float[Tensor, "n 3"],
    progress: Wrap = quiet,
) -> Float[Tensor, "p 3"]:
    """Colours of surface points in [0, 1], as a photo would show them.

    Light is gathered along the inward normal, from one sample before the point on, as rendering gathers it: at the point
    itself the field's colour counts for little in any photo, so training leaves it undecided. A field's colour also depends
    on where it is seen from, and it is only right for directions that photos were taken from. So each point's is that seen
    from the training camera that it faces most squarely, rather than from straight above, where there may never have been one.

    Args:
        eyes: where the training photos were taken.
    """
    found = [points[:0]]
    along = moment.stride * (torch.arange(SAMPLES) - 0.5)
    for x, n in progress([*zip(points.split(BLOCK), normal.split(BLOCK))], "colours"):
        away = torch.nn.functional.normalize(eyes[None] - x[:, None], dim=-1)
        best = (away * n[:, None]).sum(-1).argmax(dim=1)
        view = -away[torch.arange(len(x)), best]
        places = x[:, None] - n[:, None] * along[:, None]
        density, rgb = moment.shaded(places.reshape(-1, 3), view.repeat_interleave(SAMPLES, 0))
        thickness = density.view(-1, SAMPLES) * moment.stride
        light = torch.exp(-(thickness.cumsum(1) - thickness))
        # A little of the sample at the point itself decides where there is hardly anything.
        weights = light * -torch.expm1(-thickness) + 1e-6 * (torch.arange(SAMPLES) == 1)
        rgb = (weights[..., None] * rgb.view(-1, SAMPLES, 3)).sum(1) / weights.sum(1, keepdim=True)
        found.append(rgb.clamp(0, 1))
    return torch.cat(found)
