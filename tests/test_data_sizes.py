"""Sizes of memory as people write them."""

from __future__ import annotations

import pytest

from data.errors import SceneError
from data.sizes import bytes_of, said


@pytest.mark.parametrize(
    "text, count",
    [
        ("2GB", 2_000_000_000), ("500MB", 500_000_000), ("1.5 g", 1_500_000_000), ("2GiB", 2 << 30), ("64 MiB", 64 << 20),
        ("10kb", 10_000), ("1234", 1234), (" 1tb ", 10**12),
    ],
)  # fmt: skip
def test_a_size_is_read(text: str, count: int) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 giga", "1e9", "0", "0.1", "2GBs", "inf", "1,5GB"])
def test_what_is_no_size_is_refused_by_the_option_s_name(text: str) -> None:
    with pytest.raises(SceneError, match=r"^--memory: expected a size such as 500MB or 2GB, found "):
        bytes_of(text)


def test_nothing_stays_nothing_and_bytes_are_said() -> None:
    assert bytes_of(None) is None
    assert [said(n) for n in (59_000_000, 999_000_000, 1_500_000_000)] == ["59.0 MB", "999.0 MB", "1.5 GB"]
