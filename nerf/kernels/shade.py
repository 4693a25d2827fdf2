"""Samples of a hash grid's field to what their rays see: the differentiable part of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerf.kernels.composite import Composited
from nerf.kernels.frame import GridField, Steps, ask, reference_steps
from nerf.kernels.space import Space, to_unit


class Shaded(NamedTuple):
    """Composited rays, and the density of every sample, without gradients."""

    out: Composited
    density: Float[Tensor, "p"]


class NearGradients(torch.autograd.Function):
    """The identity, whose gradients are scaled: near a camera its samples are dense, and would grow a fog before the lens
    that no other camera contradicts (Philip & Deschaintre 2023, "Floaters No More", equation 6)."""

    @staticmethod
    def forward(ctx, density, rgb, scale):
        ctx.save_for_backward(scale)
        return density.view_as(density), rgb.view_as(rgb)

    @staticmethod
    def backward(ctx, density, rgb):
        (scale,) = ctx.saved_tensors
        return density * scale, rgb * scale[:, None], None


def shade(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    t: Float[Tensor, "p"],
    dt: Float[Tensor, "p"],
    offsets: Int[Tensor, "r1"],
    ray: Int[Tensor, "p"],
    space: Space,
    field: GridField,
    view: Float[Tensor, "r v"],
    background: Float[Tensor, "#r 3"] | None = None,
    near: float | None = None,
    x_canonical: Float[Tensor, "p 3"] | None = None,
) -> Shaded:
    """Ask the field at every sample and composite.

    Args:
        origins, directions: rays.
        t, dt, offsets, ray: packed samples, as `composite` takes them, and the ray of each.
        space: how the world maps into the grid's unit cube.
        view: what colour depends on beside the place, a row a ray.
        background: colour behind the rays; None: black.
        near: distance below which a sample's gradients are scaled by (t / near)^2; None: none are.
        x_canonical: where the field is asked at each sample, in the world's units; None: at its place on its ray.

    Returns:
        as `composite`, differentiable in the field's table, weights and biases, in `view` and in `x_canonical`.
    """
    rays, samples = (origins, directions, view), (t, dt, offsets, ray)
    return shaded(rays, samples, space, field, background, near, x_canonical, reference_steps())


def shaded(
    rays: tuple[Tensor, Tensor, Tensor],
    samples: tuple[Tensor, Tensor, Tensor, Tensor],
    space: Space,
    field: GridField,
    background: Tensor | None,
    near: float | None,
    x_canonical: Tensor | None,
    steps: Steps,
) -> Shaded:
    """`shade`, of the ops given. rays: origins, directions, view. samples: t, dt, offsets, ray."""
    (origins, directions, view), (t, dt, offsets, ray) = rays, samples
    x = x_canonical
    if x is None:
        x = origins.index_select(0, ray) + directions.index_select(0, ray) * t[:, None]
    density, features = ask(to_unit(x, space), field, steps)
    inputs = torch.cat([features, view.index_select(0, ray)], dim=1)
    rgb = steps.mlp(inputs, field.color_weights, field.color_biases, "relu", "sigmoid")
    seen = density.detach()
    if near is not None:
        density, rgb = NearGradients.apply(density, rgb, (t / near).square().clamp(max=1.0))
    return Shaded(steps.composite(density, rgb, t, dt, offsets, background), seen)


def networks_of(layers: tuple[int, int], parameters: Sequence[Tensor]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Weights and biases of the density and of the colour network, of so many layers, from all of them in a row."""
    found, at = [], 0
    for depth in layers:
        found.append((list(parameters[at : at + depth]), list(parameters[at + depth : at + 2 * depth])))
        at += 2 * depth
    return found
