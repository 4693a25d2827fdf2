"""Cameras against scalar formulas, round trips and lenses that fold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.camera import Camera, Cameras
from data.errors import SceneError

LENSES = {
    "pinhole": ("opencv", (0.0,) * 8),
    "phone": ("opencv", (0.0578421, -0.0805099, -0.000980296, 0.00015575)),
    "barrel": ("opencv", (-0.3, 0.09, 0.0, 0.0, -0.012)),
    "barrel, near its fold": ("opencv", (-0.14,)),  # the fold is at 1.03 from the centre, the corner at 0.99
    "pincushion": ("opencv", (0.35, 0.1)),
    "tangential": ("opencv", (-0.1, 0.02, 0.02, -0.03)),
    "rational": ("opencv", (4.2, 1.1, 4e-4, -2e-4, 0.05, 4.5, 2.6, 0.3)),
    "fisheye": ("fisheye", (-0.013, 0.005, -0.004, 0.0006)),
    "strong fisheye": ("fisheye", (0.08, -0.04, 0.01, -0.002)),
    "equidistant": ("fisheye", ()),
}


def rotation(seed: int) -> torch.Tensor:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return torch.tensor(q * np.sign(np.linalg.det(q)))


def make(name: str = "pinhole", seed: int = 0, **more) -> Camera:
    model, distortion = LENSES[name]
    centre = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    pose = torch.cat((rotation(seed), centre[:, None]), 1).float()
    lens = {"width": 640, "height": 480, "fx": 420.0, "fy": 410.0, "cx": 310.0, "cy": 247.0, "skew": 1.5, **more}
    return Camera(pose=pose, model=model, distortion=distortion, **lens)


def project_slowly(camera: Camera, point: list[float]) -> tuple[float, float]:
    """OpenCV's documented formulas, one number at a time."""
    pose = camera.pose.double().tolist()
    offset = [point[i] - pose[i][3] for i in range(3)]
    x, y, z = (sum(pose[i][j] * offset[i] for i in range(3)) for j in range(3))
    y, z = -y, -z
    k = camera.distortion
    if camera.model == "fisheye":
        r = math.sqrt(x * x + y * y)
        theta = math.acos(z / math.sqrt(x * x + y * y + z * z))
        bent = theta + k[0] * theta**3 + k[1] * theta**5 + k[2] * theta**7 + k[3] * theta**9
        xd, yd = bent * x / r, bent * y / r
    else:
        a, b = x / z, y / z
        r2 = a**2 + b**2
        k1, k2, p1, p2, k3, k4, k5, k6 = k
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        xd = a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a**2)
        yd = b * radial + p1 * (r2 + 2 * b**2) + 2 * p2 * a * b
    return camera.fx * xd + camera.skew * yd + camera.cx, camera.fy * yd + camera.cy


@pytest.mark.parametrize("name", LENSES)
def test_project_is_opencvs_formula(name: str) -> None:
    camera = make(name, seed=1)
    local = torch.tensor(np.random.default_rng(2).normal(size=(50, 3)) * 0.4 - [0, 0, 2.0])
    world = local @ camera.pose[:, :3].double().T + camera.pose[:, 3].double()
    slow = torch.tensor([project_slowly(camera, p) for p in world.tolist()], dtype=torch.float64)
    assert (camera.project(world) - slow).abs().max() < 1e-6


@pytest.mark.parametrize("name", LENSES)
def test_rays_undo_project(name: str) -> None:
    """Every pixel of the photo, its corners included, to 1e-4 pixels."""
    camera = make(name, seed=3)
    x, y = torch.meshgrid(torch.linspace(0, 640, 41), torch.linspace(0, 480, 31), indexing="xy")
    pixels = torch.stack((x, y), -1).reshape(-1, 2).double()
    origins, directions = camera.rays(pixels)
    assert (directions.norm(dim=-1) - 1).abs().max() < 1e-6
    again = camera.project(origins + 7.3 * directions)
    assert (again - pixels).abs().max() < 1e-4


@pytest.mark.parametrize("name", LENSES)
def test_float32_pixels_lose_little(name: str) -> None:
    camera = make(name)
    pixels = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 480
    origins, directions = camera.rays(pixels)
    assert origins.dtype == directions.dtype == torch.float32
    exact = camera.rays(pixels.double())[1]
    assert (directions - exact).abs().max() < 3e-7


def test_conventions() -> None:
    """Right is +x, up is +y, ahead is -z; the first pixel's centre is (0.5, 0.5); rows come first to last."""
    camera = Camera(torch.eye(3, 4), 4, 2, 2.0, 2.0, 2.0, 1.0)
    origins, directions = camera.rays()
    assert origins.shape == directions.shape == (8, 3)
    assert torch.equal(origins, torch.zeros(8, 3))
    first = torch.tensor([-0.75, 0.25, -1.0])
    last = torch.tensor([0.75, -0.25, -1.0])
    assert torch.allclose(directions[0], first / first.norm())
    assert torch.allclose(directions[7], last / last.norm())
    assert torch.allclose(directions[1] / -directions[1, 2:], torch.tensor([-0.25, 0.25, -1.0]))
    assert torch.allclose(camera.project(torch.tensor([[0.0, 1.0, -2.0]])), torch.tensor([[2.0, 0.0]]))


def test_depth_and_points_behind() -> None:
    camera = Camera(torch.eye(3, 4), 4, 2, 2.0, 2.0, 2.0, 1.0)
    points = torch.tensor([[0.5, 0.5, -3.0], [0.1, 0.0, 3.0], [1.0, 0.0, 0.0]])
    assert camera.depth(points).tolist() == [3.0, -3.0, 0.0]
    assert camera.project(points).isnan().all(-1).tolist() == [False, True, True]


def test_fisheye_sees_behind_its_plane() -> None:
    camera = Camera(torch.eye(3, 4), 400, 400, 100.0, 100.0, 200.0, 200.0, "fisheye")
    angle = 2.0  # radians from the axis: more than a quarter turn
    point = torch.tensor([[math.sin(angle), 0.0, -math.cos(angle)]], dtype=torch.float64)
    pixel = camera.project(point)
    assert torch.allclose(pixel, torch.tensor([[400.0, 200.0]], dtype=torch.float64))
    assert torch.allclose(camera.rays(pixel)[1], point, atol=1e-9)
    on_axis = camera.project(torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, 0.0]], dtype=torch.float64))
    assert on_axis[0].tolist() == [200.0, 200.0] and on_axis[1].isnan().all()


def test_a_lens_that_folds_still_gives_finite_rays() -> None:
    """r (1 - 0.5 r2) never exceeds 0.55, so the corners of this photo are seen by no ray."""
    for lens in ((-0.5,), (0.0578421, -0.9), (0.0, 0.0, 0.3, 0.3), (1.0, -3.0, 0.0, 0.0, 0.0, -1.0)):
        camera = Camera(torch.eye(3, 4), 150, 150, 50.0, 50.0, 75.0, 75.0, "opencv", lens)
        directions = camera.rays()[1]
        assert directions.isfinite().all()
        assert torch.allclose(directions.norm(dim=-1), torch.ones(1))
        assert (directions[:, 2] < 0).all()
    fish = Camera(torch.eye(3, 4), 180, 180, 20.0, 20.0, 90.0, 90.0, "fisheye", (-0.2, -0.1))
    assert fish.rays()[1].isfinite().all()


def test_a_folding_lens_finds_the_branch_around_its_centre() -> None:
    camera = Camera(torch.eye(3, 4), 600, 600, 200.0, 200.0, 300.0, 300.0, "opencv", (-0.5,))
    for r in (0.1, 0.4, 0.7, 0.8):  # the fold is at 0.816
        pixel = torch.tensor([[300 + 200 * r * (1 - 0.5 * r * r), 300.0]], dtype=torch.float64)
        direction = camera.rays(pixel)[1][0]
        assert abs(direction[0] / -direction[2] - r) < 1e-4


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-0.05, 0.12), min_size=2, max_size=2),
    st.lists(st.floats(-0.01, 0.01), min_size=2, max_size=2),
    st.floats(-0.01, 0.02),
    st.integers(0, 1000),
)
def test_round_trip_of_any_mild_lens(radial: list[float], tangential: list[float], k3: float, seed: int) -> None:
    lens = (*radial, *tangential, k3)  # a stronger barrel folds inside the photo
    pose = torch.cat((rotation(seed).float(), torch.zeros(3, 1)), 1)
    camera = Camera(pose, 400, 300, 300.0, 310.0, 190.0, 160.0, "opencv", lens)
    pixels = torch.rand(64, 2, generator=torch.Generator().manual_seed(seed)).double()
    pixels = pixels * torch.tensor([400.0, 300.0])
    origins, directions = camera.rays(pixels)
    assert (camera.project(origins + directions) - pixels).abs().max() < 1e-4


def test_scaled_keeps_the_corners() -> None:
    camera = make("tangential")
    small = camera.scaled(1 / 3, 214, 160)
    assert (small.width, small.height) == (214, 160)
    corners = torch.tensor([[0, 0], [640, 0], [640, 480], [0, 480]], dtype=torch.float64)
    shrunk = corners * torch.tensor([214 / 640, 160 / 480], dtype=torch.float64)
    assert torch.allclose(camera.rays(corners)[1], small.rays(shrunk)[1], atol=1e-7)
    assert (camera.scaled(0.5).width, camera.scaled(0.5).height) == (320, 240)


def test_a_stack_gives_each_cameras_rays() -> None:
    names = ["pinhole", "phone", "fisheye", "rational", "strong fisheye"]
    cameras = [make(n, seed=i) for i, n in enumerate(names)]
    for group in (cameras, cameras[:1] * 2, [cameras[1], cameras[3]], [cameras[2], cameras[4]]):
        stack = Cameras.stack(group)
        random = torch.Generator().manual_seed(1)
        index = torch.randint(len(group), (25,), generator=random)
        pixels = torch.rand(25, 2, generator=random) * 400
        origins, directions = stack.rays(index, pixels)
        assert len(stack) == len(group) and origins.dtype == torch.float32
        for i in range(25):
            origin, direction = group[int(index[i])].rays(pixels[i : i + 1])
            assert torch.allclose(origins[i], origin[0])
            assert torch.allclose(directions[i], direction[0], atol=2e-7)


def test_only_distorted_stacks_pay_for_it() -> None:
    assert Cameras.stack([make(), make()]).distortion is None
    assert Cameras.stack([make(), make("barrel")]).distortion is not None


def test_gradients_reach_poses() -> None:
    stack = Cameras.stack([make("phone"), make("fisheye")])
    stack.poses.requires_grad_()
    origins, directions = stack.rays(torch.tensor([0, 1, 1]), torch.rand(3, 2) * 300)
    (origins.sum() + directions.square().sum() * directions[0, 0]).backward()
    assert stack.poses.grad is not None and stack.poses.grad.isfinite().all() and stack.poses.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fx": 0.0}, "fx: expected a positive number, found 0.0"),
        ({"fy": math.nan}, "fy: expected a positive number, found nan"),
        ({"cx": math.inf}, "expected finite numbers"),
        ({"width": 0}, "expected at least 1x1 pixels, found 0x480"),
    ],
)
def test_bad_cameras(change: dict, words: str) -> None:
    with pytest.raises(SceneError, match=r"^camera: ") as error:
        make(**change)
    assert words in str(error.value)


def test_bad_models() -> None:
    with pytest.raises(SceneError, match="model: expected one of opencv, fisheye, found 'fov'"):
        Camera(torch.eye(3, 4), 4, 4, 1.0, 1.0, 2.0, 2.0, "fov")
    with pytest.raises(SceneError, match="at most 8 coefficients, found 9"):
        Camera(torch.eye(3, 4), 4, 4, 1.0, 1.0, 2.0, 2.0, distortion=(0.0,) * 9)
    with pytest.raises(SceneError, match="at least one camera"):
        Cameras.stack([])
