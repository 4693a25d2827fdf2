"""Photos that stay on the disk are those that memory would hold, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import photos
from data.errors import SceneError
from data.photos import Photo, PhotoOnDisk, side_by_side
from data.scene import load_scene, read_capture
from tests.trees import HEIGHT, WIDTH, WRITERS

PIXELS = WIDTH * HEIGHT
COUNT = 48  # enough for one photo's decoding to be little of all


def pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".jpg"))


def small_memory(folder: Path) -> int:
    """Less than all photos take, and enough to decode one."""
    return 110 * PIXELS if any(Image.open(p).mode == "RGBA" for p in pictures(folder)) else 100 * PIXELS


@pytest.mark.parametrize("name", ["blender", "nerfies", "colmap-binary"])
def test_a_scene_is_the_same_from_the_disk(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path, count=COUNT)
    inside, outside = load_scene(tmp_path), load_scene(tmp_path, memory=small_memory(tmp_path))
    assert all(isinstance(f.photo, Photo) for f in inside.train + inside.test)
    assert all(isinstance(f.photo, PhotoOnDisk) for f in outside.train + outside.test)
    for a, b in zip(inside.train + inside.test, outside.train + outside.test, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.camera.pose, b.camera.pose)
        assert (a.mask is None) == (b.mask is None) and (a.mask is None or torch.equal(a.mask, b.mask))
        assert (a.name, a.warp_id, a.appearance_id, a.camera_id, a.time, a.camera.lens) == (
            b.name, b.warp_id, b.appearance_id, b.camera_id, b.time, b.camera.lens
        )  # fmt: skip
    for field in ("background", "near", "far", "moving", "masks_are_alpha", "bounded", "interpolate_test"):
        assert getattr(inside, field) == getattr(outside, field), field
    assert "on the disk" in outside.summary() and "on the disk" not in inside.summary()


def on_disk(photo: Photo, share: float, number: int = 0) -> PhotoOnDisk:
    made = PhotoOnDisk(lambda: photo, number, share)
    made.remember(photo)
    return made


def coded(height: int = 40, width: int = 30) -> torch.Tensor:
    """Colours that name the pixel."""
    place = torch.arange(height * width).reshape(height, width)
    return torch.stack([place // 256, place % 256, torch.zeros_like(place)], dim=-1).to(torch.uint8)


def test_a_turn_draws_one_pixel_from_each_of_equal_parts() -> None:
    photo = on_disk(Photo(coded()), 0.1)
    for turn in range(3):
        drawn = photo.draw(True, turn)
        assert drawn.mask is None and len(drawn.within) == 120
        assert (drawn.within // 10).tolist() == list(range(120))
        assert (drawn.rgb[:, 0].int() * 256 + drawn.rgb[:, 1]).tolist() == drawn.within.tolist()


def test_turns_differ_and_repeat_and_so_do_photos() -> None:
    photo, other = on_disk(Photo(coded()), 0.1), on_disk(Photo(coded()), 0.1, 1)
    first, second = photo.draw(True, 0).within.tolist(), photo.draw(True, 1).within.tolist()
    assert first != second and first != other.draw(True, 0).within.tolist()
    again = on_disk(Photo(coded()), 0.1)
    assert [again.draw(True, turn).within.tolist() for turn in (1, 0)] == [second, first]
    met = {w for turn in range(80) for w in photo.draw(True, turn).within.tolist()}
    assert len(met) > 0.999 * 1200  # a pixel is missed with a chance of 0.9^80


@pytest.mark.parametrize("cut_out", [False, True])
def test_a_mask_excludes_unless_it_is_an_opacity(cut_out: bool) -> None:
    mask = torch.zeros(40, 30, dtype=torch.uint8)
    mask[5:9, 3:] = 255
    mask[5, 3] = 127
    photo = on_disk(Photo(coded(), mask, None, cut_out), 0.5)
    for excluding in (True, False, not cut_out):  # the first pixels were drawn for one of the two, and serve only it
        drawn = on_disk(photo.decode(), 0.5).draw(excluding, 0)
        assert drawn.mask is not None and torch.equal(drawn.mask, mask.reshape(-1)[drawn.within.long()])
        assert len(drawn.within) == (54 if excluding else 600)  # half of those that may be drawn, to the even number
        assert not excluding or bool((drawn.mask > 127).all())


def test_the_plan_keeps_to_the_memory_and_says_what_it_needs(tmp_path: Path, monkeypatch) -> None:
    WRITERS["colmap-binary"](tmp_path, count=COUNT)
    monkeypatch.setattr(photos, "available", lambda: None)
    assert isinstance(load_scene(tmp_path).train[0].photo, Photo)
    monkeypatch.setattr(photos, "available", lambda: 2 * 3 * COUNT * PIXELS)
    assert isinstance(load_scene(tmp_path).train[0].photo, Photo)  # half of it is just enough
    monkeypatch.setattr(photos, "available", lambda: 2 * 3 * COUNT * PIXELS - 2)
    few = load_scene(tmp_path)
    assert isinstance(few.train[0].photo, PhotoOnDisk)
    memory = 100 * PIXELS
    shares = [f.photo.share for f in load_scene(tmp_path, memory=memory).train]  # type: ignore[union-attr]
    drawn = shares[0] * PIXELS * len(shares)
    assert len(set(shares)) == 1 and 0.25 * memory < 16 * drawn <= memory - 16 * PIXELS
    with pytest.raises(SceneError, match=r": memory: expected at least .* MB for photos of this size, found 0.0 MB$"):
        load_scene(tmp_path, memory=1000)


def test_as_many_are_decoded_at_once_as_fit_beside_those_that_are_held(tmp_path: Path, monkeypatch) -> None:
    WRITERS["colmap-binary"](tmp_path, count=COUNT)
    monkeypatch.setattr(photos.os, "cpu_count", lambda: 6)
    shots, held = read_capture(tmp_path).shots, 3 * COUNT * PIXELS
    for room, workers in ((100, 6), (6, 6), (5.9, 5), (2, 2), (0.5, 1), (0, 1)):
        found = photos.plan(shots, tmp_path, 1, held + int(room * 16 * PIXELS))
        assert found.share is None and found.workers == workers
    assert photos.plan(shots, tmp_path, 1, held - 1).share is not None


def test_a_broken_photo_is_found_before_training(tmp_path: Path) -> None:
    WRITERS["colmap-binary"](tmp_path, count=COUNT)
    last = pictures(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-60])
    with pytest.raises(SceneError, match=last.name):
        load_scene(tmp_path, memory=100 * PIXELS)


@pytest.mark.parametrize("memory", (None, 100 * PIXELS))
def test_a_photo_that_there_is_no_memory_to_decode_in_is_named(tmp_path: Path, monkeypatch, memory: int | None) -> None:
    def read(file: Path, size: tuple[int, int]) -> object:
        if file == last:
            raise MemoryError
        return whole(file, size)

    WRITERS["colmap-binary"](tmp_path, count=COUNT)
    last = pictures(tmp_path)[-1]
    whole = photos.read_pixels
    monkeypatch.setattr(photos, "read_pixels", read)
    with pytest.raises(SceneError, match=f"{last.name}: memory: expected enough to decode it in, found too little"):
        load_scene(tmp_path, memory=memory)


MEASURE = """
import sys
from data.scene import load_scene
from data.sizes import bytes_of
from nerf import rays
from nerf.rays import PixelSampler
import torch
rays.MOST_KEPT = 0
# Not getrusage: what it says of a process begins with what its parent had.
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
load_scene(sys.argv[1], downscale=8)
PixelSampler(load_scene(sys.argv[1], downscale=8).train).sample(10, torch.Generator())
for memory in sys.argv[2:]:
    before = peak()
    scene = load_scene(sys.argv[1], memory=bytes_of(memory))
    sampler = PixelSampler(scene.train)
    for step in range(0, 64, 16):
        sampler.turn(step)
        sampler.sample(1000, torch.Generator())
    for frame in scene.test:
        frame.image.float().mean()
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_stays_within_what_is_given(tmp_path: Path) -> None:
    """40 photos of 2.1 MB in 30 MB, pixels drawn, held-out ones looked at; in a process of its own."""
    WRITERS["colmap-binary"](tmp_path, count=40)
    first, *others = pictures(tmp_path)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    noise.resize((24 * WIDTH, 24 * HEIGHT), Image.Resampling.NEAREST).save(first)
    for other in others:
        other.write_bytes(first.read_bytes())

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), "30MB", "4GB"], capture_output=True, text=True, check=True,
        cwd=Path(photos.__file__).parents[1],
    )  # fmt: skip
    little, much = map(float, done.stdout.split())
    assert much > 75 and little < 33, (little, much)


def test_photos_in_memory_lie_side_by_side_and_aren_t_copied(tmp_path: Path) -> None:
    WRITERS["nerfstudio"](tmp_path)
    scene = load_scene(tmp_path)
    for frames, shared in ((scene.train, True), (scene.test, True), (scene.train[::2], False)):
        laid = side_by_side([f.photo for f in frames])  # type: ignore[misc]
        assert torch.equal(laid, torch.cat([f.image.reshape(-1, 3) for f in frames]))
        assert (laid.data_ptr() == frames[0].image.data_ptr()) == shared


def test_what_the_machine_has_to_spare_is_no_more_than_it_has(monkeypatch) -> None:
    found, whole = photos.available(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found is not None and whole / 1000 < found <= whole
    alone = photos.spare()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # as torchrun does
    shared = photos.spare()
    assert shared is not None and alone is not None and shared < alone / 3
