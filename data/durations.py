"""Times as a person writes them: "90", "90s", "5m", "1.5h"."""

from __future__ import annotations

import re


def seconds(text: str) -> float | None:
    """Seconds of such a time; None for any other text, and for nothing at all."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", text.strip())
    found = None if match is None else float(match[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[match[2]]
    return found or None
