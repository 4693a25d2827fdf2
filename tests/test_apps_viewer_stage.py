"""What is on show: a view is the picture that nerf renders, cropped and before any background, and nothing odd gets in."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from apps.viewer.stage import Stage, StageError, View
from nerf import checkpoint
from nerf.evaluate import instant
from nerf.metrics import psnr
from nerf.modes import draw, probe
from nerf.paths import Rig
from nerf.picture import finished, render_image
from nerf.video import to_bytes
from tests.test_nerf_render import make_run


@pytest.fixture(scope="module", params=[False, True], ids=["static", "moving"])
def stage(request, tmp_path_factory):
    return on_show(make_run(tmp_path_factory.mktemp("stage"), request.param)[0])


def on_show(run) -> Stage:
    stage = Stage()
    stage.show("ball", run, checkpoint.load_model(run, "reference")[0], Rig.load(run))
    return stage


def home(stage: Stage, **more) -> View:
    told = stage.describe()
    return View(**{"pose": told["home"], "fov": told["fov"], "width": 24, "height": 24, **more})


def time_of(stage: Stage, time: float) -> float | None:
    return time if stage.model.warp is not None else None


def test_a_view_is_a_pinhole():
    view = View(pose=[[1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 1, 4]], fov=60, width=30, height=20)
    camera = view.camera()
    assert (camera.width, camera.height, camera.cx, camera.cy) == (30, 20, 15, 10)
    up = math.tan(math.radians(30))  # the picture's upper edge, one unit ahead
    edge = camera.project(torch.tensor([[2.0, 3.0 + up, 3.0]]))
    torch.testing.assert_close(edge, torch.tensor([[15.0, 0.0]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"pose": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]]},  # a mirror
        {"pose": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]},
        {"pose": [[1, 0, 0, float("nan")], [0, 1, 0, 0], [0, 0, 1, 0]]},
        {"pose": [[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0]]},
        {"pose": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]},
        {"fov": 0},
        {"fov": 180},
        {"width": 0},
        {"height": 100_000},
        {"time": 1.5},
        {"mode": "both"},
        {"background": "plaid"},
        {"crop": [0, 0, 0, 1, 1]},
        {"crop": [0, 0, 0, 1, 1, float("inf")]},
    ],
)
def test_odd_views_are_refused(change):
    good = {"pose": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "fov": 40, "width": 8, "height": 8}
    assert View(**good).camera().width == 8
    with pytest.raises(ValidationError):
        View(**{**good, **change})


def test_a_view_is_the_picture_that_nerf_renders(stage):
    view = home(stage, time=0.3, look=0.8)
    expected = render_image(stage.model, view.camera(), time_of(stage, 0.3), 0.8).rgb
    assert np.array_equal(finished(stage.picture(view)), to_bytes(expected))


def test_other_modes_are_nerf_renders_too(stage):
    photos = [(p.camera, time_of(stage, p.time)) for p in stage.rig.photos]
    moving = stage.model.warp is not None
    for mode in ("depth", "opacity", *(("canonical", "warp") if moving else ())):
        view = home(stage, mode=mode)
        shot = view.camera(), time_of(stage, 0.5)
        expected = draw(stage.model, shot, mode, probe(stage.model, photos, mode), 0.5)
        assert np.array_equal(finished(stage.picture(view)), to_bytes(expected)), mode
    if not moving:
        with pytest.raises(StageError, match="expected a scene that moves"):
            finished(stage.picture(home(stage, mode="warp")))


def test_what_is_not_opaque_shows_the_background(stage):
    pictures = {
        name: finished(stage.picture(home(stage, background=name))) / 255 for name in ("black", "gray", "white")
    }
    opacity = finished(stage.picture(home(stage, mode="opacity"))) / 255
    for name, level in (("gray", 0.5), ("white", 1.0)):
        difference = pictures[name] - pictures["black"] - level * (1 - opacity)
        assert np.abs(difference[pictures[name] < 1]).max() < 2.1 / 255


def test_a_crop_shows_only_its_box(stage):
    whole = finished(stage.picture(home(stage, mode="opacity")))
    told = stage.describe()
    center, half = np.array(told["center"]), told["half"]
    everything = [*(center - 100 * half), *(center + 100 * half)]
    assert np.array_equal(finished(stage.picture(home(stage, mode="opacity", crop=everything))), whole)
    swapped = [*everything[3:], *everything[:3]]
    assert np.array_equal(finished(stage.picture(home(stage, mode="opacity", crop=swapped))), whole)
    nothing = [*(center + 50 * half), *(center + 51 * half)]
    assert finished(stage.picture(home(stage, mode="opacity", crop=nothing))).max() == 0
    # Half of the scene: where a ray meets the other half alone, it sees nothing.
    view = home(stage, mode="opacity", crop=[*(center - 100 * half), center[0], *(center[1:] + 100 * half)])
    origins, directions = (t.double().numpy() for t in view.camera().rays(None))
    beyond = (origins[:, 0] > center[0]) & (directions[:, 0] >= 0)
    found = finished(stage.picture(view)).reshape(-1, 3)
    assert found[beyond].max(initial=0) == 0 and found.sum() < whole.sum()


def test_slices_of_any_length_make_the_same_picture(stage, monkeypatch):
    view = home(stage, time=0.4)
    expected = finished(stage.picture(view))
    monkeypatch.setattr("apps.viewer.stage.PACE", 1e-9)
    work = stage.picture(view)
    shares = []
    while True:
        try:
            shares.append(next(work))
        except StopIteration as end:
            assert np.array_equal(end.value, expected)
            break
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_scene_is_described_as_json(stage):
    told = json.loads(json.dumps(stage.describe()))
    assert told["ready"] and len(told["photos"]) == len(stage.rig.photos)
    assert told["moving"] == (stage.model.warp is not None)
    home_pose = np.array(told["home"])
    ahead = np.array(told["focus"]) - home_pose[:, 3]
    assert np.dot(ahead / np.linalg.norm(ahead), -home_pose[:, 2]) > 0.9  # it sees what the capture is about
    empty = Stage()
    assert not empty.describe()["ready"]
    with pytest.raises(StageError, match="no scene is on show yet"):
        finished(empty.picture(home(stage)))
    empty.show("selfie", None, None, stage.rig)  # a training that is about to begin
    with pytest.raises(StageError, match="selfie: it is being read and started; try again"):
        finished(empty.picture(home(stage)))


def test_a_photo_stands_beside_the_scene_from_its_place(stage):
    index = next(i for i, photo in enumerate(stage.rig.photos) if photo.held_out)
    frame = stage.frame_of(index)
    assert frame.name == stage.rig.photos[index].name
    sheet, decibels = finished(stage.compare(frame, 512))
    time = instant(stage.model, stage.scene, frame) if stage.model.warp is not None else None
    rendered = render_image(stage.model, frame.camera, time).rgb
    assert sheet.shape == (24, 72, 3)
    assert np.array_equal(sheet[:, :24], frame.image.numpy()) and np.array_equal(sheet[:, 24:48], to_bytes(rendered))
    assert decibels == pytest.approx(psnr(rendered, frame.image.float() / 255), abs=1e-6)
    assert finished(stage.compare(frame, 12))[0].shape == (12, 36, 3)
    with pytest.raises(StageError, match="photo: expected a number below"):
        stage.frame_of(len(stage.rig.photos))


def test_motions_are_of_the_weights_on_show(tmp_path):
    stage = on_show(make_run(tmp_path, True)[0])
    view = home(stage, time=0.9)
    before = finished(stage.picture(view))
    assert np.array_equal(finished(stage.picture(view)), before)
    with torch.no_grad():
        for parameter in stage.model.warp.parameters():
            parameter.mul_(3).add_(0.02)
    stage.moved()
    expected = render_image(stage.model, view.camera(), 0.9, 0.5).rgb
    after = finished(stage.picture(view))
    assert np.array_equal(after, to_bytes(expected)) and not np.array_equal(after, before)
