"""The texts of the `cuda` backend's kernels: where they lie and what they include.

In a checkout they are the folder `cuda`; an installed package carries them beside this file (setup.py).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.MULTILINE)
_EMULATION = "emulation/"  # what stands for a GPU's instructions under a C++ compiler: no part of a program for a GPU

# The compiler on the user's machine may have no C++ library; the shared headers need these names of it.
STANDARD = {
    "cstdint": """#pragma once
typedef signed char int8_t; typedef short int16_t; typedef int int32_t; typedef long long int64_t;
typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned int uint32_t;
typedef unsigned long long uint64_t; typedef unsigned long long uintptr_t;
""",
}


class SourceError(FileNotFoundError):
    """A kernel's source, or something that it includes, isn't where the package has it."""


@cache
def root() -> Path:
    """The folder that holds `gpu/` and `shared/`."""
    here = Path(__file__).resolve().parent
    for folder in (here / "sources", here.parents[1] / "cuda"):
        if (folder / "gpu").is_dir():
            return folder
    raise SourceError(f"the kernels' sources are neither in {here / 'sources'} nor in {here.parents[1] / 'cuda'}")


def names() -> list[str]:
    """Every program there is: the .cu files, as `gather` takes them."""
    return sorted(path.name for path in (root() / "gpu").glob("*.cu"))


def gather(source: str) -> tuple[str, dict[str, str]]:
    """A program's text, and that of every header that it includes, directly or not.

    Args:
        source: file name in `gpu/`.

    Returns:
        the text, and header texts by the name in the `#include "..."` that asks for each; one name never means two files.
    """
    main = root() / "gpu" / source
    if not main.is_file():
        raise SourceError(f"{source}: no such file in {main.parent}")
    headers: dict[str, str] = {}
    found: dict[str, Path] = {}
    waiting = [main]
    while waiting:
        path = waiting.pop()
        for name in _INCLUDE.findall(path.read_text(encoding="utf-8")):
            if name.startswith(_EMULATION):
                continue
            places = (path.parent / name, root() / "gpu" / name, root() / name)
            header = next((place.resolve() for place in places if place.is_file()), None)
            if header is None:
                raise SourceError(f'{path.name}: #include "{name}" is not in {root()}')
            if found.setdefault(name, header) != header:
                raise SourceError(f'#include "{name}" means {found[name]} here and {header} there')
            if name not in headers:
                headers[name] = header.read_text(encoding="utf-8")
                waiting.append(header)
    return main.read_text(encoding="utf-8"), headers
