"""Rigs of cameras at known places."""

from __future__ import annotations

import math

import numpy as np
import torch

from data.camera import Camera
from nerf.paths import (
    Photo,
    Rig,
)

UP = np.array([0.0, 0.0, 1.0])


def facing(eye, target=(0, 0, 0)):
    """A pose by the textbook, apart from the code: columns right, up, back, eye."""
    back = np.subtract(eye, target) / np.linalg.norm(np.subtract(eye, target))
    right = np.cross(UP, back) / np.linalg.norm(np.cross(UP, back))
    return np.stack([right, np.cross(back, right), back, eye], 1)


def rig_of(eyes, target=(0, 0, 0), moving=False, transform=None):
    photos = []
    for i, eye in enumerate(eyes):
        pose = torch.from_numpy(facing(np.asarray(eye, float), target)).float()
        camera = Camera(pose, 40, 30, 36, 36, 20, 15)
        photos.append(Photo(f"photos/{i:03d}.png", camera, i / max(len(eyes) - 1, 1), False))
    transform = np.eye(4) if transform is None else transform
    return Rig(tuple(photos), np.asarray(target, float), UP, 0.5, 8.0, transform, moving)


def polar(azimuth, elevation, reach=2.0):
    c = math.cos(elevation)
    return reach * np.array([c * math.cos(azimuth), c * math.sin(azimuth), math.sin(elevation)])


def ring(count=24, elevation=0.5):
    return rig_of(
        [polar(2 * math.pi * i / count, elevation + 0.2 * (-1) ** i, 2 + 0.1 * (i % 3)) for i in range(count)]
    )


def arc(count=60, moving=True):
    rng = np.random.default_rng(3)
    spots = rng.uniform((-0.45, -0.15), (0.4, 0.2), (count, 2))
    return rig_of([polar(a + 1.0, e, 1.5 + 0.3 * a) for a, e in spots], moving=moving)


def poses_of(shots):
    return np.stack([camera.pose.double().numpy() for camera, _ in shots])
