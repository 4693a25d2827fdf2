"""Images for the prior: glyphs that this module draws itself, or a folder of a user's own.

Glyphs are letters and digits in the fonts that matplotlib ships, turned, sheared, moved, thickened, lit and shaded at
random. Training ones are set in DejaVu and STIX; held-out ones in Computer Modern, a family that training never sees.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from data.images import EXTENSIONS, area_average, composite, read_pixels, to_uint8
from siren.loop import FitError

CHARACTERS = string.ascii_letters + string.digits
TRAINING_FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
)  # fmt: skip
HELD_OUT_FACES = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")
CANVAS = 128  # pixels that glyphs are drawn on before they are reduced
HELD_OUT_SHARE = 0.1  # of a folder's images
FEWEST = 20  # different images that a folder must hold


@dataclass(frozen=True)
class Images:
    """What a prior learns from and is measured on; no image is in both.

    Attributes:
        train, held_out: pixels, "n h w c", uint8, one or three channels.
        source: where they come from, for a person.
    """

    train: UInt8[Tensor, "n h w c"]
    held_out: UInt8[Tensor, "m h w c"]
    source: str


def made(size: int = 32, count: int = 12000, held_out: int = 300, seed: int = 0) -> Images:
    """Glyphs drawn here, grey; the same bits for the same arguments.

    Args:
        size: width and height in pixels.
        count, held_out: how many to train on, and to measure with.

    Raises:
        FitError: where matplotlib came without its fonts.
    """
    return Images(
        glyphs(TRAINING_FACES, count, size, seed=2 * seed),
        glyphs(HELD_OUT_FACES, held_out, size, seed=2 * seed + 1),
        f"{count} glyphs in DejaVu and STIX, held out {held_out} in Computer Modern",
    )


def glyphs(faces: Sequence[str], count: int, size: int, seed: int) -> UInt8[Tensor, "n h w 1"]:
    """`count` letters and digits in those faces (names of files in matplotlib's fonts/ttf), bright on dark."""
    random = np.random.default_rng(seed)
    drawn: dict[tuple[str, str, int], Image.Image] = {}
    fonts = {face: _font(face) for face in faces}
    pixels = np.empty((count, size, size, 1), np.uint8)
    for index in range(count):
        face, character = faces[int(random.integers(len(faces)))], CHARACTERS[int(random.integers(len(CHARACTERS)))]
        key = face, character, int(random.integers(4))
        if key not in drawn:
            drawn[key] = _draw(fonts[face], character, stroke=key[2])
        coverage = _jitter(drawn[key], random)
        pixels[index] = to_uint8(255 * _lit(area_average(coverage[..., None], size, size) / 255, random))
    return torch.from_numpy(pixels)


def _font(face: str) -> ImageFont.FreeTypeFont:
    import matplotlib  # slow to import, and needed for its files alone

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    try:
        return ImageFont.truetype(str(path), size=round(0.8 * CANVAS))
    except OSError:
        raise FitError(f"{path}: expected a font that matplotlib ships, found none; reinstall matplotlib") from None


def _draw(font: ImageFont.FreeTypeFont, character: str, stroke: int) -> Image.Image:
    """One character in the middle of a canvas, white on black; `stroke` pixels of weight are added all around."""
    canvas = Image.new("L", (CANVAS, CANVAS), 0)
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = draw.textbbox((0, 0), character, font=font, stroke_width=stroke)
    place = (CANVAS - left - right) / 2, (CANVAS - top - bottom) / 2
    draw.text(place, character, fill=255, font=font, stroke_width=stroke)
    return canvas


def _jitter(canvas: Image.Image, random: np.random.Generator) -> np.ndarray:
    """Turned up to 9 degrees, sheared, scaled by 0.85 to 1.15 each way and moved by up to 1/20 of the side."""
    turn, shear = random.uniform(-0.16, 0.16), random.uniform(-0.15, 0.15)
    scale = np.diag(np.exp(random.uniform(-0.15, 0.15, 2)))
    rotate = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    linear = rotate @ np.array([[1, shear], [0, 1]]) @ scale
    middle = np.full(2, CANVAS / 2)
    shift = middle + random.uniform(-0.05, 0.05, 2) * CANVAS - linear @ middle
    affine = (*linear[0], shift[0], *linear[1], shift[1])
    return np.asarray(canvas.transform(canvas.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))


def _lit(coverage: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Coverage "h w 1" to brightness in [0, 1]: random levels, and a background that fades along a random direction."""
    dark, bright = random.uniform(0.05, 0.3), random.uniform(0.65, 1.0)
    angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0, 0.2)
    along = np.linspace(-1, 1, len(coverage))
    fade = strength * (math.cos(angle) * along[None] + math.sin(angle) * along[:, None])[..., None]
    return np.clip(dark + fade * (1 - coverage) + (bright - dark) * coverage, 0, 1)


def read_folder(
    folder: Path, size: int = 32, seed: int = 0, progress: Callable[[Sequence[Path]], Iterable[Any]] | None = None
) -> Images:
    """All PNG and JPEG files of a folder and of the folders in it, in squares of `size` pixels.

    The middle square of each image is averaged down to the grid, transparency goes on white, and doubles are dropped.
    If all are grey there is one channel, else three. A tenth, drawn by `seed`, is held out.

    Args:
        progress: wraps the list of files, as `tqdm` does.

    Raises:
        FitError: no folder, or too few different images in it.
        SceneError: a file that isn't a whole image.
    """
    if not folder.is_dir():
        raise FitError(f"--data {folder}: expected a folder of images, found {'a file' if folder.exists() else 'none'}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not files:
        raise FitError(f"--data {folder}: expected {', '.join(EXTENSIONS)} files, found none")
    unlike = {read_image(path, size).tobytes(): None for path in (files if progress is None else progress(files))}
    if len(unlike) < FEWEST:
        raise FitError(
            f"--data {folder}: expected at least {FEWEST} different images, found {len(unlike)} in {len(files)} files"
        )
    joined = np.frombuffer(bytearray().join(unlike), np.uint8).reshape(len(unlike), size, size, 3)
    pixels = torch.from_numpy(joined)
    if bool((pixels == pixels[..., :1]).all()):
        pixels = pixels[..., :1]
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    kept = max(1, round(HELD_OUT_SHARE * len(pixels)))
    source = f"{len(pixels)} different images in {folder}, {kept} of them held out"
    return Images(pixels[order[kept:]].contiguous(), pixels[order[:kept]].contiguous(), source)


def read_image(path: Path, size: int) -> np.ndarray:
    """The middle square of an image file, "size size 3" uint8. Raises SceneError where it can't be read."""
    rgb, opacity = read_pixels(path)
    return to_uint8(area_average(middle_square(composite(rgb, opacity, 1.0)), size, size))


def middle_square(pixels: np.ndarray) -> np.ndarray:
    """ "h w c" cut to its shorter side, in the middle."""
    rows, columns = pixels.shape[:2]
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    return pixels[top : top + side, left : left + side]


def signals(pixels: UInt8[Tensor, "n h w c"]) -> Float[Tensor, "n p c"]:
    """Pixels to what the SIREN says at them: values in [-1, 1], row after row."""
    return pixels.flatten(1, 2).float() / 127.5 - 1


def channels_as(pixels: np.ndarray, channels: int) -> np.ndarray:
    """ "h w 3" with as many channels as a prior has: grey is the mean of the three."""
    return to_uint8(pixels.mean(-1, keepdims=True)) if channels == 1 else pixels
