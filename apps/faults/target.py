"""What a target of the fuzzing is, and how a case is handed to it."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pydantic import ValidationError

from apps.faults.seeds import Files

LONGEST = 1000  # characters of a sentence


class Wrong(AssertionError):
    """The product took what it should have refused, or said it badly."""


@dataclass(frozen=True)
class Target:
    """One way in.

    Attributes:
        prepare: write a case into an empty folder.
        take: hand it to the product.
        refusals: errors that are sentences for a person; any other is a fault.
        inner: the folder within the case's that must not be left; "": the case's own.
        rare: it is tried in one round of so many, as it takes as much longer.
        programs: what the product may start to read it.
    """

    name: str
    prepare: Callable[[Path, Random], None]
    take: Callable[[Path], None]
    refusals: tuple[type[Exception], ...]
    inner: str = ""
    rare: int = 1
    programs: tuple[str, ...] = ()


def rounds(every: list[Target]) -> list[Target]:
    """The order in which targets are tried, over and over: those that are quick in each round, those that are `rare` in some."""
    most = max(target.rare for target in every)
    return [target for turn in range(most) for target in every if turn % target.rare == 0]


def attempt(target: Target, folder: Path) -> bool:
    """Whether what lies in `folder` was read; False: it was refused in a sentence. Raises whatever else came of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.take(folder)
    except target.refusals as error:
        said = str(error)
        if isinstance(error, ValidationError):  # the server takes the first of these
            said = error.errors()[0]["msg"]
        if not said or len(said) > LONGEST or "\n" in said:
            raise Wrong(f"expected one sentence, found {said[:2000]!r}") from error
        return False
    return True


def put(folder: Path, files: Files) -> None:
    """Write files; those whose names no file can have, or whose place is taken by a folder, are left out."""
    for name, data in files.items():
        place = folder / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        except (OSError, ValueError):
            continue


def clear(folder: Path) -> None:
    """Empty a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
