"""Zips from strangers: entries that are plain files, inflated a piece at a time so that whoever reads can stop."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from data.errors import shown

_PIECE = 1 << 20
_BROKEN = (BadZipFile, EOFError, NotImplementedError, RuntimeError, UnicodeError, ValueError, struct.error, zlib.error)


@dataclass
class Entry:
    """One file of a zip. `size` is what the zip says; `chunks` gives what is there."""

    name: str
    size: int
    archive: ZipFile
    info: ZipInfo

    def chunks(self) -> Iterator[bytes]:
        """Its content, in pieces of at most a megabyte."""
        with self.archive.open(self.info) as file:
            while piece := file.read(_PIECE):
                yield piece


@contextmanager
def open_entries(path: Path, error: type[ValueError]) -> Iterator[list[Entry]]:
    """The files of a zip, without its folders. Raises `error`, in one sentence, for a zip that is broken, here or while
    its entries are read, and for entries that are links, encrypted, or packed in a way that can't be bounded."""
    try:
        with ZipFile(path) as archive:
            infos = archive.infolist()
            for info in infos:
                fault = _fault(info)
                if fault:
                    name = f"{path.name}: {ascii(info.filename)[:80]}"
                    raise error(f"{name}: expected a plain file, stored or deflated, found {fault}")
            yield [Entry(info.filename, info.file_size, archive, info) for info in infos if not info.is_dir()]
    except _BROKEN as problem:
        if isinstance(problem, error):
            raise
        raise error(f"{path.name}: expected a whole zip, found a broken one ({shown(str(problem))})") from None


def _fault(info: ZipInfo) -> str | None:
    """What is wrong with an entry; None: nothing."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device"
    if info.flag_bits & 1:
        return "an encrypted one"
    # Other methods inflate a block at a time, however large: no piece bounds their memory.
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return f"method {info.compress_type}"
    return "a name with NUL in it" if "\0" in info.orig_filename else None
