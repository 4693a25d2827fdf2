"""Bring moving photos into register before a field is trained: a warp fitted to points that were followed through them.

A field and a warp that start together start blurred: the field is the mean of photos that don't lie over each other, and
says little about where each belongs. Points that optical flow followed say it to about a pixel, before any ray is marched.

The fit is a bundle adjustment. Followed point k has one canonical place X_k, and was seen in photo i along the ray
o + t d. Nearest to X_k on that ray lies x, and W(x, omega_i) must be X_k as far as the photo can tell, which is across the
ray. Where the subject is along the view comes from the cameras' own motion; what it moves along the view, a few
millimetres of scale, the points hardly say, and training has to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.scene import Frame, Scene
from nerf.kernels.space import Space
from nerf.model import SceneModel
from nerf.tracks import Tracks, follow
from nerf.warp import Warp


@dataclass(frozen=True)
class RegisterConfig:
    """How a warp's rigid parts are fitted to followed points. Lengths are in half sides of the warp's cube.

    Attributes:
        steps, rate, final: Adam's steps; the rate falls exponentially from `rate` to `rate * final`.
        place_rate: rate of the canonical places, in half sides.
        batch: sightings a step.
        outlier: a miss above this counts linearly (Huber's loss).
        rigidity: weight of ||J^T J - 1||^2 of the warp's Jacobian, on the first `rigidity_points` of every fourth batch.
        stillness: weight of the squared motion; of all motions that explain the photos, the smallest.
        stray: points that their rays can't be brought together for, as if still, to this mean distance are left out.
        sightings, points: a point is used that was seen so often; a capture with fewer points is refused.
    """

    steps: int = 1500
    rate: float = 3e-3
    final: float = 0.03
    place_rate: float = 2e-2
    batch: int = 4096
    outlier: float = 0.01
    rigidity: float = 0.2
    rigidity_points: int = 1024
    stillness: float = 1e-2
    stray: float = 0.03
    sightings: int = 8
    points: int = 200


EVERY = 4  # steps between those that take the Jacobian


class RegisterError(ValueError):
    """Photos can't be brought into register. The message says what was expected and what came."""


class Sightings(NamedTuple):
    """Rays on which followed points were seen, the instant's index, and the point's; `places`: each point's first place."""

    origins: Float[Tensor, "s 3"]
    directions: Float[Tensor, "s 3"]
    instant: Int[Tensor, "s"]
    point: Int[Tensor, "s"]
    places: Float[Tensor, "k 3"]


def register(model: SceneModel, scene: Scene, config: RegisterConfig, bands: float, generator: torch.Generator) -> str:
    """Fit the model's rigid parts to points followed through the training photos. Says what came of it.

    Args:
        bands: frequency bands that the shares of the parts are given.

    Raises:
        RegisterError: too few points can be followed; a warp that waits for them would only come late and slowly.
    """
    assert model.warp is not None
    tracks = follow(scene.train, masked=not scene.masks_are_alpha)
    seen = sight(scene.train, tracks, model.warp.space, scene.near, config)
    if len(seen.places) < config.points:
        raise RegisterError(
            f"--register: expected {config.points} points that can be followed through {config.sightings} photos or more, "
            f"found {len(seen.places)}: are the photos in order of time, and close to each other? Train without --register"
        )
    miss = fit(model, seen, config, bands, generator)
    return f"photos registered by {len(seen.places)} points, seen {len(seen.point)} times, to {miss:.2g} scene units"


def sight(frames: list[Frame], tracks: Tracks, space: Space, near: float, config: RegisterConfig) -> Sightings:
    """The rays of followed points that lie in the cube, with the places that they would have if they stood still."""
    origins, directions = torch.zeros(len(tracks.photo), 3), torch.zeros(len(tracks.photo), 3)
    for index, frame in enumerate(frames):
        mine = (tracks.photo == index).nonzero().squeeze(1)
        if len(mine):
            origins[mine], directions[mine] = frame.camera.rays(tracks.pixel[mine])
    center = torch.tensor(space.center)
    count = int(tracks.point.max()) + 1 if len(tracks.point) else 0
    places = triangulate(origins, directions, tracks.point, count, center)
    seen = torch.zeros(count).index_add_(0, tracks.point, torch.ones(len(tracks.point)))
    between = places[tracks.point] - origins
    along = (between * directions).sum(-1, keepdim=True)
    miss = torch.zeros(count).index_add_(0, tracks.point, (between - along * directions).norm(dim=-1)) / seen
    ahead = torch.zeros(count).index_add_(0, tracks.point, (along[:, 0] > near).float()) == seen
    inside = (places - center).abs().amax(-1) < 0.95 * space.half
    good = (seen >= config.sightings) & inside & ahead & (miss < config.stray * space.half)
    chosen = good[tracks.point]
    _, point = tracks.point[chosen].unique(return_inverse=True)
    instants = torch.tensor([frame.warp_id for frame in frames])[tracks.photo[chosen]]
    return Sightings(origins[chosen], directions[chosen], instants, point, places[good])


def triangulate(
    origins: Float[Tensor, "s 3"],
    directions: Float[Tensor, "s 3"],
    point: Int[Tensor, "s"],
    count: int,
    guess: Float[Tensor, "3"],
    trust: float = 1e-3,
) -> Float[Tensor, "count 3"]:
    """The place nearest to each point's rays, in squares; `guess`, trusted this little, decides where rays are parallel."""
    across = torch.eye(3) - directions[:, :, None] * directions[:, None]
    seen = torch.zeros(count, 1).index_add_(0, point, torch.ones(len(point), 1)).clamp_min(1)
    matrix = torch.zeros(count, 3, 3).index_add_(0, point, across) + trust * torch.eye(3) * seen[:, :, None]
    wanted = (
        torch.zeros(count, 3).index_add_(0, point, (across @ origins[:, :, None]).squeeze(-1)) + trust * seen * guess
    )
    return torch.linalg.solve(matrix, wanted)


def fit(model: SceneModel, seen: Sightings, config: RegisterConfig, bands: float, generator: torch.Generator) -> float:
    """Fit the twists of every photo's parts, their shares and the canonical places; returns the last batch's median miss."""
    warp, table = model.warp, model.warp_codes.table
    assert warp is not None and warp.shares is not None
    half, own = warp.space.half, warp.config.code
    seen = Sightings(*(part.to(model.device) for part in seen))
    places = seen.places.clone().requires_grad_()
    # The codes themselves, the network's input, stay as they are: only the twists behind them are fitted.
    twists = table.detach()[:, own:].clone().requires_grad_()
    groups = [
        {"params": [*warp.shares.parameters(), twists], "base": config.rate},
        {"params": [places], "base": config.place_rate * half},
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    miss = torch.zeros(1)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * config.final ** (step / config.steps)
        let_in = min(bands * step / (0.6 * config.steps), bands)
        pick = torch.randint(len(seen.point), (config.batch,), generator=generator, device=model.device)
        o, d, instant, place = seen.origins[pick], seen.directions[pick], seen.instant[pick], places[seen.point[pick]]
        x = o + ((place.detach() - o) * d).sum(-1, keepdim=True) * d
        code = torch.cat([table.detach()[instant, :own], twists[instant]], dim=1)
        moved = warp(x, code, let_in)
        error = (moved - place) / half
        miss = (error - (error * d).sum(-1, keepdim=True) * d).square().sum(-1).clamp_min(1e-12).sqrt()
        loss = _huber(miss, config.outlier).mean()
        loss = loss + config.stillness / config.outlier * ((moved - x) / half).square().sum(-1).mean()
        if step % EVERY == 0:
            few = slice(config.rigidity_points)
            loss = loss + EVERY * config.rigidity * _bent(warp, x[few].detach(), code[few], let_in)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        table[:, own:] = twists
    model.zero_grad(set_to_none=True)
    return float(miss.detach().median()) * half


def _huber(x: Tensor, bend: float) -> Tensor:
    """x^2 / (2 bend) below `bend`, straight on above it."""
    return torch.where(x < bend, x.square() / (2 * bend), x - bend / 2)


def _bent(warp: Warp, x: Tensor, code: Tensor, bands: float) -> Tensor:
    """||J^T J - 1||_F^2, 0 where the warp moves a neighbourhood as a whole."""
    jacobian = warp.jacobian(x, code, bands)
    return (jacobian.transpose(1, 2) @ jacobian - torch.eye(3, device=x.device)).square().sum((1, 2)).mean()
