"""From the renderer's light to a phone's photo: vignette, exposure, sensor noise, tone curve, sharpening, JPEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage


def develop(radiance: np.ndarray, exposure: float, seed: int) -> np.ndarray:
    """Linear light "h w 3" to a display-referred photo in [0, 1], as a small sensor and its software would see it."""
    rng = np.random.default_rng(seed)
    height, width, _ = radiance.shape
    rows, columns = np.mgrid[:height, :width]
    radius = ((rows - height / 2) ** 2 + (columns - width / 2) ** 2) / ((height / 2) ** 2 + (width / 2) ** 2)
    light = radiance * 1.8 * exposure * (1 - 0.16 * radius**1.2)[..., None]
    light = np.clip(light, 0, 4)
    # Photon noise grows with the root of the signal; read noise doesn't. The phone then smooths colour, not detail.
    noise = rng.normal(size=light.shape) * np.sqrt(light * 1.5e-4 + 6e-6)
    luma = noise.mean(-1, keepdims=True)
    chroma = ndimage.gaussian_filter(noise - luma, (1.1, 1.1, 0))
    luma = ndimage.gaussian_filter(luma, (0.45, 0.45, 0))
    photo = tone(np.maximum(light + luma + chroma, 0))
    photo += 0.12 * (photo - photo.mean(-1, keepdims=True))  # phones like colour
    soft = ndimage.gaussian_filter(photo, (1.0, 1.0, 0))
    return np.clip(photo + 0.35 * (photo - soft), 0, 1)  # and crisp edges


def tone(light: np.ndarray) -> np.ndarray:
    """A phone's tone curve: sRGB's slope in the shadows, some contrast, a soft shoulder instead of a hard clip."""
    compressed = light * (1 + light / 6.0) / (1 + 0.62 * light)  # 0 -> 0, about 1 at 1.9 times white
    encoded = np.where(
        compressed < 0.0031308, 12.92 * compressed, 1.055 * np.maximum(compressed, 1e-8) ** (1 / 2.4) - 0.055
    )
    encoded = np.clip(encoded, 0, 1)
    return encoded + 0.10 * encoded * (1 - encoded) * (2 * encoded - 1)


def halve(image: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels."""
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def save_jpeg(path: Path, image: np.ndarray, quality: int = 91) -> None:
    """Write an image in [0, 1] as a JPEG without colour subsampling losses that a reader would notice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)).save(path, quality=quality, subsampling=1)
