"""A static scene without files whose photos have a closed form: textured balls before white, cameras all around them."""

from __future__ import annotations

import numpy as np
import torch

from data.camera import Camera
from data.photos import Photo
from data.scene import Frame, Scene
from tests import tiny
from tests.rigs import facing

BALLS = (  # center and radius
    (0.0, 0.0, 0.0, 0.35), (0.6, 0.2, 0.35, 0.3), (-0.45, 0.5, 0.4, 0.25),
    (-0.2, -0.65, -0.3, 0.3), (0.3, 0.4, -0.6, 0.25), (-0.6, -0.1, -0.1, 0.2),
)  # fmt: skip
FINER = 3  # rays along each side of a pixel


def colour(x: np.ndarray) -> np.ndarray:
    """Smooth solid paint "... 3" in [0, 1] at places "... 3": waves of one to four periods a unit, in any direction."""
    waves = np.random.default_rng(5).normal(size=(3, 6, 3))
    waves *= np.array([1, 1.5, 2, 2.5, 3, 4])[:, None] / np.linalg.norm(waves, axis=-1, keepdims=True)
    return 0.5 + 0.45 * np.tanh(np.sin(2 * np.pi * np.einsum("...i,cki->...ck", x, waves)).sum(-1))


def seen(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What rays "... 3" of unit length meet, in float64: colour, white where it is nothing, and distance, then infinite."""
    nearest = np.full(directions.shape[:-1], np.inf)
    for *center, radius in BALLS:
        o = origins - center
        b, c = (directions * o).sum(-1), (o * o).sum(-1) - radius**2
        t = -b - np.sqrt(np.where(b * b > c, b * b - c, np.inf))
        nearest = np.where((t > 0) & (t < nearest), t, nearest)
    hit = np.isfinite(nearest)
    rgb = np.ones((*nearest.shape, 3))
    rgb[hit] = colour(np.broadcast_to(origins, directions.shape)[hit] + nearest[hit, None] * directions[hit])
    return rgb, nearest


def photo(pose: np.ndarray, size: int, focal: float) -> np.ndarray:
    """What a pinhole `size` pixels wide and high sees, bytes "h w 4", on white."""
    v, u = (np.mgrid[: size * FINER, : size * FINER] + 0.5) / FINER - size / 2
    d = np.stack([u / focal, -v / focal, -np.ones_like(u)], axis=-1) @ pose[:, :3].T
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    rgb, distance = seen(pose[:, 3], d)
    shown = np.concatenate([rgb, np.isfinite(distance)[..., None]], axis=-1)
    blocks = shown.reshape(size, FINER, size, FINER, 4).mean((1, 3))
    return (blocks * 255).round().astype(np.uint8)


def poses(count: int) -> np.ndarray:
    """Cameras-to-world "n 3 4" spread evenly over a sphere about the balls (a spiral), none near its poles."""
    height = 1.6 * ((np.arange(count) + 0.5) / count - 0.5)
    turn = np.arange(count) * np.pi * (3 - 5**0.5)
    across = np.sqrt(1 - height**2)
    eyes = 2.1 * np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=-1)
    return np.stack([facing(eye) for eye in eyes])


def scene(count: int = 40, size: int = 56, held_out: int = 4) -> Scene:
    """`count` photos to train on and `held_out` others, cut out, in the cube [-1, 1]^3."""
    focal, places = 0.9 * size, poses(count + held_out)
    frames = []
    for i, pose in enumerate(places):
        camera = Camera(torch.from_numpy(pose).float(), size, size, focal, focal, size / 2, size / 2)
        pixels = torch.from_numpy(photo(pose, size, focal))
        seen = Photo(pixels[..., :3].contiguous(), pixels[..., 3].contiguous())
        frames.append(Frame(f"{i:03}", camera, seen, i, i, 0, 0.0))
    test = frames[:: len(frames) // held_out][:held_out] if held_out else []
    train = [frame for frame in frames if all(frame is not other for other in test)]
    for i, frame in enumerate(train):
        frame.warp_id = frame.appearance_id = i
    return tiny.scene(train=train, test=test, near=1.0, far=5.0)


def shaken(given: torch.Tensor, degrees: float, share: float, seed: int = 0) -> torch.Tensor:
    """Poses "n 3 4", each turned about its own centre and moved by just so much, in directions drawn at random.

    Args:
        share: length of the motion, scene units.
    """
    rng = np.random.default_rng(seed)
    axes, ways = rng.normal(size=(2, len(given), 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
    x, y, z = axes.T
    zero, angle = np.zeros_like(x), np.radians(degrees)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
    turn = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k  # Rodrigues
    moved = given.double().numpy().copy()
    moved[:, :, :3] = turn @ moved[:, :, :3]
    moved[:, :, 3] += share * ways
    return torch.from_numpy(moved).float()
