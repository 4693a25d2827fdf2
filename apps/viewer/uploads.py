"""Scenes that a person drops on the page: files under names that can't be trusted, checked by the project's own reader.

    uploads = Uploads(Path("uploads"), limit=4 << 30)
    token = uploads.begin()
    await uploads.receive(token, "lego/transforms.json", chunks)
    report = inspect(uploads.finish(token))

An upload is a folder named by a random token: `upload/` holds what came, `drafts/` what is still coming, and `ready`
marks a scene that is trained on and is to stay; of those that were read and aren't, the newest stay for a while. No file
is opened before its place was found to lie inside, and no link is ever made there, so none can be followed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread

from apps.viewer.upload_names import (
    KEPT,
    UnknownUpload,
    UploadError,
    UploadLimit,
    is_archive,
    is_kept,
    safe_parts,
)
from apps.viewer.zips import open_entries

__all__ = ["UnknownUpload", "UploadError", "UploadLimit", "Uploads"]

FILES, OPEN = 20_000, 32  # the most files in an upload, and uploads under way
UNUSED = 16  # scenes that are whole, and that nobody trains: no more of them stay, the newest ones
_TOKEN = re.compile(r"[0-9a-f]{32}")


@dataclass
class _Upload:
    home: Path
    lock: threading.Lock = field(default_factory=threading.Lock)  # of the fields below; held for moments
    unpacking: threading.Lock = field(default_factory=threading.Lock)
    used: int = 0
    files: int = 0
    skipped: int = 0
    coming: int = 0
    touched: float = field(default_factory=time.time)
    closed: bool = False
    gone: bool = False
    ready: bool = False
    root: Path | None = None

    @property
    def top(self) -> Path:
        return self.home / "upload"


class Uploads:
    """All uploads, below `folder` (made when the first begins), each of at most `limit` bytes. Safe among threads.

    Attributes:
        gone: told the token of each that is removed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder.expanduser().absolute(), limit
        self.gone: Callable[[str], object] = lambda token: None
        self._uploads: dict[str, _Upload] = {}
        self._lock = threading.Lock()

    def begin(self) -> str:
        """A new upload's token. Raises UploadLimit while too many are under way."""
        with self._lock:
            under_way = sum(u.root is None and not u.ready for u in self._uploads.values())
            if under_way >= OPEN:
                raise UploadLimit(f"uploads: expected fewer than {OPEN} under way, found {under_way}")
            token = secrets.token_hex(16)
            upload = _Upload(self.folder / token)
            try:
                upload.top.mkdir(parents=True)
                (upload.home / "drafts").mkdir()
            except OSError as error:
                raise UploadError(f"uploads: expected a folder that can be written, found: {error.strerror}") from None
            self._uploads[token] = upload
        return token

    async def receive(self, token: str, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Keep one file, and return its bytes; 0 for a file of a kind that no reader reads. Raises UploadError for a
        bad name, or past a limit; nothing of the file stays then."""
        upload = self._upload(token)
        parts = safe_parts(name)
        with upload.lock:
            if upload.closed:
                raise UploadError(f"{name}: expected files before the scene is checked, found one after")
            upload.coming += 1
        try:
            if not (is_kept(parts) or is_archive(parts)):
                with upload.lock:
                    upload.skipped += 1
                return await self._swallow(name, chunks)
            with _draft(upload, parts, self.limit) as draft:
                async for chunk in chunks:
                    await anyio.to_thread.run_sync(draft.write, chunk)
            return draft.size
        finally:
            with upload.lock:
                upload.coming -= 1

    def finish(self, token: str) -> Path:
        """Unpack what is zipped, and return the scene's folder: past folders that hold nothing but one folder. Nothing
        can be added afterwards. Raises UploadError for a zip that can't be used; the upload is gone then."""
        upload = self._upload(token)
        with upload.unpacking:
            if upload.root is not None:
                return upload.root
            with upload.lock:
                if upload.coming:
                    raise UploadError(f"upload: expected all files, found {upload.coming} still coming")
                upload.closed = True
            try:
                for file in sorted(p for p in upload.top.iterdir() if is_archive((p.name,)) and p.is_file()):
                    self._unpack(upload, file)
                if not upload.files:
                    found = f"{upload.skipped} files of other kinds" if upload.skipped else "nothing"
                    raise UploadError(f"upload: expected photos and their poses ({' '.join(KEPT)}), found {found}")
                upload.root, upload.touched = _descend(upload.top), time.time()
            except (UploadError, OSError) as error:
                self.discard(token)
                if isinstance(error, OSError):
                    raise UnknownUpload("upload: expected one under way, found it gone") from None
                raise
        return upload.root

    def keep(self, token: str) -> None:
        """Let the upload stay: `sweep` leaves it alone from now on, in later runs of the server too."""
        upload = self._upload(token)
        (upload.home / "ready").touch()
        upload.ready = True

    def skipped(self, token: str) -> int:
        """How many files were left out since no reader reads their kind."""
        return self._upload(token).skipped

    def plot(self, token: str) -> Path:
        """Where the upload's picture lies, or will."""
        return self._upload(token).home / "plot.png"

    def discard(self, token: str) -> None:
        """Remove an upload with all its files, whatever it is at."""
        upload = self._upload(token)
        with upload.lock:  # no draft finds its place from now on
            upload.gone = True
        with self._lock:
            self._uploads.pop(token, None)
        shutil.rmtree(upload.home, ignore_errors=True)
        self.gone(token)

    def sweep(self, age_seconds: float) -> int:
        """Remove uploads that nobody finished and nothing came for in this time, those of a server that has ended too, and
        whole ones that nobody trains, but for the UNUSED newest; return how many."""
        before = time.time() - age_seconds
        with self._lock:
            known = dict(self._uploads)
            free = {token: upload for token, upload in known.items() if not upload.ready}
        unused = sorted((t for t, u in free.items() if u.root is not None), key=lambda t: free[t].touched)
        old = [t for t, u in free.items() if u.root is None and not u.coming and u.touched <= before]
        old += unused[: max(0, len(unused) - UNUSED)]
        for token in old:
            try:
                self.discard(token)
            except UnknownUpload:  # its owner was quicker
                continue
        left = [p for p in self.folder.iterdir() if _TOKEN.fullmatch(p.name)] if self.folder.is_dir() else []
        for home in left:
            if home.name not in known and not (home / "ready").exists() and home.stat().st_mtime <= before:
                shutil.rmtree(home, ignore_errors=True)
                old.append(home.name)
        return len(old)

    def _upload(self, token: str) -> _Upload:
        upload = self._uploads.get(token) if _TOKEN.fullmatch(token) else None
        if upload is None:
            raise UnknownUpload("upload: expected the token of one under way, found another")
        return upload

    async def _swallow(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > self.limit:
                raise UploadLimit(_too_much(name, self.limit))
        return 0

    def _unpack(self, upload: _Upload, file: Path) -> None:
        """Put a zip's files in its place: as they are where all lie in one folder, else in a folder of its name."""
        with upload.lock:  # what counts is what it holds
            upload.used -= file.stat().st_size
            upload.files -= 1
        with open_entries(file, UploadError) as entries:
            named = [(safe_parts(entry.name), entry) for entry in entries]
            wanted = [(parts, entry) for parts, entry in named if is_kept(parts)]
            upload.skipped += len(named) - len(wanted)
            if sum(entry.size for _, entry in wanted) > self.limit - upload.used:
                raise UploadLimit(_too_much(file.name, self.limit))
            in_one_folder = len({parts[0] for parts, _ in wanted}) == 1 and all(len(parts) > 1 for parts, _ in wanted)
            for parts, entry in wanted:
                place = parts if in_one_folder else (file.stem, *parts)
                with _draft(upload, place, self.limit) as draft:
                    for chunk in entry.chunks():
                        draft.write(chunk)
        file.unlink()


def _too_much(name: str, limit: int) -> str:
    return f"{name}: expected at most {limit / 1e6:.6g} MB in all, found more"


class _Draft:
    """A file under way: counts its bytes against the limit as they come."""

    def __init__(self, upload: _Upload, name: str, file: BinaryIO, limit: int) -> None:
        self._upload, self._name, self._file, self._limit = upload, name, file, limit
        self.size = 0

    def write(self, data: bytes) -> None:
        with self._upload.lock:
            self._upload.touched = time.time()
            self._upload.used += len(data)
            self.size += len(data)
            if self._upload.used > self._limit:
                raise UploadLimit(_too_much(self._name, self._limit))
        self._file.write(data)


@contextmanager
def _draft(upload: _Upload, parts: tuple[str, ...], limit: int) -> Iterator[_Draft]:
    """A draft that is moved to its place at the end, or leaves nothing, neither bytes nor a count of them."""
    name = "/".join(parts)
    path, target = upload.home / "drafts" / secrets.token_hex(8), upload.top.joinpath(*parts)
    draft = None
    with upload.lock:
        if upload.files >= FILES:
            raise UploadLimit(f"{name}: expected at most {FILES} files in all, found more")
        upload.files += 1
    placed = False
    try:
        with open(path, "xb", buffering=1 << 20) as file:
            draft = _Draft(upload, name, file, limit)
            yield draft
        _place(upload, path, target, name)
        placed = True
    except OSError as error:
        if upload.gone:
            raise UnknownUpload("upload: expected one under way, found it gone") from None
        raise UploadError(f"{name}: expected a place that can be written, found: {error.strerror or error}") from None
    finally:
        if not placed:
            path.unlink(missing_ok=True)
            with upload.lock:
                upload.files -= 1
                upload.used -= 0 if draft is None else draft.size


def _place(upload: _Upload, path: Path, target: Path, name: str) -> None:
    with upload.lock:
        if upload.gone:
            raise UnknownUpload("upload: expected one under way, found it gone")
        if not target.resolve().is_relative_to(upload.top.resolve()):  # can't be, by its parts; but if it were
            raise UploadError(f"{name!a}: name: expected a path inside the scene's folder, found another")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def _descend(top: Path) -> Path:
    while True:
        inner = list(top.iterdir())
        if len(inner) != 1 or not inner[0].is_dir():
            return top
        top = inner[0]
