"""The first use of a kernel on a GPU: a thousand rows of random numbers through it and through `reference`.

What disagrees is said once, and that op takes `reference`'s implementation from then on; so does an op whose kernel can't
be compiled or launched. `verdicts` tells what was tried in this process and how it came out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nerf.kernels import cuda_driver
from nerf.kernels.cuda_compile import CompileError
from nerf.kernels.cuda_driver import Driver, DriverError
from nerf.kernels.cuda_sources import SourceError

ROWS = 1000


class Pair(NamedTuple):
    """One result of a trial: what the kernel found, what was expected, and how far they may be apart (`distance`)."""

    name: str
    found: Tensor
    expected: Tensor
    limit: float


@dataclass(frozen=True)
class Verdict:
    """How a trial came out.

    Attributes:
        op, variant: what was tried.
        error: the largest distance between a result and what was expected.
        trouble: why the kernel isn't used, as a sentence; "" where it is.
    """

    op: str
    variant: Hashable
    error: float
    trouble: str


Trial = Callable[[], Sequence[Pair]]
_verdicts: dict[tuple[Driver, str, Hashable, torch.device], Verdict] = {}


def verdicts() -> list[Verdict]:
    """What has been tried so far with the driver in use."""
    return [verdict for key, verdict in _verdicts.items() if key[0] is cuda_driver.driver()]


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative to the expected numbers, where these are large, and to a tenth, where they are small. A NaN is infinitely
    far from any number."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    apart = (found.double() - expected.double()).norm()
    scale = expected.double().norm() + 0.1 * max(expected.numel(), 1) ** 0.5
    return float(torch.nan_to_num(apart / scale, nan=torch.inf))


def usable(op: str, variant: Hashable, device: torch.device, trial: Trial) -> bool:
    """Whether an op's kernel agrees with `reference` on this device; tried at the first call, remembered after it.

    Args:
        op: its name.
        variant: what tells this kernel of the op from its others, such as a network's widths.
        trial: runs both and returns their results.
    """
    key = (cuda_driver.driver(), op, variant, device)
    verdict = _verdicts.get(key)
    if verdict is None:
        verdict = _verdicts[key] = _try(op, variant, trial)
        if verdict.trouble:
            warnings.warn(f"backend cuda: {op}: {verdict.trouble}; reference is used instead", stacklevel=3)
    return not verdict.trouble


def _try(op: str, variant: Hashable, trial: Trial) -> Verdict:
    try:
        with torch.enable_grad(), torch.device("cpu"):  # where trials draw their numbers, whatever the caller's default
            pairs = trial()
    except (CompileError, DriverError, SourceError) as error:
        return Verdict(op, variant, float("inf"), str(error))
    worst, trouble = 0.0, ""
    for pair in pairs:
        apart = distance(pair.found, pair.expected)
        worst = max(worst, apart)
        if not apart <= pair.limit and not trouble:
            trouble = f"{pair.name} differs from reference by {apart:.1e} (allowed: {pair.limit:.0e}) at {variant}"
    return Verdict(op, variant, worst, trouble)


def with_gradients(
    run: Callable[..., Tensor | Sequence[Tensor]],
    expected: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor],
    limit: float,
    generator: torch.Generator,
) -> list[Pair]:
    """The results of two implementations, and the gradients of `inputs` for one random cotangent a result."""
    sides = []
    for side in (run, expected):
        leaves = [tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in inputs]
        results = side(*leaves)
        sides.append((leaves, [results] if isinstance(results, Tensor) else list(results)))
    (_, found), (_, wanted) = sides
    cotangents = [torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device) for value in wanted]
    grads = [
        torch.autograd.grad(results, [leaf for leaf in leaves if leaf.requires_grad], cotangents, allow_unused=True)
        for leaves, results in sides
    ]
    pairs = [Pair(f"result {k}", a.detach(), b.detach(), limit) for k, (a, b) in enumerate(zip(found, wanted))]
    for k, (a, b) in enumerate(zip(*grads)):
        if a is not None and b is not None:
            pairs.append(Pair(f"gradient {k}", a, b, limit))
        elif (a is None) != (b is None):
            pairs.append(Pair(f"gradient {k}", torch.zeros(()), torch.full((), torch.inf), limit))
    return pairs
