"""What each op of the `cuda` backend is tried with at its first use on a GPU: `cuda_check.ROWS` rows of random numbers.

Each function here says whether an op may be used on a device. The limits are ten times and more what was seen in the
emulation of the kernels (tests/test_nerf_kernels_cuda.py), where nothing but the order of sums differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nerf.kernels import adam as reference_adam
from nerf.kernels import composite as rendering
from nerf.kernels import cuda_mlp_ops, cuda_ops
from nerf.kernels import harmonics as sphere
from nerf.kernels import hash_encode as grids
from nerf.kernels import march as marching
from nerf.kernels import mlp as networks
from nerf.kernels.cuda_check import ROWS, Pair, usable, with_gradients
from nerf.kernels.cuda_driver import constant
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.space import Space

EXACT = 1e-4  # float32 throughout: what rounding and another order of sums may come to
# Gradients are rounded on their way down, too, and a sum between two numbers of a format may round to either.
ROUNDED = {"float16": 5e-3, "bfloat16": 3e-2}


class Network(NamedTuple):
    """What tells one network's kernels from another's.

    Attributes:
        inputs, rows: width of the inputs and of each layer.
        dtype: "float16" or "bfloat16".
        exact: whether its first layer rounds nothing.
    """

    inputs: int
    rows: tuple[int, ...]
    activations: tuple[str, str]
    omega: float
    dtype: str
    skips: tuple[int, ...]
    bias: bool
    exact: bool


def seeded() -> torch.Generator:
    """The same numbers on every machine."""
    return torch.Generator().manual_seed(0)


@constant
def hash_encode(numbers: tuple[int, ...], device: torch.device) -> bool:
    """Encoding, and its gradients to points and table.

    numbers: the grid's (`cuda_ops.grid_numbers`): torch.compile takes plain ones as constants, but not every dataclass.
    """
    geometry = GridGeometry(*numbers)

    def trial() -> list[Pair]:
        generator = seeded()
        # Points outside the unit cube too; a table of its real size, since addresses are what may go wrong.
        x = (torch.rand(ROWS, 3, generator=generator) * 1.2 - 0.1).to(device)
        table = torch.randn(geometry.offsets[-1], geometry.features, generator=generator).to(device)
        return with_gradients(
            lambda x, table: cuda_ops.hash_encode(x, table, list(numbers)),
            lambda x, table: grids.hash_encode(x, table, geometry),
            [x, table], EXACT, generator,
        )  # fmt: skip

    return usable("hash_encode", geometry, device, trial)


def samples(device: torch.device, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """density, rgb, t, dt of ROWS samples and their offsets: rays without any, of a few, and of more than a warp's."""
    share = torch.rand(40, generator=generator) ** 3
    counts = (share / share.sum() * ROWS).long()
    counts[::7] = 0
    counts[1] += ROWS - counts.sum()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    numbers = [torch.rand(ROWS, *shape, generator=generator) for shape in ((), (3,), (), ())]
    density, rgb, t, dt = numbers[0] ** 4 * 50, numbers[1], numbers[2] * 4, numbers[3] * 0.1
    return [tensor.to(device) for tensor in (density, rgb, t, dt)], offsets.to(device)


@constant
def composite(device: torch.device) -> bool:
    """Compositing and transmittance, and their gradients."""

    def trial() -> list[Pair]:
        generator = seeded()
        (density, rgb, t, dt), offsets = samples(device, generator)
        background = torch.rand(1, 3, generator=generator).to(device)
        pairs = with_gradients(
            lambda density, rgb, background: cuda_ops.composite(density, rgb, t, dt, offsets, background),
            lambda density, rgb, background: rendering.composite(density, rgb, t, dt, offsets, background),
            [density, rgb, background], EXACT, generator,
        )  # fmt: skip
        light = with_gradients(
            lambda density, dt: cuda_ops.transmittance(density, dt, offsets),
            lambda density, dt: rendering.transmittance(density, dt, offsets),
            [density, dt], EXACT, generator,
        )  # fmt: skip
        return pairs + [pair._replace(name=f"transmittance: {pair.name}") for pair in light]

    return usable("composite", "", device, trial)


@constant
def march(device: torch.device) -> bool:
    """Samples of rays through a grid of which half is occupied, steps of one length and growing ones."""

    def trial() -> list[Pair]:
        pairs = []
        for cone, contract in ((0.0, False), (1 / 64, True)):
            course = rays(device, cone, contract)
            found = cuda_ops.march(*course[:6], *_flat(course[6]), *course[7:])
            expected = marching.march(*course)
            for name, one, other in zip(("count", "t", "dt"), per_ray(*found), per_ray(*expected)):
                # A step whose middle lies on a cell's wall may fall to either side.
                pairs.append(Pair(f"{name} of a ray's samples", one, other, 1e-2))
        return pairs

    return usable("march", "", device, trial)


def _flat(space: Space) -> tuple[list[float], float, bool]:
    return list(space.center), space.half, space.contract


def rays(device: torch.device, cone: float, contract: bool) -> tuple:
    """Arguments of `march`: ROWS rays into a cube of 32^3 cells, and out of it again."""
    generator, resolution = seeded(), 32
    space = Space((0.1, -0.2, 0.3), 1.0, contract)
    directions = torch.nn.functional.normalize(torch.randn(ROWS, 3, generator=generator), dim=-1)
    across = 0.4 * (torch.rand(ROWS, 3, generator=generator) - 0.5)
    origins = torch.tensor(space.center) + across - 1.5 * directions
    near, far = torch.full((ROWS,), 0.3), 0.3 + 2.5 * torch.rand(ROWS, generator=generator)
    occupied = torch.rand(resolution**3, generator=generator) < 0.5
    jitter = torch.rand(ROWS, generator=generator)
    there = [tensor.to(device) for tensor in (origins, directions, near, far, occupied)]
    return (*there, resolution, space, 0.02, cone, jitter.to(device), None)


def per_ray(t: Tensor, dt: Tensor, offsets: Tensor) -> list[Tensor]:
    """How many samples each ray has, and the sums of their t and dt."""
    ray = rendering.ray_of_sample(offsets, len(t))
    sums = [t.new_zeros(len(offsets) - 1).index_add_(0, ray, values) for values in (t, dt)]
    return [offsets.diff().float(), *sums]


@constant
def adam(device: torch.device) -> bool:
    """One step, on numbers of which a third have a gradient."""

    def trial() -> list[Pair]:
        generator = seeded()
        parameter, gradient, mean, square = torch.randn(4, ROWS, generator=generator).to(device)
        gradient = gradient * (parameter < -0.43)
        sides = [[tensor.clone() for tensor in (parameter, gradient, mean, square.square())] for _ in range(2)]
        cuda_ops.adam(*sides[0], 7, 0.1, 0.9, 0.99, 1e-8)
        numbers, gradients, means, squares = sides[1]
        reference_adam.adam(numbers, gradients, means, squares, 7, 0.1, (0.9, 0.99), 1e-8)
        names = ("parameter", "gradient", "mean", "square")
        return [Pair(name, one, other, 1e-5) for name, one, other in zip(names, *sides)]

    return usable("adam", "", device, trial)


@constant
def harmonics(device: torch.device) -> bool:
    """Those of directions all round."""

    def trial() -> list[Pair]:
        d = torch.nn.functional.normalize(torch.randn(ROWS, 3, generator=seeded()), dim=-1).to(device)
        return [Pair("harmonics", cuda_ops.harmonics(d), sphere.harmonics(d), 1e-5)]

    return usable("harmonics", "", device, trial)


class _Near(torch.autograd.Function):
    """Rounds to a format, as kernels round what they multiply; the gradient passes."""

    @staticmethod
    def forward(ctx, x, format):
        return x.to(format).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def _rounded(x: Tensor, weights: list[Tensor], biases: list[Tensor], net: Network) -> Float[Tensor, "p o"]:
    """`reference`'s network of operands that are rounded to the net's format; those of an exact first layer aren't."""
    format, exact = getattr(torch, net.dtype), net.exact
    inputs = rows = x if exact else _Near.apply(x, format)
    for layer, weight in enumerate(weights):
        last = layer == len(weights) - 1
        weight = weight if exact and layer == 0 else _Near.apply(weight, format)
        rows = torch.cat([rows, inputs], dim=1) if layer in net.skips else rows
        rows = networks.mlp(rows, [weight], biases[layer : layer + 1] or None, "none", "none")
        rows = networks.activate(rows, net.activations[last], net.omega)
        rows = rows if last else _Near.apply(rows, format)
    return rows


def rounding(dtype: str) -> Callable[..., Tensor]:
    """`reference`'s mlp, of operands that are rounded to a format."""

    def network(
        x: Tensor,
        weights: list[Tensor],
        biases: list[Tensor],
        activation: str = "relu",
        output_activation: str = "none",
    ) -> Tensor:
        rows = tuple(map(len, weights))
        net = Network(x.shape[1], rows, (activation, output_activation), 0.0, dtype, (), True, False)
        return _rounded(x, weights, biases, net)

    return network


@constant
def mlp(net: Network, device: torch.device) -> bool:
    """A network and its gradients to inputs, matrices and vectors, against one that rounds the same operands."""
    return usable("mlp", net, device, lambda: _network_trial(net, device))


def _network_trial(net: Network, device: torch.device) -> list[Pair]:
    generator = seeded()
    # As large as keeps a signal's size from layer to layer; a sine's as in Sitzmann et al. 2020, section 3.2.
    spread = 1.7 / max(net.omega, 1.0) if net.activations[0] == "sine" else 1.0
    columns = [before + net.inputs * (k in net.skips) for k, before in enumerate((net.inputs, *net.rows[:-1]))]
    weights = [torch.randn(o, i, generator=generator) * spread / i**0.5 for o, i in zip(net.rows, columns)]
    biases = [0.3 * torch.randn(o, generator=generator) for o in net.rows] if net.bias else []
    x = torch.rand(ROWS, net.inputs, generator=generator) * 2 - 1
    depth = len(weights)

    def found(x: Tensor, *parameters: Tensor) -> Tensor:
        settings = (*net.activations, net.omega, net.dtype, cuda_mlp_ops.bits(net.skips))
        return cuda_mlp_ops.mlp(x, parameters[:depth], parameters[depth:], *settings)

    def expected(x: Tensor, *parameters: Tensor) -> Tensor:
        return _rounded(x, list(parameters[:depth]), list(parameters[depth:]), net)

    given = [tensor.to(device) for tensor in (x, *weights, *biases)]
    return with_gradients(found, expected, given, ROUNDED[net.dtype], generator)
