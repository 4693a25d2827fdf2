"""Points on the studio's person, with two moving plates for a person: where they are drawn, followed and seen."""

from __future__ import annotations

import numpy as np
import pytest

from data import make_selfie
from data.selfie_studio import points
from data.selfie_studio.head import to_room
from data.selfie_studio.motion import INSTANTS, camera_at
from data.selfie_studio.person import Person
from data.selfie_studio.shapes import Strands, Surface

PHOTOS = [(f"{instant:06d}_left", instant) for instant in range(0, INSTANTS, 9)]


def plate(low: tuple[float, float], high: tuple[float, float], z: float, back: bool = False) -> Surface:
    """A rectangle in the head's frame, cm, that faces the camera or turns its back on it."""
    corners = np.array(
        [[x, y, z] for x, y in ((low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1]))]
    )
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    return Surface(corners, triangles[:, ::-1] if back else triangles)


def shift(instant: int) -> np.ndarray:
    return np.array([0.01 * instant, 0.0, 0.3 * np.sin(instant)])


class Plates(Person):
    """A face of 8 x 8 cm, half of it behind a tooth; a sweater of 8 x 4 cm below that stands still; the rest turns away."""

    def __init__(self, head_path):
        pass

    def shapes(self, instant):
        face, tooth = plate((-4, -4), (4, 4), 0.0), plate((-6, -6), (0, 5.5), 2.0)
        face.positions, tooth.positions = face.positions + shift(instant), tooth.positions + shift(instant)
        away = {name: plate((-5, -5), (5, 5), -9.0, back=True) for name in ("M_BackHead", "collar")}
        none = Strands(np.zeros((0, 4, 3)), np.zeros((0, 4)))
        # In another order than points are followed in, as a dictionary may be.
        surfaces = {"M_Teeth": tooth, "sweater": plate((-4, -10), (4, -6), 0.0), **away, "M_Face": face}
        return surfaces, {"hair": none, "hair_light": none}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    file = tmp_path_factory.mktemp("points") / "motion.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "Person", Plates)
        patch.setattr(points, "COUNT", 300)
        patch.setattr(points, "DRAWN", 4000)
        points.write_motion(file, file, PHOTOS)
        first = file.read_bytes()
        points.write_motion(file, file, PHOTOS)
        assert file.read_bytes() == first
    with np.load(file, allow_pickle=False) as fields:
        return dict(fields)


def test_points_go_where_their_surface_goes(made):
    places = made["middle"] + made["offset"].astype(float)
    face, wool = made["part"] == 0, made["part"] == 1
    assert places.shape == (INSTANTS, 300, 3) and made["parts"].tolist() == ["skin", "sweater"]
    for instant in range(INSTANTS):
        moved = to_room(shift(instant)) - to_room(shift(50))
        np.testing.assert_allclose(places[instant, face] - places[50, face], np.tile(moved, (face.sum(), 1)), atol=2e-5)
    assert np.abs(places[:, wool] - places[50, wool]).max() < 1e-7


def test_points_are_uniform_over_what_is_seen(made):
    places = (made["middle"] + made["offset"].astype(float))[50]
    local = (places - to_room(shift(50))) * 100
    skin = local[made["part"] == 0]
    # The tooth hangs 2 cm before the left half: cameras at the sides look behind it, not far.
    assert skin[:, 0].min() > -2.0 and (np.abs(skin) < 4.001).all()
    share = (made["part"] == 1).mean()
    plain = (made["part"] == 0) & (local[:, 0] > 0.5)  # 28 cm2 that all cameras see, to the sweater's 32
    assert share / plain.mean() == pytest.approx(32 / 28, rel=0.25)
    assert np.abs(skin[skin[:, 0] > 0.5].mean(0)[:2] - (2.25, 0)).max() < 0.45


def test_seen_are_those_that_a_line_to_the_lens_leads_to(made):
    places = made["middle"] + made["offset"].astype(float)
    seen = np.unpackbits(made["seen"], axis=1, count=300).astype(bool)
    assert made["photos"].tolist() == [name for name, _ in PHOTOS] and seen.shape == (len(PHOTOS), 300)
    for row, (_, instant) in enumerate(PHOTOS):
        lens, at = camera_at(instant).position, places[instant]
        front = to_room(np.array([0, 0, 2.0]) + shift(instant))
        along = (front[2] - at[:, 2]) / (lens[2] - at[:, 2])
        cross = (at + along[:, None] * (lens - at) - front) * 100  # where the line passes the tooth's plane, cm
        behind = (cross[:, 0] > -6) & (cross[:, 0] < 0) & (cross[:, 1] > -6) & (cross[:, 1] < 5.5)
        sure = (np.abs(cross[:, 0]) > 0.01) & (np.abs(cross[:, 1] + 6) > 0.01)
        assert np.array_equal(seen[row, sure], ~behind[sure])
    assert 0.6 < seen.mean() < 1


def test_too_few_seen_points_are_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(points, "Person", Plates)
    monkeypatch.setattr(points, "DRAWN", 500)
    with pytest.raises(AssertionError, match=r"of 500 points .* are seen, expected 1500"):
        points.write_motion(tmp_path / "motion.npz", tmp_path, PHOTOS[:1])


def test_the_command_adds_motion_to_the_scene_it_belongs_to(tmp_path, capsys, monkeypatch):
    head = tmp_path / "head.npz"
    head.touch()
    only = ["--head", str(head), "--out", str(tmp_path), "--motion-only"]
    with pytest.raises(
        SystemExit, match=r"expected a scene with dataset\.json, to which --motion-only adds, found none"
    ):
        make_selfie.main(only)
    (tmp_path / "dataset.json").write_text('{"train_ids": ["000000_left"]}')
    with pytest.raises(SystemExit, match=r"train_ids: expected 100 photos as by --frames, found 1"):
        make_selfie.main(only)
    asked = []
    monkeypatch.setattr(make_selfie, "write_motion", lambda path, *more: (asked.append(more), path.touch()))
    make_selfie.main([*only, "--frames", "0:1"])
    assert asked == [(head, [("000000_left", 0)])] and "motion.npz" in capsys.readouterr().out
