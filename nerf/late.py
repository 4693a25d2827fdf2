"""Numbers of a training step that are read a step late: to read them from a GPU at once would wait for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Term(NamedTuple):
    """A number of a step, a tensor where it lies on a device, and what share of the sum by its name it has."""

    name: str
    value: Tensor | int
    share: float = 1.0


class Late:
    """Takes a step's numbers and gives those of the step before, which have arrived by then.

    On the CPU, and for the first step, it gives the same step's.
    """

    def __init__(self) -> None:
        self._sent: tuple[list[Term], Tensor, Any] | None = None

    def exchange(self, terms: list[Term]) -> dict[str, float]:
        """Hand in a step's terms; returns sums of shares by name."""
        values = torch.stack([term.value.detach() for term in terms if isinstance(term.value, Tensor)])
        before = self._sent
        if values.device.type == "cpu":
            return _sums(terms, values)
        self._sent = (terms, *_send(values))
        names, numbers, arrived = before or self._sent
        if arrived is not None:
            arrived.synchronize()
        return _sums(names, numbers)


def _send(values: Tensor) -> tuple[Tensor, Any]:
    """The values on their way to the host, and the event of their arrival; None: they are there."""
    there = values.is_cuda
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=there)
    host.copy_(values, non_blocking=True)
    event = torch.cuda.Event() if there else None
    if event is not None:
        event.record()
    return host, event


def _sums(terms: list[Term], numbers: Tensor) -> dict[str, float]:
    totals: dict[str, float] = {}
    arrived = iter(numbers.tolist())
    for term in terms:
        number = term.value if isinstance(term.value, int) else next(arrived)
        totals[term.name] = totals.get(term.name, 0.0) + number * term.share
    return totals
