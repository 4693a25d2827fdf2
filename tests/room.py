"""A textured room filmed by a camera whose poses are known: ray-cast in NumPy, so that captures have something to be held to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.films import write_video

HALF = np.array([2.2, 1.4, 2.6])  # of the room
TABLE = (np.array([-0.5, -1.4, -1.2]), np.array([0.6, -0.35, -0.4]))  # a box that stands in it
SIZE = (240, 180)
FOCAL = 190.0
_TEXELS = 512


def texture(seed: int) -> np.ndarray:
    """Noise of several sizes, "512 512 3" in [0, 255], with corners and blobs for features to be found at."""
    random = np.random.default_rng(seed)
    total = np.zeros((_TEXELS, _TEXELS, 3))
    for cells, weight in ((8, 0.5), (24, 1.0), (64, 1.0), (128, 0.6)):
        grid = random.uniform(-1, 1, (cells, cells, 3)).repeat(_TEXELS // cells + 1, 0).repeat(_TEXELS // cells + 1, 1)
        total += weight * grid[:_TEXELS, :_TEXELS]
    return np.clip(128 + 70 * total, 0, 255)


TEXTURES = np.stack([texture(seed) for seed in range(8)])


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Camera-to-world "3 4" in OpenGL axes."""
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross([np.sin(roll), np.cos(roll), 0.0], back)
    right = right / np.linalg.norm(right)
    return np.stack((right, np.cross(back, right), back, position), 1)


def arc(count: int, wide: float = 0.9, still: bool = False) -> np.ndarray:
    """Poses "count 3 4" of a camera that is carried to and fro before the table; `still`: it only turns."""
    poses = []
    for a in np.linspace(-1, 1, count):
        position = np.array([wide * np.sin(1.2 * a), 0.15 * np.cos(2.3 * a), 1.9 - 0.4 * np.cos(a)])
        target = np.array([0.25 * a, -0.35 + 0.1 * np.sin(3 * a), -0.9])
        if still:
            position, target = np.array([0.0, 0.0, 1.5]), np.array([1.2 * a, 0.1 * np.sin(3 * a), -1.0])
        poses.append(look_at(position, target, 0.03 * np.sin(5 * a)))
    return np.stack(poses)


def photo(
    pose: np.ndarray, size: tuple[int, int] = SIZE, focal: float = FOCAL, ball: np.ndarray | None = None
) -> np.ndarray:
    """What the camera sees, "h w 3" uint8, 2 x 2 rays a pixel; `ball`: the centre of a ball of radius 0.35 that moves."""
    width, height = size
    u, v = np.meshgrid((np.arange(2 * width) + 0.5) / 2, (np.arange(2 * height) + 0.5) / 2)
    local = np.stack(((u - width / 2) / focal, -(v - height / 2) / focal, -np.ones_like(u)), -1)
    ray = local @ pose[:, :3].T
    colour = _cast(pose[:, 3], ray.reshape(-1, 3), ball).reshape(height, 2, width, 2, 3).mean((1, 3))
    return np.clip(np.rint(colour), 0, 255).astype(np.uint8)


def film(file: Path, poses: np.ndarray, moving: bool = False, fps: float = 10, **more) -> None:
    """Write what the camera sees along `poses`; `moving`: with a ball that flies before it."""
    write_video(file, (photo(p, ball=ball_at(i) if moving else None, **more) for i, p in enumerate(poses)), fps)


def ball_at(frame: int) -> np.ndarray:
    """Where the ball is."""
    return np.array([0.55 * np.sin(0.45 * frame), 0.1 + 0.25 * np.cos(0.6 * frame), 0.45])


def _cast(origin: np.ndarray, ray: np.ndarray, ball: np.ndarray | None) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        wall = (np.sign(ray) * HALF - origin) / ray
        low, high = (TABLE[0] - origin) / ray, (TABLE[1] - origin) / ray
    t = wall.min(1)
    enter, leave = np.minimum(low, high), np.maximum(low, high)
    hit = (enter.max(1) < leave.min(1)) & (enter.max(1) > 0)
    place = origin + t[:, None] * ray
    colour = _look_up(place, wall.argmin(1), 2 * HALF, 0)
    on_table = origin + np.where(hit, enter.max(1), 1.0)[:, None] * ray
    colour = np.where(hit[:, None], _look_up(on_table, enter.argmax(1), np.full(3, 1.6), 3), colour)
    if ball is None:
        return colour
    to, square = origin - ball, (ray * ray).sum(1)
    half = ray @ to
    inside = half * half - square * (to @ to - 0.35**2)
    at = (-half - np.sqrt(np.maximum(inside, 0))) / square
    normal = (origin + at[:, None] * ray - ball) / 0.35
    across = np.stack((np.arctan2(normal[:, 0], normal[:, 2]), normal[:, 1], np.zeros(len(ray))), 1)
    return np.where(
        ((inside > 0) & (at > 0))[:, None], _look_up(across, np.full(len(ray), 2), np.full(3, 3.0), 6), colour
    )


def _look_up(place: np.ndarray, axis: np.ndarray, size: np.ndarray, first: int) -> np.ndarray:
    """Bilinear texels on the faces across `axis`."""
    uv = np.where(
        (axis == 0)[:, None], place[:, [2, 1]], np.where((axis == 1)[:, None], place[:, [0, 2]], place[:, :2])
    )
    uv = (uv / size.max() + 0.5) % 1 * (_TEXELS - 1)
    base = np.clip(np.floor(uv).astype(int), 0, _TEXELS - 2)
    part = np.clip(uv - base, 0, 1)
    face = (first + axis) % len(TEXTURES)
    corner = [
        TEXTURES[face, base[:, 1] + dy, base[:, 0] + dx]
        * (part[:, 1] if dy else 1 - part[:, 1])[:, None]
        * (part[:, 0] if dx else 1 - part[:, 0])[:, None]
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    return sum(corner)
