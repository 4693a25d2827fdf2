"""A tiny scene without files, for tests of what trains and renders."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from data.camera import Camera
from data.photos import Photo
from data.scene import Frame, Scene


def look_at(eye: tuple[float, float, float], target: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    """Camera-to-world "3 4" in OpenGL axes, looking from `eye` to `target`, z up."""
    origin = torch.tensor(eye, dtype=torch.float32)
    back = torch.nn.functional.normalize(origin - torch.tensor(target, dtype=torch.float32), dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), back), dim=0)
    return torch.stack([right, torch.linalg.cross(back, right), back, origin], dim=1)


def coded_image(number: int, width: int, height: int) -> Tensor:
    """A photo whose colour names the pixel: (column, row, number)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.full_like(rows, number)], dim=-1).to(torch.uint8)


def frame(number: int, width: int = 8, height: int = 6, time: float = 0.0, mask: Tensor | None = None) -> Frame:
    """Photo `number` from its own place on a circle, with its own focal length."""
    eye = (2.5 * math.cos(number), 2.5 * math.sin(number), 0.4 + 0.1 * number)
    camera = Camera(look_at(eye), width, height, 9.0 + number, 8.0 + number, width / 2 + 0.3, height / 2 - 0.2)
    return Frame(f"{number:03}", camera, Photo(coded_image(number, width, height), mask), number, number, 0, time)


def scene(count: int = 3, moving: bool = False, **more: object) -> Scene:
    """`count` photos of different sizes around the cube [-1, 1]^3; `more` replaces fields."""
    times = [i / max(count - 1, 1) for i in range(count)]
    frames = [frame(i, 8 + i, 6 + 2 * i, times[i]) for i in range(count)]
    fields: dict[str, object] = {
        "path": Path("tiny"), "format": "tiny", "train": frames, "test": [],
        "box": torch.tensor([[-1.0] * 3, [1.0] * 3]),
        "near": 0.5, "far": 5.0, "bounded": True, "points": None, "background": (1.0, 1.0, 1.0), "moving": moving,
        "up": torch.tensor([0.0, 0.0, 1.0]), "transform": torch.eye(4), "interpolate_test": False,
        "masks_are_alpha": True,
    }  # fmt: skip
    return Scene(**(fields | more))  # type: ignore[arg-type]
