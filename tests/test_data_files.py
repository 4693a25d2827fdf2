"""data.files: names of files made of photos' names."""

from __future__ import annotations

import pytest

from data.files import file_stem


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("000027_right", "000027_right"), ("train/r_0.png", "train_r_0"), ("../out of here.jpg", "out_of_here"),
        ("a:b?c", "a_b_c"), ("..", "photo"),
    ],
)  # fmt: skip
def test_a_photos_name_makes_a_files(name, stem):
    assert file_stem(name) == stem
