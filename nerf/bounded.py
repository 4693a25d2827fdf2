"""A limit on the numbers that tensors made in a block may have, so that a wrong configuration can't ask for all memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.arange, torch.linspace)


class TooMany(ValueError):
    """More numbers were asked for than there may be."""


class Bounded(TorchFunctionMode):
    """Within `with Bounded(most):` torch's makers of tensors raise TooMany once they have been asked for more than `most`
    numbers in all, before these are there."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.made = most, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            count = 1
            for size in _whole((*args, kwargs.get("size", ()))):
                count *= max(size, 1)
            self.made += count
            if self.made > self.most:
                raise TooMany(f"expected at most {self.most} numbers, found {min(self.made, 10**18)} or more")
        return func(*args, **kwargs)


def _whole(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, int):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _whole(value)
