"""Which names from a browser or a zip may become files, and what is said of those that may not."""

from __future__ import annotations

from pathlib import PureWindowsPath

KEPT = (".png", ".jpg", ".jpeg", ".json", ".npy", ".npz", ".txt", ".bin", ".ply")  # what readers read
_DEPTH, _PART = 16, 255


class UploadError(ValueError):
    """What was dropped can't be used. The message is one sentence for a person: what, expected and found."""

    status = 422


class UploadLimit(UploadError):
    """There is more of it than the server takes."""

    status = 413


class UnknownUpload(UploadError):
    """No upload has this token."""

    status = 404


def safe_parts(name: str) -> tuple[str, ...]:
    """The parts of a relative path with forward slashes. Raises UploadError for any other: absolute, with a drive, with
    backslashes, with parts that are empty or dots, with characters that don't print, too long or too deep."""
    parts = tuple(name.split("/"))
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:  # half a surrogate pair
        longest = 0
    faults = {
        "one without a name": not name,
        "characters that are no text": not longest and bool(name.strip("/")),
        "control characters": any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name),
        "a backslash": "\\" in name,
        "an absolute one": name.startswith("/"),
        "a drive": bool(PureWindowsPath(name).drive),
        "an empty part": "" in parts,
        "a part of dots": not {".", ".."}.isdisjoint(parts),
        f"a part of {longest} bytes": longest > _PART,
        f"{len(parts)} parts": len(parts) > _DEPTH,
    }
    found = next((fault for fault, there in faults.items() if there), None)
    if found is not None:
        shown = ascii(name) if len(name) <= 60 else ascii(name[:57]) + "..."
        raise UploadError(f"{shown}: name: expected a path inside the scene's folder, found {found}")
    return parts


def is_kept(parts: tuple[str, ...]) -> bool:
    """Whether a reader might read the file. Hidden files and what systems add to folders and zips are left out."""
    return parts[-1].lower().endswith(KEPT) and not any(p.startswith((".", "__MACOSX")) for p in parts)


def is_archive(parts: tuple[str, ...]) -> bool:
    """Whether the file is a zip that is to be unpacked: one that was dropped by itself, not from within a folder."""
    return len(parts) == 1 and parts[0].lower().endswith(".zip") and not parts[0].startswith(".")
