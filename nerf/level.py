"""The density at which a scene's surface lies: where light ends."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerf.moment import Ends, Moment, Profile, Wrap, inside, looks, quiet
from nerf.surface import MeshError

LEVELS = 48  # densities tried
OPAQUE = 0.9  # opacity of rays that end at a surface
FEWEST = 50  # such rays
WIDE = 4  # samples by which a ray may miss its end before it counts no more


def find_threshold(
    moment: Moment,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    low: Float[Tensor, "3"],
    high: Float[Tensor, "3"],
    progress: Wrap = quiet,
) -> float:
    """The density whose level set lies nearest to where light ends, 1 / scene unit.

    A field has no surface, and every level gives another one: a low one a shell of the haze before things, a high one
    holes where things are soft. Photos say nothing of densities, but their rays' light ends somewhere, half of it before
    the median. So of LEVELS densities, evenly spread in their logarithm over those that rays meet at their medians, the
    one is taken that rays reach first at the least mean distance from their medians. A ray that misses by more than WIDE
    samples, or never reaches the density, counts as missing by WIDE: stray haze must not decide. The surface then agrees
    with the depth that the scene is rendered with as well as any level can. (Otsu's threshold would split the histogram
    of densities into empty and full, and move with how much empty space happens to be looked at.)

    Args:
        origins, directions: rays of photos, of which those count that end in the box from `low` to `high`.

    Raises:
        MeshError: next to no ray ends in the box.
    """
    seen: list[tuple[Ends, Profile, Tensor]] = []
    done = 0
    for ends, profile in looks(moment, origins, directions, low, high, progress):
        rays = slice(done, done + len(ends.median))
        seen.append((ends, profile, (ends.opacity > OPAQUE) & inside(origins[rays], directions[rays], ends, low, high)))
        done = rays.stop
    count = sum(int(chosen.sum()) for _, _, chosen in seen)
    if count < FEWEST:
        raise MeshError(
            f"expected a surface in the box, found {count} of {len(origins)} of the photos' rays to end in it"
        )
    middle = torch.cat([_density_at(ends, profile)[chosen] for ends, profile, chosen in seen])
    ends_at = torch.quantile(middle.log(), torch.tensor([0.02, 0.98]))
    levels = torch.linspace(float(ends_at[0]), float(ends_at[1]), LEVELS).exp()
    wide = WIDE * moment.stride
    missed = [sum(float(_misses(*one, float(level), wide)) for one in seen) for level in levels]
    return float(levels[int(torch.tensor(missed).argmin())])


def _density_at(ends: Ends, profile: Profile) -> Float[Tensor, "r"]:
    """The highest density up to each ray's median, where it ends."""
    before = profile.start <= ends.median[profile.ray]
    return torch.full_like(ends.median, 1e-9).scatter_reduce_(
        0, profile.ray[before].long(), profile.density[before], "amax"
    )


def _misses(ends: Ends, profile: Profile, chosen: Bool[Tensor, "r"], level: float, wide: float) -> Float[Tensor, ""]:
    """The sum over chosen rays of how far from their medians they first reach `level`, at most `wide` each."""
    ray, t = profile.ray.long(), profile.t
    log = profile.density.clamp_min(1e-12).log()
    over = (log >= torch.tensor(level).log()).nonzero().squeeze(1)
    first = torch.full((len(chosen),), len(t)).scatter_reduce_(0, ray[over], over, "amin")
    hit = (first < len(t)).nonzero().squeeze(1)
    at = first[hit]
    before = (at - 1).clamp_min(0)
    # Between two neighbours the logarithm is straight, as in the lattice; before a gap there is nothing.
    near = (ray[before] == hit) & (at > 0) & (t[at] - t[before] < 1.5 * profile.dt[at])
    share = (log[at] - torch.tensor(level).log()) / (log[at] - log[before]).clamp_min(1e-6)
    back = torch.where(near, (t[at] - t[before]) * share.clamp(0, 1), t[at] - profile.start[at])
    reached = torch.full_like(ends.median, torch.inf)
    reached[hit] = t[at] - back
    return (reached - ends.median).abs().clamp(max=wide)[chosen].sum()
