"""The command, as a person starts it, on small trained runs: every format opens again, and bad input is one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from data.files import write_tensors
from data.scene import load_scene, read_capture
from nerf import checkpoint, export
from nerf.export import Options, check, instant, main
from nerf.moment import Moment
from nerf.picture import render_image
from nerf.rig import Rig
from nerf.sculpt import World
from nerf.surface import MeshError
from siren.sdf_glb import read_glb
from tests.test_nerf_render import make_run

pytest.importorskip("skimage")
o3d = pytest.importorskip("open3d", exc_type=ImportError)  # or a system library of its own

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    """A ball of radius 0.6 about the middle, colours those of its normals, learned for a few seconds."""
    return make_run(tmp_path_factory.mktemp("static"), False, 160)[0]


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("moving"), True, 10)[0]


@pytest.fixture(autouse=True)
def few_rays(monkeypatch):
    from nerf import agreement, cloud, sculpt

    for module, name, value in (
        (sculpt, "PROBES", 2000), (sculpt, "RENDERED", 2000), (sculpt, "SLOW", 500), (agreement, "SAMPLES", 500),
        (cloud, "PIXELS", 8000), (cloud, "SLOW", 2000),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([*map(str, arguments), "--backend", "reference"])
    return code, *capsys.readouterr()


def test_a_person_gets_a_mesh(static, tmp_path):
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "nerf.export", "--run", static, "--out", tmp_path / "ball.ply", "--resolution", 48]
    done = subprocess.run(
        [*map(str, line), "--components", "1"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "density" in done.stdout and "(found)" in done.stdout and "Chamfer distance" in done.stdout
    read = o3d.io.read_triangle_mesh(str(tmp_path / "ball.ply"))
    radius = np.linalg.norm(np.asarray(read.vertices), axis=1)
    assert read.has_vertex_colors() and read.has_vertex_normals() and len(read.triangles) > 500
    assert abs(np.median(radius) - 0.6) < 0.12
    # What the cameras' ring sees squarely has the colour of the direction that it faces.
    out = np.asarray(read.vertices) / radius[:, None]
    around = np.abs(out[:, 2] - 0.2) < 0.2
    assert np.abs(np.asarray(read.vertex_colors) - (0.5 + 0.5 * out))[around].mean() < 0.15


def test_a_mesh_for_other_programs_is_small_closed_and_upright(static, tmp_path, capsys):
    more = ("--resolution", 40, "--faces", 400, "--closed", "--components", 1)
    code, out, said = call(capsys, "--run", static, "--out", tmp_path / "a.glb", *more)
    assert code == 0, said
    mesh = read_glb(tmp_path / "a.glb")
    assert len(mesh.faces) <= 400 and "of " in out
    up = Rig.load(static).up
    assert up[2] > 0.9
    code, *_ = call(capsys, "--run", static, "--out", tmp_path / "a.obj", *more)
    obj = o3d.io.read_triangle_mesh(str(tmp_path / "a.obj"))
    assert code == 0 and obj.has_vertex_colors()
    assert mesh.vertices[:, 1].max() == pytest.approx((np.asarray(obj.vertices) @ up).max(), abs=1e-4)


def bent(run: Path, folder: Path) -> Path:
    """The run, with a warp that moves things: training has hardly begun to."""
    shutil.copytree(run, folder)
    with safe_open(folder / checkpoint.CHECKPOINT, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    random = torch.Generator().manual_seed(0)
    for name, value in tensors.items():
        if name.startswith(("model.warp.", "model.warp_codes.")) and value.is_floating_point():
            tensors[name] = value + 0.1 * torch.randn(value.shape, generator=random)
    write_tensors(folder / checkpoint.CHECKPOINT, tensors, metadata)
    return folder


def test_an_instant_and_the_canonical_scene_differ(moving, tmp_path, capsys):
    moving = bent(moving, tmp_path / "run")
    model = checkpoint.load_model(moving, "reference")[0]
    rig = Rig.load(moving)
    options = Options(moving, tmp_path / "a.ply")
    assert instant(options, model, rig) == 0.5 and instant(replace(options, time=0.25), model, rig) == 0.25
    assert instant(replace(options, canonical=True), model, rig) is None
    photo = rig.photos[3]
    assert instant(replace(options, photo=photo.name), model, rig) == photo.time
    x = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    space = model.geometry.space
    fog = Moment(model, 0.25).density(x * space.half + torch.tensor(space.center)).median()
    level = ("--threshold", float(fog) * World(rig.transform).scale, "--resolution", 12)
    made = {}
    asked = {"a": ("--time", 0.25), "b": ("--canonical",), "c": ("--photo", photo.name), "d": ("--time", photo.time)}
    for name, more in asked.items():
        code, _, said = call(capsys, "--run", moving, "--out", tmp_path / f"{name}.ply", *level, *more)
        assert code == 0, said
        made[name] = np.asarray(o3d.io.read_triangle_mesh(str(tmp_path / f"{name}.ply")).vertices)
    assert np.array_equal(made["c"], made["d"])
    assert not np.array_equal(made["a"], made["b"]) and not np.array_equal(made["a"], made["c"])


def test_points_stand_on_the_ball(static, tmp_path, capsys):
    more = ("--format", "points", "--resolution", 24, "--opacity", 0.4)
    code, out, said = call(capsys, "--run", static, "--out", tmp_path / "a.ply", *more)
    assert code == 0, said
    read = o3d.io.read_point_cloud(str(tmp_path / "a.ply"))
    points = np.asarray(read.points)
    assert f"{len(points)} points from 12 photos" in out and len(points) > 50
    assert read.has_normals() and read.has_colors()
    assert abs(np.median(np.linalg.norm(points, axis=1)) - 0.6) < 0.15


def test_depth_maps_are_those_of_the_held_out_photos(static, tmp_path, capsys):
    out = tmp_path / "depth"
    code, said, error = call(capsys, "--run", static, "--format", "depth", "--out", out, "--opacity", 0.2)
    assert code == 0 and "3 depth maps" in said, error
    assert len([*out.glob("*.tiff")]) == len([*out.glob("*.png")]) == 3
    model, rig = checkpoint.load_model(static, "reference")[0], Rig.load(static)
    photo = next(p for p in rig.photos if p.held_out and p.name.endswith("r_0"))
    picture = render_image(model, photo.camera, photo.time)
    found = np.asarray(Image.open(out / "test_r_0.tiff"))
    middle = found[12, 12]
    assert middle == pytest.approx(float(picture.depth[12, 12]), rel=0.01) and 1.0 < middle < 3.0
    code, said, _ = call(
        capsys, "--run", static, "--format", "depth", "--out", out, "--photo", "train/r_3", "--width", 12
    )
    assert code == 0 and Image.open(out / "train_r_3.tiff").size == (12, 12)


@pytest.mark.parametrize("kind", ["static", "moving"])
def test_cameras_come_back_as_they_were_in_the_photos_folder(kind, request, tmp_path, capsys):
    folder = request.getfixturevalue(kind)
    code, out, said = call(
        capsys, "--run", folder, "--format", "cameras", "--out", tmp_path / "new" / "transforms.json"
    )
    assert code == 0 and "copied" in out, said
    given = read_capture(folder.parent / "scene").shots
    found = read_capture(tmp_path / "new").shots
    assert len(found) == len(given) == len(Rig.load(folder).photos)
    assert sum(s.test for s in found) == sum(s.test for s in given)
    for shot in given:
        pixels = shot.image.read_bytes()
        (same,) = [s for s in found if s.image.read_bytes() == pixels and np.abs(s.pose - shot.pose).max() < 1e-5]
        assert same.test == shot.test and abs(same.lens.fx - shot.lens.fx) < 1e-4
        assert (same.lens.width, same.lens.cx) == (shot.lens.width, shot.lens.cx)
    assert load_scene(tmp_path / "new").moving == (kind == "moving")


def test_learned_poses_are_the_ones_that_leave(static, tmp_path, capsys):
    rig = Rig.load(static)
    shifted = rig.photos[0].camera.pose + torch.tensor([[0, 0, 0, 0.125]] * 3)
    first = replace(rig.photos[0], camera=rig.photos[0].camera.with_pose(shifted))
    (tmp_path / "run").mkdir()
    replace(rig, photos=(first, *rig.photos[1:])).save(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_bytes((static / "config.json").read_bytes())
    code, _, said = call(
        capsys, "--run", tmp_path / "run", "--format", "cameras", "--out", tmp_path / "o" / "transforms.json"
    )
    assert code == 0, said
    eyes = np.stack([s.pose[:, 3] for s in read_capture(tmp_path / "o").shots])
    assert np.abs(eyes - shifted[:, 3].numpy()).sum(1).min() < 1e-5


def test_bad_input_is_one_sentence_and_exit_code_2(static, tmp_path, capsys):
    mesh = ("--out", tmp_path / "a.ply", "--resolution", 12)
    for arguments, message in (
        (("--run", tmp_path / "none", *mesh), "expected a run with"),
        (("--run", static, "--out", tmp_path / "a.stl"), "--out: expected FILE.ply or FILE.obj or FILE.glb for --format mesh"),
        (("--run", static, "--out", tmp_path / "a"), "--out: expected FILE.ply or"),
        (("--run", static, "--out", tmp_path / "a.png", "--format", "depth"), "--out: expected a folder"),
        (("--run", static, *mesh, "--threshold", 1e12), "on both sides of 1e+12, found none above"),
        (("--run", static, *mesh, "--threshold", -1), "--threshold: expected a density above 0"),
        (("--run", static, *mesh, "--crop", 1, 0, 0, 0, 1, 1), "--crop: expected X0 Y0 Z0 X1 Y1 Z1"),
        (("--run", static, *mesh, "--crop", 7, 7, 7, 8, 8, 8), "--crop: expected a box that meets the scene's"),
        (("--run", static, *mesh, "--crop", 1.2, 1.2, 1.2, 1.4, 1.4, 1.4), "expected a surface in the box, found 0 of"),
        (("--run", static, *mesh, "--time", 2), "--time: expected 0 to 1, found 2"),
        (("--run", static, *mesh, "--canonical"), "--canonical: expected a scene that moves"),
        (("--run", static, *mesh, "--photo", "nobody"), "--photo nobody: expected a photo's name"),
        (("--run", static, *mesh, "--width", 30), "--width: expected --format depth with it, found --format mesh"),
        (("--run", static, "--out", tmp_path / "d", "--format", "depth", "--faces", 30), "--faces: expected --format mesh"),
        (("--run", static, "--out", tmp_path / "c.json", "--format", "cameras", "--scene", tmp_path / "x"), "found nothing"),
    ):  # fmt: skip
        code, _, said = call(capsys, *arguments)
        assert code == 2 and message in said and said.count("\n") == 1, said
    assert not any(tmp_path.iterdir())


def test_the_photos_own_poses_are_not_written_over(static, capsys):
    scene = static.parent / "scene"
    (scene / "transforms.json").write_text("{}")
    code, _, said = call(capsys, "--run", static, "--format", "cameras", "--out", scene / "transforms.json")
    (scene / "transforms.json").unlink()
    assert code == 2 and "expected a new file, since the photos' own poses may be in it" in said


def test_every_option_is_read_by_some_format():
    named = {name for names in export.USED.values() for name in names} | set(export.ALWAYS)
    assert named == set(Options.__dataclass_fields__)
    for kind, name, value in (("points", "closed", True), ("cameras", "time", 0.5), ("mesh", "views", "all")):
        out = Path({"points": "a.ply", "cameras": "a.json", "mesh": "a.ply"}[kind])
        with pytest.raises(MeshError, match=f"--{name}: expected --format"):
            check(replace(Options(Path("run"), out, kind), **{name: value}))


def test_help_reads_as_a_page():
    done = subprocess.run(
        [sys.executable, "-m", "nerf.export", "--help"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    assert done.returncode == 0
    for word in ("--threshold", "GLB is turned", "--components", "A mesh with colours"):
        assert word in done.stdout.replace("\n", " "), word


@pytest.mark.parametrize(("module", "name"), [("open3d", "open3d"), ("skimage.measure", "scikit-image")])
def test_what_is_missing_is_said_before_any_work(static, tmp_path, capsys, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(export, "load_model", lambda *_: pytest.fail("worked first"))
    code, _, said = call(capsys, "--run", static, "--out", tmp_path / "a.ply")
    assert code == 2 and f"{name} can't be imported" in said and "pip install -e '.[mesh]'" in said
