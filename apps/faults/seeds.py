"""Good inputs, a few KB each, that faults are made of: a folder of posed photos in every format that is read, as bytes."""

from __future__ import annotations

import io
import json
import math
import struct
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

Files = dict[str, bytes]
WIDTH, HEIGHT, FOCAL, COUNT = 8, 6, 7.0, 5
NAMES = tuple(f"shot_{i}" for i in range(COUNT))


def as_json(value: Any) -> bytes:
    """As text; numbers that JSON has not are written as Python and many tools write them."""
    return json.dumps(value).encode()


@cache
def photo(index: int, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), form: str = "PNG") -> bytes:
    """A picture's file."""
    noise = np.random.default_rng(index).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise, "RGBA").convert(mode).save(out, form)
    return out.getvalue()


@cache
def poses() -> list[np.ndarray]:
    """Camera-to-world "3 4", OpenGL axes, on an arc around the origin."""
    found = []
    for i in range(COUNT):
        turn = 0.5 * i
        eye = 3 * np.array([math.cos(turn), math.sin(turn), 0.3 + 0.05 * i])
        back = eye / np.linalg.norm(eye)
        right = np.cross([0, 0, 1.0], back)
        right /= np.linalg.norm(right)
        found.append(np.stack((right, np.cross(back, right), back, eye), 1))
    return found


def whole(pose: np.ndarray) -> list[list[float]]:
    """A pose as four rows."""
    return [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]


def array(value: Any) -> bytes:
    """A .npy file."""
    out = io.BytesIO()
    np.save(out, np.asarray(value))
    return out.getvalue()


@cache
def blender() -> Files:
    """The original NeRF scenes' `transforms_train.json` and its kind."""
    rows = [{"file_path": f"./photos/{n}", "transform_matrix": whole(p)} for n, p in zip(NAMES, poses())]
    angle = 2 * math.atan(0.5 * WIDTH / FOCAL)
    return {
        **{f"photos/{n}.png": photo(i, "RGBA") for i, n in enumerate(NAMES)},
        "transforms_train.json": as_json({"camera_angle_x": angle, "frames": rows[1:]}),
        "transforms_test.json": as_json({"camera_angle_x": angle, "frames": rows[:1]}),
    }


@cache
def instant_ngp() -> Files:
    """instant-ngp's `transforms.json`."""
    top = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": 4.0, "cy": 3.0, "w": WIDTH, "h": HEIGHT, "aabb_scale": 4, "scale": 0.33}
    rows: list[dict[str, Any]] = [
        {"file_path": f"images/{n}.jpg", "transform_matrix": whole(p), "mask_path": f"masks/{n}.png", "time": 0.1 * i}
        for i, (n, p) in enumerate(zip(NAMES, poses()))
    ]
    return {
        **{f"images/{n}.jpg": photo(i, form="JPEG") for i, n in enumerate(NAMES)},
        **{f"masks/{n}.png": photo(i, "L") for i, n in enumerate(NAMES)},
        "transforms.json": as_json({**top, "offset": [0.5, 0.5, 0.5], "frames": rows}),
    }


@cache
def nerfstudio() -> Files:
    """nerfstudio's `transforms.json`."""
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": 4.0, "cy": 3.0, "w": WIDTH, "h": HEIGHT, "k1": 0.01, "p1": 0.001}
    names = [f"images/{n}.png" for n in NAMES]
    rows = [{"file_path": n, "transform_matrix": whole(p), **lens} for n, p in zip(names, poses())]
    split = {"train_filenames": names[1:], "val_filenames": names[:1], "test_filenames": []}
    return {
        **{n: photo(i) for i, n in enumerate(names)},
        "transforms.json": as_json({"camera_model": "OPENCV_FISHEYE", **split, "frames": rows}),
    }


@cache
def nerfies() -> Files:
    """A tree of Nerfies."""
    files: Files = {}
    for i, (name, pose) in enumerate(zip(NAMES, poses())):
        right, up, back, eye = pose.T
        camera = {
            "orientation": [right.tolist(), (-up).tolist(), (-back).tolist()], "position": eye.tolist(),
            "focal_length": FOCAL, "pixel_aspect_ratio": 1.0, "principal_point": [4.0, 3.0], "skew": 0.0,
            "radial_distortion": [0.01, 0.0, 0.0], "tangential_distortion": [0.0, 0.0], "image_size": [WIDTH, HEIGHT],
        }  # fmt: skip
        files[f"camera/{name}.json"] = as_json(camera)
        files[f"rgb/1x/{name}.png"] = photo(i)
        files[f"mask/1x/{name}.png"] = photo(i, "L")
    ids = {n: {"warp_id": i, "appearance_id": i, "camera_id": i % 2} for i, n in enumerate(NAMES)}
    return {
        **files,
        f"covisible/1x/val/{NAMES[0]}.png": photo(0, "L"),
        "dataset.json": as_json({"ids": NAMES, "train_ids": NAMES[1:], "val_ids": NAMES[:1]}),
        "metadata.json": as_json(ids),
        "scene.json": as_json({"center": [0.1, 0, 0], "scale": 0.2, "near": 0.2, "far": 1.0}),
        "points.npy": array(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)),
        "motion.npz": _motion(),
    }


def _motion() -> bytes:
    out = io.BytesIO()
    np.savez(
        out, photos=np.array(NAMES), middle=np.ones((9, 3)), offset=np.zeros((COUNT, 9, 3), np.float32),
        seen=np.full((COUNT, 2), 255, np.uint8), part=np.arange(9) % 2, parts=np.array(["head", "wall"]),
    )  # fmt: skip
    return out.getvalue()


@cache
def llff() -> Files:
    """`poses_bounds.npy`."""
    rows = []
    for pose in poses():
        right, up, back, eye = pose.T
        rows.append([*np.stack((-up, right, back, eye, (HEIGHT, WIDTH, FOCAL)), 1).ravel(), 1.8, 4.2])
    half = {f"images_2/{n}.png": photo(i, size=(WIDTH // 2, HEIGHT // 2)) for i, n in enumerate(NAMES)}
    return {
        **{f"images/{n}.png": photo(i) for i, n in enumerate(NAMES)}, **half, "poses_bounds.npy": array(rows),
    }  # fmt: skip


@cache
def nr_nerf() -> Files:
    """NR-NeRF's `precomputed.json`."""
    size = np.array([[HEIGHT], [WIDTH], [FOCAL]])
    record = {"poses": [np.c_[p, size].tolist() for p in poses()], "bds": [[1.8, 4.2]] * COUNT}
    return {**{f"images/{n}.png": photo(i) for i, n in enumerate(NAMES)}, "precomputed.json": as_json(record)}


def _colmap() -> tuple[Files, list[tuple[Any, ...]], np.ndarray]:
    """Photos, rows (id, quaternion w x y z, translation, camera, name), and points."""
    rows = []
    for i, (name, pose) in enumerate(zip(NAMES, poses())):
        turn = np.stack((pose[:, 0], -pose[:, 1], -pose[:, 2]))
        w = 0.5 * math.sqrt(max(1e-12, 1 + np.trace(turn)))
        x, y, z = (turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1])
        shift = (-turn @ pose[:, 3]).tolist()
        rows.append((i + 1, w, x / (4 * w), y / (4 * w), z / (4 * w), *shift, 7, f"left/{name}.png"))
    files = {f"images/left/{n}.png": photo(i) for i, n in enumerate(NAMES)}
    return {**files, f"masks/left/{NAMES[1]}.png": photo(1, "L")}, rows, np.random.default_rng(0).normal(size=(12, 3))


@cache
def colmap_binary() -> Files:
    """COLMAP's binary model."""
    files, rows, points = _colmap()
    images = struct.pack("<Q", len(rows))
    for *numbers, name in rows:
        images += struct.pack("<I7dI", *numbers) + name.encode() + b"\0" + struct.pack("<Qddq", 1, 3.0, 4.0, -1)
    cloud = struct.pack("<Q", len(points))
    for i, point in enumerate(points):
        cloud += struct.pack("<Q3d3BdQii", i, *point, 9, 9, 9, 0.5, 1, 1, 0)
    camera = struct.pack("<QIiQQ4d", 1, 7, 1, WIDTH, HEIGHT, FOCAL, FOCAL, 4.0, 3.0)
    return {**files, "sparse/0/cameras.bin": camera, "sparse/0/images.bin": images, "sparse/0/points3D.bin": cloud}


@cache
def colmap_text() -> Files:
    """COLMAP's text model."""
    files, rows, points = _colmap()
    images = "# images\n" + "".join(" ".join(map(str, row)) + "\n3.0 4.0 -1\n" for row in rows)
    cloud = "# points\n" + "".join(f"{i} {' '.join(map(str, p))} 9 9 9 0.5 1 0\n" for i, p in enumerate(points))
    camera = f"# cameras\n7 OPENCV {WIDTH} {HEIGHT} {FOCAL} {FOCAL} 4.0 3.0 0.01 0 0 0\n"
    model = {"cameras": camera, "images": images, "points3D": cloud}
    return {**files, **{f"sparse/0/{name}.txt": text.encode() for name, text in model.items()}}


@cache
def polycam() -> Files:
    """Polycam's keyframes."""
    files: Files = {}
    for i, (name, pose) in enumerate(zip(NAMES, poses())):
        record = {f"t_{row}{column}": float(pose[row, column]) for row in range(3) for column in range(4)}
        record |= {"fx": FOCAL, "fy": FOCAL, "cx": 4.0, "cy": 3.0, "width": WIDTH, "height": HEIGHT}
        files[f"keyframes/corrected_cameras/{name}.json"] = as_json(record)
        files[f"keyframes/corrected_images/{name}.jpg"] = photo(i, form="JPEG")
    return files


@cache
def record3d() -> Files:
    """Record3D's `metadata`."""
    rows = [[0.1 * i, 0.2, 0.3, 0.9, 1.0 + i, 0.5, 0.2] for i in range(COUNT)]
    record = {"w": WIDTH, "h": HEIGHT, "K": [FOCAL, 0, 0, 0, FOCAL, 0, 4.0, 3.0, 1], "poses": rows}
    return {**{f"rgbd/{i}.jpg": photo(i, form="JPEG") for i in range(COUNT)}, "metadata": as_json(record)}


SCENES = {
    "Blender": blender, "instant-ngp": instant_ngp, "nerfstudio": nerfstudio, "Nerfies": nerfies, "LLFF": llff,
    "NR-NeRF": nr_nerf, "COLMAP, binary": colmap_binary, "COLMAP, text": colmap_text, "Polycam": polycam,
    "Record3D": record3d,
}  # fmt: skip
