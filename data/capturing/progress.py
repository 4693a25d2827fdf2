"""The progress bars of a capture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(items: Iterable | None, text: str, unit: str, total: int | None = None) -> Any:
    """A bar over `items`, or one of `total` units that is moved by hand; it is gone once it is full."""
    return tqdm(items, desc=text, unit=unit, total=total, dynamic_ncols=True, leave=False)
