"""How annotations are checked under pytest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import beartype

# An int is welcome where a float is asked for, as everywhere in Python (PEP 484).
_checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def typechecker(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its annotations checked; what checks them is made at the first call, which most never see."""
    if isinstance(function, type):
        return _checked(function)
    made: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        if not made:
            made.append(_checked(function))
        return made[0](*given, **named)

    return checked
