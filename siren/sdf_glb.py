"""Triangles of a GLB file (binary glTF 2.0), all of its scene's meshes in one.

open3d's own reader can't take what its writer makes (buffers kept as base64), so that this one stands on its own.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from siren.loop import FitError
from siren.sdf_examples import Mesh

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
TRIANGLES, STRIP, FAN = 4, 5, 6


def read_glb(path: Path) -> Mesh:
    """Read `path`. Raises FitError for a file that is broken, compressed or without triangles."""
    data = path.read_bytes()
    if len(data) < 20 or data[:4] != b"glTF":
        raise FitError(f"{path}: expected a GLB file, which starts with 'glTF', found {data[:4]!r}")
    if len(data) < (length := struct.unpack("<I", data[8:12])[0]):
        raise FitError(f"{path}: expected {length} bytes, as its header says, found {len(data)}; the file is cut off")
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= length:
        size, kind = struct.unpack("<I4s", data[at : at + 8])
        chunks.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    try:
        return _Document(json.loads(chunks[b"JSON"]), chunks.get(b"BIN\0", b"")).mesh()
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError, binascii.Error) as error:
        if isinstance(error, FitError):
            raise FitError(f"{path}: {error}") from None
        raise FitError(f"{path}: expected a glTF document, found one that breaks: {error!r}") from None


class _Document:
    def __init__(self, tree: dict[str, Any], binary: bytes) -> None:
        if "KHR_draco_mesh_compression" in tree.get("extensionsRequired", []):
            raise FitError("expected plain triangles, found Draco compression; export it without")
        self.tree, self.binary = tree, binary
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def mesh(self) -> Mesh:
        scenes = self.tree.get("scenes", [])
        roots = scenes[self.tree.get("scene", 0)].get("nodes", []) if scenes else range(len(self.tree.get("nodes", [])))
        for root in roots:
            self.walk(root, np.eye(4), 0)
        if not self.parts:
            raise FitError("meshes: expected triangles, found none")
        shifts = np.cumsum([0, *[len(vertices) for vertices, _ in self.parts]])
        faces = [faces + shift for (_, faces), shift in zip(self.parts, shifts)]
        return Mesh(np.concatenate([vertices for vertices, _ in self.parts]), np.concatenate(faces))

    def walk(self, index: int, parent: np.ndarray, depth: int) -> None:
        if depth > 100:
            raise FitError("nodes: expected a tree, found one that runs in a circle")
        node = self.tree["nodes"][index]
        place = parent @ transform(node)
        if "mesh" in node:
            for primitive in self.tree["meshes"][node["mesh"]]["primitives"]:
                self.add(primitive, place)
        for child in node.get("children", []):
            self.walk(child, place, depth + 1)

    def add(self, primitive: dict[str, Any], place: np.ndarray) -> None:
        vertices = self.accessor(primitive["attributes"]["POSITION"], 3).astype(float)
        mode = primitive.get("mode", TRIANGLES)
        if "indices" in primitive:
            index = self.accessor(primitive["indices"], 1)[:, 0].astype(np.int64)
        else:
            index = np.arange(len(vertices))
        if mode == TRIANGLES:
            faces = index[: len(index) // 3 * 3].reshape(-1, 3)
        elif mode == STRIP:
            faces = np.stack((index[:-2], index[1:-1], index[2:]), 1)
            faces[1::2] = faces[1::2, ::-1]
        elif mode == FAN:
            faces = np.stack((np.full(len(index) - 2, index[0]), index[1:-1], index[2:]), 1)
        else:
            return  # points and lines
        if np.linalg.det(place[:3, :3]) < 0:  # mirrored: the order of the corners turns too
            faces = faces[:, ::-1]
        self.parts.append((vertices @ place[:3, :3].T + place[:3, 3], faces))

    def accessor(self, index: int, columns: int) -> np.ndarray:
        accessor = self.tree["accessors"][index]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise FitError(f"accessors: {index}: expected plain values, found sparse ones; export it without")
        view = self.tree["bufferViews"][accessor["bufferView"]]
        kind, count = np.dtype(COMPONENTS[accessor["componentType"]]), accessor["count"]
        data = self.buffer(view["buffer"])
        begin = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        stride = view.get("byteStride") or columns * kind.itemsize
        if count < 1 or begin + (count - 1) * stride + columns * kind.itemsize > len(data):
            raise FitError(f"accessors: {index}: expected {count} values in its buffer, found {len(data)} bytes")
        shape, strides = (count, columns), (stride, kind.itemsize)
        return np.ndarray(shape, kind, data, begin, strides)

    def buffer(self, index: int) -> bytes:
        uri = self.tree["buffers"][index].get("uri")
        if uri is None:
            return self.binary
        if not uri.startswith("data:"):
            raise FitError(f"buffers: {index}: expected data within the file, found {uri[:60]!r}")
        return base64.b64decode(uri.partition(",")[2], validate=True)


def transform(node: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
    """A node's matrix, or its translation, rotation (quaternion x y z w) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), float)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
