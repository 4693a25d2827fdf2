"""Hair strand by strand: the head's, the brows, the lashes and a shadow of beard. Centimetres, in the head's frame."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from data.selfie_studio.head import Head
from data.selfie_studio.motion import Pose
from data.selfie_studio.noise import fractal_noise, lattice_noise, smoothstep
from data.selfie_studio.shapes import Strands


def pin(points: np.ndarray) -> np.ndarray:
    """Control points whose B-spline begins and ends at the first and last of "n k 3": the ends are tripled."""
    return np.concatenate([points[:, :1], points[:, :1], points, points[:, -1:], points[:, -1:]], 1)


def taper(points: np.ndarray, radius: np.ndarray, tip: float = 0.25) -> np.ndarray:
    """Radii "n k" that thin to `tip` of `radius` "n" along each strand."""
    along = np.linspace(0, 1, points.shape[1])
    return np.asarray(radius)[:, None] * (1 - (1 - tip) * along**2)


def scatter(head: Head, triangles: np.ndarray, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """`count` random places on triangles "t 3": triangle indices "n" and barycentric weights "n 3"."""
    a, b, c = head.rest[triangles.T]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(triangles), count, p=area / area.sum())
    u, v = rng.random((2, count))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return chosen, np.stack([1 - u - v, u, v], 1)


def hairline(points: np.ndarray) -> np.ndarray:
    """How far points "n 3" of the skull lie inside the hair, cm: negative on the face, the ears and the neck."""
    local = points - [0.0, 5.0, 0.0]
    azimuth = np.degrees(np.abs(np.arctan2(local[:, 0], local[:, 2] + 1.0)))
    edge = np.interp(azimuth, [0, 18, 34, 46, 56, 66, 74, 84, 100, 116, 135, 180],
                     [9.6, 9.9, 9.9, 8.4, 6.4, 3.2, 1.6, 5.0, 4.6, 0.2, -3.6, -4.6])  # fmt: skip
    edge = edge + 0.35 * lattice_noise(points, 1.6, 301) + 0.2 * lattice_noise(points, 0.5, 302)
    return points[:, 1] - edge


class ScalpHair:
    """A short cut, longer on top, parted on the person's left; grown on the rest pose and moved with the skull."""

    COUNT, STEPS = 26000, 9

    def __init__(self, head: Head, seed: int = 5):
        rng = np.random.default_rng(seed)
        skull = np.isin(head.material, [head.names.index("M_Face"), head.names.index("M_BackHead")])
        triangles = head.triangles[skull]
        middle = head.rest[triangles].mean(1)
        ear = (np.abs(middle[:, 0]) > 7.35) & (middle[:, 1] < 5.2) & (middle[:, 1] > -2.5) & (middle[:, 2] > -2.2)
        inner = (np.abs(middle[:, 0]) < 4.6) & (middle[:, 2] > 0) & (middle[:, 1] < 8)  # sockets and mouth
        triangles = triangles[(hairline(middle) > -0.6) & ~ear & ~inner]
        chosen, weights = scatter(head, triangles, int(self.COUNT * 1.15), rng)
        roots = np.einsum("nk,nkd->nd", weights, head.rest[triangles[chosen]])
        normals = np.einsum("nk,nkd->nd", weights, head.normals[triangles[chosen]])
        dense = smoothstep(-0.15, 0.5, hairline(roots)) > rng.random(len(roots))
        self.roots, self.normals = roots[dense][: self.COUNT], normals[dense][: self.COUNT]
        self.skull = head.rest[np.unique(head.triangles[skull])]
        self.skull_normals = head.normals[np.unique(head.triangles[skull])]
        self.tree = cKDTree(self.skull)
        self.rest = self._grow(rng)

    def _length(self, rng) -> np.ndarray:
        """Long on top, short at the sides, the nape and the edge; cm."""
        top = smoothstep(6.0, 11.0, self.roots[:, 1] + 0.12 * self.roots[:, 2])
        length = 1.1 + 1.5 * smoothstep(-4, 5, self.roots[:, 1]) + 4.0 * top
        length *= 1 - 0.5 * smoothstep(2.2, 4.2, self.roots[:, 0]) * top  # the short side of the parting
        length *= 1 - 0.35 * smoothstep(-4.5, -6.5, self.roots[:, 0]) * top
        length *= 0.75 + 0.25 * smoothstep(0.0, 1.5, hairline(self.roots))
        return length * rng.uniform(0.72, 1.1, len(length))

    def _combing(self, points: np.ndarray) -> np.ndarray:
        """The direction that hair is combed at points "n 3"."""
        top = smoothstep(6.5, 10.5, points[:, 1])[:, None]
        side_of_parting = np.tanh((3.2 - points[:, 0]) / 0.5)  # hair falls away from the parting at x = 3.2
        over = np.stack([-0.85 * side_of_parting, 0.0 * points[:, 0], 0.35 + 0.03 * points[:, 2]], 1)
        back = smoothstep(-1, -7, points[:, 2])[:, None]
        over = over * (1 - back) + back * np.array([0.0, -0.6, -0.8])
        down = np.stack([0.05 * points[:, 0], -np.ones(len(points)), -0.45 + 0.05 * points[:, 2]], 1)
        return over * top + down * (1 - top)

    def _grow(self, rng) -> Strands:
        count = len(self.roots)
        step = self._length(rng)[:, None] / (self.STEPS - 1)
        clump = self._clumps(rng)
        lift = (
            0.08
            + 0.6 * smoothstep(6.5, 10.5, self.roots[:, 1]) * smoothstep(-3, 7, self.roots[:, 2])
            + 0.15 * rng.random(count)
        )
        wild = rng.normal(size=(count, 3)) * np.where(rng.random(count) < 0.06, 0.4, 0.07)[:, None]
        path, points, normals = [self.roots - 0.08 * self.normals], self.roots, self.normals
        for k in range(1, self.STEPS):
            along = k / (self.STEPS - 1)
            comb = self._combing(points)
            swirl = np.stack([fractal_noise(points, 3.5, 310 + axis, 2) for axis in range(3)], 1)
            comb = comb + 0.35 * swirl
            comb -= (comb * normals).sum(1, keepdims=True) * normals
            comb /= np.maximum(np.linalg.norm(comb, axis=1, keepdims=True), 1e-6)
            direction = comb + normals * (lift * (1 - 1.25 * along))[:, None] + wild + [0, -0.10 * along, 0]
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            points = points + step * direction
            nearest = self.tree.query(points)[1]
            normals = self.skull_normals[nearest]
            height = ((points - self.skull[nearest]) * normals).sum(1)
            floor = 0.06 + 0.25 * along * lift  # strands lie above the skin and above the strands under them
            points = points + normals * np.maximum(floor - height, 0)[:, None]
            path.append(points)
        strands = self._bundle(np.stack(path, 1), clump, rng)
        return Strands(pin(strands), taper(pin(strands), rng.uniform(0.0065, 0.0105, count)))

    def _clumps(self, rng) -> np.ndarray:
        """The strand that each strand gathers towards."""
        leaders = rng.choice(len(self.roots), 1500, replace=False)
        _, nearest = cKDTree(self.roots[leaders]).query(self.roots + rng.normal(size=self.roots.shape) * 0.12)
        return leaders[nearest]

    def _bundle(self, strands: np.ndarray, clump: np.ndarray, rng) -> np.ndarray:
        along = np.linspace(0, 1, self.STEPS)[None, :, None]
        strength = rng.uniform(0.25, 0.75, (len(strands), 1, 1)) * along**1.3
        tips = strands[clump] + (strands[:, :1] - strands[clump, :1]) * (1 - 0.6 * along)
        gathered = strands * (1 - strength) + tips * strength
        curl = np.stack(
            [lattice_noise(gathered.reshape(-1, 3), 1.1, 330 + axis).reshape(gathered.shape[:2]) for axis in range(3)],
            -1,
        )
        return gathered + 0.2 * along * curl

    def posed(self, head: Head, pose: Pose) -> dict[str, Strands]:
        """The strands at a pose, in two shades: hair this short goes where the skull goes."""
        matrix = head.rigid(pose)
        points = self.rest.points @ matrix[:3, :3].T + matrix[:3, 3]
        third = len(points) // 3  # the roots are in random order
        return {
            "hair": Strands(points[third:], self.rest.radii[third:]),
            "hair_light": Strands(points[:third], self.rest.radii[:third]),
        }


class Follicles:
    """Short hairs that ride on the skin's triangles, through every expression: brows and beard."""

    def __init__(
        self, head: Head, triangles: np.ndarray, chosen: np.ndarray, weights: np.ndarray, strands: np.ndarray, radius
    ):
        self.triangles, self.weights = triangles[chosen], weights
        frame = self._frames(head.rest)
        origin = self._origins(head.rest)
        self.local = np.einsum("nij,nkj->nki", np.linalg.inv(frame), strands - origin[:, None])
        self.radii = taper(pin(strands), radius)

    def _origins(self, points: np.ndarray) -> np.ndarray:
        return np.einsum("nk,nkd->nd", self.weights, points[self.triangles])

    def _frames(self, points: np.ndarray) -> np.ndarray:
        a, b, c = (points[self.triangles[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        return np.stack([b - a, c - a, normal], 2)

    def posed(self, positions: np.ndarray) -> Strands:
        """The hairs on the posed head's vertices "v 3"."""
        points = np.einsum("nij,nkj->nki", self._frames(positions), self.local) + self._origins(positions)[:, None]
        return Strands(pin(points), self.radii)


def _face_triangles(head: Head, keep) -> np.ndarray:
    triangles = head.triangles[head.material == head.names.index("M_Face")]
    return triangles[keep(head.rest[triangles].mean(1))]


def brows(head: Head, seed: int = 21) -> Follicles:
    """Two eyebrows along the brow landmarks: upright at the nose, lying outward at the temple."""
    rng = np.random.default_rng(seed)
    marks = head.landmarks[[21, 20, 19, 18, 17]] + [0, -0.1, 0]  # the right brow from the nose outward
    arch = CubicSpline(np.linspace(0, 1, 5), np.abs(marks[:, :2]))(np.linspace(-0.03, 0.93, 60))
    tree = cKDTree(arch)
    triangles = _face_triangles(head, lambda m: (tree.query(np.abs(m[:, :2]))[0] < 0.7) & (m[:, 2] > 5))
    chosen, weights = scatter(head, triangles, 9000, rng)
    roots = np.einsum("nk,nkd->nd", weights, head.rest[triangles[chosen]])
    normals = np.einsum("nk,nkd->nd", weights, head.normals[triangles[chosen]])
    mirrored = np.stack([np.abs(roots[:, 0]), roots[:, 1]], 1)
    distance, place = tree.query(mirrored)
    place = place / 59
    width = 0.46 * np.interp(place, [0, 0.12, 0.6, 1], [0.8, 1.0, 0.8, 0.25])
    keep = (distance < width * rng.uniform(0.6, 1.1, len(roots))) & (
        rng.random(len(roots)) < np.interp(place, [0, 0.1, 0.7, 1], [0.4, 1, 1, 0.7])
    )
    roots, normals, place, side = roots[keep], normals[keep], place[keep], np.sign(roots[keep, 0])
    above = mirrored[keep, 1] - arch[np.minimum((place * 59).astype(int), 59), 1]
    outward = np.interp(place, [0, 0.25, 1], [0.25, 0.95, 1.0])
    upward = np.interp(place, [0, 0.25, 0.6, 1], [0.9, 0.45, 0.15, -0.25]) - 1.2 * above
    flow = np.stack([side * outward, upward, -0.35 * outward], 1) + rng.normal(size=(len(roots), 3)) * 0.28
    flow -= (flow * normals).sum(1, keepdims=True) * normals * 0.9
    flow /= np.linalg.norm(flow, axis=1, keepdims=True)
    length = rng.uniform(0.45, 0.85, len(roots)) * np.interp(place, [0, 0.3, 1], [0.8, 1.0, 0.7])
    t = np.linspace(0, 1, 4)
    bow = normals[:, None] * (0.14 * np.sin(np.pi * 0.8 * t))[None, :, None]
    strands = roots[:, None] + length[:, None, None] * (t[None, :, None] * flow[:, None] + bow)
    return Follicles(head, triangles, chosen[keep], weights[keep], strands, rng.uniform(0.0030, 0.0055, len(roots)))


def beard_density(points: np.ndarray, head: Head) -> np.ndarray:
    """Where a beard would grow, 0 to 1, at points "n 3" of the face: lip, chin, jaw and the throat's upper end."""
    lip, chin = head.landmarks[51], head.landmarks[8]
    moustache = (
        np.exp(-((np.abs(points[:, 0]) / 2.6) ** 4))
        * smoothstep(0.15, 0.4, points[:, 1] - lip[1])
        * smoothstep(1.25, 0.8, points[:, 1] - lip[1])
    )
    cheek_line = np.interp(np.abs(points[:, 0]), [0, 2.5, 4.5, 6.5, 7.5], [-4.6, -4.2, -3.0, -0.5, 2.0])
    jaw = (
        smoothstep(0.6, -0.6, points[:, 1] - cheek_line)
        * smoothstep(chin[1] - 4.5, chin[1] - 1.0, points[:, 1])
        * smoothstep(0.5, 3.0, points[:, 2])
    )
    return np.clip(np.maximum(0.9 * moustache, jaw), 0, 1) * (points[:, 2] > 0)


def beard(head: Head, seed: int = 33, count: int = 9000) -> Follicles:
    """Two days of stubble."""
    rng = np.random.default_rng(seed)
    triangles = _face_triangles(head, lambda m: beard_density(m, head) > 0.02)
    chosen, weights = scatter(head, triangles, 2 * count, rng)
    roots = np.einsum("nk,nkd->nd", weights, head.rest[triangles[chosen]])
    lips = head.landmarks[48:60, :2]
    off_lips = cKDTree(lips).query(roots[:, :2])[0] > 0.28
    inside = np.abs(roots[:, 1] - head.landmarks[62, 1]) + 0.2 * np.abs(roots[:, 0]) < 0.75
    keep = (beard_density(roots, head) > rng.random(len(roots)) * 1.2) & off_lips & ~inside
    chosen, weights, roots = chosen[keep], weights[keep], roots[keep]
    normals = np.einsum("nk,nkd->nd", weights, head.normals[triangles[chosen]])
    flow = 0.7 * normals + [0, -0.9, 0] + rng.normal(size=roots.shape) * 0.35
    flow /= np.linalg.norm(flow, axis=1, keepdims=True)
    length = rng.uniform(0.06, 0.16, len(roots))
    strands = roots[:, None] + np.linspace(0, 1, 3)[None, :, None] * (length[:, None] * flow)[:, None]
    return Follicles(head, triangles, chosen, weights, strands, rng.uniform(0.0022, 0.0034, len(roots)))


class Lashes:
    """Lashes along the mesh's own lash cards: grids of 19 across by 6 from root to tip, three a lid."""

    def __init__(self, head: Head, seed: int = 41):
        rng = np.random.default_rng(seed)
        chosen = head.material == head.names.index("M_EyeLashes")
        uv_of = np.zeros((len(head.rest), 2))
        uv_of[head.triangles[chosen]] = head.uv[head.uv_triangles[chosen]]
        vertices = np.unique(head.triangles[chosen]).reshape(-1, 114)
        self.grids = [card[np.lexsort((uv_of[card, 0], -uv_of[card, 1].round(3)))].reshape(6, 19) for card in vertices]
        self.draws = []
        for index in range(len(self.grids)):
            upper = index % 6 < 3
            count = 42 if upper else 20
            self.draws.append(
                (
                    rng.uniform(0.3, 17.7, count),
                    rng.uniform(0.55, 0.95 if upper else 0.7, count),
                    rng.normal(size=(count, 1)) * 0.9,
                )
            )

    def posed(self, positions: np.ndarray) -> Strands:
        """The lashes on the posed head's vertices "v 3"."""
        curves, radii = [], []
        for index, (grid, (place, length, slant)) in enumerate(zip(self.grids, self.draws)):
            card = positions[grid]  # 6 19 3
            along = np.linspace(0, 1, 6)[None] * length[:, None] * 5  # how far up the card each control point is
            across = np.clip(place[:, None] + slant * (along / 5) ** 1.5, 0, 17.999)
            row, column = np.minimum(along.astype(int), 4), across.astype(int)
            r, c = (along - row)[..., None], (across - column)[..., None]
            low = card[row, column] * (1 - c) + card[row, column + 1] * c
            high = card[row + 1, column] * (1 - c) + card[row + 1, column + 1] * c
            strand = pin(low * (1 - r) + high * r)
            curves.append(strand)
            radii.append(taper(strand, np.full(len(strand), 0.0062 if index % 6 < 3 else 0.0042), 0.2))
        return Strands(np.concatenate(curves), np.concatenate(radii))
