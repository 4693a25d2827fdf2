"""How well a warp moves surface points, where a scene knows how they really moved (`Scene.motion`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.motion import SurfaceMotion
from data.scene import Scene
from nerf.model import SceneModel
from nerf.warp import Warp, reference_ops

PAIRS = 200  # random pairs of photos, beside the middle one with every other
POINTS = 128  # of those that both photos of a pair show, at most: more change the mean by less than a hundredth
STEPS = 20  # of Newton's, whole or halved; three or four do for a warp without folds
CLOSE = 1e-5  # half sides of the warp's cube by which a canonical place may be missed
BLOCK = 1 << 13  # points at once
LENGTHS = ("error", "median", "moved", "across", "moved_across")


def measured_motion(model: SceneModel, scene: Scene) -> dict[str, Any] | None:
    """`point_error` of a scene's model; None: the scene doesn't know its motion, or the model has no warp."""
    if model.warp is None or scene.motion is None:
        return None
    eyes = torch.stack([frame.camera.pose[:, 3] for frame in scene.train])
    return point_error(model, scene.motion, [frame.time for frame in scene.train], eyes)


@torch.no_grad()
def point_error(
    model: SceneModel, motion: SurfaceMotion, times: Sequence[float], eyes: Float[Tensor, "f 3"]
) -> dict[str, Any] | None:
    """How far from the truth a model with a warp carries points from photo to photo.

    A point at its true place x_a in photo a has the canonical place W(x_a, omega_a). The place y in photo b with
    W(y, omega_b) = W(x_a, omega_a) is where the warp says that it went; the error is |y - x_b|. y is sought from x_a on, by
    Newton's method, so that nothing of x_b leaks in. Where none is found, the point counts as one that stayed at x_a.

    Pairs of photos are the middle one with every other, and PAIRS random ones, always the same; of each pair, up to POINTS
    points that both photos show. The networks run on the reference ops, so that figures don't depend on the backend.

    A photo shows motion across its line of sight; along it, one moving camera says little. So both are measured across it,
    too, as photo b sees them.

    Args:
        times, eyes: when each photo of `motion` was taken, in [0, 1], and from where.

    Returns:
        None where no two photos show a point in common, else "error", "median" and "moved": mean and median error and mean
        true motion |x_b - x_a|, scene units; "across" and "moved_across": means of what of both lies across the line of
        sight; all five in millimetres as "error_mm" ...; "share": error / moved, 1 for no warp at all, and "share_across";
        "points" and "pairs" measured; "missed": the share of points for which no y was found; "parts": millimetres,
        shares and points for each part of the surface that has some.
    """
    if model.warp is None:
        raise ValueError("point_error: expected a model with a warp, found none")
    pairs, rows, points = _choose(motion.seen, times)
    if not len(points):
        return None
    a, b = torch.from_numpy(pairs[rows]).T
    codes = model.codes(torch.tensor(times))[0]
    assert codes is not None
    start, truth = (motion.points[photo, points].to(codes) for photo in (a, b))
    bands, ends, found = float(model.annealed), [], []
    with reference_ops(model.warp):
        for x, i, j in zip(start.split(BLOCK), a.split(BLOCK), b.split(BLOCK)):
            canonical = model.warp(x, codes[i], bands)
            end, there = unwarp(model.warp, canonical, codes[j], x, bands)
            ends.append(torch.where(there[:, None], end, x))
            found.append(there)
    off, moved = (torch.cat(ends) - truth).double().cpu(), (start - truth).double().cpu()
    sight = torch.nn.functional.normalize(truth.double().cpu() - eyes[b].double(), dim=-1)
    part = motion.part[points]
    parts = {}
    for k, name in enumerate(motion.parts):
        if (of := part == k).any():
            figures = _figures(off[of], moved[of], sight[of], motion.metre)
            parts[name] = {key: value for key, value in figures.items() if key not in LENGTHS}
    return {
        **_figures(off, moved, sight, motion.metre), "pairs": len(np.unique(rows)),
        "missed": float((~torch.cat(found)).double().mean()), "parts": parts,
    }  # fmt: skip


def _choose(seen: Bool[Tensor, "f n"], times: Sequence[float]) -> tuple[np.ndarray, np.ndarray, Int[Tensor, "m"]]:
    """Pairs of photos "q 2", and which pair and point each of m measurements takes."""
    rng, count = np.random.default_rng(0), len(times)
    middle = int(np.argsort(times, kind="stable")[count // 2])
    pairs = [(middle, photo) for photo in range(count) if photo != middle]
    if count > 2:
        pairs += [tuple(rng.choice(count, 2, replace=False)) for _ in range(PAIRS)]
    shown = seen.cpu().numpy()
    rows, points = [np.zeros(0, int)], [np.zeros(0, int)]  # one photo makes no pair
    for row, (a, b) in enumerate(pairs):
        both = rng.permutation(np.flatnonzero(shown[a] & shown[b]))[:POINTS]
        rows.append(np.full(len(both), row))
        points.append(both)
    return np.array(pairs).reshape(-1, 2), np.concatenate(rows), torch.from_numpy(np.concatenate(points))


def _figures(
    off: Float[Tensor, "m 3"], moved: Float[Tensor, "m 3"], sight: Float[Tensor, "m 3"], metre: float
) -> dict[str, float]:
    error, across, moved_across = off.norm(dim=-1), _across(off, sight), _across(moved, sight)
    values = (error.mean(), error.median(), moved.norm(dim=-1).mean(), across.mean(), moved_across.mean())
    lengths = {name: float(value) for name, value in zip(LENGTHS, values)}
    return {
        **lengths, **{f"{name}_mm": 1000 * value / metre for name, value in lengths.items()},
        "share": lengths["error"] / max(lengths["moved"], 1e-30),
        "share_across": lengths["across"] / max(lengths["moved_across"], 1e-30), "points": len(error),
    }  # fmt: skip


def _across(vector: Float[Tensor, "m 3"], sight: Float[Tensor, "m 3"]) -> Float[Tensor, "m"]:
    """Lengths of what of vectors is perpendicular to unit vectors."""
    return (vector - (vector * sight).sum(-1, keepdim=True) * sight).norm(dim=-1)


def unwarp(
    warp: Warp,
    canonical: Float[Tensor, "p 3"],
    code: Float[Tensor, "p k"],
    start: Float[Tensor, "p 3"],
    bands: float | None = None,
) -> tuple[Float[Tensor, "p 3"], Bool[Tensor, "p"]]:
    """Places x_world that a code warps onto canonical ones, sought from `start` on: x "p 3", and whether each was found.

    Newton's method with the warp's Jacobian. A step that doesn't come nearer is halved until it does.
    """
    x, step = start.clone(), torch.zeros_like(start)
    missed, close = torch.full_like(start[:, 0], torch.inf), CLOSE * warp.space.half
    for _ in range(STEPS):
        rows = (missed > close).nonzero().squeeze(1)
        if not len(rows):
            break
        trial = x[rows] + step[rows]
        miss = canonical[rows] - warp(trial, code[rows], bands)
        nearer = miss.norm(dim=-1) < missed[rows]
        step[rows[~nearer]] /= 2
        x[rows[nearer]], missed[rows[nearer]] = trial[nearer], miss[nearer].norm(dim=-1)
        on = nearer & (missed[rows] > close)
        jacobian = warp.jacobian(trial[on], code[rows[on]], bands)
        step[rows[on]] = torch.linalg.solve_ex(jacobian, miss[on, :, None]).result.squeeze(2)
    return x, missed <= close


def sentence(motion: dict[str, Any]) -> str:
    """The figures of `point_error` in a line."""
    parts = (f"{name} {part['error_mm']:.2f} of {part['moved_mm']:.2f} mm" for name, part in motion["parts"].items())
    return (
        f"motion: points end {motion['error_mm']:.2f} mm off, {motion['share']:.1%} of the {motion['moved_mm']:.2f} mm that "
        f"they move ({', '.join(parts)}); across the line of sight {motion['share_across']:.1%}; "
        f"{motion['missed']:.1%} have no place"
    )
