"""Signed distance functions: the loss against a slow loop, fits against closed forms, meshes there and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from nerf.kernels import load
from siren.loop import FitError, Schedule
from siren.network import Siren, SirenConfig
from siren.sdf import finish, fit_shape, main, signed_distance
from siren.sdf_examples import Mesh, boxes, torus
from siren.sdf_loss import SdfWeights, sdf_objective, sdf_terms
from siren.sdf_mesh import compare, distances, eikonal_error, extract, sample_grid
from siren.sdf_picture import look, picture_of_network, picture_of_shape, sphere_trace
from siren.sdf_shape import Shape, shape_from_mesh, shape_from_points
from siren.store import load_network

o3d = pytest.importorskip("open3d", exc_type=ImportError)  # or a system library of its own
pytest.importorskip("skimage")

SMALL = SirenConfig(3, 1, 64, 3)
MAJOR, MINOR = 1.0, 0.4


class Known(Siren):
    """A stand-in for a network, of known values."""

    def __init__(self, function, slope) -> None:
        super().__init__(SirenConfig(3, 1, 1, 1))
        self.function, self.slope = function, slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)[:, None]

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        return self.slope(x)[:, None]


def ball(radius: float) -> Known:
    return Known(lambda x: x.norm(dim=1) - radius, lambda x: torch.nn.functional.normalize(x, dim=1))


def torus_distance(x: np.ndarray) -> np.ndarray:
    return np.hypot(np.hypot(x[:, 0], x[:, 1]) - MAJOR, x[:, 2]) - MINOR


def box_distance(x: np.ndarray, half: np.ndarray) -> np.ndarray:
    q = np.abs(x) - half
    return np.linalg.norm(q.clip(0), axis=1) + q.max(1).clip(max=0)


def ball_shape(count: int = 4000, radius: float = 30.0) -> Shape:
    points = np.random.default_rng(0).normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return shape_from_points(points * radius + (1000, 0, 50), points)


def fitted(shape: Shape, steps: int = 250, points: int = 700) -> Siren:
    siren, progress = fit_shape(shape, SMALL, Schedule(steps=steps, rate=1e-3, final=0.05), points, ops=load("cpu"))
    for _ in progress:
        pass
    return siren


@pytest.fixture(scope="module")
def torus_fit() -> tuple[Siren, Shape]:
    mesh = torus(MAJOR, MINOR)
    shape = shape_from_mesh(Mesh(mesh.vertices * 25 + (1000, 0, 50), mesh.faces), count=20_000)
    return fitted(shape), shape


def test_terms_against_a_loop():
    random = torch.Generator().manual_seed(0)
    value = torch.randn(7, generator=random, dtype=torch.float64) * 0.05
    gradient = torch.randn(7, 3, generator=random, dtype=torch.float64)
    normals = torch.nn.functional.normalize(torch.randn(3, 3, generator=random, dtype=torch.float64), dim=1)
    rough = torch.tensor([0.1, -0.02, 0.0, 0.01], dtype=torch.float64)
    expected = dict.fromkeys(("surface", "normal", "eikonal", "empty", "side"), 0.0)
    for i, (v, g) in enumerate(zip(value.tolist(), gradient.tolist())):
        size = math.sqrt(sum(c * c for c in g))
        expected["eikonal"] += abs(size - 1) / 7
        if i < 3:
            expected["surface"] += abs(v) / 7
            expected["normal"] += (1 - sum(a * b for a, b in zip(g, normals[i].tolist())) / size) / 7
        else:
            expected["empty"] += math.exp(-50 * abs(v)) / 7
            near = rough[i - 3].item()
            lacking = 0.9 * near - v if near > 0 else v - 0.9 * near
            expected["side"] += max(0.0, lacking) / 7 if near else 0.0
    found = sdf_terms(value, gradient, normals, rough, sharpness=50)
    assert {name: term.item() for name, term in found.items()} == pytest.approx(expected, rel=1e-12)


def test_a_true_distance_costs_only_what_lies_near_the_surface():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.nn.functional.normalize(x, dim=1)
    points = torch.cat((x * 0.5, x * 0.9))
    terms = sdf_terms(points.norm(dim=1) - 0.5, torch.cat((x, x)), x, torch.full((50,), 0.4).double())
    assert all(terms[name].item() == pytest.approx(0, abs=1e-12) for name in ("surface", "normal", "eikonal", "side"))
    assert terms["empty"].item() == pytest.approx(math.exp(-40) / 2, rel=1e-6)


def test_the_objective_is_the_weighted_sum_on_its_own_points():
    shape, siren = ball_shape(500), Siren(SMALL, None, torch.Generator().manual_seed(3))

    def loss(**weights: float) -> float:
        none = dict.fromkeys(("surface", "normal", "eikonal", "empty", "side"), 0.0)
        objective = sdf_objective(siren, shape, SdfWeights(**(none | weights)), 40, 60)
        return objective(torch.Generator().manual_seed(5))[0].item()

    parts = [loss(**{name: 2.0}) for name in ("surface", "normal", "eikonal", "empty", "side")]
    assert min(parts) > 0
    assert loss(surface=2, normal=2, eikonal=2, empty=2, side=2) == pytest.approx(sum(parts), rel=1e-5)


def test_a_fitted_torus_has_the_distance_of_the_closed_form(torus_fit):
    siren, shape = torus_fit
    x = np.random.default_rng(2).uniform(-1.5, 1.5, (20_000, 3))
    truth = torus_distance(x)
    band = np.abs(truth) < 0.15
    found = signed_distance(siren, shape.placement, x * 25 + (1000, 0, 50)) / 25
    assert np.abs(found - truth)[band].mean() < 0.015
    assert (np.sign(found) == np.sign(truth))[band & (np.abs(truth) > 0.03)].mean() > 0.999


def test_a_torus_there_and_back(torus_fit, tmp_path):
    siren, shape = torus_fit
    figures = finish(siren, shape, tmp_path, 64, "test")
    assert figures["chamfer_share"] < 0.01 and figures["far_share"] < 0.01 and figures["missed_share"] < 0.001
    mesh = o3d.io.read_triangle_mesh(str(tmp_path / "shape.ply"))
    local = (np.asarray(mesh.vertices) - (1000, 0, 50)) / 25
    assert np.abs(torus_distance(local)).mean() < 0.01
    normals = np.asarray(mesh.vertex_normals)
    ring = np.hypot(local[:, 0], local[:, 1])[:, None]
    out = np.hstack((local[:, :2] * (1 - MAJOR / ring), local[:, 2:])) / MINOR
    assert (normals * out).sum(1).mean() > 0.99
    corners = local[np.asarray(mesh.triangles)]
    volume = np.linalg.det(corners).sum() / 6
    assert volume == pytest.approx(2 * np.pi**2 * MAJOR * MINOR**2, rel=0.05)  # and positive: faces look out
    again, about = load_network(tmp_path / "network.safetensors")
    assert about["kind"] == "sdf" and about["centre"] == pytest.approx([1000, 0, 50], abs=0.1)
    x = torch.rand(50, 3)
    assert torch.allclose(again(x), siren(x), atol=1e-4)


def test_a_fitted_box_and_ball_have_their_distances():
    half = np.array([1.0, 0.6, 0.4])
    mesh = boxes(np.ones((1, 1, 1), bool), tuple(np.array([-h, h]) for h in half))
    for shape, distance in (
        (shape_from_mesh(mesh, count=20_000), lambda x: box_distance(x, half)),
        (ball_shape(radius=1.0), lambda x: np.linalg.norm(x - (1000, 0, 50), axis=1) - 1.0),
    ):
        siren = fitted(shape, 150, 500)
        x = shape.placement.back(np.random.default_rng(3).uniform(-1, 1, (20_000, 3)))
        truth = distance(x)
        band = np.abs(truth) < 0.1
        assert np.abs(signed_distance(siren, shape.placement, x) - truth)[band].mean() < 0.02


def test_grids_meshes_and_eikonal_errors_of_known_functions():
    siren = ball(0.5)
    volume = sample_grid(siren, 41)  # a block's end within a row
    side = np.linspace(-1, 1, 41)
    truth = np.sqrt(side[:, None, None] ** 2 + side[None, :, None] ** 2 + side[None, None] ** 2) - 0.5
    assert volume == pytest.approx(truth, abs=1e-6)
    mesh, normals = extract(siren, 41)
    assert np.linalg.norm(mesh.vertices, axis=1) == pytest.approx(0.5, abs=2e-3)
    assert normals == pytest.approx(mesh.vertices / 0.5, abs=1e-2)
    assert np.linalg.det(mesh.vertices[mesh.faces]).sum() / 6 == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.02)
    assert eikonal_error(siren, 1000) == pytest.approx(0, abs=1e-6)
    double = Known(lambda x: x[:, 0], lambda x: torch.eye(3)[:1].expand_as(x) * 1.5)
    assert eikonal_error(double, 1000) == pytest.approx(0.5)
    with pytest.raises(FitError, match="no zero level"):
        extract(ball(-1.0), 16)


def test_comparing_balls_finds_the_gap_and_what_is_spurious():
    """Around a ball of radius 1: one of radius 1.1, and a far one that isn't there."""
    true, far = extract(ball(0.4), 81)[0], extract(ball(0.2), 81)[0]
    shape = shape_from_mesh(true, count=5000)
    scale = shape.placement.scale
    bigger = compare(Mesh(true.vertices * 1.1 / scale, true.faces), shape, 20_000)
    diagonal = 0.8 * 3**0.5 / scale
    assert shape.diagonal == pytest.approx(diagonal, rel=0.01)
    assert bigger.chamfer == pytest.approx(0.04 / scale, rel=0.02)
    assert bigger.chamfer_share == pytest.approx(0.04 / 0.8 / 3**0.5, rel=0.02)
    assert bigger.far_share == 1 and bigger.missed_share == 1  # 2.9 % of the diagonal
    both = Mesh(
        np.concatenate((true.vertices, far.vertices + 2)), np.concatenate((true.faces, far.faces + len(true.vertices)))
    )
    found = compare(Mesh(both.vertices / scale, both.faces), shape, 20_000)
    assert found.far_share == pytest.approx(0.2**2 / (0.2**2 + 0.4**2), abs=0.005)  # shares of the area
    assert found.missed_share == 0
    points = np.array([[0.0, 0, 0], [0, 0, 1]])
    assert distances(points, true) == pytest.approx([0.4, 0.6], abs=2e-3)


def test_rays_meet_a_ball_where_the_quadratic_says():
    rays = look((0.3, 0.5, 1.0), 40)
    t, hit = sphere_trace(ball(0.6), rays.origins, rays.directions)
    b = (rays.origins * rays.directions).sum(1).double()
    inside = b**2 - (rays.origins.double() ** 2).sum(1) + 0.36
    grazing = inside.abs() < 5e-3
    assert hit[~grazing].tolist() == (inside > 0)[~grazing].tolist()
    clear = inside > 0.01
    assert t[clear].tolist() == pytest.approx((-b - inside.clamp(min=0).sqrt())[clear].tolist(), abs=1.1e-2)
    assert hit.sum() > 300 and not hit[0]
    # From inside out, along negative values, to the same surface.
    t, hit = sphere_trace(ball(0.6), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    assert hit.all() and t.item() == pytest.approx(0.6, abs=2e-3)


def test_the_pictures_of_a_ball_agree():
    rays = look((0.3, 0.5, 1.0), 128)
    made = picture_of_network(ball(0.85), rays)
    mesh = shape_from_mesh(extract(ball(0.5), 64)[0], count=1000)
    assert np.abs(made - picture_of_shape(mesh, rays)).mean() < 0.01
    assert np.abs(made - picture_of_shape(ball_shape(40_000), rays)).mean() < 0.08  # dots reach over the rim
    # Of the picture's square, the ball of radius 1 / 1.03 would fill pi / 4; perspective shrinks this one a little more.
    assert (made < 1).any(-1).mean() == pytest.approx(np.pi / 4 * 0.85**2 / 1.03**2, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.ply"], "nowhere.ply"),
        (["example:teapot"], "teapot"),
        (["example:torus", "--resolution", "4"], "--resolution"),
        (["example:torus", "--width", "0"], "width"),
        (["example:torus", "--points", "0"], "--points"),
        (["example:torus", "--steps", "0"], "--steps"),
        (["example:torus", "--budget", "soon"], "--budget"),
    ],
)
def test_bad_options_are_a_sentence(arguments, said, capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.startswith("error:") and said in error


def test_the_command_line(tmp_path, capsys):
    call = ["example:torus", "--out", str(tmp_path), "--width", "48"]
    call += ["--layers", "3", "--points", "300", "--resolution", "40", "--rate", "1e-3"]
    main([*call, "--steps", "120"])
    said = capsys.readouterr().out
    assert "Chamfer" in said and "metrics.json" in said.splitlines()[-1]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    named = {"chamfer", "chamfer_share", "far_share", "eikonal_error", "steps", "steps_per_second", "seconds"}
    assert named | {"vertices", "faces", "missed_share"} == set(metrics)
    assert metrics["steps"] == 120 and 0 < metrics["chamfer_share"] < 0.05
    for name in ("shape.ply", "shape.png", "slices.png", "network.safetensors"):
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(SystemExit):
        main([*call, "--steps", "120", "--resume"])
    assert "one that is done" in capsys.readouterr().err
