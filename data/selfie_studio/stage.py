"""The only module that knows the renderer: meshes, materials and strands in, linear light out. Mitsuba 3 and OIDN."""

from __future__ import annotations

from pathlib import Path

import mitsuba as mi
import mitsuba_oidn
import numpy as np

from data.selfie_studio.head import to_room
from data.selfie_studio.motion import FOCAL, SIZE, PosedCamera
from data.selfie_studio.shapes import Item, Strands, Surface, vertex_normals


def _choose_variant() -> str:
    """`llvm_ad_rgb` where an LLVM library is found (four times as fast), else `scalar_rgb`, which runs anywhere.

    LLVM 16 dies on AVX-512 code of these scenes; 19 is good. Set DRJIT_LIBLLVM_PATH to choose the library.
    """
    if "llvm_ad_rgb" in mi.variants():
        try:
            mi.set_variant("llvm_ad_rgb")
            mi.Float([1.0, 2.0])  # the first array is what looks for the library
            return "llvm_ad_rgb"
        except (ImportError, RuntimeError):
            pass
    mi.set_variant("scalar_rgb")
    return "scalar_rgb"


VARIANT = _choose_variant()
mi.set_log_level(mi.LogLevel.Error)

DEPTH = 4  # edges of a light path
# The denoiser tells strands and patterns from noise by images of albedo and normals: cheap, but for scalar mode.
GUIDE_SPP = 8 if VARIANT.startswith("llvm") else 1
OVERSAMPLE = 2  # rendered at twice the photo's size, denoised, then averaged: hair and lashes stay crisp


def texture(image: np.ndarray, raw: bool = False, repeat: float = 1.0) -> dict:
    """A bitmap texture; uint8 is sRGB, floats are linear; the image's top row is v = 1. `repeat` tiles it."""
    pixels = np.ascontiguousarray((image if image.ndim == 3 else image[..., None])[::-1])  # Mitsuba's v grows downwards
    bitmap = mi.Bitmap(pixels)
    return {
        "type": "bitmap",
        "bitmap": bitmap,
        "raw": raw,
        "filter_type": "bilinear",
        "to_uv": mi.ScalarTransform4f().scale([repeat, repeat, 1]),
    }


def colour(value, repeat: float = 1.0) -> dict:
    """A colour texture from an image or an sRGB triple."""
    if isinstance(value, np.ndarray) and value.ndim == 3:
        return texture(value, repeat=repeat)
    srgb = np.asarray(value, float)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return {"type": "rgb", "value": linear.tolist()}


def principled(base, roughness, bump: dict | None = None, repeat: float = 1.0, **extra) -> dict:
    """A two-sided principled material, with optional bump map."""
    material = {"type": "principled", "base_color": colour(base, repeat), "roughness": roughness, **extra}
    if bump is not None:
        material = {"type": "bumpmap", "relief": bump, "bsdf": material}
    return {"type": "twosided", "bsdf": material}


def merge(surfaces: list[Surface]) -> Surface:
    """One surface from many."""
    offsets = np.cumsum([0, *(len(s.positions) for s in surfaces[:-1])])
    normals = [s.normals if s.normals is not None else vertex_normals(s.positions, s.triangles) for s in surfaces]
    return Surface(
        np.concatenate([s.positions for s in surfaces]),
        np.concatenate([s.triangles + offset for s, offset in zip(surfaces, offsets)]),
        np.concatenate([s.uv for s in surfaces]),
        np.concatenate(normals),
    )


def mesh(name: str, surface: Surface, material, emitter=None):
    """A Mitsuba mesh in metres from a surface in metres."""
    props = mi.Properties()
    props["bsdf"] = material
    if emitter is not None:
        props["emitter"] = emitter
    shape = mi.Mesh(name, len(surface.positions), len(surface.triangles), props, True, surface.uv is not None)
    parameters = mi.traverse(shape)
    parameters["vertex_positions"] = surface.positions.astype(np.float32).ravel()
    parameters["faces"] = surface.triangles.astype(np.uint32).ravel()
    normals = surface.normals if surface.normals is not None else vertex_normals(surface.positions, surface.triangles)
    parameters["vertex_normals"] = normals.astype(np.float32).ravel()
    if surface.uv is not None:
        parameters["vertex_texcoords"] = surface.uv.astype(np.float32).ravel()
    parameters.update()
    return shape


def write_strands(path: Path, strands: Strands) -> None:
    """Mitsuba's text format for curves, in room metres: a line `x y z radius` a control point, a blank line between."""
    table = np.concatenate([to_room(strands.points), strands.radii[..., None] * 0.01], -1)
    blocks = ("\n".join(f"{x:.6f} {y:.6f} {z:.6f} {r:.7f}" for x, y, z, r in strand) for strand in table)
    path.write_text("\n\n".join(blocks) + "\n")


class Stage:
    """A lit room, kept between frames, in which `render` places the person of each frame."""

    def __init__(self, room: dict[str, Item], materials: dict[str, dict], work: Path):
        self.work = work
        self.curves: dict[str, mi.Shape] = {}
        self.materials = {name: mi.load_dict(material) for name, material in materials.items()}
        self.static = {name: self._furniture(name, item) for name, item in room.items()}
        self.static["dusk"] = {"type": "constant", "radiance": {"type": "rgb", "value": [0.50, 0.47, 0.43]}}

    @staticmethod
    def _furniture(name: str, item: Item):
        surface = merge(item.surfaces)
        emitter = None
        if item.glow is not None:
            emitter = mi.load_dict({"type": "area", "radiance": {"type": "rgb", "value": list(item.glow)}})
        return mesh(name, surface, mi.load_dict(principled(item.colour, item.roughness)), emitter)

    def person(self, surfaces: dict[str, Surface], strands: dict[str, Strands]) -> dict:
        """The person's shapes for one frame: each part takes the material of its own name."""
        shapes = {}
        for name, surface in surfaces.items():
            placed = Surface(to_room(surface.positions), surface.triangles, surface.uv, surface.normals)
            shapes[name] = mesh(name, placed, self.materials[name])
        return shapes | {name: self._curves(name, curves) for name, curves in strands.items()}

    def _curves(self, name: str, strands: Strands):
        """The curve shape `name`: loaded once from a file, the only way in, and moved from then on."""
        if name not in self.curves:
            path = self.work / f"{name}.txt"
            write_strands(path, strands)
            self.curves[name] = mi.load_dict(
                {"type": "bsplinecurve", "filename": str(path), "bsdf": self.materials[name]}
            )
        table = np.concatenate([to_room(strands.points), strands.radii[..., None] * 0.01], -1).astype(np.float32)
        parameters = mi.traverse(self.curves[name])
        parameters["control_points"] = mi.Float(table.ravel()) if VARIANT.startswith("llvm") else table.ravel()
        parameters.update()
        return self.curves[name]

    def load(self, shapes: dict):
        """The scene of one frame."""
        return mi.load_dict({"type": "scene", **self.static, **shapes})

    def render(self, scene, camera: PosedCamera, spp: int, seed: int) -> np.ndarray:
        """Denoised linear light at the photo's size "h w 3"."""
        light = self._render(scene, camera, {"type": "path", "max_depth": DEPTH, "rr_depth": 3}, spp, seed, OVERSAMPLE)
        guides = {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"}
        guide = self._render(scene, camera, guides, GUIDE_SPP, seed, OVERSAMPLE)
        albedo, normal = (np.ascontiguousarray(guide[..., k : k + 3]) for k in (0, 3))
        light = mitsuba_oidn.denoise(np.minimum(light, 30.0), np.clip(albedo, 0, 1), normal, hdr=True)
        height, width = SIZE[1], SIZE[0]
        return light.reshape(height, OVERSAMPLE, width, OVERSAMPLE, 3).mean((1, 3))

    def positions(self, scene, camera: PosedCamera) -> np.ndarray:
        """The surface point that each pixel sees "h w 3", metres; a random place within the pixel. Zeros: nothing."""
        return self._render(scene, camera, {"type": "aov", "aovs": "position:position"}, 1, 7, 1)

    @staticmethod
    def _render(scene, camera: PosedCamera, integrator: dict, spp: int, seed: int, scale: int) -> np.ndarray:
        right, down, forward = camera.orientation
        pose = np.eye(4)
        pose[:3] = np.stack([-right, -down, forward, camera.position], 1)  # Mitsuba's cameras: x left, y up, z forward
        sensor = mi.load_dict(
            {
                "type": "perspective",
                "fov": float(np.degrees(2 * np.arctan(SIZE[1] / 2 / FOCAL))),
                "fov_axis": "y",
                "near_clip": 0.01,
                "to_world": mi.ScalarTransform4f(pose),
                "sampler": {"type": "independent", "sample_count": spp},
                "film": {
                    "type": "hdrfilm", "width": SIZE[0] * scale, "height": SIZE[1] * scale, "pixel_format": "rgb",
                    "component_format": "float32", "rfilter": {"type": "box"},
                },
            }
        )  # fmt: skip
        image = mi.render(scene, sensor=sensor, integrator=mi.load_dict(integrator), spp=spp, seed=seed)
        return np.array(image, np.float32)
