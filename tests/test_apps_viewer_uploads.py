"""Names, sizes and moments at which uploads do no harm."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.viewer import uploads
from apps.viewer.uploads import UnknownUpload, UploadError, UploadLimit, Uploads
from tests.drops import BAD_NAMES, LIMIT, files_below, put, zipped


@pytest.fixture
def store(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", LIMIT)


@pytest.mark.parametrize("name", list(BAD_NAMES))
def test_bad_names_are_refused(name: str, store: Uploads) -> None:
    token = store.begin()
    with pytest.raises(UploadError, match=f"found {BAD_NAMES[name]}"):
        put(store, token, name)
    assert files_below(store.folder) == []


odd = st.lists(st.sampled_from(["..", ".", "", "a", "b.json", "C:", "\\", "~", "é.png", "\0"]), max_size=18)
names = st.tuples(st.one_of(st.text(max_size=40), odd.map("/".join)), st.sampled_from(["", ".json", "/a.json"]))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(names.map("".join), st.booleans())
def test_no_name_leads_out_of_the_folder(name: str, in_zip: bool) -> None:
    with tempfile.TemporaryDirectory() as outer:
        store = Uploads(Path(outer) / "a/b/uploads", LIMIT)
        token = store.begin()
        try:
            if in_zip:
                put(store, token, "z.zip", zipped({name: b"x"}))
                store.finish(token)
            else:
                put(store, token, name)
        except UploadError:
            pass
        except (UnicodeEncodeError, IndexError):
            assert in_zip  # Python's writer of zips can't write such a name
        top = store.folder / token / "upload"
        assert all(p.is_relative_to(top) and not p.is_symlink() for p in files_below(Path(outer)))


def test_past_the_limit_nothing_stays(store: Uploads) -> None:
    token = store.begin()
    put(store, token, "a.bin", bytes(LIMIT - 10))
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"123"

    with pytest.raises(UploadLimit, match=r"b\.bin: expected at most 1 MB in all, found more"):
        asyncio.run(store.receive(token, "b.bin", endless()))
    assert taken == 4 and [p.name for p in files_below(store.folder)] == ["a.bin"]
    assert put(store, token, "b.bin", bytes(10)) == 10  # what was refused isn't counted


def test_a_stream_that_breaks_leaves_nothing(store: Uploads) -> None:
    token = store.begin()

    async def breaks() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises((ConnectionError, UploadError)):
        asyncio.run(store.receive(token, "a.json", breaks()))
    assert files_below(store.folder) == []
    with pytest.raises(UploadError, match=r"expected photos and their poses .* found nothing"):
        store.finish(token)


def test_so_many_files_and_no_more(store: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "FILES", 3)
    token = store.begin()
    for i in range(3):
        put(store, token, f"{i}.json")
    with pytest.raises(UploadLimit, match="expected at most 3 files in all"):
        put(store, token, "4.json")
    other = store.begin()
    put(store, other, "a.zip", zipped({f"{i}.json": b"{}" for i in range(4)}))
    with pytest.raises(UploadLimit, match="expected at most 3 files in all"):
        store.finish(other)


def test_so_many_uploads_and_no_more(store: Uploads) -> None:
    tokens = [store.begin() for _ in range(uploads.OPEN)]
    with pytest.raises(UploadLimit, match="expected fewer than 32 under way"):
        store.begin()
    store.discard(tokens[0])
    store.keep(tokens[1])
    assert store.begin() and store.begin()


def test_scenes_that_nobody_trains_make_room_for_newer_ones(store: Uploads) -> None:
    removed: list[str] = []
    store.gone = removed.append
    tokens = [store.begin() for _ in range(uploads.OPEN)]
    for token in tokens:
        put(store, token, "a.json")
        store.finish(token)
    store.keep(tokens[0])
    assert store.begin()  # whole ones aren't under way
    assert store.sweep(3600) == len(removed) == uploads.OPEN - 1 - uploads.UNUSED
    assert removed == tokens[1 : 1 + len(removed)]  # the oldest, but not the one that is trained
    assert all((store.folder / token).is_dir() == (token not in removed) for token in tokens)
    with pytest.raises(UnknownUpload):
        store.finish(removed[0])


def test_a_file_and_a_folder_can_not_share_a_name(store: Uploads) -> None:
    token = store.begin()
    put(store, token, "a.json")
    put(store, token, "b.json/c.json")
    for name in ("a.json/d.json", "b.json"):
        with pytest.raises(UploadError, match=f"{name}: expected a place that can be written"):
            put(store, token, name)
    assert len(files_below(store.folder)) == 2


def test_a_link_in_the_way_is_not_followed(store: Uploads, tmp_path: Path) -> None:
    """None can be there; if one were, what it points at would be safe."""
    token, outside = store.begin(), tmp_path / "outside"
    outside.mkdir()
    (outside / "a.json").write_text("mine")
    top = store.folder / token / "upload"
    (top / "folder").symlink_to(outside)
    (top / "a.json").symlink_to(outside / "a.json")
    for name in ("folder/a.json", "a.json"):
        with pytest.raises(UploadError, match="expected a path inside"):
            put(store, token, name)
    assert (outside / "a.json").read_text() == "mine" and len(files_below(outside)) == 1


def test_discard_while_a_file_comes(store: Uploads) -> None:
    token = store.begin()

    async def slow() -> AsyncIterator[bytes]:
        yield b"half"
        store.discard(token)
        yield b"more"

    with pytest.raises(UnknownUpload):
        asyncio.run(store.receive(token, "deep/in/a.json", slow()))
    assert not list(store.folder.iterdir())


def test_sweep_leaves_what_is_ready(store: Uploads) -> None:
    kept, dropped_now, coming = store.begin(), store.begin(), store.begin()
    put(store, kept, "a.json")
    store.keep(kept)

    async def sweeps() -> AsyncIterator[bytes]:
        yield b"half"
        assert store.sweep(0) == 1
        yield b"more"

    asyncio.run(store.receive(coming, "a.json", sweeps()))
    assert sorted(p.name for p in store.folder.iterdir()) == sorted([kept, coming])
    assert store.sweep(60) == 0
    (store.folder / "mine").mkdir()
    later = Uploads(store.folder, LIMIT)  # after the server's end
    assert later.sweep(60) == 0 and later.sweep(0) == 1
    assert sorted(p.name for p in store.folder.iterdir()) == sorted([kept, "mine"])
    with pytest.raises(UnknownUpload):
        put(store, dropped_now, "a.json")
