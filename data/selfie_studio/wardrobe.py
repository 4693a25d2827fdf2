"""What the person is made of, part by part: skin, eyes, teeth, hair and wool as the renderer's materials."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from data.selfie_studio import paint, skin
from data.selfie_studio.head import Head
from data.selfie_studio.stage import principled, texture


def _skin(head: Head, part: str, size: int) -> dict:
    points = skin.surface_map(head, part, size).reshape(-1, 3)
    colour = np.concatenate([skin.skin_colour(chunk, head) for chunk in np.array_split(points, 8)]).reshape(
        size, size, 3
    )
    roughness = skin.skin_roughness(points, head).reshape(size, size).astype(np.float32)
    relief = skin.skin_relief(points, head).reshape(size, size).astype(np.float32) * 0.01  # metres
    return principled(
        np.clip(colour * 255 + 0.5, 0, 255).astype(np.uint8), texture(roughness, raw=True),
        bump=texture(relief, raw=True), specular=0.45, flatness=0.6, sheen=0.15,
    )  # fmt: skip


def _wool(repeat: float) -> dict:
    """Knitted wool; `repeat` is the pattern's repetitions per unit of the texture coordinates."""
    image = paint.knit()
    height = ndimage.gaussian_filter(image.mean(-1), 1.0, mode="wrap").astype(np.float32) / 255 * 0.002  # metres
    bump = texture(height, raw=True, repeat=repeat)
    return principled(image, 0.95, bump, repeat, specular=0.1, sheen=0.4, flatness=0.3)


def materials(head: Head) -> dict[str, dict]:
    """Materials of every part of the person."""
    eye = principled(skin.eye_image(), 0.12, specular=0.6, clearcoat=1.0, clearcoat_gloss=0.97)
    dark, light = (principled(shade, 0.33, specular=0.5) for shade in ((0.25, 0.175, 0.125), (0.42, 0.30, 0.20)))
    # A fibre shader for the hair would cost twice the time, in noise.
    brow = principled((0.30, 0.22, 0.165), 0.45, specular=0.3)
    return {
        "M_Face": _skin(head, "M_Face", 832),
        "M_BackHead": _skin(head, "M_BackHead", 384),
        "M_GumsTongue": principled((0.60, 0.28, 0.27), 0.25, specular=0.6),
        "M_Teeth": principled(skin.tooth_relief(), 0.18, specular=0.6, flatness=0.7),
        "M_ScleraLeft": eye, "M_ScleraRight": eye,
        "sweater": _wool(1 / 12.0), "collar": _wool(6.0),
        "hair": dark, "hair_light": light, "brows": brow, "lashes": principled((0.03, 0.025, 0.02), 0.5), "beard": brow,
    }  # fmt: skip
