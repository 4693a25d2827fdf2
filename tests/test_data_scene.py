"""One world in every format gives the same rays, photos, splits and codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import SceneError
from data.scene import Frame, Scene, load_scene, main
from tests import trees
from tests.trees import HEIGHT, WIDTH, WRITERS

FORMATS = list(WRITERS)
TEST = {  # the numbers of the photos that are held out, by format
    "blender": [0, 8],
    "instant-ngp": [0, 8],
    "nerfstudio": [0, 1],
    "nerfies": [3, 7],
    "llff": [0, 8],
    "nr-nerf": [2, 6, 10],
    "colmap-binary": [0, 8],
    "colmap-text": [0, 8],
}


def number(frame: Frame) -> int:
    return int(Path(frame.name).stem[-3:])


def file_rays(scene: Scene, frame: Frame, pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A frame's rays taken back to the file's world."""
    origins, directions = frame.camera.rays(pixels)
    inverse = torch.linalg.inv(scene.transform.double())
    origins = origins.double() @ inverse[:3, :3].T + inverse[:3, 3]
    directions = directions.double() @ inverse[:3, :3].T
    return origins.numpy(), torch.nn.functional.normalize(directions, dim=-1).numpy()


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rays(name: str, scale: float, tmp_path: Path) -> None:
    tree = WRITERS[name](tmp_path, scale=scale)
    scene = load_scene(tmp_path)
    assert sorted(number(f) for f in scene.test) == TEST[name]
    at = [(0, 0), (WIDTH - 1, 0), (7, 23), (WIDTH - 1, HEIGHT - 1)]
    pixels = torch.tensor(at, dtype=torch.float64) + 0.5
    for frame in scene.train + scene.test:
        origins, directions = file_rays(scene, frame, pixels)
        for (column, row), origin, direction in zip(at, origins, directions):
            expected = trees.pixel_ray(tree.poses[number(frame)], column, row)
            assert np.abs(origin - expected[0]).max() < 2e-5 * scale
            assert np.abs(direction - expected[1]).max() < 1e-6


@pytest.mark.parametrize("name", FORMATS)
def test_photos_agree_with_rays(name: str, tmp_path: Path) -> None:
    """Each pixel has the colour of what its ray meets: catches flipped, turned and shifted photos."""
    WRITERS[name](tmp_path)
    scene = load_scene(tmp_path)
    for frame in scene.train[::4] + scene.test[:1]:
        origins, directions = file_rays(scene, frame, frame.camera.pixel_centres().double())
        behind = [(255, 255, 255) if name == "blender" else trees.sky(column) for column in range(WIDTH)]
        colours = [trees.shade(o, d) or behind[i % WIDTH] for i, (o, d) in enumerate(zip(origins, directions))]
        same = (frame.image.reshape(-1, 3).numpy() == np.array(colours)).all(-1)
        assert same.mean() > 0.995  # rays that graze a sphere may differ by rounding
        assert len(set(colours)) > 2


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_whole(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    scene = load_scene(tmp_path, downscale=2)
    frames = scene.train + scene.test
    for frame in frames:
        assert frame.image.dtype == torch.uint8 and frame.image.shape == (HEIGHT // 2, WIDTH // 2, 3)
        assert (frame.camera.width, frame.camera.height) == (WIDTH // 2, HEIGHT // 2)
        assert 0 <= frame.time <= 1
    codes = [f.warp_id for f in scene.train]
    assert sorted(set(codes)) == list(range(len(scene.train)))
    assert sorted({f.appearance_id for f in scene.train}) == list(range(len(scene.train)))
    assert sorted({f.camera_id for f in scene.train}) == list(range(max(f.camera_id for f in scene.train) + 1))
    times = [f.time for f in sorted(frames, key=number)]
    if name != "blender":  # whose two files are ordered one after the other
        assert times == sorted(times) and len(set(times)) == len(times)
    assert min(times) == 0 and max(times) == 1
    for frame in scene.test:
        nearest = min(scene.train, key=lambda f: abs(f.time - frame.time))
        gaps = [abs(f.time - frame.time) for f in scene.train if f.warp_id == frame.warp_id]
        assert min(gaps) == pytest.approx(abs(nearest.time - frame.time))
    assert 0 < scene.near < scene.far and (scene.box[0] < scene.box[1]).all()
    assert scene.up.norm() == pytest.approx(1)


@pytest.mark.parametrize("name", FORMATS)
def test_what_kind_of_scene(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    scene = load_scene(tmp_path)
    moving = name in ("nerfies", "nr-nerf")
    assert scene.moving == moving and scene.interpolate_test == moving
    assert scene.masks_are_alpha == (name == "blender") == (scene.background is not None)
    assert (scene.points is not None) == name.startswith("colmap")
    assert scene.bounded == (name in ("blender", "nerfies", "llff", "nr-nerf"))
    assert all((f.mask is not None) == (name == "blender") for f in scene.train)


@pytest.mark.parametrize("name", FORMATS)
def test_the_spheres_lie_in_the_box_between_near_and_far(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    scene = load_scene(tmp_path)
    points = torch.from_numpy(trees.surface_points(1.0)) @ scene.transform[:3, :3].double().T
    points = points + scene.transform[:3, 3].double()
    assert ((points > scene.box[0]) & (points < scene.box[1])).all()
    for frame in scene.train:
        reach = (points - frame.camera.pose[:, 3]).norm(dim=-1)
        assert scene.near < reach.min() and reach.max() < scene.far
    if name not in ("blender", "nerfies"):  # which keep their files' units
        assert scene.box.abs().max() == pytest.approx(1, abs=0.02)


def test_downscale_averages_areas(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path)
    full, half, odd = (load_scene(tmp_path, k) for k in (1, 2, 7))
    mean = full.train[0].image.float().reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(dim=(1, 3))
    assert (half.train[0].image.float() - mean).abs().max() <= 0.5
    camera = odd.train[0].camera
    assert (camera.width, camera.height) == (6, 4)  # 40 / 7 and 30 / 7, rounded
    assert camera.fx == pytest.approx(trees.FOCAL * 6 / 40) and camera.fy == pytest.approx(trees.FOCAL * 4 / 30)


def test_split_every(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path)
    assert [number(f) for f in load_scene(tmp_path, split_every=5).test] == [0, 5, 10]
    assert load_scene(tmp_path, split_every=0).test == []


def test_a_file_inside_stands_for_its_folder(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path)
    assert len(load_scene(tmp_path / "transforms.json").train) == 10
    assert load_scene(str(tmp_path)).path == tmp_path


def test_no_scene(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="nowhere: scene: expected a folder, found nothing"):
        load_scene(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SceneError, match=r"notes\.txt: scene: expected a folder, found a file"):
        load_scene(tmp_path / "notes.txt")
    with pytest.raises(SceneError, match=r"format: expected transforms\*\.json, .* found notes\.txt"):
        load_scene(tmp_path)
    trees.write_ngp(tmp_path)
    with pytest.raises(SceneError, match="downscale: expected a whole number from 1, found 0"):
        load_scene(tmp_path, 0)


def test_summary_says_images_resolution_memory_and_split(tmp_path: Path) -> None:
    trees.write_ngp(tmp_path / "spheres")
    line = load_scene(tmp_path / "spheres").summary()
    assert "\n" not in line
    for words in ("spheres", "12 photos", "40x30", "0.0 MB", "10 to train on", "2 held out", "static"):
        assert words in line


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.write_colmap(tmp_path / "spheres")
    assert main([str(tmp_path / "spheres"), "--downscale", "2", "--plot", str(tmp_path / "out.png")]) == 0
    out = capsys.readouterr()
    assert "20x15" in out.out and "160 points" in out.out and out.err == ""
    assert (tmp_path / "out.png").stat().st_size > 20_000


def test_command_line_says_one_line_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.count("\n") == 1 and "expected a folder, found nothing" in out.err


def test_command_line_shows_the_warning_as_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = trees.write_ngp(tmp_path)
    (tmp_path / "images" / f"{tree.names[2]}.png").unlink()
    assert main([str(tmp_path)]) == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: ") and err.count("\n") == 1 and "1 of 12 photos are missing" in err
