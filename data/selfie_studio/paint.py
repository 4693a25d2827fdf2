"""Pictures painted by program for the room: wood, wallpaper, plaster, book spines, prints and cloth, as sRGB images."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.selfie_studio.noise import image_noise, mix, smoothstep, to_bytes


def wood(height: int, width: int, seed: int, dark=(0.25, 0.15, 0.08), light=(0.52, 0.35, 0.21)) -> np.ndarray:
    """Grain along the image's rows."""
    rings = image_noise(height, width, (24, 420), seed, 4) * 1.6
    grain = image_noise(height, width, (3, 160), seed + 9, 3)
    value = 0.5 + 0.35 * np.sin(6 * rings) + 0.22 * grain
    return to_bytes(mix(dark, light, np.clip(value, 0, 1)))


def floor(seed: int = 5) -> np.ndarray:
    """Oak planks, 12 across."""
    rng = np.random.default_rng(seed)
    planks = []
    for plank in range(12):
        shade = rng.uniform(0.75, 1.1)
        image = wood(84, 1024, seed + 20 * plank).astype(float) * shade
        image = np.roll(image, rng.integers(1024), 1)
        image[:2] *= 0.35
        image[:, rng.integers(1024)][:] *= 0.4
        planks.append(image)
    return np.clip(np.concatenate(planks), 0, 255).astype(np.uint8)


def wallpaper(seed: int = 11) -> np.ndarray:
    """A pale leaf print over worn paper; tiles."""
    size = 1024
    image = Image.new("RGB", (size, size), (193, 186, 168))
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(seed)
    for row in range(8):
        for column in range(8):
            x, y = (column + 0.5 * (row % 2)) * 128 + 64, row * 128 + 64
            for copy in (-size, 0):
                _sprig(draw, x + copy, y, rng.uniform(-0.15, 0.15) + (0.5 if row % 2 else -0.5))
    worn = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8))).astype(float) / 255
    worn += (
        0.025 * image_noise(size, size, 90, seed)[..., None] + 0.02 * image_noise(size, size, 6, seed + 5)[..., None]
    )
    return to_bytes(worn)


def _sprig(draw: ImageDraw.ImageDraw, x: float, y: float, lean: float) -> None:
    stem = [(x + 50 * t * np.sin(lean), y + 45 - 90 * t) for t in np.linspace(0, 1, 12)]
    draw.line(stem, fill=(128, 134, 108), width=3)
    for k, (px, py) in enumerate(stem[1:]):
        side = 1 if k % 2 else -1
        length = 34 * (1 - 0.55 * k / 11)
        angle = lean - side * 0.95
        tip = (px + length * np.sin(-angle) * 1.0, py - length * np.cos(angle))
        middle = ((px + tip[0]) / 2, (py + tip[1]) / 2)
        across = np.array([tip[1] - py, px - tip[0]]) * 0.22
        leaf = [(px, py), tuple(middle + across), tip, tuple(middle - across)]
        draw.polygon(leaf, fill=(146, 152, 124) if k % 3 else (170, 136, 110))


def plaster(seed: int, colour=(0.80, 0.77, 0.72)) -> np.ndarray:
    """Rolled wall paint: faint stipple, stains and scuffs."""
    size = 1024
    stipple = image_noise(size, size, 5, seed, 2)
    stains = image_noise(size, size, 220, seed + 3, 4)
    return to_bytes(np.array(colour) * (1 + 0.02 * stipple + 0.035 * stains)[..., None])


_COVERS = np.array([
    "8c2f2b", "274b6d", "d9c9a3", "2f5d45", "b5772a", "1f1f26", "e6e1d4", "6b3a5b", "3f7f86",
    "c4502e", "7d7a6e", "d8a23a", "45342a", "9fb1a8", "5a6f9c", "b98c7a", "20403f", "efe9df",
])  # fmt: skip


def _rgb(code: str) -> tuple[int, int, int]:
    return int(code[:2], 16), int(code[2:4], 16), int(code[4:6], 16)


SPINES = 48


def spines(seed: int = 3) -> np.ndarray:
    """An atlas of `SPINES` book backs side by side, each 64 pixels wide and 512 high."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (64 * SPINES, 512))
    draw = ImageDraw.Draw(image)
    for book in range(SPINES):
        cover, ink = (_rgb(str(c)) for c in rng.choice(_COVERS, 2, replace=False))
        if abs(sum(cover) - sum(ink)) < 150:
            ink = (235, 225, 190) if sum(cover) < 380 else (40, 34, 30)
        x = 64 * book
        draw.rectangle([x, 0, x + 63, 511], fill=cover)
        for _ in range(rng.integers(1, 4)):  # bands
            y, thick = int(rng.choice([rng.integers(15, 90), rng.integers(420, 490)])), int(rng.integers(3, 22))
            draw.rectangle([x, y, x + 63, y + thick], fill=ink)
        if rng.random() < 0.4:
            label = int(rng.integers(120, 200))
            draw.rectangle([x + 8, label, x + 55, label + int(rng.integers(60, 150))], outline=ink, width=3)
        y = 130 + int(rng.integers(0, 40))
        while y < 360 + rng.integers(0, 60):  # the title, running down the spine
            step = int(rng.integers(8, 26))
            if rng.random() < 0.8:
                draw.rectangle([x + 22, y, x + int(rng.integers(36, 44)), y + step - 5], fill=ink)
            y += step
    shade = np.asarray(image).astype(float) / 255
    rounded = 1 - 0.30 * np.abs(np.linspace(-1, 1, 64)) ** 3  # a spine is round: darker to its edges
    shade *= np.tile(rounded, SPINES)[None, :, None]
    shade += 0.03 * image_noise(512, 64 * SPINES, 9, seed + 1, 3)[..., None]
    return to_bytes(shade)


def landscape(seed: int) -> np.ndarray:
    """Hills under an evening sky, in a paper mount."""
    height, width = 512, 400
    rows = np.linspace(0, 1, height)[:, None] * np.ones(width)
    image = mix((0.93, 0.72, 0.48), (0.35, 0.50, 0.68), 1 - smoothstep(0.0, 0.6, rows))
    image += 0.10 * np.maximum(image_noise(height, width, (24, 120), seed), 0)[..., None]
    columns = np.arange(width) / width
    for hill in range(6):
        crest = 0.42 + 0.1 * hill + 0.07 * image_noise(2, width, (4, 130 - 15 * hill), seed + hill, 4)[0]
        crest += 0.02 * np.sin(9 * columns + hill)
        colour = mix((0.45, 0.52, 0.58), (0.13, 0.22, 0.12), np.float64(hill / 5))
        tint = 1 + 0.25 * image_noise(height, width, 22, seed + 40 + hill)[..., None]
        image = np.where((rows > crest)[..., None], colour * tint, image)
    return _mount(image, 36)


def abstract(seed: int) -> np.ndarray:
    """Overlapping paper shapes, in a mount."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (400, 512), (232, 222, 204))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        colour = _rgb(str(rng.choice(_COVERS)))
        x, y, r = int(rng.integers(40, 360)), int(rng.integers(50, 460)), int(rng.integers(25, 110))
        if rng.random() < 0.5:
            start, end = sorted(rng.integers(0, 360, 2).tolist())
            draw.pieslice([x - r, y - r, x + r, y + r], start, end, fill=colour)
        else:
            draw.polygon(
                [(x + r * np.cos(a), y + r * np.sin(a)) for a in np.sort(rng.uniform(0, 6.28, 4))], fill=colour
            )
    for _ in range(10):
        x, y = int(rng.integers(30, 370)), int(rng.integers(30, 480))
        start, end = rng.integers(0, 360, 2).tolist()
        draw.arc([x - 50, y - 50, x + 50, y + 50], start, end, fill=(30, 28, 30), width=3)
    return _mount(np.asarray(image) / 255 + 0.03 * image_noise(512, 400, 7, seed)[..., None], 40)


def botanical(seed: int) -> np.ndarray:
    """A pressed fern on old paper."""
    image = Image.new("RGB", (400, 512), (226, 214, 186))
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(seed)
    for t in np.linspace(0, 1, 26):
        x, y = 200 + 30 * np.sin(2.2 * t), 470 - 400 * t
        length = 130 * np.sin(np.pi * (0.15 + 0.8 * t)) * (1 - 0.4 * t)
        for side in (-1, 1):
            tip = (x + side * length, y - 0.45 * length)
            for s in np.linspace(0.1, 1, 14):
                px, py = x + s * (tip[0] - x), y + s * (tip[1] - y)
                leaf = 15 * (1.1 - s) + 3
                draw.ellipse(
                    [px - leaf / 2.5, py - leaf, px + leaf / 2.5, py + leaf / 2],
                    fill=(60, 88 + int(rng.integers(0, 25)), 52),
                )
            draw.line([(x, y), tip], fill=(48, 66, 40), width=2)
    draw.line(
        [(200 + 30 * np.sin(2.2 * t), 470 - 400 * t) for t in np.linspace(-0.07, 1, 30)], fill=(70, 60, 40), width=4
    )
    draw.line([(150, 492), (250, 492)], fill=(90, 80, 60), width=3)
    return _mount(np.asarray(image) / 255 * (1 + 0.05 * image_noise(512, 400, 60, seed)[..., None]), 30)


def _mount(image: np.ndarray, width: int) -> np.ndarray:
    """A white border around a print."""
    framed = np.full((image.shape[0] + 2 * width, image.shape[1] + 2 * width, 3), 0.92)
    framed[width - 3 : width + image.shape[0] + 3, width - 3 : width + image.shape[1] + 3] = 0.72  # the mount's bevel
    framed[width:-width, width:-width] = image
    return to_bytes(framed)


def cloth(seed: int, colour, stripe=None) -> np.ndarray:
    """A woven fabric, 512 x 512, tiling by eye; `stripe` adds thin lines of a second colour."""
    rows, columns = np.mgrid[:512, :512]
    weave = 0.06 * np.sin(rows * 2 * np.pi / 8) * np.sin(columns * 2 * np.pi / 8)
    base = np.array(colour) * (1 + weave + 0.07 * image_noise(512, 512, 10, seed))[..., None]
    if stripe is not None:
        base = mix(base, np.array(stripe) * (1 + weave)[..., None], ((columns % 64) < 12) * 0.85)
    return to_bytes(base)


def knit(seed: int = 17) -> np.ndarray:
    """Melange wool in rows of V-shaped stitches; 512 pixels are 12 cm."""
    size = 512
    rows, columns = np.mgrid[:size, :size] / size
    stitches = 32
    across = columns * stitches
    slant = np.abs((across % 1) - 0.5) * 2  # each column of stitches is a row of Vs
    loops = np.cos(2 * np.pi * (rows * stitches * 1.2 - 0.55 * slant))
    ridge = 0.62 + 0.22 * loops + 0.16 * np.cos(2 * np.pi * across)
    fibres = image_noise(size, size, (7, 4), seed, 3)
    melange = mix((0.21, 0.24, 0.20), (0.47, 0.48, 0.40), np.clip(0.45 + 0.5 * fibres, 0, 1))
    return to_bytes(melange * (0.55 + 0.6 * ridge)[..., None])


def leaf(seed: int) -> np.ndarray:
    """A leaf's blade: veins from a midrib, 256 x 256; the tip is at the top."""
    rows, columns = np.mgrid[:256, :256] / 256
    middle = np.abs(columns - 0.5)
    veins = np.clip(np.cos(2 * np.pi * 9 * (rows + 0.9 * middle)) - 0.75, 0, 1) * 3
    rib = np.exp(-((middle / 0.015) ** 2))
    base = mix((0.10, 0.25, 0.08), (0.24, 0.42, 0.13), np.clip(0.5 + 0.5 * image_noise(256, 256, 60, seed), 0, 1))
    return to_bytes(mix(base, (0.50, 0.60, 0.30), np.clip(0.5 * veins + rib, 0, 0.7)))
