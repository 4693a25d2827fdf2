"""Points carried by a warp: rigid motions known in closed form, known errors, points that don't count, warps that fold."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import scipy.linalg
import torch

from data.motion import SurfaceMotion
from nerf import point_error as module
from nerf.evaluate import evaluate, table
from nerf.kernels.backends import load
from nerf.kernels.space import Space
from nerf.model import Geometry, ModelConfig, SceneModel
from nerf.point_error import measured_motion, point_error, sentence, unwarp
from nerf.warp import Warp, WarpConfig
from tests.test_nerf_render import make_run

CENTER, HALF = np.array([0.3, -0.2, 0.1]), 1.5
SPACE = Space(tuple(CENTER.tolist()), HALF, False)
RIGID = WarpConfig(width=16, depth=2, skip=9, bands=2, code=4, parts=1)


def rigid_model(twists: np.ndarray) -> SceneModel:
    """A model whose warp is exp of a twist (r, v) a photo "f 6", in half sides about the cube's middle, and nothing else."""
    times = tuple(np.linspace(0, 1, len(twists)).tolist())
    geometry = Geometry(SPACE, 0.3, 6.0, 4.0, (1.0, 1.0, 1.0), SPACE, times)
    model = SceneModel(ModelConfig(warp=RIGID), geometry, load("reference"), torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.warp.network.weights[-1].zero_()
        model.warp_codes.table[:, 4:] = torch.from_numpy(twists).float()
    return model


def matrix(twist: np.ndarray) -> np.ndarray:
    """World to canonical "4 4" in scene units, by the exponential of a matrix."""
    r, v = twist[:3], twist[3:]
    inner = np.array([[0, -r[2], r[1], v[0]], [r[2], 0, -r[0], v[1]], [-r[1], r[0], 0, v[2]], [0, 0, 0, 0]])
    place = np.diag([HALF, HALF, HALF, 1.0])
    place[:3, 3] = CENTER
    return place @ scipy.linalg.expm(inner) @ np.linalg.inv(place)


def follow(twists: np.ndarray, count: int = 40, metre: float = 0.25, seed: int = 0) -> SurfaceMotion:
    """Points of a canonical cloud where each photo has them, all of them seen."""
    g = np.random.default_rng(seed)
    cloud = np.append(CENTER + g.uniform(-0.7, 0.7, (count, 3)), np.ones((count, 1)), axis=1)
    points = np.stack([cloud @ np.linalg.inv(matrix(twist)).T for twist in twists])[:, :, :3]
    part = torch.arange(count) % 2
    seen = torch.ones(len(twists), count, dtype=torch.bool)
    return SurfaceMotion(torch.from_numpy(points).float(), seen, part, ("even", "odd"), metre)


def when(motion: SurfaceMotion) -> tuple[list[float], torch.Tensor]:
    """Times of the photos, and places that they were taken from."""
    count = len(motion.points)
    return np.linspace(0, 1, count).tolist(), torch.randn(count, 3, generator=torch.Generator().manual_seed(9)) + 4


def distances(motion: SurfaceMotion, a: int, b: int) -> np.ndarray:
    return (motion.points[a].double() - motion.points[b].double()).norm(dim=1).numpy()


def test_a_warp_that_is_the_true_motion_has_no_error():
    twists = np.random.default_rng(1).normal(size=(7, 6)) * 0.3
    motion = follow(twists)
    found = point_error(rigid_model(twists), motion, *when(motion))
    assert found["moved"] > 0.3 and found["error"] < 2e-6 and found["share"] < 1e-5 and found["missed"] == 0
    assert found["pairs"] == 6 + module.PAIRS and found["points"] == 40 * found["pairs"]
    assert found["moved_mm"] == pytest.approx(1000 * found["moved"] / 0.25)


def test_a_translation_that_is_off_shows_by_how_much():
    twists = np.zeros((2, 6))
    twists[0, 3:], twists[1, 3:] = (0.1, -0.2, 0.05), (-0.05, 0.1, 0.2)
    motion = follow(twists)
    off = np.array([0.03, 0.0, -0.04])
    twists[1, 3:] += off
    found = point_error(rigid_model(twists), motion, *when(motion))
    error, moved = 0.05 * HALF, np.linalg.norm([0.15, -0.3, -0.15]) * HALF
    assert found["error"] == pytest.approx(error, rel=1e-5) and found["median"] == pytest.approx(error, rel=1e-5)
    assert found["moved"] == pytest.approx(moved, rel=1e-5) and found["share"] == pytest.approx(error / moved, rel=1e-5)
    assert found["error_mm"] == pytest.approx(4000 * error, rel=1e-5) and found["pairs"] == 1


def test_mean_and_median_are_those_of_a_slow_loop():
    g = np.random.default_rng(2)
    motion, twists = follow(g.normal(size=(2, 6)) * 0.3), g.normal(size=(2, 6)) * 0.2
    found = point_error(rigid_model(twists), motion, *when(motion))
    carry = np.linalg.inv(matrix(twists[0])) @ matrix(twists[1])  # from the middle photo, the later of two
    errors, across, moved = [], [], []
    eye = when(motion)[1][0].numpy()
    for start, end in zip(motion.points[1].double().numpy(), motion.points[0].double().numpy()):
        off, sight = (carry @ np.append(start, 1))[:3] - end, end - eye
        errors.append(np.linalg.norm(off))
        across.append(np.linalg.norm(np.cross(off, sight)) / np.linalg.norm(sight))
        moved.append(np.linalg.norm(np.cross(end - start, sight)) / np.linalg.norm(sight))
    assert found["error"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert sorted(errors)[19] - 1e-6 <= found["median"] <= sorted(errors)[20] + 1e-6
    assert found["moved"] == pytest.approx(distances(motion, 1, 0).mean(), rel=1e-5)
    assert found["across"] == pytest.approx(np.mean(across), rel=1e-5)
    assert found["moved_across_mm"] == pytest.approx(4000 * np.mean(moved), rel=1e-5)
    assert found["share_across"] == pytest.approx(np.mean(across) / np.mean(moved), rel=1e-5)
    for part, which in (("even", errors[::2]), ("odd", errors[1::2])):
        assert found["parts"][part]["error_mm"] == pytest.approx(4000 * np.mean(which), rel=1e-5)
        assert found["parts"][part]["points"] == 20


def test_a_warp_that_moves_nothing_is_off_by_the_whole_motion():
    twists = np.random.default_rng(3).normal(size=(5, 6)) * 0.2
    motion = follow(twists)
    found = point_error(rigid_model(np.zeros((5, 6))), motion, *when(motion))
    assert found["share"] == found["share_across"] == 1 and found["missed"] == 0
    assert all(part["share"] == part["share_across"] == 1 for part in found["parts"].values())


def test_points_that_a_photo_does_not_see_do_not_count():
    twists = np.random.default_rng(4).normal(size=(3, 6)) * 0.3
    motion = follow(twists)
    motion.seen[1, :10] = False
    motion.seen[2, 10:20] = False
    motion.points[1, :10] = torch.nan
    motion.points[2, 10:20] = 1e6
    found = point_error(rigid_model(twists), motion, *when(motion))
    assert found["error"] < 2e-6 and found["missed"] == 0
    pairs, rows, points = module._choose(motion.seen, when(motion)[0])
    assert pairs[:2].tolist() == [[1, 0], [1, 2]]  # the middle one with every other
    for (a, b), point in zip(pairs[rows], points):
        assert a != b and motion.seen[a, point] and motion.seen[b, point]
    assert [int((rows == row).sum()) for row in (0, 1)] == [30, 20]


def test_where_no_point_is_seen_twice_there_is_nothing_to_say():
    motion = follow(np.zeros((2, 6)))
    motion.seen[0, ::2] = False
    motion.seen[1, 1::2] = False
    assert point_error(rigid_model(np.zeros((2, 6))), motion, *when(motion)) is None
    one = dataclasses.replace(motion, points=motion.points[:1], seen=motion.seen[:1])
    assert point_error(rigid_model(np.zeros((1, 6))), one, *when(one)) is None


def test_a_part_that_is_not_seen_has_no_row():
    motion = follow(np.random.default_rng(5).normal(size=(3, 6)) * 0.1)
    motion.seen[:, 1::2] = False
    found = point_error(rigid_model(np.zeros((3, 6))), motion, *when(motion))
    assert list(found["parts"]) == ["even"]
    assert found["parts"]["even"] == {name: found[name] for name in found["parts"]["even"]}


def test_many_points_are_thinned_out_the_same_way_each_time(monkeypatch):
    twists = np.random.default_rng(6).normal(size=(4, 6)) * 0.2
    motion, model = follow(twists, 700), rigid_model(np.zeros((4, 6)))
    found = point_error(model, motion, *when(motion))
    assert found == point_error(model, motion, *when(motion)) and found["points"] == found["pairs"] * module.POINTS
    monkeypatch.setattr(module, "POINTS", 700)
    assert point_error(model, motion, *when(motion))["moved"] == pytest.approx(found["moved"], rel=0.02)


def test_a_smooth_warp_is_undone():
    g = torch.Generator().manual_seed(0)
    warp = Warp(dataclasses.replace(RIGID, parts=2), SPACE, generator=g).double()
    code = torch.randn(1, 16, generator=g).double() * 0.2
    with torch.no_grad():
        warp.network.weights[-1] *= 500
        x = torch.tensor(CENTER) + (torch.rand(300, 3, generator=g).double() - 0.5)
        canonical = warp(x, code.expand(300, -1), 1.5)
        back, found = unwarp(warp, canonical, code.expand(300, -1), canonical, 1.5)
    assert (canonical - x).norm(dim=1).mean() > 0.2 and found.all()
    # The residual is below 1e-5 half sides, and the warp nowhere shrinks by more than a few times.
    assert (back - x).norm(dim=1).max() < 1e-4


class Crushed(Warp):
    """All of the world in one place."""

    def forward(self, x_world, code, bands=None):
        return x_world * 0 + 5.0 + code[:, :1]


def test_points_without_a_place_stay_and_are_counted():
    twists = np.random.default_rng(7).normal(size=(3, 6)) * 0.2
    motion, model = follow(twists), rigid_model(np.zeros((3, 6)))
    model.warp = Crushed(RIGID, SPACE)
    with torch.no_grad():
        model.warp_codes.table[:, 0] = torch.tensor([0.0, 1.0, 2.0])
    found = point_error(model, motion, *when(motion))
    assert found["missed"] == 1 and found["share"] == 1 and "100.0% have no place" in sentence(found)


def test_a_model_without_a_warp_is_refused():
    motion, model = follow(np.zeros((2, 6))), rigid_model(np.zeros((2, 6)))
    model.warp = None
    with pytest.raises(ValueError, match="expected a model with a warp, found none"):
        point_error(model, motion, *when(motion))


def test_evaluation_says_how_well_points_are_moved(tmp_path):
    _, trainer = make_run(tmp_path, True, steps=2)
    model, scene = trainer.model.eval(), trainer.scene
    assert measured_motion(model, scene) is None and "motion" not in evaluate(model, scene, views=1)
    count = len(scene.train)
    motion = follow(np.random.default_rng(8).normal(size=(count, 6)) * 0.05)
    known = dataclasses.replace(scene, motion=motion)
    figures = evaluate(model, known, views=1)
    eyes = torch.stack([frame.camera.pose[:, 3] for frame in scene.train])
    assert figures["motion"] == point_error(model, motion, [frame.time for frame in scene.train], eyes)
    assert 0.9 < figures["motion"]["share"] < 1.1  # two steps teach nothing
    assert json.loads(json.dumps(figures["motion"])) == figures["motion"]
    last = table(figures).splitlines()[-1]
    assert last.startswith("motion: points end") and f"{figures['motion']['error_mm']:.2f} mm" in last
    still = SceneModel(dataclasses.replace(model.config, warp=None), model.geometry, load("reference"))
    assert measured_motion(still, known) is None
