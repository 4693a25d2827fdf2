"""Good films, sounds, surfaces and networks, a few KB each, and faults in them by what they are: a size in a film's header, a count in
a mesh, a playlist by a film's name."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from apps.faults.mutate import OUTSIDE, spoilt_bytes, spoilt_fields, spoilt_json, spoilt_text
from apps.faults.seeds import Files, as_json
from siren.network import Siren, SirenConfig
from siren.prior_files import MODEL, save_prior
from siren.prior_model import ImagePrior, PriorConfig
from siren.sdf_examples import Mesh, torus
from siren.store import save_network
from siren.wav import Sound, write_wav

KINDS = (".mp4", ".webm", ".avi", ".gif", ".mov", ".mkv", ".ts")
_SIZE, _FRAMES = "48x32", 12
_CODECS = {".webm": ["-c:v", "libvpx", "-deadline", "realtime"], ".avi": ["-c:v", "mjpeg"], ".mkv": ["-c:v", "ffv1"]}
# Names in films' headers that numbers stand behind: boxes of MP4, chunks of AVI, elements of Matroska, blocks of GIF.
_TAGS = (
    b"ftyp", b"moov", b"mvhd", b"tkhd", b"mdhd", b"elst", b"stsd", b"avc1", b"avcC", b"stts", b"ctts", b"stsc", b"stsz", b"stco",
    b"mdat", b"avih", b"strh", b"strf", b"idx1", b"movi", b"\x2a\xd7\xb1", b"\x44\x89", b"\x1f\x43\xb6\x75", b"\xb0\x82", b"\xba\x82",
    b"\xe7\x81", b"\xa3", b"GIF89a", b"\x21\xf9\x04", b"\x2c\0\0\0\0", b"G\x40", b"\0\0\0\1",
)  # fmt: skip
_COUNTS = (0, 1, 2, 255, 30_000, 65_535, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_TEXTS = (
    f"ffconcat version 1.0\nfile ../{OUTSIDE}\n", f"ffconcat version 1.0\nfile {OUTSIDE}\nduration 1e9\n",
    f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\n../{OUTSIDE}\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXTINF:1.0,\nhttp://127.0.0.1:9/x.ts\n", "<?xml version='1.0'?><MPD/>", "v=0\no=- 0 0 IN IP4 127.0.0.1\n",
)  # fmt: skip


@cache
def film(kind: str) -> bytes:
    """A film of twelve frames; `kind`: its name's end."""
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"film{kind}"
        source = ["-f", "lavfi", "-i", f"testsrc=size={_SIZE}:rate=12", "-frames:v", str(_FRAMES)]
        codec = _CODECS.get(kind, [] if kind == ".gif" else ["-c:v", "libx264", "-pix_fmt", "yuv420p"])
        subprocess.run(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *codec, str(file)],
            check=True,
            capture_output=True,
        )
        return file.read_bytes()


def spoilt_film(kind: str, random: Random) -> bytes:
    """A film with a number in its header overwritten, cut, of spoilt bytes, or a text that leads elsewhere."""
    data = film(kind)
    choice = random.random()
    if choice < 0.1:
        return random.choice(_TEXTS).encode()
    if choice < 0.4:
        return spoilt_bytes(data, random)
    out = bytearray(data)
    tags = [tag for tag in _TAGS if tag in data]
    for _ in range(random.randint(1, 3)):
        tag = random.choice(tags)
        at = data.find(tag) + random.choice((-4, len(tag) + random.randrange(40)))
        piece = struct.pack(random.choice((">I", "<I", ">H", "<H")[:2]), random.choice(_COUNTS))
        piece = piece[: random.choice((2, 4))] if random.random() < 0.5 else piece
        out[max(0, at) : max(0, at) + len(piece)] = piece
    return bytes(out)


@cache
def sounds() -> Files:
    """WAV files by the kinds of their samples."""
    wave = Sound(np.sin(np.arange(200, dtype=np.float32) / 5)[:, None].repeat(2, 1) / 2, 8000)
    files: Files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, bits, floating in (("8", 8, False), ("16", 16, False), ("24", 24, False), ("float", 32, True)):
            write_wav(Path(folder) / "x.wav", wave, bits, floating)
            files[name] = (Path(folder) / "x.wav").read_bytes()
    return files


def spoilt_sound(random: Random) -> bytes:
    """A WAV file with a field of its header or a sample overwritten."""
    files = sounds()
    data = files[random.choice(sorted(files))]
    if random.random() < 0.4:
        return spoilt_bytes(data, random)
    out = bytearray(data)
    at = random.choice((4, 12, 16, 20, 22, 24, 28, 32, 34, 36, 40, 44, 48, 60))
    piece = struct.pack("<I", random.choice(_COUNTS)) if random.random() < 0.8 else struct.pack("<f", float("nan"))
    out[at : at + 4] = piece[: random.choice((2, 4))] + bytes(out[at + 2 : at + 4])[: 4 - len(piece)]
    return bytes(out)


@cache
def surfaces() -> Files:
    """Meshes and point clouds of the formats that are read, by their names' ends."""
    mesh = torus()
    rows = slice(None, None, max(1, len(mesh.faces) // 60))
    used = np.unique(mesh.faces[rows])
    whole = Mesh(mesh.vertices[used].astype(np.float32), np.searchsorted(used, mesh.faces[rows]))
    v, f = whole.vertices.tolist(), whole.faces.tolist()
    head = f"element vertex {len(v)}\nproperty float x\nproperty float y\nproperty float z\n"
    faces = f"element face {len(f)}\nproperty list uchar int vertex_indices\n"
    corners = whole.vertices[whole.faces].astype("<f4")
    obj = "".join(f"v {' '.join(map(str, p))}\n" for p in v) + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in f)
    off = "".join(" ".join(map(str, p)) + "\n" for p in v) + "".join(f"3 {a} {b} {c}\n" for a, b, c in f)
    cloud = mesh.vertices[:: max(1, len(mesh.vertices) // 150)]
    lengths = np.linalg.norm(cloud, axis=1, keepdims=True)
    return {
        "binary.ply": f"ply\nformat binary_little_endian 1.0\n{head}{faces}end_header\n".encode()
        + whole.vertices.astype("<f4").tobytes()
        + b"".join(struct.pack("<B3i", 3, *row) for row in f),
        "text.ply": f"ply\nformat ascii 1.0\n{head}{faces}end_header\n{off}".encode(),
        "points.ply": (
            f"ply\nformat ascii 1.0\n{head.replace(str(len(v)), str(len(cloud)))}end_header\n"
            + "".join(" ".join(map(str, p)) + "\n" for p in cloud.tolist())
        ).encode(),
        "x.obj": obj.encode(),
        "x.off": f"OFF\n{len(v)} {len(f)} 0\n{off}".encode(),
        "x.stl": bytes(80) + struct.pack("<I", len(f)) + b"".join(bytes(12) + c.tobytes() + b"\0\0" for c in corners),
        "x.glb": _glb(*_glb_parts(whole)),
        "x.xyz": "".join(
            " ".join(map(str, row)) + "\n" for row in np.concatenate((cloud, cloud / lengths), 1).tolist()
        ).encode(),
    }


def _glb_parts(mesh: Mesh) -> tuple[bytes, bytes]:
    vertices, faces = mesh.vertices.astype("<f4").tobytes(), mesh.faces.astype("<u4").tobytes()
    views = [
        {"buffer": 0, "byteOffset": 0, "byteLength": len(vertices)},
        {"buffer": 0, "byteOffset": len(vertices), "byteLength": len(faces)},
    ]
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": len(mesh.vertices), "type": "VEC3"},
        {"bufferView": 1, "componentType": 5125, "count": 3 * len(mesh.faces), "type": "SCALAR"},
    ]
    node = {"mesh": 0, "translation": [0, 0, 1], "rotation": [0, 0, 0, 1], "scale": [1, 1, 2], "children": [1]}
    tree = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [node, {"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": 4}]}],
        "accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(vertices) + len(faces)}],
    }  # fmt: skip
    return as_json(tree), vertices + faces


def _glb(tree: bytes, binary: bytes) -> bytes:
    tree += b" " * (-len(tree) % 4)
    body = struct.pack("<I4s", len(tree), b"JSON") + tree + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body


def spoilt_surface(name: str, random: Random) -> bytes:
    """A mesh or a point cloud with a number, a line or a count replaced."""
    data = surfaces()[name]
    if random.random() < 0.2:
        return spoilt_bytes(data, random)
    if name.endswith(".glb"):
        size = struct.unpack("<I", data[12:16])[0]
        binary = data[28 + size :]
        if random.random() < 0.2:
            return _glb(data[20 : 20 + size], spoilt_fields(binary, random))
        return _glb(spoilt_json(data[20 : 20 + size], random), binary)
    if name in ("x.stl", "binary.ply") and random.random() < 0.6:
        begin = 80 if name == "x.stl" else data.find(b"end_header") + 11
        return data[:begin] + spoilt_fields(data[begin:], random)
    return spoilt_bytes(data, random) if name == "x.stl" else spoilt_text(data, random)


@cache
def networks() -> Files:
    """Networks of a sound, a film, an image and an implicit surface, and a prior, as this project saves them."""
    abouts: dict[str, tuple[int, int, dict[str, Any]]] = {
        "sound": (1, 1, {"kind": "sound", "rate": 8000, "samples": 100, "scale": 0.5}),
        "film": (3, 3, {"kind": "film", "frames": 4, "height": 4, "width": 6, "fps": 12.0}),
        "image": (2, 3, {"kind": "image", "picture": [8, 6], "window": [0, 0, 8, 6]}),
    }
    files: Files = {}
    own = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, (inputs, outputs, about) in abouts.items():
            siren = Siren(SirenConfig(inputs, outputs, width=16, layers=2), None, own)
            save_network(folder / "x", siren, about)
            files[name] = (folder / "x").read_bytes()
        small = PriorConfig(8, 1, 4, 16, 1, 10.0, 8, 1, 8, 16, 1)
        save_prior(ImagePrior(small, None, own), folder)
        files["prior"] = (folder / MODEL).read_bytes()
    return files
