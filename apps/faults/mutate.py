"""Faults in files, made by what the file is: an odd value in a JSON tree, a wrong count in a binary model, a photo of another
kind, a path that leads elsewhere. All that is drawn comes from `random`, so a case is its number."""

from __future__ import annotations

import copy
import io
import json
import math
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from apps.faults.seeds import Files, array, as_json, photo

OUTSIDE = "outside.png"  # a good photo beside the scene's folder, which nothing in it may reach
_PATHS = (
    f"../{OUTSIDE}", f"images/../../{OUTSIDE}", "/etc/passwd", "C:\\x.png", "..\\x", ".", "..", "", "\0", "a\0b", "~",
    "\ud800", "x" * 300, "a/" * 200 + "b", "images", "//host/x.png", f"./../{OUTSIDE[:-4]}", "con", "\n", "é" * 200,
)  # fmt: skip
_NUMBERS = (
    0, -1, 1, 2, 3, 0.5, -0.0, 1e-300, 1e-12, 1e-6, 1e6, 1e12, 1e30, 1e300, 1.7e308, math.nan, math.inf, -math.inf, 255,
    256, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64 - 1, 10**30, 10**400, -(10**400),
)  # fmt: skip
_ODD: tuple[Any, ...] = (
    *_NUMBERS, *_PATHS, None, True, False, "x", "0.1", "nan", [], {}, [[]], [None], [1, 2, 3], [[1, 2], [3]],
    [[0.0] * 4] * 4, [[1.0] * 4] * 3, [[math.nan] * 4] * 4, {"class": "x"}, [[[1]]] * 3, ["x"] * 3, [True] * 4,
)  # fmt: skip
_WORDS = ("nan", "inf", "-inf", "1e400", "-1", "0", "", "x", "٣", "1_0", "0x10", "1e-320", "9" * 400, "#", "PINHOLE")


def spoilt(files: Files, random: Random, most: int = 3) -> Files:
    """A copy of a folder's files with one to `most` faults in it."""
    files = dict(files)
    for _ in range(random.randint(1, most)):
        if not files:
            break
        if random.random() < 0.1:
            _spoil_folder(files, random)
            continue
        # Photos are many: what says where they were taken is spoilt as often.
        told = [name for name in files if not name.endswith((".png", ".jpg"))] or list(files)
        name = random.choice(told if random.random() < 0.7 else sorted(files))
        files[name] = spoilt_file(name, files[name], random)
    return files


def spoilt_file(name: str, data: bytes, random: Random) -> bytes:
    """One file with a fault of its kind, or, now and then, of bytes."""
    end = name.rpartition(".")[2].lower()
    kinds: dict[str, Callable[[bytes, Random], bytes]] = {
        "json": spoilt_json, "metadata": spoilt_json, "npy": spoilt_npy, "png": spoilt_photo, "jpg": spoilt_photo,
        "txt": spoilt_text, "bin": spoilt_fields, "npz": _spoil_npz, "safetensors": spoilt_tensors,
    }  # fmt: skip
    chosen = kinds.get(end, spoilt_bytes) if random.random() < 0.8 else spoilt_bytes
    return chosen(data, random)


def spoilt_bytes(data: bytes, random: Random) -> bytes:
    """Bits turned, a part cut, doubled or overwritten."""
    out = bytearray(data)
    at = random.randrange(len(out) + 1)
    size = random.choice((1, 2, 4, 8, 64, 1024))
    match random.randrange(6):
        case 0 if out:
            for _ in range(random.randint(1, 8)):
                out[random.randrange(len(out))] ^= 1 << random.randrange(8)
        case 1:
            del out[at:]
        case 2:
            del out[at : at + size]
        case 3:
            out[at:at] = out[at : at + size] * random.choice((1, 2, 50))
        case 4:
            out[at : at + size] = random.randbytes(size)
        case _:
            out[at:at] = random.choice((b"\0", b"\xff\xfe", b'"', b"{", b"[" * 100_000, b"\xef\xbb\xbf", b"\n" * 1000))
    return bytes(out)


def spoilt_json(data: bytes, random: Random) -> bytes:
    """A value somewhere in the tree replaced, scaled, left out, doubled or moved."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):  # spoilt before
        return spoilt_bytes(data, random)
    for _ in range(random.randint(1, 2)):
        tree = _change(tree, random)
    return as_json(tree)


def _change(tree: Any, random: Random) -> Any:
    tree = copy.deepcopy(tree)
    holder, key = _somewhere(tree, random)
    if holder is None:
        return random.choice(_ODD)
    value = holder[key]
    kind = type(value)
    match random.randrange(7):
        case 0 | 1 if kind in (int, float):
            holder[key] = random.choice([n for n in _NUMBERS if type(n) is kind])
        case 0 | 1 | 2:
            holder[key] = random.choice(_PATHS if isinstance(value, str) and random.random() < 0.7 else _ODD)
        case 3 if isinstance(value, (int, float)) and not isinstance(value, bool):
            holder[key] = random.choice((-value, value + 1, value * 10**6, random.choice(_NUMBERS)))
        case 4:
            del holder[key]
        case 5 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(random.choice(holder)))
        case 6 if isinstance(value, list):
            holder[key] = value[::-1] if random.random() < 0.5 else value * random.choice((0, 2, 40))
        case _:
            other, place = _somewhere(tree, random)
            if other is not None:
                holder[key] = copy.deepcopy(other[place])
    return tree


def _somewhere(tree: Any, random: Random) -> tuple[Any, Any]:
    """A random node's holder and key; None, None for the tree itself."""
    holder = key = None
    while isinstance(tree, (dict, list)) and tree and (holder is None or random.random() < 0.8):
        holder, key = tree, random.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        tree = tree[key]
    return holder, key


def spoilt_npy(data: bytes, random: Random) -> bytes:
    """An array with an odd number, of another shape or type, or with a header that lies."""
    try:
        value = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception:
        return spoilt_bytes(data, random)
    return array(_spoil_array(value, random)) if random.random() < 0.7 else _lying_header(random)


def _spoil_array(value: np.ndarray, random: Random) -> np.ndarray:
    match random.randrange(5):
        case 0 | 1 if value.size and value.dtype.kind == "f":
            value = value.copy()
            with np.errstate(over="ignore"):
                value.flat[random.randrange(value.size)] = float(random.choice(_NUMBERS[:28]))
        case 2:
            value = value[: random.randrange(len(value) + 1)] if value.ndim else value
        case 3:
            value = value[..., :-1] if value.ndim else value.reshape(1)
        case _:
            kind = random.choice(("<f2", "<c8", "<i8", "|b1", "|u1", "<U3", "<M8[s]"))
            value = np.zeros(value.shape, kind)
    return value


def _lying_header(random: Random) -> bytes:
    """A .npy whose header tells of more than there is, or of objects (a pickle)."""
    shape = random.choice(("(1000000000, 17)", "(5, 17)", "(-1, 3)", "(3, 0)", "()", "(" * 500, "(5, 17, 1000000)"))
    kind = random.choice(("<f8", "|O", "<f4", "x", "|V17", "<U100000000"))
    head = f"{{'descr': '{kind}', 'fortran_order': {random.choice(('True', 'False', 'x'))}, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head.encode() + b"\n" + bytes(136)


def _spoil_npz(data: bytes, random: Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return spoilt_bytes(data, random)
    if not files:
        return data
    name = random.choice(sorted(files))
    if random.random() < 0.2:
        del files[name]
    else:
        files[name] = spoilt_npy(files[name], random)
    return zipped(files)


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def spoilt_text(data: bytes, random: Random) -> bytes:
    """Lines of numbers with a word replaced, a line left out or doubled."""
    lines = data.decode("utf-8", "replace").split("\n")
    at = random.randrange(len(lines))
    words = lines[at].split(" ")
    match random.randrange(4):
        case 0 | 1:
            words[random.randrange(len(words))] = random.choice((*_WORDS, *(p for p in _PATHS if p != "\ud800")))
            lines[at] = " ".join(words)
        case 2:
            del lines[at]
        case _:
            lines.insert(at, random.choice(lines))
    return "\n".join(lines).encode()


def spoilt_fields(data: bytes, random: Random) -> bytes:
    """A number in a binary file overwritten, where counts, sizes and coordinates are likely to stand."""
    if not data:
        return data
    out = bytearray(data)
    odd = random.choice(_NUMBERS[:26])
    at = random.choice((0, 8, 12, 16, 24, random.randrange(len(out))))
    if random.random() < 0.6 or not isinstance(odd, int):
        piece = struct.pack("<d", float(odd))
    else:
        piece = struct.pack("<Q", odd % 2**64)
    out[at : at + len(piece)] = piece
    return bytes(out)


def spoilt_tensors(data: bytes, random: Random) -> bytes:
    """A safetensors file with a fault in its header: what it says about its tensors, or the JSON in its metadata."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        told = {name: text for name, text in header.get("__metadata__", {}).items() if text[:1] in "{["}
    except (ValueError, AttributeError, TypeError):  # spoilt before
        return spoilt_bytes(data, random)
    if told and random.random() < 0.7:
        name = random.choice(sorted(told))
        header["__metadata__"][name] = spoilt_json(told[name].encode(), random).decode("utf-8", "replace")
        if random.random() < 0.5:  # as releases without a checksum wrote them
            header["__metadata__"].pop("sha256", None)
        changed = as_json(header)
    else:
        changed = spoilt_json(as_json(header), random)
    return struct.pack("<Q", len(changed)) + changed + data[8 + size :]


def spoilt_photo(data: bytes, random: Random) -> bytes:
    """A photo of another kind or size, one whose header lies, or bytes of it spoilt."""
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "YCbCr", "HSV", "LAB")
    sizes = ((8, 6), (6, 8), (4, 3), (16, 12), (1, 1), (7, 6), (3000, 1), (256, 192), (1200, 900))
    match random.randrange(7):
        case 0:
            return _picture(random.choice(modes), random.choice(sizes), random)
        case 1:
            return photo(0, "RGB", random.choice(sizes))
        case 2 if data[:4] == b"\x89PNG":
            side = random.choice((0, 1, 2**15, 2**16, 20_000, 2**31 - 1, 2**32 - 1))
            return data[:16] + struct.pack(">II", side, random.choice((1, 6, side))) + data[24:]
        case 3:
            return random.choice(
                (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n", b"GIF89a", b"BM", b"",
                 b"P6 8 6 255\n" + bytes(144), b"P6 99999 99999 255\n", b"II*\0\x08\0\0\0\0\0", b"\x89PNG\r\n\x1a\n",
                 b"\0\0\1\0\1\0\x10\x10\0\0\1\0 \0\0\0\0\0\x16\0\0\0", b"8BPS\0\1", b"SIMPLE  =                    T")
            )  # fmt: skip
        case _:
            return spoilt_bytes(data, random)


def _picture(mode: str, size: tuple[int, int], random: Random) -> bytes:
    form = random.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO"))
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = random.choice((0, 1, 3, 6, 8, 9, 65535))
    try:
        Image.new(mode, size, 1 if mode in ("1", "L", "P", "I", "I;16", "F") else None).save(out, form, exif=exif)
    except (OSError, ValueError, KeyError, TypeError, struct.error):  # kinds that don't have this mode
        return photo(0, "RGBA", size)
    return out.getvalue()


def _spoil_folder(files: Files, random: Random) -> None:
    name = random.choice(sorted(files))
    match random.randrange(6):
        case 0:
            del files[name]
        case 1:
            files[name] = b""
        case 2:
            other = random.choice(sorted(files))
            files[name], files[other] = files[other], files[name]
        case 3:
            files[name + random.choice((".bak", ".png", "x", " ", ".json"))] = files.pop(name)
        case 4:  # a folder where a file is expected
            files[f"{name}/{random.choice(('x', 'a.png'))}"] = files.pop(name)
        case _:
            odd = ("images_0", "images_2", "images_²", "images_9999999999", "rgb/0x", "rgb/3x", "sparse/99", "sparse/²")
            files[f"{random.choice(odd)}/{random.choice(('cameras.txt', 'x.png'))}"] = files[name]
