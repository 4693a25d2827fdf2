"""Sizes of memory as a person writes them: "500MB", "2GB", "1.5 GiB"."""

from __future__ import annotations

import re

from data.errors import SceneError

_UNITS = {"": 1, "k": 1e3, "ki": 1 << 10, "m": 1e6, "mi": 1 << 20, "g": 1e9, "gi": 1 << 30, "t": 1e12, "ti": 1 << 40}


def bytes_of(text: str | None, name: str = "--memory") -> int | None:
    """Bytes of such a size; None for None. Raises SceneError, naming the option, for any other text."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", text.strip().lower())
    found = 0 if match is None else int(float(match[1]) * _UNITS[match[2] or ""])
    if found < 1:
        raise SceneError(f"{name}: expected a size such as 500MB or 2GB, found {text!r}")
    return found


def said(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
