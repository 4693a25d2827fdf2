"""The viewer's SIREN tab: fits and blends on the engine, their pictures, and what hostile uploads come to."""

from __future__ import annotations

import math
import time
import weakref

import numpy as np
import pytest
import torch

from apps.viewer import fits as fits_file
from apps.viewer.fits import Busy, Fits, UnknownFit
from siren.differences import image_gradient
from siren.image import Grid, sample, to_pixels, to_signal
from siren.loop import FitError
from siren.poisson import field_of
from tests.fitted import coded, fits_of_small_networks, small, waves  # noqa: F401 (fixtures)


def finished(fits: Fits, token: str, seconds: float = 60) -> dict:
    end = time.monotonic() + seconds
    while (status := fits.status(token))["state"] in ("waiting", "running"):
        assert time.monotonic() < end, status
        time.sleep(0.01)
    return status


def begun(fits: Fits, token: str) -> None:
    end = time.monotonic() + 30
    while fits.status(token)["step"] < 3:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_fit_beats_the_best_constant_by_far_and_its_picture_is_sirens_own(fits):
    photo = waves()
    token = fits.start_fit(coded(photo), "image", 3.0, "a")
    status = finished(fits, token)
    truth = to_signal(photo)
    constant = 10 * math.log10(4 / float((truth - truth.mean((0, 1))).square().mean()))  # the variance is its error
    assert status["state"] == "done" and status["psnr"] > constant + 10
    assert status["curve"][-1][1] > status["curve"][0][1] + 8 and len(status["curve"]) <= 200
    assert (status["width"], status["height"], status["original"]) == (32, 24, [32, 24])

    found = fits.picture(token, width=32, height=24).future.result(20)
    siren = fits._fits[token].siren
    siren.precision = "float32"
    expected = to_pixels(sample(siren, Grid(24, 32)))
    assert np.abs(found.astype(int) - expected).max() <= 1
    error = float(np.square((found.astype(float) - photo) / 127.5).mean())
    assert error < 4 * 10 ** (-status["psnr"] / 10) + 1 / 255**2  # and what rounding adds
    photo_again = fits.picture(token, width=32, height=24, mode="photo").future.result(20)
    assert np.array_equal(photo_again, photo)


def test_a_part_is_the_crop_of_the_whole_sampled_at_the_same_points(fits):
    token = fits.start_fit(coded(waves()), "image", 1.0, "a")
    finished(fits, token)
    for mode in ("image", "gradient", "laplacian", "photo"):
        whole = fits.picture(token, width=64, height=48, mode=mode).future.result(20)
        window = (0.25, 0.5, 0.75, 1.0)
        part = fits.picture(token, window, width=32, height=24, mode=mode).future.result(20)
        assert np.abs(whole[24:48, 16:48].astype(int) - part).max() <= 1, mode
        quarter = fits.picture(token, window, width=64, height=48, mode=mode).future.result(20)
        assert quarter.shape == (48, 64, 3) and quarter.dtype == np.uint8
    # Each pixel of the photo, enlarged sixteen times, is a square.
    squares = fits.picture(token, (0, 0, 0.125, 0.125), width=64, height=48, mode="photo").future.result(20)
    assert np.array_equal(squares, np.repeat(np.repeat(waves()[:3, :4], 16, 0), 16, 1))


@pytest.mark.parametrize("target", ["gradient", "laplacian"])
def test_derivatives_come_back_with_the_photos_brightness(fits, target):
    photo = waves(seed=3) // 2 + 100  # brighter than a network without a constant would be
    token = fits.start_fit(coded(photo), target, 4.0, "a")
    status = finished(fits, token)
    assert status["state"] == "done" and status["psnr"] > 20 and status["measure"] != "PSNR"
    found = fits.picture(token, width=32, height=24).future.result(20)
    assert np.abs(found.mean((0, 1)) - photo.mean((0, 1))).max() < 1.5


@pytest.mark.parametrize("mixed", [False, True])
def test_a_blends_gradients_are_near_the_composed_ones(fits, mixed):
    a, b = waves(seed=1), waves(seed=2)
    token = fits.start_blend(coded(a), coded(b), 4.0, 0.4, mixed, "a")
    status = finished(fits, token)
    assert status["state"] == "done" and status["psnr"] is None
    field = field_of(to_signal(a), to_signal(b), None, 0.4, mixed)[1::2, 1::2]
    values = to_signal(fits.picture(token, width=32, height=24).future.result(20))
    found = image_gradient(values, Grid(24, 32).pitch)
    inner = (slice(3, -3), slice(3, -3))
    error = float((found - field)[inner].square().mean() / field[inner].square().mean())
    assert error < (0.5 if mixed else 0.1)  # no image has the mixed field
    laid = 0.6 * to_signal(a) + 0.4 * to_signal(b)
    assert float((values - laid).mean((0, 1)).abs().max()) < 0.03


def test_blends_take_images_of_other_shapes(fits):
    token = fits.start_blend(coded(waves(24, 32)), coded(waves(40, 20, 5)[..., 0]), 1.0, 0.5, False, "a")
    status = finished(fits, token)
    assert status["state"] == "done" and (status["width"], status["height"]) == (32, 24)


def test_stop_ends_the_work_and_keeps_the_network(fits):
    token = fits.start_fit(coded(waves()), "image", 300.0, "a")
    begun(fits, token)
    fits.pause(token)
    fits.engine.call(lambda: None, "b").future.result(20)
    step = fits.status(token)["step"]
    time.sleep(0.1)
    assert fits.status(token)["step"] == step and fits.status(token)["paused"]
    assert fits.picture(token, width=8, height=8).future.result(20).shape == (8, 8, 3)  # of the weights as they are
    fits.resume(token)
    end = time.monotonic() + 20
    while fits.status(token)["step"] == step:
        assert time.monotonic() < end
    fits.stop(token)
    fits.engine.call(lambda: None, "b").future.result(20)
    assert fits.status(token)["state"] == "stopped" and fits._fits[token].task.done and not fits.engine._tasks
    assert fits.picture(token, width=8, height=8).future.result(20).shape == (8, 8, 3)


def test_two_people_share_the_engine(fits):
    tokens = [fits.start_fit(coded(waves(seed=seed)), "image", 300.0, owner) for seed, owner in enumerate("ab")]
    for token in tokens:
        begun(fits, token)
    before = [fits.status(token)["seconds"] for token in tokens]
    end = time.monotonic() + 30
    while fits.status(tokens[0])["seconds"] < before[0] + 0.5:
        assert time.monotonic() < end
        time.sleep(0.01)
    used = [fits.status(token)["seconds"] - start for token, start in zip(tokens, before)]
    assert 1 / 3 < used[1] / used[0] < 3


def test_old_fits_are_dropped_and_nobody_is_thrown_out(fits):
    fits.limit = 2
    image = coded(waves())
    mine = [fits.start_fit(image, "image", 300.0, "me") for _ in range(3)]
    with pytest.raises(UnknownFit):
        fits.status(mine[0])
    tasks = [fits._fits[token].task for token in mine[1:]]
    others = [fits.start_fit(image, "image", 300.0, f"other {i}") for i in range(6)]
    assert len(fits._fits) == 8
    with pytest.raises(Busy):
        fits.start_fit(image, "image", 300.0, "late")
    fits.stop(others[0])
    late = fits.start_fit(image, "image", 300.0, "late")
    assert others[0] not in fits._fits and set(fits._fits) == {*mine[1:], *others[1:], late}
    fits._fits[mine[1]].touched -= 1000  # closed the page
    fits.start_fit(image, "image", 300.0, "later")
    assert mine[1] not in fits._fits and tasks[0].ended and not tasks[1].ended


def test_what_is_kept_of_a_fit_is_its_network_without_gradients_and_no_picture(fits):
    token = fits.start_fit(coded(waves()), "image", 300.0, "a")
    begun(fits, token)
    shown = weakref.ref(fits.picture(token, width=64, height=64).future.result(20))
    fits.stop(token)
    for _ in range(2):
        fits.engine.call(lambda: None, "b").future.result(20)  # by now the one before is forgotten, too
    kept = fits._fits[token]
    assert shown() is None and not kept.pictures
    assert all(p.grad is None for p in kept.siren.parameters())


def test_only_the_latest_pictures_are_computed(fits):
    token = fits.start_fit(coded(waves()), "image", 1.0, "a")
    finished(fits, token)
    tasks = [fits.picture(token, width=1024, height=1024) for _ in range(4)]
    assert [task.ended for task in tasks] == [True, True, False, False]


@pytest.mark.parametrize(
    "change, word",
    [
        ({"window": (0.5, 0, 0.5, 1)}, "left"), ({"window": (-0.1, 0, 1, 1)}, "left"), ({"width": 1025}, "width"),
        ({"window": (math.nan, 0, 1, 1)}, "left"), ({"height": 0}, "height"), ({"mode": "x"}, "mode"),
    ],
)  # fmt: skip
def test_pictures_that_cant_be_had_are_said(fits, change, word):
    token = fits.start_fit(coded(waves()), "image", 300.0, "a")
    with pytest.raises(FitError, match=word):
        fits.picture(token, **change)


def test_more_time_takes_more_pixels():
    sides = [fits_file.side("image", seconds) for seconds in (1, 15, 60, 600)]
    assert sides == [128, 320, 512, 512] and fits_file.side("gradient", 40) == 256


def test_a_pictures_weights_are_exact_and_leave_no_trace():
    from apps.viewer.fit_pictures import values_at
    from siren.network import Siren, SirenConfig

    siren = Siren(SirenConfig(2, 3, 16, 2))
    siren.precision = "bfloat16"
    values = values_at(siren, torch.rand(5, 2), "image")
    assert values.shape == (5, 3) and not values.requires_grad
    assert siren.precision == "bfloat16" and torch.is_grad_enabled()
