"""A small world of coloured spheres, photographed once and written in every format that `data` reads.

Written apart from the readers: poses, intrinsics and rays here are plain loops and closed forms, so that a reader's
mistake can't cancel against its own.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, FOCAL = 40, 30, 36.0
SPHERES = [  # centre, radius, colour
    ((0.0, 0.0, 0.0), 0.5, (220, 40, 40)),
    ((0.7, 0.2, 0.1), 0.3, (40, 200, 60)),
    ((-0.5, 0.5, 0.3), 0.25, (50, 70, 230)),
    ((0.1, -0.6, -0.3), 0.3, (230, 200, 30)),
]
SKY = (90, 120, 150)  # in the middle: it grows lighter from left to right, as none behind a plain background does


def poses(count: int = 12, distance: float = 3.0, up: tuple[float, float, float] = (0, 0, 1)) -> list[np.ndarray]:
    """Camera-to-world 4x4 in OpenGL axes, on a rising arc, looking at the origin."""
    result = []
    for i in range(count):
        turn, lift = 2.4 * i / max(count - 1, 1), 0.15 + 0.5 * i / max(count - 1, 1)
        eye = distance * np.array([math.cos(turn) * math.cos(lift), math.sin(turn) * math.cos(lift), math.sin(lift)])
        back = eye / np.linalg.norm(eye)
        right = np.cross(up, back)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.stack((right, np.cross(back, right), back, eye), 1)
        result.append(pose)
    return result


def pixel_ray(pose: np.ndarray, column: int, row: int, shrink: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Origin and unit direction through a pixel's centre, in the file's world."""
    x = ((column + 0.5) * shrink - WIDTH / 2) / FOCAL
    y = ((row + 0.5) * shrink - HEIGHT / 2) / FOCAL
    direction = pose[:3, 0] * x - pose[:3, 1] * y - pose[:3, 2]
    return pose[:3, 3], direction / np.linalg.norm(direction)


def shade(origin: np.ndarray, direction: np.ndarray, scale: float = 1.0) -> tuple[int, int, int] | None:
    """The colour of the nearest sphere that a ray meets; None: it meets none."""
    best, colour = math.inf, None
    for centre, radius, paint in SPHERES:
        to = np.asarray(centre) * scale - origin
        along = float(to @ direction)
        inside = (radius * scale) ** 2 - (to @ to - along**2)
        if along > 0 and inside > 0 and along - math.sqrt(inside) < best:
            best, colour = along - math.sqrt(inside), paint
    return colour


def sky(column: int) -> tuple[int, int, int]:
    """The colour behind everything in photos without alpha."""
    lighter = round(20 * (2 * (column + 0.5) / WIDTH - 1))
    red, green, blue = SKY
    return red + lighter, green + lighter, blue + lighter


def photo(pose: np.ndarray, alpha: bool = False, scale: float = 1.0) -> Image.Image:
    """The world seen from a pose: RGBA with a clear sky, or RGB with a `sky`."""
    pixels = np.zeros((HEIGHT, WIDTH, 4 if alpha else 3), np.uint8)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            colour = shade(*pixel_ray(pose, column, row), scale)
            if alpha:
                pixels[row, column] = (0, 0, 0, 0) if colour is None else (*colour, 255)
            else:
                pixels[row, column] = sky(column) if colour is None else colour
    return Image.fromarray(pixels)


def _scaled(pose: np.ndarray, scale: float) -> np.ndarray:
    moved = pose.copy()
    moved[:3, 3] *= scale
    return moved


class Tree:
    """What was written: its folder, the poses in the order of the photos' names, and the world's scale."""

    def __init__(self, path: Path, names: list[str], poses: list[np.ndarray], scale: float) -> None:
        self.path, self.names, self.poses, self.scale = path, names, poses, scale


_PHOTOS: dict[tuple, list[Image.Image]] = {}  # rendered once for all the trees of a run


def _photos(count: int, alpha: bool) -> list[Image.Image]:
    if (count, alpha) not in _PHOTOS:
        _PHOTOS[count, alpha] = [photo(p, alpha) for p in poses(count)]
    return _PHOTOS[count, alpha]


def _start(path: Path, folder: str, count: int, scale: float, alpha: bool = False, shrink: int = 1) -> Tree:
    names = [f"shot_{i:03d}" for i in range(count)]
    (path / folder).mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, _photos(count, alpha)):
        small = image if shrink == 1 else image.reduce(shrink)
        small.save(path / folder / f"{name}.png")
    return Tree(path, names, [_scaled(p, scale) for p in poses(count)], scale)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def edit_json(path: Path, change) -> None:
    """Apply `change` to the object in a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def write_blender(path: Path, count: int = 12, scale: float = 1.0) -> Tree:
    """NeRF-synthetic's make: two files, cut-outs, an angle of view, names without an extension."""
    tree = _start(path, "photos", count, scale, alpha=True)
    angle = 2 * math.atan(0.5 * WIDTH / FOCAL)
    rows = [{"file_path": f"./photos/{n}", "transform_matrix": p.tolist()} for n, p in zip(tree.names, tree.poses)]
    test = rows[::8]
    write_json(path / "transforms_train.json", {"camera_angle_x": angle, "frames": [r for r in rows if r not in test]})
    write_json(path / "transforms_test.json", {"camera_angle_x": angle, "frames": test})
    return tree


def write_ngp(path: Path, count: int = 12, scale: float = 1.0, alpha: bool = False, **top: object) -> Tree:
    """instant-ngp's make: one file, global intrinsics in pixels."""
    tree = _start(path, "images", count, scale, alpha)
    record = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT, **top}
    record["frames"] = [
        {"file_path": f"images/{n}.png", "transform_matrix": p.tolist()}
        for n, p in reversed(list(zip(tree.names, tree.poses)))  # colmap2nerf doesn't sort
    ]
    write_json(path / "transforms.json", record)
    return tree


def write_nerfstudio(path: Path, count: int = 12, scale: float = 1.0) -> Tree:
    """nerfstudio's make: intrinsics and a lens model per frame, named splits."""
    tree = _start(path, "images", count, scale)
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
    files = [f"images/{n}.png" for n in tree.names]
    frames = [{"file_path": f, "transform_matrix": p.tolist(), **lens} for f, p in zip(files, tree.poses)]
    record = {"camera_model": "OPENCV", "k1": 0.0, "frames": frames}
    record.update(train_filenames=files[3:], val_filenames=files[:2], test_filenames=[])
    write_json(path / "transforms.json", record)
    return tree


def write_nerfies(path: Path, count: int = 12, scale: float = 1.0, shrinks: tuple[int, ...] = (1,)) -> Tree:
    """A Nerfies tree: world-to-camera rotations in OpenCV axes, one warp id a photo, two photos held out."""
    for shrink in shrinks:
        tree = _start(path, f"rgb/{shrink}x", count, scale, shrink=shrink)
    (path / "camera").mkdir()
    for name, pose in zip(tree.names, tree.poses):
        right, up, back = pose[:3, 0], pose[:3, 1], pose[:3, 2]
        camera = {
            "orientation": [right.tolist(), (-up).tolist(), (-back).tolist()],
            "position": pose[:3, 3].tolist(),
            "focal_length": FOCAL,
            "pixel_aspect_ratio": 1.0,
            "principal_point": [WIDTH / 2, HEIGHT / 2],
            "skew": 0.0,
            "radial_distortion": [0.0, 0.0, 0.0],
            "tangential_distortion": [0.0, 0.0],
            "image_size": [WIDTH, HEIGHT],
        }
        write_json(path / "camera" / f"{name}.json", camera)
    held_out = [tree.names[3], tree.names[7]]
    train = [n for n in tree.names if n not in held_out]
    write_json(path / "dataset.json", {"ids": tree.names, "train_ids": train, "val_ids": held_out})
    ids = {n: {"warp_id": 2 * i, "appearance_id": 2 * i, "camera_id": i % 2} for i, n in enumerate(tree.names)}
    write_json(path / "metadata.json", ids)
    write_json(path / "scene.json", {"center": [0.1 * scale, 0, 0], "scale": 0.2 / scale, "near": 0.2, "far": 1.0})
    return tree


def write_llff(path: Path, count: int = 12, scale: float = 1.0, shrinks: tuple[int, ...] = (1,)) -> Tree:
    """LLFF's make: n x 17, axes down right back."""
    for shrink in shrinks:
        tree = _start(path, "images" if shrink == 1 else f"images_{shrink}", count, scale, shrink=shrink)
    rows = []
    for pose in tree.poses:
        right, up, back = pose[:3, 0], pose[:3, 1], pose[:3, 2]
        matrix = np.stack((-up, right, back, pose[:3, 3], (HEIGHT, WIDTH, FOCAL)), 1)
        rows.append(np.concatenate((matrix.ravel(), (1.8 * scale, 4.2 * scale))))
    np.save(path / "poses_bounds.npy", np.array(rows))
    return tree


def write_nrnerf(path: Path, count: int = 12, scale: float = 1.0) -> Tree:
    """NR-NeRF's make: 3x5 in OpenGL axes, bounds, time in the order of names."""
    tree = _start(path, "images", count, scale)
    size = np.array([[HEIGHT], [WIDTH], [FOCAL]])
    matrices = [np.concatenate((p[:3], size), 1).tolist() for p in tree.poses]
    bounds = [[0.001 * scale if i == 4 else 1.8 * scale, 4.2 * scale] for i in range(count)]
    write_json(path / "precomputed.json", {"poses": matrices, "bds": bounds})
    return tree


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """w x y z of a rotation, from the null space of its defining equations (no branches to share with the reader)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    symmetric = np.array(
        [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    x, y, z, w = np.linalg.eigh(symmetric)[1][:, -1]
    return np.array([w, x, y, z])


COLMAP_NUMBERS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5}
COLMAP_NUMBERS.update({"FULL_OPENCV": 6, "FOV": 7, "SIMPLE_RADIAL_FISHEYE": 8, "RADIAL_FISHEYE": 9})


def surface_points(scale: float) -> np.ndarray:
    """Points on the spheres, as sparse reconstructions have them."""
    random = np.random.default_rng(0)
    rows = []
    for centre, radius, _ in SPHERES:
        normal = random.normal(size=(40, 3))
        rows.append(np.asarray(centre) + radius * normal / np.linalg.norm(normal, axis=1, keepdims=True))
    return np.concatenate(rows) * scale


def write_colmap(
    path: Path,
    count: int = 12,
    scale: float = 1.0,
    binary: bool = True,
    model: str = "SIMPLE_PINHOLE",
    lens: tuple[float, ...] = (FOCAL, WIDTH / 2, HEIGHT / 2),
    folder: str = "sparse/0",
) -> Tree:
    """A COLMAP model with photos in a folder below images/, and points on the spheres."""
    tree = _start(path, "images/left", count, scale)
    where = path / folder
    where.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (name, pose) in enumerate(zip(tree.names, tree.poses)):
        rotation = np.stack((pose[:3, 0], -pose[:3, 1], -pose[:3, 2]))
        rows.append((i + 1, *quaternion(rotation), *(-rotation @ pose[:3, 3]), 7, f"left/{name}.png"))
    rows = rows[::-1]  # COLMAP's order is that of its database
    points = surface_points(scale)
    (_binary_model if binary else _text_model)(where, rows, points, model, lens)
    tree.names = [f"left/{n}" for n in tree.names]
    return tree


def _binary_model(where: Path, rows: list, points: np.ndarray, model: str, lens: tuple[float, ...]) -> None:
    head = struct.pack("<QIiQQ", 1, 7, COLMAP_NUMBERS.get(model, 99), WIDTH, HEIGHT)
    (where / "cameras.bin").write_bytes(head + struct.pack(f"<{len(lens)}d", *lens))
    out = struct.pack("<Q", len(rows))
    for key, *pose, camera, name in rows:
        out += struct.pack("<I7dI", key, *pose, camera) + name.encode() + b"\0"
        out += struct.pack("<Qddq", 1, 3.0, 4.0, -1)
    (where / "images.bin").write_bytes(out)
    out = struct.pack("<Q", len(points))
    for i, point in enumerate(points):
        out += struct.pack("<Q3d3BdQii", i, *point, 9, 9, 9, 0.5, 1, 1, 0)
    (where / "points3D.bin").write_bytes(out)


def _text_model(where: Path, rows: list, points: np.ndarray, model: str, lens: tuple[float, ...]) -> None:
    numbers = " ".join(map(repr, map(float, lens)))
    (where / "cameras.txt").write_text(f"# cameras\n7 {model} {WIDTH} {HEIGHT} {numbers}\n")
    lines = ["# images, two lines each"]
    for i, (key, *pose, camera, name) in enumerate(rows):
        lines += [f"{key} {' '.join(repr(float(v)) for v in pose)} {camera} {name}", "" if i % 2 else "3.0 4.0 -1"]
    (where / "images.txt").write_text("\n".join(lines) + "\n")
    lines = [f"{i} {' '.join(repr(float(v)) for v in p)} 9 9 9 0.5 1 0" for i, p in enumerate(points)]
    (where / "points3D.txt").write_text("# points\n" + "\n".join(lines) + "\n")


WRITERS = {
    "blender": write_blender,
    "instant-ngp": write_ngp,
    "nerfstudio": write_nerfstudio,
    "nerfies": write_nerfies,
    "llff": write_llff,
    "nr-nerf": write_nrnerf,
    "colmap-binary": write_colmap,
    "colmap-text": lambda path, **more: write_colmap(path, binary=False, **more),
}
