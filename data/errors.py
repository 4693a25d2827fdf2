"""The one error that reading a scene raises."""

from __future__ import annotations

from pathlib import Path


class SceneError(ValueError):
    """A scene that can't be read. Its message is one sentence that names the file, the field, what was expected and
    what was found, so that it can be shown to a person as it is."""


def mismatch(file: Path | str, field: str, expected: str, found: object) -> SceneError:
    """The sentence for one bad value: ``FILE: FIELD: expected X, found Y``. Long values are cut at 80 characters."""
    text = found if isinstance(found, str) else repr(found)
    text = " ".join(text.split())
    return SceneError(f"{file}: {field}: expected {expected}, found {text if len(text) <= 80 else text[:77] + '...'}")


class CaptureError(SceneError):
    """Photos or a film that no scene can be made of. One sentence that says why, and what would help."""
