"""PLY files: vertices, normals and triangles of text or binary ones.

open3d's own reader ends the process at a face that names a vertex which isn't there, so that this one stands on its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from siren.loop import FitError

TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"), **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"), **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"), **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"), **dict.fromkeys(("double", "float64"), "f8"),
}  # fmt: skip
ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}
HEADER = 1 << 16  # bytes that a header takes at most


class Ply(NamedTuple):
    """Points "n 3", their normals "n 3" where there are any, and triangles "m 3" where there are faces."""

    points: np.ndarray
    normals: np.ndarray | None
    faces: np.ndarray | None


class _Property(NamedTuple):
    name: str
    kind: str
    items: str | None = None  # type of the number of items, of a list


class _Element(NamedTuple):
    name: str
    size: int
    properties: list[_Property]


def read_ply(path: Path) -> Ply:
    """Read `path`; faces of more corners become fans. Raises FitError for a file that is broken or cut off."""
    data = path.read_bytes()
    end = data[:HEADER].find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise FitError(f"{path}: expected a PLY file, which starts with 'ply' and has an 'end_header', found none")
    layout, elements = _header(data[:end].decode("latin-1"), path)
    begin = data.find(b"\n", end) + 1 or len(data)
    body = data[begin:]
    tables = _text(body, elements, path) if layout == "ascii" else _binary(body, elements, ORDERS[layout], path)
    vertices = tables.get("vertex", {})
    if not all(name in vertices for name in "xyz"):
        raise FitError(f"{path}: vertex: expected the properties x, y and z, found {', '.join(vertices) or 'none'}")
    points = np.stack([vertices[name] for name in "xyz"], 1).astype(float)
    named = [vertices[name] for name in ("nx", "ny", "nz") if name in vertices]
    normals = np.stack(named, 1).astype(float) if len(named) == 3 else None
    rows = tables.get("face")
    if not rows or not any(element.name == "face" and element.size for element in elements):
        return Ply(points, normals, None)
    for name in ("vertex_indices", "vertex_index"):
        if name in rows:
            return Ply(points, normals, _triangles(rows[name]))
    raise FitError(f"{path}: face: expected a list vertex_indices, found {', '.join(rows)}")


def _header(text: str, path: Path) -> tuple[str, list[_Element]]:
    layout, elements = "", []
    for line in map(str.split, text.splitlines()):
        match line:
            case ["format", layout, _]:
                if layout not in ORDERS:
                    raise FitError(f"{path}: format: expected {', '.join(ORDERS)}, found {layout[:40]!r}")
            case ["element", name, count] if count.isascii() and count.isdigit() and len(count) < 12:
                elements.append(_Element(name, int(count), []))
            case ["property", "list", count, kind, name] if elements and count in TYPES and kind in TYPES:
                elements[-1].properties.append(_Property(name, TYPES[kind], TYPES[count]))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append(_Property(name, TYPES[kind]))
            case ["element" | "property" | "format", *_]:
                raise FitError(f"{path}: header: expected a line of the format, found {' '.join(line)[:60]!r}")
    if not layout:
        raise FitError(f"{path}: format: expected {', '.join(ORDERS)}, found none")
    return layout, elements


def _cut(path: Path, element: _Element) -> FitError:
    return FitError(f"{path}: {element.name}: expected {element.size} of them, found fewer; the file is cut off")


def _text(body: bytes, elements: list[_Element], path: Path) -> dict[str, dict]:
    lines = [line for line in body.decode("latin-1").splitlines() if line.strip()]
    tables: dict[str, dict] = {}
    at = 0
    for element in elements:
        if len(lines) - at < element.size:
            raise _cut(path, element)
        rows: dict[str, list] = {item.name: [] for item in element.properties}
        for line in lines[at : at + element.size]:
            words = line.split()
            try:
                place = 0
                for item in element.properties:
                    count = 1 if item.items is None else int(words[place])
                    first = place + (item.items is not None)
                    numbers = [float(word) for word in words[first : first + count]]
                    if count < 0 or len(numbers) != count:
                        raise IndexError
                    rows[item.name].append(numbers if item.items else numbers[0])
                    place = first + count
            except (ValueError, IndexError, OverflowError):
                found = line if len(line) <= 60 else line[:57] + "..."
                raise FitError(f"{path}: {element.name}: expected its numbers in a line, found {found!r}") from None
        at += element.size
        tables[element.name] = {
            item.name: rows[item.name] if item.items else np.array(rows[item.name], float)
            for item in element.properties
        }
    return tables


def _binary(body: bytes, elements: list[_Element], order: str, path: Path) -> dict[str, dict]:
    tables: dict[str, dict] = {}
    at = 0
    for element in elements:
        if len({item.name for item in element.properties}) < len(element.properties):
            raise FitError(f"{path}: {element.name}: expected properties of different names, found one twice")
        # Lists of three, as nearly all are, are read at once.
        fields = []
        for item in element.properties:
            if item.items:
                fields += [(f"{item.name}, items", order + item.items), (item.name, order + item.kind, (3,))]
            else:
                fields.append((item.name, order + item.kind))
        kind = np.dtype(fields)
        have = (len(body) - at) // max(kind.itemsize, 1)
        if have >= element.size:
            table = np.frombuffer(body, kind, element.size, at) if kind.itemsize else np.zeros(element.size, kind)
            if all((table[f"{item.name}, items"] == 3).all() for item in element.properties if item.items):
                tables[element.name] = {item.name: table[item.name] for item in element.properties}
                at += element.size * kind.itemsize
                continue
        tables[element.name], at = _one_by_one(body, at, element, order, path)
    return tables


def _one_by_one(body: bytes, at: int, element: _Element, order: str, path: Path) -> tuple[dict, int]:
    rows: dict[str, list] = {item.name: [] for item in element.properties}
    if not any(item.items for item in element.properties):
        raise _cut(path, element)
    for _ in range(element.size):
        for item in element.properties:
            try:
                count = 1
                if item.items:
                    count = int(np.frombuffer(body, order + item.items, 1, at)[0])
                    at += int(item.items[1])
                values = np.frombuffer(body, order + item.kind, max(count, 0), at)
            except (ValueError, OverflowError):
                raise _cut(path, element) from None
            at += values.nbytes
            rows[item.name].append(values if item.items else values[0])
    return rows, at


def _triangles(rows: np.ndarray | list) -> np.ndarray:
    """Lists of corners as triangles "m 3"; corners that are no numbers of vertices as -1, which whoever checks refuses."""
    if isinstance(rows, np.ndarray):
        found = rows.astype(float)
    else:
        fans = [(row[0], row[i], row[i + 1]) for row in rows for i in range(1, len(row) - 1)]
        found = np.array(fans, float).reshape(-1, 3)
    return np.where(np.isfinite(found) & (np.abs(found) < 2**53), found, -1).astype(np.int64)
