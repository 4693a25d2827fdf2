"""Checks that the readers share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import SceneError
from data.shots import check_pose, fit_lens, inside, pick_folder, plain_lens, read_json


@given(st.integers(0, 10_000), st.floats(1e-6, 1e6), st.floats(-1e-4, 1e-4))
def test_any_scaled_rotation_passes_and_comes_out_orthonormal(seed: int, scale: float, noise: float) -> None:
    random = np.random.default_rng(seed)
    q, _ = np.linalg.qr(random.normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q))
    rough = scale * (q + noise * random.uniform(-1, 1, (3, 3)))
    pose = check_pose(np.concatenate((rough, [[1], [2], [3]]), 1).tolist(), "a.json", "pose")
    assert np.abs(pose[:, :3].T @ pose[:, :3] - np.eye(3)).max() < 1e-9
    assert np.abs(pose[:, :3] - q).max() < 1e-3 and pose[:, 3].tolist() == [1, 2, 3]


@given(st.integers(0, 10_000))
def test_any_mirrored_rotation_is_refused(seed: int) -> None:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= -np.sign(np.linalg.det(q))
    with pytest.raises(SceneError, match="mirrored"):
        check_pose(np.concatenate((q, np.zeros((3, 1))), 1), "a.json", "pose")


@pytest.mark.parametrize("name", ["a.png", "./a.png", "b/../a.png", "b/c/a.png", "b\\c.png", "..png", "...", "a..b"])
def test_names_inside(name: str) -> None:
    assert inside(Path("/scene"), name, Path("f.json"), "name").parts[:2] == ("/", "scene")


@pytest.mark.parametrize(
    "name",
    [
        "/a.png",
        "../a.png",
        "b/../../a.png",
        "..\\a.png",
        "\\a.png",
        "C:a.png",
        "//host/a",
        "",
        None,
        3,
        "a\0b",
        ".",
        "b/..",
    ],
)
def test_names_outside(name: object) -> None:
    with pytest.raises(SceneError, match=r"f\.json: name: expected a file"):
        inside(Path("/scene"), name, Path("f.json"), "name")


@pytest.mark.parametrize(
    ("size", "focal"),
    [((4032, 3024), 3000.0), ((1008, 756), 750.0), ((504, 378), 375.0), ((8064, 6048), 6000.0)],
)
def test_whole_number_resizes_are_followed(size: tuple[int, int], focal: float) -> None:
    lens = fit_lens(plain_lens(4032, 3024, 3000.0, 3000.0, 2016.0, 1512.0), size, Path("a.png"), Path("f.json"))
    assert (lens.width, lens.height) == size and lens.fx == lens.fy == focal


@pytest.mark.parametrize("size", [(4946 // 4, 3286 // 4), (-(-4946 // 4), -(-3286 // 4))])
def test_resizes_are_rounded_either_way(size: tuple[int, int]) -> None:
    lens = fit_lens(plain_lens(4946, 3286, 4000.0, 4000.0, 2473.0, 1643.0), size, Path("a.png"), Path("f.json"))
    assert lens.fx == pytest.approx(4000 * size[0] / 4946)


@pytest.mark.parametrize("size", [(3024, 4032), (4031, 3024), (2016, 756), (3000, 2250)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    lens = plain_lens(4032, 3024, 3000.0, 3000.0, 2016.0, 1512.0)
    with pytest.raises(SceneError, match=rf"a\.png: size: expected 4032x3024 as f\.json says.*{size[0]}x{size[1]}"):
        fit_lens(lens, size, Path("a.png"), Path("f.json"))


@pytest.mark.parametrize(
    ("have", "wanted", "best"),
    [
        ((1, 2, 4, 8), 4, 4),
        ((1, 2, 8), 4, 2),
        ((1, 2), 3, 1),
        ((2,), 3, 2),
        ((4, 8), 2, 4),
        ((1,), 8, 1),
        ((), 1, None),
    ],
)
def test_pick_folder(tmp_path: Path, have: tuple[int, ...], wanted: int, best: int | None) -> None:
    choices = {k: tmp_path / f"{k}x" for k in (1, 2, 4, 8)}
    for k in have:
        choices[k].mkdir()
    found = pick_folder(choices, wanted)
    assert (None if found is None else found[0]) == best


def test_json_errors_name_the_line(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{\n  "a": 1,\n  "b": \n}\n')
    with pytest.raises(SceneError, match=r"a\.json: line 4: expected valid JSON, found .* at column 1"):
        read_json(file)
    file.write_bytes('\ufeff{"a": 1}'.encode())  # a byte order mark, as Windows tools write it
    assert read_json(file) == {"a": 1}
