"""Times as a person writes them."""

import pytest

from data.durations import seconds


@pytest.mark.parametrize(("text", "expected"), [("90", 90), (" 90s ", 90), ("5m", 300), ("1.5 h", 5400), ("0.5", 0.5)])
def test_times_are_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-5s", "0", "0m", "5d", "5m3s", "1e3"])
def test_other_texts_are_none(text):
    assert seconds(text) is None
