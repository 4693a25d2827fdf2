"""Skin and eyes painted by program: colour, gloss and fine relief as textures over the head mesh's UVs."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.interpolate import CubicSpline, LinearNDInterpolator, NearestNDInterpolator
from scipy.spatial import cKDTree

from data.selfie_studio.hair import beard_density, hairline
from data.selfie_studio.head import Head
from data.selfie_studio.noise import fractal_noise, image_noise, lattice_noise, mix, smoothstep, to_bytes

HAIR_SHADE = np.array([0.20, 0.15, 0.12])


def surface_map(head: Head, part: str, size: int) -> np.ndarray:
    """Rest positions over a part's UV square "size size 3"; the top row is v = 1, as in an image."""
    chosen = head.material == head.names.index(part)
    corners = np.unique(np.stack([head.triangles[chosen].ravel(), head.uv_triangles[chosen].ravel()], 1), axis=0)
    uv, points = head.uv[corners[:, 1]] % 1.0, head.rest[corners[:, 0]]
    coarse = size // 2  # positions are smooth: found at half the size, then enlarged
    v, u = np.mgrid[:coarse, :coarse]
    u, v = (u.ravel() + 0.5) / coarse, 1 - (v.ravel() + 0.5) / coarse
    places = np.stack([u, v], 1)
    found = LinearNDInterpolator(uv, points)(places)
    empty = np.isnan(found[:, 0])
    found[empty] = NearestNDInterpolator(uv, points)(places[empty])
    grid = found.reshape(coarse, coarse, 3)
    return np.stack([ndimage.zoom(grid[..., k], 2, order=1, grid_mode=True, mode="nearest") for k in range(3)], -1)


def lip_distance(points: np.ndarray, head: Head, first: int, last: int, reach: float = 6.0) -> np.ndarray:
    """Signed distance in the frontal plane, cm, from the closed curve of landmarks first..last; negative inside."""
    ring = head.landmarks[[*range(first, last), first], :2]
    curve = CubicSpline(np.arange(len(ring)), ring, bc_type="periodic")(np.linspace(0, len(ring) - 1, 200))
    centre, step = ring.mean(0), 0.01
    side = int(2 * reach / step)
    image = Image.new("1", (side, side))
    ImageDraw.Draw(image).polygon([tuple((p - centre + reach) / step) for p in curve], fill=1)
    inside = np.asarray(image)
    distance = (ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)) * step
    place = ((points[:, :2] - centre + reach) / step)[:, ::-1].T
    return ndimage.map_coordinates(distance, place, order=1, mode="nearest")


def _spot(points: np.ndarray, centre: np.ndarray, size: float) -> np.ndarray:
    """A soft blob "n" around a centre and its mirror image; cm."""
    mirrored = np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], 1)
    return np.exp(-(((mirrored - [abs(centre[0]), *centre[1:]]) / size) ** 2).sum(1))


def _freckles(points: np.ndarray, head: Head, rng) -> np.ndarray:
    """Freckles over nose and cheeks and a few moles anywhere, as darkness "n" in [0, 1]."""
    nose = head.landmarks[29]
    centres = np.stack([rng.normal(0, 3.6, 260), nose[1] - 0.6 + rng.normal(0, 1.5, 260)], 1)
    sizes, depths = rng.uniform(0.03, 0.065, 260), rng.uniform(0.05, 0.26, 260)
    moles = np.stack([rng.uniform(-6, 6, 5), rng.uniform(-7, 9, 5)], 1)
    centres, sizes = np.concatenate([centres, moles]), np.concatenate([sizes, rng.uniform(0.06, 0.10, 5)])
    depths = np.concatenate([depths, rng.uniform(0.4, 0.7, 5)])
    distance, nearest = cKDTree(centres).query(points[:, :2] + 0.03 * lattice_noise(points, 0.12, 200)[:, None])
    return depths[nearest] * np.exp(-((distance / sizes[nearest]) ** 2)) * smoothstep(2.0, 5.0, points[:, 2])


def skin_colour(points: np.ndarray, head: Head) -> np.ndarray:
    """sRGB albedo "n 3" at rest positions "n 3"."""
    mark, rng = head.landmarks, np.random.default_rng(9)
    colour = np.tile([0.815, 0.640, 0.545], (len(points), 1))
    colour = mix(colour, [0.83, 0.675, 0.565], 0.7 * smoothstep(5, 9, points[:, 1]))  # the forehead is yellower
    cheek = np.array([5.2, mark[30][1] + 0.2, mark[30][2] - 3.6])
    flush = (
        0.62 * _spot(points, cheek, 2.3) + 0.75 * _spot(points, mark[30], 1.25) + 0.45 * _spot(points, mark[31], 0.8)
    )
    flush += 0.35 * _spot(points, mark[8] + [0, 1, 0], 1.5)
    ear = (
        smoothstep(7.0, 7.8, np.abs(points[:, 0]))
        * smoothstep(5.0, 3.0, points[:, 2])
        * (np.abs(points[:, 1] - 1.5) < 5)
    )
    flush += 0.55 * ear
    flush *= 0.85 + 0.45 * fractal_noise(points, 1.4, 210, 4)
    colour = mix(colour, [0.80, 0.47, 0.42], np.clip(flush, 0, 0.8))
    for side in head.eye_centres.values():
        away = np.linalg.norm((points - side) * [0.8, 1.0, 1.0], axis=1)
        below = np.exp(-(((points - side - [0, -1.45, 1.2]) / [1.7, 0.75, 2.2]) ** 2).sum(1))
        colour = mix(colour, [0.70, 0.49, 0.43], np.clip(0.20 * smoothstep(2.6, 1.6, away) + 0.36 * below, 0, 0.6))
        colour = mix(colour, [0.70, 0.44, 0.40], 0.35 * smoothstep(1.75, 1.55, away))  # the lids' wet rims
    blotch, pores = fractal_noise(points, 1.1, 220, 4), fractal_noise(points, 0.14, 230, 2)
    colour *= 1 + np.stack([0.018 * blotch, 0.045 * blotch, 0.05 * blotch], 1) + 0.032 * pores[:, None]
    colour = mix(colour, [0.45, 0.27, 0.19], _freckles(points, head, rng))
    stubble = beard_density(points, head) * (0.75 + 0.25 * lattice_noise(points, 0.09, 240))
    colour = mix(colour, [0.50, 0.41, 0.37], 0.27 * np.clip(stubble, 0, 1))
    colour = _lips(colour, points, head)
    roots = smoothstep(-0.3, 0.9, hairline(points)) * (1 - ear) * smoothstep(-6.5, -4, points[:, 1])
    return mix(colour, HAIR_SHADE, 0.82 * roots)


def _lips(colour: np.ndarray, points: np.ndarray, head: Head) -> np.ndarray:
    """Paint lips, the line between them and the dark of the mouth's corners."""
    outer, inner = lip_distance(points, head, 48, 60), lip_distance(points, head, 60, 68)
    front = smoothstep(8.0, 9.0, points[:, 2])
    wrinkle = lattice_noise(points * [1, 0.2, 0.2], 0.10, 250) + 0.6 * fractal_noise(points, 0.5, 251, 3)
    lip = smoothstep(0.10, -0.12, outer + 0.05 * lattice_noise(points, 0.3, 252)) * front
    tone = np.array([0.70, 0.44, 0.40]) * (1 + 0.05 * wrinkle)[:, None]
    colour = mix(colour, tone, 0.8 * lip)
    return mix(colour, [0.50, 0.22, 0.21], 0.7 * smoothstep(0.05, -0.05, inner) * front)


def skin_roughness(points: np.ndarray, head: Head) -> np.ndarray:
    """Roughness "n": oily along forehead and nose, moist lips, dry elsewhere."""
    value = 0.52 + 0.04 * fractal_noise(points, 0.5, 260, 3)
    value -= 0.10 * _spot(points, head.landmarks[30], 1.6) + 0.07 * _spot(points, np.array([0, 8.0, 9.5]), 3.0)
    value -= 0.20 * smoothstep(0.05, -0.1, lip_distance(points, head, 48, 60)) * (points[:, 2] > 8.5)
    return np.clip(value, 0.25, 0.8)


def skin_relief(points: np.ndarray, head: Head) -> np.ndarray:
    """Height "n" in cm: pores, fine creases, lines across the forehead and wrinkles in the lips."""
    relief = 0.0035 * fractal_noise(points, 0.11, 270, 2) + 0.006 * fractal_noise(points, 0.6, 271, 3)
    brow = points[:, 1] + 0.4 * lattice_noise(points, 3.0, 272) - 0.04 * points[:, 0] ** 2
    forehead = smoothstep(6.8, 7.4, points[:, 1]) * smoothstep(5.0, 3.0, np.abs(points[:, 0])) * (points[:, 2] > 5)
    relief -= (
        0.012
        * forehead
        * np.clip(np.cos(2 * np.pi * brow / 0.95) - 0.55, 0, 1)
        * (0.6 + 0.4 * lattice_noise(points, 1.5, 273))
    )
    lip = smoothstep(0.05, -0.1, lip_distance(points, head, 48, 60)) * (points[:, 2] > 8.5)
    return relief + 0.010 * lip * lattice_noise(points * [1, 0.15, 0.15], 0.12, 274)


def eye_image(size: int = 1024) -> np.ndarray:
    """An eyeball by angle from the pupil (see `Head._eye_uv`): hazel iris, dark rim, veined white."""
    rows, columns = np.mgrid[:size, :size]
    x, y = (columns + 0.5) / size - 0.5, 0.5 - (rows + 0.5) / size
    angle, around = np.hypot(x, y) * 360, np.arctan2(y, x)  # degrees from the pupil; 180 at the middle of each edge
    ring = np.stack([np.cos(around) * 6, np.sin(around) * 6, angle * 0.10], -1).reshape(-1, 3)
    fibres = fractal_noise(ring, 0.9, 280, 4).reshape(size, size)
    iris = mix((0.36, 0.33, 0.20), (0.20, 0.24, 0.20), smoothstep(9, 17, angle))  # hazel, green-grey outward
    iris = mix(iris, (0.42, 0.25, 0.10), smoothstep(12.5, 8.0, angle) * 0.8)
    iris = iris * (1 + 0.45 * fibres)[..., None]
    iris = mix(iris, (0.06, 0.06, 0.06), smoothstep(17.0, 20.5, angle) * 0.9)
    iris = mix(iris, (0.01, 0.01, 0.01), smoothstep(7.6, 6.9, angle))
    white = mix((0.86, 0.84, 0.81), (0.80, 0.58, 0.52), 0.75 * smoothstep(38, 75, angle))
    web = (
        np.stack([columns.ravel(), rows.ravel()], 1)
        + 9 * fractal_noise(np.stack([columns.ravel(), rows.ravel()], 1), 40, 281)[:, None]
    )
    veins = np.exp(-((fractal_noise(web, 46, 282, 3) / 0.05) ** 2)).reshape(size, size) * smoothstep(26, 50, angle)
    white = mix(white, (0.74, 0.36, 0.32), 0.35 * veins)
    return to_bytes(mix(iris, white, smoothstep(19.6, 21.8, angle)))


def tooth_relief(size: int = 256) -> np.ndarray:
    """Faint unevenness of enamel, sRGB."""
    noise = image_noise(size, size, 40, 290)
    return to_bytes(np.array([0.83, 0.79, 0.70]) * (1 + 0.04 * noise)[..., None])
