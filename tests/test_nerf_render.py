"""Films and stills of a small run: what is frozen stays, what is asked for is there, what is wrong is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from data.scene import load_scene
from nerf import checkpoint
from nerf.config import TrainConfig
from nerf.field import HashFieldConfig
from nerf.model import MarchConfig, ModelConfig
from nerf.modes import Ranges, draw, probe, sized
from nerf.occupancy import OccupancyConfig
from nerf.paths import PathError, Rig, central
from nerf.picture import render_image
from nerf.presets import preset
from nerf.render import Options as RenderOptions
from nerf.render import check, frames_of, main, render_video, shots, still
from nerf.trainer import Trainer
from nerf.video import depth_colors
from nerf.warp import WarpConfig
from tests.ball import write_ball

ROOT = Path(__file__).resolve().parent.parent


def tiny(scene: str, moving: bool, steps: int = 10) -> TrainConfig:
    """The instant preset, small: a few steps take a second."""
    field = HashFieldConfig(levels=3, features=2, log2_rows=10, base_resolution=8, finest_resolution=32, width=16)
    warp = WarpConfig(width=16, depth=2, skip=4, bands=2, code=4) if moving else None
    model = ModelConfig(
        field, MarchConfig(steps=48, occupancy=OccupancyConfig(resolution=16)), warp, 2 if moving else 0
    )
    config = preset("instant", moving, not moving)
    return replace(config, scene=scene, steps=steps, model=model, rays=256, samples=1 << 12, backend="reference")


def make_run(folder: Path, moving: bool, steps: int = 10) -> tuple[Path, Trainer]:
    """A scene and a run of it, as training leaves them."""
    (folder / "scene").mkdir(parents=True)
    scene = load_scene(write_ball(folder / "scene", moving))
    trainer = Trainer(tiny(str(folder / "scene"), moving, steps), scene)
    while trainer.fraction < 1:
        trainer.advance()
    run = folder / "run"
    checkpoint.save(run, trainer)
    Rig.of(scene).save(run)
    return run, trainer


@pytest.fixture(scope="module", params=[False, True], ids=["static", "moving"])
def run(request, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("render"), request.param)[0]


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("moving"), True)[0]
    return folder, checkpoint.load_model(folder, "reference")[0], Rig.load(folder)


def test_a_film_has_the_frames_and_the_size_asked_for(run, tmp_path):
    model, _ = checkpoint.load_model(run, "reference")
    seen = []

    def progress(film):
        for shot in film:
            seen.append(shot)
            yield shot

    count = render_video(model, Rig.load(run), "orbit", 5, tmp_path / "a.mp4", width=17, progress=progress)
    found = [*imageio.get_reader(tmp_path / "a.mp4", "ffmpeg").iter_data()]
    assert count == len(found) == len(seen) == 5 and found[0].shape == (16, 16, 3)
    expected = [draw(model, shot, "color", Ranges(), look=0.5).numpy() * 255 for shot in seen]
    assert np.abs(np.stack(found) - np.stack(expected)).mean() < 6


def test_freezing_the_person_moves_only_the_camera(moving):
    _, _, rig = moving
    film = shots(rig, "orbit", 6, "person", 0.3)
    assert {time for _, time in film} == {0.3} and shots(rig, "orbit", 2, "person")[0][1] == 0.5
    assert len({tuple(c.pose.flatten().tolist()) for c, _ in film}) == 6


def test_freezing_the_camera_moves_only_time(moving, tmp_path):
    _, _, rig = moving
    for film, camera in (
        (shots(rig, "orbit", 8, "camera"), central(rig)),
        (shots(rig, "spiral", 8, "camera", photo=rig.photos[2].name), rig.photos[2].camera),
    ):
        assert [time for _, time in film] == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]
        assert all(torch.equal(c.pose, camera.pose) and c.fx == camera.fx for c, _ in film)
    (tmp_path / "p.json").write_text(f'[{{"photo": "{rig.photos[1].name}"}}, {{"photo": "{rig.photos[4].name}"}}]')
    film = shots(rig, str(tmp_path / "p.json"), 8, "camera")
    assert all(torch.allclose(c.pose, rig.photos[1].camera.pose, atol=1e-6) for c, _ in film)


def test_both_move_by_default(moving):
    film = shots(moving[2], "orbit", 8)
    assert len({time for _, time in film}) == 5 and len({tuple(c.pose.flatten().tolist()) for c, _ in film}) == 8


def test_stills_take_the_photos_place_and_instant_or_another(moving):
    _, _, rig = moving
    photo = rig.photos[3]
    camera, instant = still(rig, "orbit", None, photo.name)
    assert camera is photo.camera and instant == photo.time
    assert still(rig, "orbit", 0.9, photo.name)[1] == 0.9
    assert still(rig, "orbit", 0.2)[1] == 0.2 and still(rig, "orbit")[1] == 0.0


def test_what_a_mode_shows(moving):
    _, model, rig = moving
    shot = still(rig, "orbit", 0.7, rig.photos[0].name)
    picture, ranges = render_image(model, *shot), Ranges(1.0, 3.0)
    depths = depth_colors(picture.depth, picture.opacity, 1.0, 3.0)
    assert torch.equal(draw(model, shot, "color", ranges), picture.rgb)
    assert torch.equal(draw(model, shot, "depth", ranges), depths)
    assert torch.equal(draw(model, shot, "both", ranges), torch.cat([picture.rgb, depths], 1))
    assert torch.equal(draw(model, shot, "opacity", ranges)[..., 1], picture.opacity)
    assert torch.equal(draw(model, shot, "canonical", ranges), render_image(model, shot[0], None).rgb)


def test_the_warp_as_colour_is_where_each_seen_place_goes(moving):
    _, model, rig = moving
    shot = still(rig, "orbit", 0.7, rig.photos[0].name)
    picture = render_image(model, *shot)
    seen = draw(model, shot, "warp", Ranges(shift=0.5))
    origins, directions = shot[0].rays(None)
    for row, column in ((3, 4), (12, 12), (20, 9)):
        pixel = row * shot[0].width + column
        x = origins[pixel] + directions[pixel] * picture.depth[row, column]
        moved = model.warp(x[None], model.codes(torch.tensor([0.7]))[0], float(model.annealed))[0]
        expected = (0.5 + (moved - x)).clamp(0, 1) * picture.opacity[row, column]
        torch.testing.assert_close(seen[row, column], expected, atol=1e-5, rtol=0)
    still_there = draw(model, (shot[0], None), "warp", Ranges(shift=0.5))
    assert torch.equal(still_there, 0.5 * render_image(model, shot[0], None).opacity[..., None].expand(-1, -1, 3))


def test_one_range_of_depths_holds_for_a_whole_film(moving):
    _, model, rig = moving
    film = [(sized(camera, 12), time) for camera, time in shots(rig, "orbit", 4)]
    ranges = probe(model, film, "depth")
    assert model.geometry.near * 0.99 <= ranges.near < ranges.far <= model.geometry.far * 1.01
    for shot, frame in zip(film, frames_of(model, film, "depth")):
        assert np.abs(frame / 255 - draw(model, shot, "depth", ranges, look=0.5).numpy()).max() <= 0.51 / 255


def test_sizes_keep_the_view(moving):
    camera = replace(moving[2].lens, width=1080, height=1920, cx=540.0, cy=960.0)
    film = sized(camera, None, even=True, longest=480)
    assert (film.width, film.height) == (270, 480) and film.fx * 4 == pytest.approx(camera.fx)
    assert (sized(camera, 401, even=True).width, sized(camera, 401).width) == (400, 401)
    small = sized(moving[2].lens, None, longest=480)
    assert (small.width, small.height) == (moving[2].lens.width, moving[2].lens.height)


def test_contradictions_are_named(moving):
    folder, model, rig = moving
    options = RenderOptions(run=folder, out=Path("a.mp4"))
    assert check(replace(options, time=0.2), rig, model).freeze == "person"
    for change, message in (
        ({"time": 1.5}, "--time: expected a number from 0"),
        ({"width": 1}, "--width: expected 2 to 16384 pixels, found 1"),
        ({"time": 0.5, "freeze": "camera"}, "--time, --freeze camera: expected one of them"),
        ({"photo": "x"}, "--photo: expected --freeze camera or --out FILE.png"),
    ):
        with pytest.raises(PathError, match=message):
            check(replace(options, **change), rig, model)


def command(*arguments: object, **more) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    line = [sys.executable, "-m", "nerf.render", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, **more)


def test_the_command_makes_a_film(moving, tmp_path):
    done = command("--run", moving[0], "--path", "spiral", "--frames", 3, "--out", tmp_path / "a.mp4", "--mode", "both")
    assert done.returncode == 0, done.stderr
    assert "3 frames" in done.stdout and "frame/s" in done.stderr
    found = [*imageio.get_reader(tmp_path / "a.mp4", "ffmpeg").iter_data()]
    assert len(found) == 3 and found[0].shape == (24, 48, 3)


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_the_command_makes_stills(moving, tmp_path, capsys):
    folder, model, rig = moving
    name = rig.photos[2].name
    code, out, _ = call(capsys, "--run", folder, "--photo", name, "--out", tmp_path / "a.png", "--backend", "reference")
    assert code == 0 and "24x24, color" in out
    expected = render_image(model, rig.photos[2].camera, rig.photos[2].time).rgb
    assert np.abs(np.asarray(Image.open(tmp_path / "a.png")) / 255 - expected.numpy()).max() <= 0.51 / 255
    more = ("--mode", "depth", "--width", 10, "--time", 1, "--backend", "reference")
    code, *_ = call(capsys, "--run", folder, *more, "--out", tmp_path / "d.png")
    assert code == 0 and Image.open(tmp_path / "d.png").size == (10, 10)


def test_bad_input_is_one_sentence_and_exit_code_2(run, tmp_path, capsys):
    bad = [
        (("--run", tmp_path / "none", "--out", "a.mp4"), "expected a run with"),
        (("--run", run, "--out", tmp_path / "a.avi"), "--out: expected FILE.mp4"),
        (
            ("--run", run, "--out", tmp_path / "a.mp4", "--path", "circle"),
            "--path: expected orbit, spiral or FILE.json",
        ),
        (("--run", run, "--out", tmp_path / "a.mp4", "--frames", 0), "--frames: expected at least 1"),
        (("--run", run, "--out", tmp_path / "a.mp4", "--backend", "gpu"), "--backend: expected auto or one of"),
        (("--run", run, "--out", tmp_path / "a.png", "--photo", "nobody"), "--photo nobody: expected"),
        (("--run", run, "--out", tmp_path / "a.mp4", "--fps", 0, "--frames", 1), "fps: expected"),
    ]
    if checkpoint.read_config(run).train.model.warp is None:
        bad.append((("--run", run, "--out", tmp_path / "a.mp4", "--freeze", "person"), "expected a scene that moves"))
        bad.append((("--run", run, "--out", tmp_path / "a.mp4", "--mode", "canonical"), "expected a scene that moves"))
    for arguments, message in bad:
        code, _, said = call(capsys, *arguments)
        assert code == 2 and message in said and said.count("\n") == 1, said
    assert not any(tmp_path.iterdir())


def test_help_reads_as_a_page():
    done = command("--help")
    assert done.returncode == 0
    for word in ("--freeze", "keyframes", "Make a film", "--photo", "vertical degrees"):
        assert word in done.stdout.replace("\n", " ").replace("  ", " "), word


def test_ctrl_c_leaves_no_half_file(moving, tmp_path):
    line = [sys.executable, "-m", "nerf.render", "--run", moving[0], "--frames", 20000, "--out", tmp_path / "a.mp4"]
    process = subprocess.Popen(
        [*map(str, line)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 40
    while not any(tmp_path.rglob("*.mp4")) and time.monotonic() < until:
        time.sleep(0.1)  # until ffmpeg has begun
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "was not written" in said, said
    assert not any(tmp_path.iterdir())
