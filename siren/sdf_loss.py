"""The loss that makes a network a shape's signed distance function (Sitzmann et al. 2020, section 4.2, equation 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from siren.loop import Objective
from siren.network import Siren
from siren.sdf_shape import Shape, rough_distances

LEAST = 0.9  # share of the rough distance that Phi must have
POOL = 200_000  # points in the cube whose rough distance is looked up before the fit


@dataclass(frozen=True)
class SdfWeights:
    """Weights of the loss; the first four are of equation 6's terms, the paper's (supplement, section 5) but for `eikonal`.

    Attributes:
        surface: of |Phi| on the surface.
        normal: of 1 - cos(grad Phi, n) on the surface.
        eikonal: of ||grad Phi| - 1| everywhere.
        empty: of exp(-sharpness |Phi|) off the surface: no zero level where there is no surface.
        side: of what Phi lacks of nine tenths of the distance to the nearest point, on that point's side of the surface. A
            true distance costs nothing here. Equation 6 alone keeps zero levels of the initial network far from the surface,
            since a sheet around a region of the wrong sign satisfies it almost everywhere.
        sharpness: 1 / the distance, in the cube's units, at which `empty` has faded to 37 %.
    """

    surface: float = 3e3
    normal: float = 1e2
    # Paper: 5e1. On a thin aeroplane, 600 steps, 1e2 together with LEAST 0.9 instead of 0.5 had an eikonal error of 0.14
    # instead of 0.21 and the same Chamfer distance within 0.01 %; 2e2 had spurious parts (2 %).
    eikonal: float = 1e2
    empty: float = 1e2
    # On the made torus, 600 steps, LEAST 0.5: 10 % of the surface spurious with 0, none with 3e2 or 3e3.
    side: float = 1e3
    sharpness: float = 1e2


def sdf_terms(
    value: Float[Tensor, " p"],
    gradient: Float[Tensor, "p 3"],
    normals: Float[Tensor, "n 3"],
    rough: Float[Tensor, " q"],
    sharpness: float = 1e2,
) -> dict[str, Tensor]:
    """Equation 6's four terms and `side`, without weights, each a mean over all p = n + q points as the authors have it.

    Args:
        value, gradient: of the network; the first n points lie on the surface, the others in the cube.
        normals: at those n points, of length 1.
        rough: at the other q points, distances to the nearest point of the surface: negative inside, 0 where that isn't
            known.
    """
    n, count = len(normals), max(len(value), 1)
    on, off, size = value[:n], value[n:], gradient.norm(dim=1)
    along = (gradient[:n] * normals).sum(1) / size[:n].clamp(min=1e-12)
    return {
        "surface": on.abs().sum() / count,
        "normal": (1 - along).sum() / count,
        "eikonal": (size - 1).abs().sum() / count,
        "empty": torch.exp(-sharpness * off.abs()).sum() / count,
        "side": torch.relu(LEAST * rough.abs() - rough.sign() * off).sum() / count,
    }


def sdf_objective(siren: Siren, shape: Shape, weights: SdfWeights, on: int, off: int, seed: int = 0) -> Objective:
    """The loss on random points of the surface and of the cube [-1, 1]^3, for `siren.loop.fit`.

    Args:
        siren: three coordinates to one number.
        on, off: points a step on the surface, and in the cube.
        seed: of the points in the cube, from which each step takes some.
    """
    points = torch.from_numpy(shape.points).float()
    normals = torch.from_numpy(shape.normals).float()
    drawn = np.random.default_rng(seed).uniform(-1, 1, (POOL, 3))
    pool, rough = torch.from_numpy(drawn).float(), torch.from_numpy(rough_distances(shape, drawn)).float()

    def objective(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.randint(len(points), (on,), generator=generator)
        others = torch.randint(POOL, (off,), generator=generator)
        jet = siren.jet(torch.cat((points[chosen], pool[others])))
        terms = sdf_terms(jet.value[:, 0], jet.gradient[:, 0], normals[chosen], rough[others], weights.sharpness)
        loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
        distance, eikonal = (float(terms[name].detach()) for name in ("surface", "eikonal"))
        return loss, {"distance": distance * (on + off) / on, "eikonal": eikonal}

    return objective
