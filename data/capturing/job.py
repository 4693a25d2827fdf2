"""What the steps from photos to poses share: pycolmap, its database, how hard to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.capturing.photos import Photo
from data.errors import CaptureError


@dataclass(frozen=True)
class SolveConfig:
    """How poses are found.

    Attributes:
        longest: pixels of the longer side that features are found at.
        features: at most so many a photo.
        enough: share of photos posed at which no further attempt is made.
        threads: -1 takes all; 1 makes a run repeatable to the bit.
        seed: of every random choice.
    """

    longest: int = 1280
    features: int = 3000
    enough: float = 0.97
    threads: int = -1
    seed: int = 0


@dataclass(frozen=True)
class Attempt:
    """One way of trying.

    Attributes:
        name: for the report.
        peak: how distinct a feature must be, as a share of SIFT's usual threshold.
        every_pair: match all pairs, also of a film.
        relax: what a first pair and a further photo need (matches, angles), as a share of COLMAP's usual thresholds.
    """

    name: str
    peak: float = 1.0
    every_pair: bool = False
    relax: float = 1.0


ATTEMPTS = (
    Attempt("as usual"),
    Attempt("with relaxed thresholds", relax=0.4),
    Attempt("with fainter features and more pairs", peak=0.3, every_pair=True, relax=0.4),
)


@dataclass(frozen=True)
class Job:
    """One attempt at one set of photos. `masks`: a folder of `<photo's file>.png`, black where no feature is wanted."""

    pycolmap: Any
    database: Path
    folder: Path
    photos: Sequence[Photo]
    work: Path
    ordered: bool
    masks: Path | None
    attempt: Attempt
    config: SolveConfig

    def geometry(self) -> Any:
        """pycolmap's options for the geometry of two views."""
        options = self.pycolmap.TwoViewGeometryOptions()
        options.ransac.random_seed = self.config.seed
        options.detect_watermark = False  # what stays where it is in the picture is a person who turns with the camera
        return options

    def open(self) -> Any:
        """The database, to be used in a `with`."""
        return self.pycolmap.Database.open(self.database)


def pycolmap_or_sentence() -> Any:
    """The module, silenced. Raises CaptureError, saying what to install, where it is missing."""
    try:
        import pycolmap
    except ImportError:
        raise CaptureError(
            "poses: expected pycolmap, which finds them, found it isn't installed: pip install -e '.[capture]'"
        ) from None
    pycolmap.logging.minloglevel = 2  # its warnings are of photos that the report names
    return pycolmap
