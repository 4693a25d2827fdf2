"""What the studio's cameras see: rays against triangles one by one, hair as cylinders, splines as SciPy has them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from data.selfie_studio import sight
from data.selfie_studio.motion import FOCAL, SIZE, PosedCamera, look_at
from data.selfie_studio.shapes import Strands

CAMERA = look_at(np.array([0.05, 1.3, 0.6]), np.array([0.0, 1.2, 0.0]), 12.0)


def soup(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of all sizes around the middle of the picture."""
    g = np.random.default_rng(seed)
    middle = np.array([0.0, 1.2, 0.0]) + g.normal(size=(count, 1, 3)) * 0.15
    corners = middle + g.normal(size=(count, 3, 3)) * g.choice([0.002, 0.02, 0.1], (count, 1, 1))
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def first_hit(origin: np.ndarray, target: np.ndarray, triangle: np.ndarray) -> float | None:
    """How far along from origin (0) to target (1) a triangle is met, by Cramer's rule; None: it isn't."""
    a, b, c = triangle
    system = np.stack([b - a, c - a, origin - target], 1)
    if abs(np.linalg.det(system)) < 1e-14:
        return None
    u, v, along = np.linalg.solve(system, origin - a)
    return float(along) if u >= 0 and v >= 0 and u + v <= 1 else None


def test_a_point_is_hidden_by_what_lies_before_it():
    positions, triangles = soup(150, 0)
    g = np.random.default_rng(1)
    own = g.integers(0, 150, 200)
    weights = g.dirichlet([1, 1, 1], 200)
    points = np.einsum("nk,nkd->nd", weights, positions[triangles[own]])
    found = sight.visible(CAMERA, positions, triangles, points, own, [])
    expected, forward = [], CAMERA.orientation[2]
    for point, mine in zip(points, own):
        a, b, c = positions[triangles[mine]]
        normal, away = np.cross(b - a, c - a), CAMERA.position - point
        facing = normal @ away / np.linalg.norm(normal) / np.linalg.norm(away) > sight.FACING
        x, y = CAMERA.project(point[None])[0]
        inside = 0 <= x < SIZE[0] and 0 <= y < SIZE[1] and (point - CAMERA.position) @ forward > 0
        depth = (point - CAMERA.position) @ forward
        hits = [first_hit(CAMERA.position, point, positions[t]) for k, t in enumerate(triangles) if k != mine]
        clear = all(hit is None or hit < 0 or (1 - hit) * depth < sight.NEARER for hit in hits)
        expected.append(facing and inside and clear)
    assert found.tolist() == expected and 20 < sum(expected) < 180


def sheet() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A square of 20 cm that faces the camera from 60 cm, and 2000 points on its first triangle."""
    right, down, forward = CAMERA.orientation
    middle = CAMERA.position + 0.6 * forward
    corners = np.stack([middle + 0.1 * (x * right + y * down) for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1))])
    weights = np.random.default_rng(2).dirichlet([1, 1, 1], 2000)
    return corners, np.array([[0, 1, 2], [0, 2, 3]]), weights @ corners[[0, 1, 2]], np.zeros(2000, int)


@pytest.mark.parametrize("turned", [False, True])
def test_a_surface_is_seen_from_its_front_alone(turned):
    corners, triangles, points, own = sheet()
    assert sight.visible(CAMERA, corners, triangles[:, ::-1] if turned else triangles, points, own, []).all() != turned


def hairs(count: int, distance: float, radius: float) -> Strands:
    """Straight level strands 3 cm left of the picture's middle, evenly spaced over 1 cm, `distance` from the camera."""
    right, down, forward = CAMERA.orientation
    along = np.linspace(-0.03, 0.0, 8)[None, :, None] * right
    heights = (np.arange(count) + 0.5) / count * 0.01 - 0.005
    points = CAMERA.position + distance * forward + along + heights[:, None, None] * down
    return Strands(points, np.full(points.shape[:2], radius))


@pytest.mark.parametrize(
    ("distance", "radius", "hides"),
    [(0.5, 5e-5, True), (0.5, 5e-6, False), (0.7, 5e-5, False)],  # 0.8 of each pixel, 0.08 of it, and behind
)
def test_hair_hides_where_it_covers_a_pixel(distance, radius, hides):
    corners, triangles, points, own = sheet()
    strands = hairs(80, distance, radius)
    found = sight.visible(CAMERA, corners, triangles, points, own, [strands])
    if not hides:
        assert found.all()
        return
    local = (CAMERA.project(points) - np.array(SIZE) / 2) * 0.5 / FOCAL  # metres at the hairs' distance
    # Splines with untripled ends stop short of the first and last control points by one span; a pixel is 1.2 mm there.
    behind = (local[:, 0] > -0.024) & (local[:, 0] < -0.006) & (np.abs(local[:, 1]) < 0.0038)
    clear = (local[:, 0] > 0.002) | (local[:, 0] < -0.032) | (np.abs(local[:, 1]) > 0.0065)
    assert not found[behind].any() and found[clear].all() and behind.sum() >= 5


def test_strands_are_the_cubic_splines_of_their_points():
    g = np.random.default_rng(3)
    strands = Strands(g.normal(size=(3, 9, 3)), g.random((3, 9)))
    points, radii = sight._curve(strands, 4)
    place = np.linspace(3, 9, 25)
    for k in range(3):
        spline = BSpline(np.arange(13), strands.points[k], 3)
        np.testing.assert_allclose(points[k], spline(place), atol=1e-12)
        np.testing.assert_allclose(radii[k], BSpline(np.arange(13), strands.radii[k], 3)(place), atol=1e-12)


def test_boxes_meet_the_points_in_their_pixels():
    g = np.random.default_rng(4)
    low = g.uniform(-30, 540, (300, 2))
    high = low + g.choice([0.0, 2.0, 60.0], (300, 1))
    pixels = g.uniform(0, 1, (80, 2)) * SIZE
    box, point = sight._meet(low, high, pixels)
    expected = set()
    for i in range(300):
        for k in range(80):
            x, y = np.floor(pixels[k])
            if np.floor(low[i, 0]) <= x <= np.floor(high[i, 0]) and np.floor(low[i, 1]) <= y <= np.floor(high[i, 1]):
                expected.add((i, k))
    pairs = list(zip(box.tolist(), point.tolist()))
    assert len(pairs) == len(set(pairs)) and set(pairs) == expected and len(expected) > 50


def test_the_camera_is_a_pinhole():
    camera = PosedCamera(np.eye(3), np.zeros(3))
    at, depth = sight.project(camera, np.array([[0.1, -0.2, 2.0]]))
    assert at[0].tolist() == pytest.approx([192 + FOCAL * 0.05, 256 - FOCAL * 0.1]) and depth[0] == 2.0
