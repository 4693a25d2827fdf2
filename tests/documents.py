"""The documentation as a test sees it: fenced blocks, command lines, code spans, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = ("bash", "sh", "console")


@dataclass(frozen=True)
class Fence:
    """A fenced block: what it is of, the file that it is named after ("" for none), its text, its first line's number."""

    language: str
    file: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """One command of a shell block: variables that are set for it, and its words."""

    variables: tuple[str, ...]
    words: tuple[str, ...]
    page: str
    line: int

    def __str__(self) -> str:
        return shlex.join([*self.variables, *self.words])

    @property
    def module(self) -> str | None:
        """Of `python -m MODULE` and `torchrun ... -m MODULE`; None: it runs none."""
        if self.words[0] in ("python", "python3", "torchrun") and "-m" in self.words:
            return self.words[self.words.index("-m") + 1]
        return None

    @property
    def arguments(self) -> list[str]:
        """What the module is given."""
        return list(self.words[self.words.index("-m") + 2 :])


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, in order. Raises AssertionError for one that doesn't end."""
    found: list[Fence] = []
    opened: tuple[str, str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.fullmatch(r"```(\w*) ?(\S*)", line)
        if opened is None and mark:
            opened, lines = (mark[1], mark[2], number + 1), []
        elif opened is not None and line == "```":
            found.append(Fence(opened[0], opened[1], "\n".join(lines) + "\n", opened[2]))
            opened = None
        elif opened is not None:
            lines.append(line)
    assert opened is None, f"{page.name}: a block begins at line {opened and opened[2] - 1} and doesn't end"
    return found


def commands(page: Path) -> list[Command]:
    """The commands of a page's shell blocks, in order: a line may hold several behind `&&`, and go on behind a backslash."""
    found = []
    for fence in fences(page):
        if fence.language in SHELL:
            text = fence.text.replace("\\\n", " \n")  # the next line's number stays the same
            for number, line in enumerate(re.sub(r" \n", " ", text).splitlines(), fence.line):
                found += _split(shlex.split(line, comments=True), page.name, number)
    return found


def _split(words: list[str], page: str, line: int) -> list[Command]:
    found, rest = [], words
    while rest:
        end = rest.index("&&") if "&&" in rest else len(rest)
        part, rest = rest[:end], rest[end + 1 :]
        count = next((k for k, word in enumerate(part) if not re.match(r"[A-Z_]+=", word)), len(part))
        found.append(Command(tuple(part[:count]), tuple(part[count:]), page, line))
    return found


def spans(page: Path) -> list[str]:
    """The code spans of a page, outside of its blocks."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.findall(r"`([^`\n]+)`", prose)


def links(page: Path) -> list[str]:
    """What a page's links and pictures point at."""
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
