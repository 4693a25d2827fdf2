"""Which frames of a film are kept: cuts, blur, spread over motion."""

from __future__ import annotations

import numpy as np
import pytest

from data.capturing.choose import choose, find_cuts, longest_take, sharpness, watch
from tests.clips import blur, pan


def grey(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [frame.mean(-1).astype(np.uint8) for frame in frames]


def test_sharpness_is_the_variance_of_the_laplacian():
    picture = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
    p = picture.astype(float)
    slow = [
        p[r - 1, c] + p[r + 1, c] + p[r, c - 1] + p[r, c + 1] - 4 * p[r, c] for r in range(1, 8) for c in range(1, 6)
    ]
    assert sharpness(picture) == pytest.approx(np.var(slow), rel=1e-5)


def test_motion_is_the_shift():
    watched = watch(grey(pan(1, 12, step=4.0, size=(128, 96))), 10)
    # Blocks of 2 pixels: 4 pixels are 2 blocks, of a diagonal of 160 pixels.
    assert watched.motion[0] == 0 and np.allclose(watched.motion[1:], 4 / 160, atol=0.006)
    assert (watched.likeness[1:] > 0.9).all()


def test_a_cut_is_found_and_a_pan_is_none():
    frames = grey([*pan(1, 20), *pan(2, 30)])
    watched = watch(frames, 10)
    assert find_cuts(watched) == [20]
    assert longest_take(watched) == (20, 50)
    assert find_cuts(watch(grey(pan(1, 30, step=9.0)), 10)) == []


def test_noise_without_a_picture_is_no_cut():
    random = np.random.default_rng(0)
    noise = [random.integers(120, 130, (72, 96)).astype(np.uint8) for _ in range(20)]
    assert find_cuts(watch(noise, 10)) == []


def test_blurred_frames_are_told_and_passed_over():
    frames = pan(3, 40)
    for i in (10, 11, 25):
        frames[i] = blur(frames[i])
    watched = watch(grey(frames), 10)
    assert np.flatnonzero(watched.blurred()).tolist() == [10, 11, 25]
    few = choose(watched, 12, 0, 40)
    assert len(few.frames) == 12 and not set(few.frames) & {10, 11, 25} and not any(few.blurred)
    everything = choose(watched, 90, 0, 40)
    assert everything.frames == list(range(40))
    assert [f for f, b in zip(everything.frames, everything.blurred) if b] == [10, 11, 25]


def test_more_frames_are_kept_where_the_camera_moves():
    still, moving = [pan(4, 1)[0]] * 60, pan(4, 61, step=4.0)[1:]
    random = np.random.default_rng(0)
    frames = [np.clip(f + random.normal(0, 2, f.shape), 0, 255).astype(np.uint8) for f in [*still, *moving]]
    chosen = choose(watch(grey(frames), 30), 40, 0, 120)
    assert chosen.frames == sorted(set(chosen.frames)) and len(chosen.frames) <= 40
    moved = sum(f >= 60 for f in chosen.frames)
    assert moved > 1.5 * (len(chosen.frames) - moved) > 0


def test_frames_that_repeat_are_left_out():
    frames = [f for f in pan(5, 20) for _ in range(3)]
    chosen = choose(watch(grey(frames), 30), 25, 0, 60)
    assert len(chosen.frames) == 20 and all(f % 3 == 0 for f in chosen.frames)
