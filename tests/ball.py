"""A scene whose pictures are known in closed form: a coloured ball, ray traced, written as posed photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 24
FOCAL = 30.0


def look_at(eye: np.ndarray) -> np.ndarray:
    """Camera-to-world of a camera at `eye` that looks at the origin, z up, OpenGL axes."""
    back = eye / np.linalg.norm(eye)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    pose[:3, 3] = eye
    return pose


def photo(pose: np.ndarray, center: np.ndarray, wall: bool) -> np.ndarray:
    """The ball of radius 0.6 around `center`, coloured by its normal, as RGBA; before a wall at y = 1.5 where asked."""
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5
    local = np.stack([(u - SIZE / 2) / FOCAL, -(v - SIZE / 2) / FOCAL, -np.ones_like(u)], axis=-1)
    d = local @ pose[:3, :3].T
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    o = pose[:3, 3] - center
    b, c = d @ o, o @ o - 0.36
    hit = b * b - c > 0
    t = -b - np.sqrt(np.where(hit, b * b - c, 0))
    normal = (o + t[..., None] * d) / 0.6
    rgba = np.zeros((SIZE, SIZE, 4))
    if wall:
        along = (1.5 - pose[1, 3]) / d[..., 1]
        x, z = pose[0, 3] + along * d[..., 0], pose[2, 3] + along * d[..., 2]
        shade = 0.5 + 0.25 * np.sin(6 * x) * np.sin(6 * z)
        rgba[...] = np.stack([shade, 0.8 * shade, 0.6 * shade, np.ones_like(shade)], axis=-1)
    rgba[hit] = np.concatenate([0.5 + 0.5 * normal, np.ones((SIZE, SIZE, 1))], axis=-1)[hit]
    return (rgba * 255).round().astype(np.uint8)


def write_ball(folder: Path, moving: bool) -> Path:
    """Write the scene; static: Blender format, 12 + 3 cut-outs in a ring. Moving: Nerfies format, 8 + 2 photos."""
    if not moving:
        for split, count, shift in (("train", 12, 0.0), ("test", 3, 0.4)):
            frames = []
            for k in range(count):
                angle = 2 * np.pi * k / count + shift
                pose = look_at(np.array([2.5 * np.cos(angle), 2.5 * np.sin(angle), 0.8]))
                (folder / split).mkdir(exist_ok=True)
                Image.fromarray(photo(pose, np.zeros(3), wall=False), "RGBA").save(folder / split / f"r_{k}.png")
                frames.append({"file_path": f"./{split}/r_{k}", "transform_matrix": pose.tolist()})
            content = {"camera_angle_x": 2 * np.arctan(SIZE / 2 / FOCAL), "frames": frames}
            (folder / f"transforms_{split}.json").write_text(json.dumps(content))
        return folder
    return _write_moving(folder)


def _write_moving(folder: Path) -> Path:
    (folder / "camera").mkdir()
    (folder / "rgb" / "1x").mkdir(parents=True)
    ids, train, held, metadata = [], [], [], {}
    for k in range(8):
        for camera in (0, 1) if k in (2, 5) else (0,):
            name = f"{k:06d}_{camera}"
            eye = np.array([0.5 * np.sin(k) + 0.3 * camera, -2.5, 0.3 * np.cos(k)])
            pose, center = look_at(eye), np.array([0.0, 0.0, 0.3 * np.sin(2 * k)])
            Image.fromarray(photo(pose, center, wall=True)[..., :3]).save(folder / "rgb" / "1x" / f"{name}.png")
            flip = pose[:3, :3] * [1, -1, -1]  # OpenGL to OpenCV axes
            (folder / "camera" / f"{name}.json").write_text(
                json.dumps(
                    {
                        "orientation": flip.T.tolist(), "position": eye.tolist(), "focal_length": FOCAL,
                        "principal_point": [SIZE / 2, SIZE / 2], "skew": 0.0, "pixel_aspect_ratio": 1.0,
                        "radial_distortion": [0, 0, 0], "tangential_distortion": [0, 0], "image_size": [SIZE, SIZE],
                    }
                )
            )  # fmt: skip
            ids.append(name)
            (held if camera else train).append(name)
            metadata[name] = {"warp_id": k, "appearance_id": k, "camera_id": camera}
    dataset = {"count": len(ids), "num_exemplars": len(train), "ids": ids, "train_ids": train, "val_ids": held}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "metadata.json").write_text(json.dumps(metadata))
    (folder / "scene.json").write_text(json.dumps({"scale": 0.5, "center": [0.0, 0.0, 0.0], "near": 0.5, "far": 2.5}))
    side = np.linspace(-1, 1, 8)
    points = np.stack(np.meshgrid(side, [1.5], side), axis=-1).reshape(-1, 3)
    np.save(folder / "points.npy", points.astype(np.float32))
    return folder
