"""The `cuda` backend: CUDA C++ kernels (cuda/gpu), compiled at first use, on torch's memory and stream.

Every op has the name, the arguments and the meaning of its `reference`, which has a file of its own beside this one
(`look`, `frame` and `shade` are in cuda_field).
Gradients are first derivatives only. Nothing waits for the GPU, but `march`, whose results' size it finds, and `look` where it
isn't given room.

What a kernel can't do, `reference` does on the same GPU: second derivatives (`mlp_jet`), gradients of `composite` to t and
dt, and whatever disagreed with it at first use (cuda_check). What moves goes through these ops one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from nerf.kernels import adam as reference_adam
from nerf.kernels import composite as rendering
from nerf.kernels import cuda_driver, cuda_mlp, cuda_mlp_ops, cuda_ops, cuda_trials
from nerf.kernels import harmonics as sphere
from nerf.kernels import hash_encode as grids
from nerf.kernels import march as marching
from nerf.kernels import mlp as networks
from nerf.kernels import mlp_jet as jets
from nerf.kernels.composite import Composited
from nerf.kernels.cuda_arguments import check, together
from nerf.kernels.cuda_driver import why_not
from nerf.kernels.frame import Course
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.march import Marched
from nerf.kernels.mlp_jet import Jet
from nerf.kernels.space import Space

__all__ = [
    "adam", "composite", "harmonics", "hash_encode", "march", "mlp", "mlp_jet", "mlp_squared_error", "transmittance", "why_not",
]  # fmt: skip


def hash_encode(
    x_unit: Float[Tensor, "p 3"], table: Float[Tensor, "n f"], geometry: GridGeometry
) -> Float[Tensor, "p lf"]:
    """`nerf.kernels.hash_encode.hash_encode`. The table's gradient is summed in any order: its last bits vary."""
    expected = (geometry.offsets[-1], geometry.features)
    if table.shape != expected:
        raise ValueError(f"hash_encode: expected a table of shape {expected}, found {tuple(table.shape)}")
    check("hash_encode", x_unit, table)
    numbers = cuda_ops.grid_numbers(geometry)
    if not cuda_trials.hash_encode(tuple(numbers), x_unit.device):
        return grids.hash_encode(x_unit, table, geometry)
    return cuda_ops.hash_encode(x_unit.contiguous(), table.contiguous(), numbers)


@cuda_driver.constant
def _format(
    inputs: int,
    rows: tuple[int, ...],
    activations: tuple[str, str],
    omega: float,
    dtype: str,
    skips: tuple[int, ...],
    bias: bool,
    device: torch.device,
) -> str:
    """What a network's operands are rounded to; "" where `reference` takes it."""
    format = cuda_mlp.format_of(dtype, activations, cuda_driver.capability(device))
    if not format:
        return ""
    exact = cuda_mlp.exact_first(inputs, activations[0], len(rows), skips)
    net = cuda_trials.Network(inputs, rows, activations, omega, format, skips, bias, exact)
    return format if cuda_trials.mlp(net, device) else ""


def mlp(
    x: Float[Tensor, "p i"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    activation: str = "relu",
    output_activation: str = "none",
    omega: float = 30.0,
    dtype: str = "auto",
    skips: Sequence[int] = (),
) -> Float[Tensor, "p o"]:
    """`nerf.kernels.mlp.mlp`, all layers in one pass.

    Args:
        dtype: what products are of: "float16", or "bfloat16" on sm_80 and newer; sums are float32. "float32" rounds
            nothing and is `reference`'s. "auto": see `cuda_mlp.format_of`.
    """
    activations = (activation, output_activation)
    networks.check_network("mlp", x, weights, biases, activations, skips)
    check("mlp", x, *weights, *(biases or ()))
    rows = tuple(len(weight) for weight in weights)
    format = _format(x.shape[1], rows, activations, omega, dtype, tuple(skips), biases is not None, x.device)
    if not format:
        return networks.mlp(x, weights, biases, activation, output_activation, omega, "float32", skips)
    parameters = [weight.contiguous() for weight in weights], [bias.contiguous() for bias in biases or ()]
    return cuda_mlp_ops.mlp(x.contiguous(), *parameters, *activations, omega, format, cuda_mlp_ops.bits(skips))


def mlp_squared_error(
    x: Float[Tensor, "p i"],
    target: Float[Tensor, "p o"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    activation: str = "sine",
    omega: float = 30.0,
    dtype: str = "auto",
) -> Float[Tensor, ""]:
    """`nerf.kernels.mlp.mlp_squared_error`."""
    return F.mse_loss(mlp(x, weights, biases, activation, "none", omega, dtype), target)


def mlp_jet(
    x: Float[Tensor, "p i"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]] | None,
    forms: Float[Tensor, "m d d"],
    activation: str = "sine",
    omega: float = 30.0,
    dtype: str = "float32",
    tangents: Float[Tensor, "d p i"] | None = None,
    skips: Sequence[int] = (),
) -> Jet:
    """`nerf.kernels.mlp_jet.mlp_jet`, whose implementation it is, in float32 whatever the dtype may be rounded to."""
    cuda_mlp.format_of(dtype, (activation, "none"), cuda_driver.capability(x.device))
    return jets.mlp_jet(x, weights, biases, forms, activation, omega, "float32", tangents, skips)


def _packed(op: str, offsets: Int[Tensor, "r1"], *samples: Tensor) -> Int[Tensor, "r1"]:
    """Offsets as the kernels read them, of samples of one length. Their values aren't looked at, which would wait."""
    check(op, *samples)
    together(op, offsets, *samples)
    if offsets.ndim != 1 or not len(offsets) or any(len(tensor) != len(samples[0]) for tensor in samples):
        found = [tuple(tensor.shape) for tensor in (offsets, *samples)]
        raise ValueError(f"{op}: expected offsets, and samples of one length, found shapes {found}")
    return offsets.to(torch.int64).contiguous()


def composite(
    density: Float[Tensor, "p"],
    rgb: Float[Tensor, "p 3"],
    t: Float[Tensor, "p"],
    dt: Float[Tensor, "p"],
    offsets: Int[Tensor, "r1"],
    background: Float[Tensor, "#r 3"] | None = None,
) -> Composited:
    """`nerf.kernels.composite.composite`."""
    offsets = _packed("composite", offsets, density, rgb, t, dt)
    if background is not None:
        check("composite", density, background)
        if background.shape not in ((1, 3), (len(offsets) - 1, 3)):
            raise ValueError(f"composite: expected one background or one a ray, found shape {tuple(background.shape)}")
        background = background.contiguous()
    to_places = torch.is_grad_enabled() and (t.requires_grad or dt.requires_grad)
    if to_places or not cuda_trials.composite(density.device):
        return rendering.composite(density, rgb, t, dt, offsets, background)
    samples = (tensor.contiguous() for tensor in (density, rgb, t, dt))
    return Composited(*cuda_ops.composite(*samples, offsets, background))


def transmittance(
    density: Float[Tensor, "p"], dt: Float[Tensor, "p"], offsets: Int[Tensor, "r1"]
) -> Float[Tensor, "p"]:
    """`nerf.kernels.composite.transmittance`."""
    offsets = _packed("transmittance", offsets, density, dt)
    if not cuda_trials.composite(density.device):
        return rendering.transmittance(density, dt, offsets)
    return cuda_ops.transmittance(density.contiguous(), dt.contiguous(), offsets)


def check_course(op: str, rays: tuple[Tensor, Tensor, Tensor, Tensor], course: Course) -> None:
    """Raise unless a march's tensors belong together."""
    origins, directions, near, far = rays
    given = [tensor for tensor in (course.occupied, course.jitter, course.dilated) if tensor is not None]
    check(op, *rays, *(tensor for tensor in given if tensor is course.jitter))
    together(op, *rays, *given)
    count = len(near)
    if not origins.shape == directions.shape == (count, 3) or far.shape != (count,):
        found = [tuple(tensor.shape) for tensor in rays]
        raise ValueError(f"{op}: expected as many origins, directions, near and far, found {found}")
    for grid in (course.occupied, course.dilated):
        if grid is not None and (grid.shape != (course.resolution**3,) or grid.dtype != torch.bool):
            have = f"{grid.dtype} {tuple(grid.shape)}"
            raise ValueError(f"{op}: expected a flat bool grid of {course.resolution}^3, found {have}")


@torch.no_grad()
def march(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    occupied: Bool[Tensor, "n3"],
    resolution: int,
    space: Space,
    step: float,
    cone: float = 0.0,
    jitter: Float[Tensor, "r"] | None = None,
    dilated: Bool[Tensor, "n3"] | None = None,
) -> Marched:
    """`nerf.kernels.march.march`: the same samples; with a `cone`, up to the exponential's rounding.

    Waits once for the GPU: how many samples there are is the shape of the results.
    """
    rays = (origins, directions, near, far)
    course = Course(occupied, resolution, space, step, cone, jitter, dilated)
    check_course("march", rays, course)
    if not cuda_trials.march(near.device):
        return marching.march(*rays, occupied, resolution, space, step, cone, jitter, dilated)
    where = (list(space.center), space.half, space.contract, step, cone, jitter, dilated)
    return Marched(*cuda_ops.march(*rays, occupied, resolution, *where))


@torch.no_grad()
def adam(
    parameter: Float[Tensor, "..."],
    gradient: Float[Tensor, "..."],
    mean: Float[Tensor, "..."],
    square: Float[Tensor, "..."],
    step: int,
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """`nerf.kernels.adam.adam`, float32."""
    tensors = (parameter, gradient, mean, square)
    check("adam", *tensors)
    if any(tensor.shape != parameter.shape or not tensor.is_contiguous() for tensor in tensors):
        found = [tuple(tensor.shape) for tensor in tensors]
        raise ValueError(f"adam: expected contiguous tensors of one shape, found {found}")
    if cuda_trials.adam(parameter.device):
        cuda_ops.adam(*tensors, step, rate, *betas, eps)
    else:
        reference_adam.adam(*tensors, step, rate, betas, eps)


def harmonics(d: Float[Tensor, "p 3"]) -> Float[Tensor, "p 16"]:
    """`nerf.kernels.harmonics.harmonics`; `reference`'s where directions have gradients, as learned poses' have."""
    check("harmonics", d)
    if d.ndim != 2 or d.shape[1] != 3:
        raise ValueError(f"harmonics: expected directions of shape (p, 3), found {tuple(d.shape)}")
    if (torch.is_grad_enabled() and d.requires_grad) or not cuda_trials.harmonics(d.device):
        return sphere.harmonics(d)
    return cuda_ops.harmonics(d.contiguous())
