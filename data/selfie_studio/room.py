"""The room behind the person: books, prints, a sideboard with a lamp, plants, a door and windows. Metres."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from data.selfie_studio import paint
from data.selfie_studio.shapes import Item, Surface, box, grid_triangles, lathe, quad

BACK, LEFT, RIGHT, FRONT, CEILING = -1.75, -1.85, 1.85, 1.9, 2.5


def _shell() -> dict[str, Item]:
    depth, width = FRONT - BACK, RIGHT - LEFT
    items = {
        "wallpaper": Item(paint.wallpaper(), 0.75),
        "plaster": Item(paint.plaster(21), 0.8),
        "ceiling": Item((0.86, 0.85, 0.83), 0.9),
        "floor": Item(paint.floor(), 0.35),
        "trim": Item(paint.plaster(23, (0.88, 0.87, 0.84)), 0.4),
    }
    items["wallpaper"].surfaces = [
        quad((LEFT, 0, BACK), (width, 0, 0), (0, CEILING, 0), (0, 0, width / 0.9, CEILING / 0.9))
    ]
    left = quad((LEFT, 0, FRONT), (0, 0, -depth), (0, CEILING, 0), (0, 0, depth, CEILING))
    items["plaster"].surfaces = [left, *_window_wall()]
    items["ceiling"].surfaces = [quad((LEFT, CEILING, BACK), (width, 0, 0), (0, 0, depth))]
    items["floor"].surfaces = [quad((LEFT, 0, FRONT), (width, 0, 0), (0, 0, -depth), (0, 0, width / 2.0, depth / 1.2))]
    trim = items["trim"].surfaces
    trim += box((LEFT, 0, BACK), (RIGHT, 0.12, BACK + 0.015), grain=1.0)
    trim += box((LEFT, CEILING - 0.09, BACK), (RIGHT, CEILING, BACK + 0.05), grain=1.0)  # cornice
    trim += box((LEFT, CEILING - 0.09, BACK), (LEFT + 0.05, CEILING, FRONT), grain=1.0)
    trim += box((RIGHT - 0.05, CEILING - 0.09, BACK), (RIGHT, CEILING, FRONT), grain=1.0)
    trim += box((LEFT, 0, BACK), (LEFT + 0.015, 0.12, FRONT), grain=1.0)
    return items


WINDOWS = ((-1.25, -0.25), (0.35, 1.55))  # z ranges of the two openings in the right wall
_SILL, _LINTEL = 0.85, 2.15


def _window_wall() -> list[Surface]:
    """The right wall around its two openings."""
    pieces = [(BACK, FRONT, 0.0, _SILL), (BACK, FRONT, _LINTEL, CEILING)]
    edges = [BACK, *(z for window in WINDOWS for z in window), FRONT]
    pieces += [(edges[i], edges[i + 1], _SILL, _LINTEL) for i in (0, 2, 4)]
    return [quad((RIGHT, y0, z0), (0, 0, z1 - z0), (0, y1 - y0, 0), (z0, y0, z1, y1)) for z0, z1, y0, y1 in pieces]


def _windows(items: dict[str, Item]) -> None:
    """Frames, curtains, and the overcast sky that lights the room."""
    items["curtain"] = Item(paint.cloth(31, (0.72, 0.66, 0.55), (0.62, 0.36, 0.26)), 0.9)
    items["sky"] = Item((0.0, 0.0, 0.0), glow=(7.2, 7.6, 8.2))
    for z0, z1 in WINDOWS:
        trim = items["trim"].surfaces
        for low, high in (
            ((z0 - 0.06, _SILL - 0.06), (z1 + 0.06, _SILL)),
            ((z0 - 0.06, _LINTEL), (z1 + 0.06, _LINTEL + 0.06)),
            ((z0 - 0.06, _SILL), (z0, _LINTEL)),
            ((z1, _SILL), (z1 + 0.06, _LINTEL)),
        ):
            trim += box((RIGHT - 0.03, low[1], low[0]), (RIGHT + 0.08, high[1], high[0]), grain=1.0)
        middle = (z0 + z1) / 2
        trim += box((RIGHT + 0.02, _SILL, middle - 0.02), (RIGHT + 0.06, _LINTEL, middle + 0.02), grain=1.0)
        trim += box((RIGHT + 0.02, 1.62, z0), (RIGHT + 0.06, 1.66, z1), grain=1.0)
        items["sky"].surfaces.append(quad((RIGHT + 0.10, _SILL, z0), (0, 0, z1 - z0), (0, _LINTEL - _SILL, 0)))
    for z0, z1 in ((-1.62, -1.18), (-0.38, 0.02)):
        items["curtain"].surfaces.append(_drape(z0, z1))


def _drape(z0: float, z1: float) -> Surface:
    """A curtain in folds beside the window."""
    u, v = np.meshgrid(np.linspace(0, 1, 160), np.linspace(0, 1, 20))
    x = RIGHT - 0.09 + 0.035 * np.sin(2 * np.pi * 6 * u + 0.6 * np.sin(3 * v)) * (1 - 0.35 * v)
    points = np.stack([x, 0.15 + 2.15 * v, z0 + (z1 - z0) * u], -1).reshape(-1, 3)
    return Surface(points, grid_triangles(*u.shape), np.stack([3 * u, 6 * v], -1).reshape(-1, 2))


def _bookcase(items: dict[str, Item]) -> None:
    """Six shelves of books and a few things on the left of the back wall."""
    rng = np.random.default_rng(8)
    x0, x1, depth = -1.72, -0.42, 0.27
    front = BACK + depth
    items["shelf"] = Item(paint.wood(512, 1024, 41, (0.20, 0.11, 0.06), (0.44, 0.28, 0.16)), 0.4)
    items["books"] = Item(paint.spines(), 0.5)
    items["pages"] = Item(paint.cloth(43, (0.85, 0.80, 0.68)), 0.9)
    wood = items["shelf"].surfaces
    levels = [0.08, 0.44, 0.80, 1.14, 1.46, 1.80, 2.12]
    for x in (x0, (x0 + x1) / 2 + 0.05, x1):
        wood += box((x - 0.012, 0, BACK), (x + 0.012, levels[-1], front), grain=0.6)
    for y in levels:
        wood += box((x0, y - 0.011, BACK), (x1, y + 0.011, front), grain=0.6)
    wood.append(quad((x0, 0, BACK + 0.006), (x1 - x0, 0, 0), (0, levels[-1], 0), (0, 0, 2.0, 3.4)))
    for low, high in pairwise(levels):
        x = x0 + 0.02
        while x < x1 - 0.06:
            thick, tall = rng.uniform(0.014, 0.042), (high - low - 0.03) * rng.uniform(0.68, 0.97)
            if abs(x + thick / 2 - (x0 + x1) / 2 - 0.05) < 0.04 or rng.random() < 0.05:
                x += rng.uniform(0.03, 0.1)
                continue
            _book(items, rng, (x, low + 0.011, front - rng.uniform(0.01, 0.06)), thick, tall)
            x += thick + rng.uniform(0.0005, 0.003)


def _book(items, rng, corner, thick, tall):
    """One book: a spine to the front, covers of the same colour, pages on top."""
    x, y, z = corner
    cell = int(rng.integers(paint.SPINES)) / paint.SPINES
    spine = (cell + 0.001, 0.0, cell + 1 / paint.SPINES - 0.001, 1.0)
    cover = (cell + 0.004, 0.30, cell + 0.0045, 0.31)  # a plain patch beside the title
    for k, face in enumerate(box((x, y, z - 0.17), (x + thick, y + tall, z))):
        u0, v0, u1, v1 = spine if k == 0 else cover
        face.uv = np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]])
        items["pages" if k == 4 else "books"].surfaces.append(face)


def _prints(items: dict[str, Item]) -> None:
    """Five framed prints on the right of the back wall and one by the door."""
    items["frame"] = Item(paint.wood(256, 512, 51, (0.05, 0.04, 0.035), (0.16, 0.12, 0.09)), 0.35)
    hung = [
        (paint.landscape(61), -0.22, 1.34, 0.40, 0.52),
        (paint.abstract(66), 0.27, 1.58, 0.34, 0.44),
        (paint.botanical(63), 0.27, 1.06, 0.34, 0.44),
        (paint.abstract(67), 0.70, 1.32, 0.44, 0.56),
        (paint.landscape(68), 1.24, 1.50, 0.36, 0.46),
        (paint.botanical(69), 0.70, 1.96, 0.36, 0.30),
        (paint.abstract(70), -0.22, 1.93, 0.40, 0.34),
    ]
    for k, (picture, x, y, w, h) in enumerate(hung):
        items[f"print{k}"] = Item(picture, 0.25, [quad((x, y, BACK + 0.02), (w, 0, 0), (0, h, 0))])
        _frame(items["frame"].surfaces, (x, y, BACK), w, h)


def _frame(surfaces, corner, w, h, width=0.022, depth=0.035):
    x, y, z = corner
    for low, high in (
        ((x - width, y - width), (x + w + width, y)),
        ((x - width, y + h), (x + w + width, y + h + width)),
        ((x - width, y), (x, y + h)),
        ((x + w, y), (x + w + width, y + h)),
    ):
        surfaces += box((*low, z), (*high, z + depth), grain=0.3)


def _sideboard(items: dict[str, Item]) -> None:
    """A sideboard with drawers; on it a lamp, a vase, a pile of books and a clock."""
    x0, x1, top, front = -0.25, 1.35, 0.78, BACK + 0.42
    items["sideboard"] = Item(paint.wood(512, 1024, 71, (0.36, 0.22, 0.12), (0.62, 0.43, 0.26)), 0.35)
    items["brass"] = Item((0.72, 0.55, 0.25), 0.25)
    wood = items["sideboard"].surfaces
    wood += box((x0, 0.12, BACK), (x1, top, front - 0.02), grain=0.8)
    wood += box((x0 - 0.015, top, BACK), (x1 + 0.015, top + 0.025, front + 0.01), grain=0.8)
    for column in range(3):
        for row in range(3):
            x, y = x0 + 0.02 + column * 0.525, 0.14 + row * 0.213
            wood += box((x, y, front - 0.02), (x + 0.51, y + 0.2, front), grain=0.8)
            items["brass"].surfaces += box((x + 0.21, y + 0.095, front), (x + 0.30, y + 0.11, front + 0.02))
    items["shade"] = Item(paint.cloth(73, (0.90, 0.80, 0.60)), 0.9, glow=(0.85, 0.58, 0.30))
    items["ceramic"] = Item((0.16, 0.33, 0.37), 0.15)
    y = top + 0.025
    items["shade"].surfaces = [lathe((1.05, y + 0.27, BACK + 0.22), [(0.15, 0.0), (0.10, 0.22)])]
    base = [
        (0.0, 0.0),
        (0.07, 0.0),
        (0.075, 0.02),
        (0.03, 0.06),
        (0.06, 0.12),
        (0.055, 0.19),
        (0.015, 0.24),
        (0.012, 0.3),
    ]
    items["ceramic"].surfaces = [lathe((1.05, y, BACK + 0.22), base)]
    rng = np.random.default_rng(12)
    for k in range(5):
        low = np.array([0.62 + rng.uniform(-0.02, 0.02), y + 0.03 * k, BACK + 0.12])
        cell = int(rng.integers(paint.SPINES)) / paint.SPINES
        uv = (cell + 0.001, 0.0, cell + 1 / paint.SPINES - 0.001, 1.0)
        for face in box(low, low + np.array([0.22, 0.029, 0.17])):
            face.uv = np.array([[uv[0], 0], [uv[0], 1], [uv[2], 1], [uv[2], 0]])
            items["books"].surfaces.append(face)


def _plants(items: dict[str, Item]) -> None:
    """A tall plant on the floor in the right corner and a trailing one on the sideboard."""
    items["pot"] = Item(paint.plaster(81, (0.64, 0.36, 0.25)), 0.7)
    items["leaf"] = Item(paint.leaf(83), 0.35)
    pot = [(0.0, 0.0), (0.12, 0.0), (0.17, 0.3), (0.18, 0.3), (0.18, 0.33), (0.16, 0.33), (0.15, 0.28), (0.0, 0.28)]
    items["pot"].surfaces = [lathe((1.60, 0.0, BACK + 0.3), pot)]
    small = [(r * 0.45, h * 0.45) for r, h in pot]
    items["pot"].surfaces.append(lathe((0.20, 0.805, BACK + 0.2), small))
    items["pot"].surfaces.append(lathe((-0.60, 2.131, BACK + 0.14), small))
    rng = np.random.default_rng(85)
    for _ in range(46):
        items["leaf"].surfaces.append(_leaf(rng, (1.60, 0.3, BACK + 0.3), rng.uniform(0.5, 1.35), 0.11))
    for base in ((0.20, 0.93, BACK + 0.2), (-0.60, 2.26, BACK + 0.14)):
        items["leaf"].surfaces += [_leaf(rng, base, rng.uniform(0.12, 0.34), 0.045) for _ in range(26)]


def _leaf(rng, base, reach: float, width: float) -> Surface:
    """A stem that arches out of the pot and ends in a blade, as one bent strip."""
    azimuth, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0.10, 0.42)
    t = np.linspace(0, 1, 14)
    out = reach * lean * (t + 0.9 * t**3)
    height = reach * (t - 0.28 * t**3)
    blade = np.clip((t - 0.55) / 0.45, 0, 1)
    half = 0.004 + width * np.sin(np.pi * blade**0.8) * (t > 0.55)
    direction, across = (
        np.array([np.sin(azimuth), 0, np.cos(azimuth)]),
        np.array([np.cos(azimuth), 0, -np.sin(azimuth)]),
    )
    spine = np.asarray(base) + out[:, None] * direction + height[:, None] * [0, 1, 0]
    spine[:, 2] = np.maximum(spine[:, 2], BACK + 0.02)
    spine[:, 0] = np.minimum(spine[:, 0], RIGHT - 0.02)
    droop = np.array([0, -0.35, 0])
    points = np.stack([spine - half[:, None] * (across - droop), spine, spine + half[:, None] * (across + droop)], 1)
    uv = np.stack(np.broadcast_arrays(np.array([0.0, 0.5, 1.0]), blade[:, None]), -1).reshape(-1, 2)
    return Surface(points.reshape(-1, 3), grid_triangles(14, 3), uv)


def _door(items: dict[str, Item]) -> None:
    """A panelled door in the left wall, with a coat beside it."""
    items["door"] = Item(paint.wood(512, 512, 91, (0.58, 0.55, 0.50), (0.70, 0.67, 0.61)), 0.4)
    z0, z1, x = -1.15, -0.30, LEFT
    door = items["door"].surfaces
    door += box((x, 0.0, z0), (x + 0.02, 2.03, z1), grain=1.0)
    for y0, y1 in ((0.2, 0.85), (1.0, 1.85)):
        for a, b in ((z0 + 0.1, (z0 + z1) / 2 - 0.04), ((z0 + z1) / 2 + 0.04, z1 - 0.1)):
            door += box((x + 0.02, y0, a), (x + 0.035, y1, b), grain=1.0)
    for a, b, y0, y1 in ((z0 - 0.09, z0, 0, 2.12), (z1, z1 + 0.09, 0, 2.12), (z0, z1, 2.03, 2.12)):
        items["trim"].surfaces += box((x, y0, a), (x + 0.03, y1, b), grain=1.0)
    items["brass"].surfaces.append(
        lathe((x + 0.07, 0.98, z1 - 0.07), [(0.0, 0.0), (0.028, 0.008), (0.03, 0.03), (0.0, 0.05)])
    )
    items["poster"] = Item(paint.landscape(93), 0.4, [quad((x + 0.004, 1.15, 0.45), (0, 0, -0.5), (0, 0.7, 0))])


def build_room() -> dict[str, Item]:
    """Everything in the room by material."""
    items = _shell()
    for furnish in (_windows, _bookcase, _prints, _sideboard, _plants, _door):
        furnish(items)
    return items
