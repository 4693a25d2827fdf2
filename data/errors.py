"""The one error that reading a scene raises."""

from __future__ import annotations

import os
from pathlib import Path


class SceneError(ValueError):
    """A scene that can't be read. Its message is one sentence that names the file, the field, what was expected and
    what was found, so that it can be shown to a person as it is."""


def mismatch(file: Path | str, field: str, expected: str, found: object) -> SceneError:
    """The sentence for one bad value: ``FILE: FIELD: expected X, found Y``. Long values are cut at 80 characters."""
    place = os.sep.join(shown(part, 100) for part in str(file).split(os.sep))
    return SceneError(f"{place}: {shown(field, 160)}: expected {expected}, found {shown(found)}")


def shown(found: object, most: int = 80) -> str:
    """A value as it stands in a sentence: on one line, of at most `most` characters."""
    try:
        text = found if isinstance(found, str) else repr(found)
    except Exception:  # such as an array of characters that are none
        text = f"a {type(found).__name__} that can't be shown"
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


class CaptureError(SceneError):
    """Photos or a film that no scene can be made of. One sentence that says why, and what would help."""
