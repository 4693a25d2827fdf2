"""The reference of every module, class and function, built from their docstrings: `python -m apps.reference`.

pdoc makes the pages. What it doesn't look for is held by `tests/test_apps_reference.py`: that nothing public is silent, and
that names in docstrings are names of something.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import tyro

from nerf.config import ConfigError

PACKAGES = ("data", "nerf", "siren", "apps")
APART = ("data.make_selfie", "data.selfie_studio")  # how data/selfie was rendered: they need mitsuba


@dataclass(frozen=True)
class Options:
    """Make the reference of all modules as HTML pages. It needs pdoc: pip install -e '.[docs]'

    Example: python -m apps.reference --out docs/api, then open docs/api/index.html
    """

    out: Path = Path("docs/api")
    """Folder of the pages."""
    source: bool = True
    """--no-source leaves out the code of functions, and the search: a quarter of the bytes, in half the time."""


def build(options: Options) -> str:
    """Write the pages; returns a line that says where. Raises ConfigError where pdoc is missing, or finds a fault."""
    try:
        import pdoc
    except ImportError as error:
        raise ConfigError(f"pdoc can't be imported ({error}); pip install -e '.[docs]'") from None
    pdoc.render.configure(docformat="google", show_source=options.source, search=options.source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # A NamedTuple's own __init__ is typing's, where names of this project mean nothing; its fields are shown all the same.
        warnings.filterwarnings("ignore", r"Error parsing type annotation .*\.__init__")
        warnings.filterwarnings("ignore", f"Couldn't import ({'|'.join(APART)})")
        left_out = *APART, r".*\._"  # and compiled kernels
        pdoc.pdoc(*PACKAGES, *(f"!{name}" for name in left_out), output_directory=options.out)
    faults = [str(warning.message) for warning in caught if "pdoc" in Path(warning.filename).parts]
    if faults:
        raise ConfigError(f"{options.out}: expected pages without a fault, found: {'; '.join(faults)}")
    return f"{options.out / 'index.html'}: {sum(1 for _ in options.out.rglob('*.html')) - 1} modules"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, or 2 where the pages can't be had."""
    options = tyro.cli(Options, args=arguments, prog="python -m apps.reference")
    try:
        print(build(options))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
