"""Pictures of a signed distance function: sphere tracing with shading beside the truth, and slices with the zero line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from siren.command import save_figure
from siren.network import Siren
from siren.sdf_mesh import BLOCK, gradients
from siren.sdf_shape import Shape, open3d

SIZE = 420  # pixels of a view's side
VIEWS = ((0.55, 0.4, 1.0), (-1.0, 0.65, -0.5))  # where the eye is, from the middle; y is up
SURFACE, PAPER, INK = (0.86, 0.74, 0.56), 1.0, "#30343b"
CAUTION = 0.8  # of each distance is gone at once: the network's gradient is only about 1
NEAR, STEPS = 1e-3, 128  # how near, in the cube's units, a ray must come to the surface, and its steps until then


class Rays(NamedTuple):
    """Rays of one view, row by row from the top left, and the direction of its light."""

    origins: Float[Tensor, "r 3"]
    directions: Float[Tensor, "r 3"]
    light: Float[Tensor, "3"]


def look(eye: tuple[float, float, float], size: int = SIZE, reach: float = 1.0) -> Rays:
    """A camera that looks from `eye`'s direction at a ball of radius `reach` around the cube's middle, which just fits."""
    back = torch.nn.functional.normalize(torch.tensor(eye), dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), back), dim=0)
    up = torch.linalg.cross(back, right)
    distance, half = 3.5 * reach, 1.03 / (3.5**2 - 1) ** 0.5
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    v, u = torch.meshgrid(-at * half, at * half, indexing="ij")
    directions = u.reshape(-1, 1) * right + v.reshape(-1, 1) * up - back
    light = torch.nn.functional.normalize(back + 0.5 * up - 0.45 * right, dim=0)
    return Rays((distance * back).expand(size * size, 3), torch.nn.functional.normalize(directions, dim=1), light)


@torch.no_grad()
def sphere_trace(
    siren: Siren, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Where rays first meet the network's zero level in the cube [-1, 1]^3: each step goes as far as the distance there.

    A ray that enters the cube at a negative value (an open surface's back) is followed through negative values.

    Returns:
        The distance along each ray, whose direction has length 1, and whether it met the surface.
    """
    a, b = (-1 - origins) / directions, (1 - origins) / directions
    t = torch.minimum(a, b).nan_to_num(-torch.inf).amax(1).clamp(min=0)
    end = torch.maximum(a, b).nan_to_num(torch.inf).amin(1)
    hit = torch.zeros(len(t), dtype=torch.bool)
    active = torch.nonzero(t < end)[:, 0]
    side: Tensor | None = None
    for _ in range(STEPS):
        if len(active) == 0:
            break
        points = origins[active] + t[active, None] * directions[active]
        value = torch.cat([siren(part)[:, 0] for part in points.split(BLOCK)])
        if side is None:
            side = torch.where(value < 0, -1.0, 1.0)
        value = value * side
        found = value.abs() < NEAR
        hit[active[found]] = True
        t[active] += torch.where(found, 0.0, CAUTION * value)
        keep = ~found & (t[active] < end[active])
        active, side = active[keep], side[keep]
    return t, hit


def shade(
    normals: Float[Tensor, "r 3"], hit: Bool[Tensor, " r"], directions: Float[Tensor, "r 3"], light: Float[Tensor, "3"]
) -> Float[np.ndarray, "s s 3"]:
    """A square picture in [0, 1]: a lamp beside the eye and some light from everywhere, both sides of a surface alike."""
    normals = torch.nn.functional.normalize(normals, dim=1)
    normals = torch.where((normals * directions).sum(1, keepdim=True) > 0, -normals, normals)
    lamp = (normals @ light).clamp(min=0)
    bright = 0.22 + 0.78 * lamp
    picture = bright[:, None] * torch.tensor(SURFACE) + 0.15 * lamp[:, None] ** 30
    picture = torch.where(hit[:, None], picture, torch.tensor(PAPER)).clamp(0, 1)
    side = round(len(hit) ** 0.5)
    return picture.reshape(side, side, 3).numpy()


def picture_of_network(siren: Siren, rays: Rays) -> Float[np.ndarray, "s s 3"]:
    """The zero level, sphere traced."""
    t, hit = sphere_trace(siren, rays.origins, rays.directions)
    normals = torch.zeros_like(rays.origins)
    normals[hit] = gradients(siren, (rays.origins + t[:, None] * rays.directions)[hit])
    return shade(normals, hit, rays.directions, rays.light)


def picture_of_shape(shape: Shape, rays: Rays) -> Float[np.ndarray, "s s 3"]:
    """The input with the same light: its triangles, or its points as dots."""
    if shape.mesh is None:
        return _picture_of_points(shape, rays)
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(shape.mesh.vertices.astype(np.float32), shape.mesh.faces.astype(np.uint32))
    cast = scene.cast_rays(torch.cat((rays.origins, rays.directions), 1).numpy())
    hit = torch.from_numpy(np.isfinite(cast["t_hit"].numpy()))
    return shade(torch.from_numpy(cast["primitive_normals"].numpy()), hit, rays.directions, rays.light)


def _picture_of_points(shape: Shape, rays: Rays) -> Float[np.ndarray, "s s 3"]:
    size = round(len(rays.directions) ** 0.5)
    eye, grid = rays.origins[0].double().numpy(), rays.directions.double().numpy().reshape(size, size, 3)
    back = eye / np.linalg.norm(eye)
    flat = grid / -(grid @ back)[..., None] + back  # on a plane at distance 1
    across, down = flat[0, 1] - flat[0, 0], flat[1, 0] - flat[0, 0]
    seen = shape.points - eye
    depth = -(seen @ back)
    on_plane = seen / depth[:, None] + back - flat[0, 0]
    column, row = (np.rint(on_plane @ axis / (axis @ axis)).astype(int) for axis in (across, down))
    facing = (shape.normals * seen).sum(1) < 0
    first, picked = np.full((size, size), np.inf), np.full((size, size), -1)
    order = np.flatnonzero(facing)[np.argsort(-depth[facing])]  # far to near: the nearest is drawn last
    radius = max(1, round(0.7 * size / max(len(order), 1) ** 0.5))  # dots that just cover what lies between them
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            y, x = row[order] + dy, column[order] + dx
            inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
            layer = np.full((size, size), -1)
            layer[y[inside], x[inside]] = order[inside]
            nearer = (layer >= 0) & (depth[layer] < first)
            first[nearer], picked[nearer] = depth[layer[nearer]], layer[nearer]
    hit = torch.from_numpy(picked.reshape(-1) >= 0)
    return shade(torch.from_numpy(shape.normals[picked.reshape(-1)]).float(), hit, rays.directions, rays.light)


def plot_shape(siren: Siren, shape: Shape, file: Path) -> None:
    """The input and the network from two sides, into `file`."""
    figure = Figure(figsize=(8.4, 8.8), dpi=110, facecolor="white")
    grid = figure.subplots(2, 2, gridspec_kw={"left": 0.01, "right": 0.99, "top": 0.95, "bottom": 0.01})
    reach = float(np.linalg.norm(shape.points, axis=1).max())
    given = "input: points" if shape.mesh is None else "input: mesh"
    for row, eye in zip(grid, VIEWS):
        rays = look(eye, reach=max(reach, 1e-3))
        row[0].imshow(picture_of_shape(shape, rays))
        row[1].imshow(picture_of_network(siren, rays))
    for panel, title in zip(grid[0], (given, "the network's zero level, sphere traced")):
        panel.set_title(title, fontsize=10.5, color=INK)
    for panel in grid.flat:
        panel.set_axis_off()
    save_figure(figure, file)


@torch.no_grad()
def plot_slices(siren: Siren, shape: Shape, file: Path, size: int = 256) -> None:
    """The network on three planes through the cube's middle, its zero line, and the input's points nearby."""
    figure = Figure(figsize=(13.5, 4.6), dpi=110, facecolor="white")
    side = torch.linspace(-1, 1, size)
    v, u = torch.meshgrid(side, side, indexing="ij")
    panels: list[Any] = list(figure.subplots(1, 3, gridspec_kw={"left": 0.04, "right": 0.92, "wspace": 0.24}))
    drawn: Any = None
    for panel, axis in zip(panels, range(3)):
        across, up = ((1, 2), (0, 2), (0, 1))[axis]
        plane = torch.zeros(size * size, 3)
        plane[:, across], plane[:, up] = u.reshape(-1), v.reshape(-1)
        value = torch.cat([siren(part)[:, 0] for part in plane.split(BLOCK)]).reshape(size, size).numpy()
        draw = partial(panel.contour, side.numpy(), side.numpy(), value)
        drawn = panel.imshow(value, cmap="RdBu", vmin=-0.8, vmax=0.8, origin="lower", extent=(-1, 1, -1, 1))
        draw(levels=np.linspace(-0.9, 0.9, 19), colors=INK, linewidths=0.3)
        if value.min() < 0 < value.max():
            draw(levels=[0.0], colors="black", linewidths=1.6)
        near = shape.points[np.abs(shape.points[:, axis]) < 0.004][:3000]
        panel.plot(near[:, across], near[:, up], ".", color="#f08c00", markersize=1.2)
        panel.set_title(f"{'xyz'[axis]} = 0", fontsize=10.5, color=INK)
        panel.set(xlabel="xyz"[across], ylabel="xyz"[up], xlim=(-1, 1), ylim=(-1, 1))
    figure.suptitle("signed distance in the cube; black: its zero line, orange: the input", fontsize=10.5, color=INK)
    figure.colorbar(drawn, cax=figure.add_axes((0.94, 0.14, 0.012, 0.7)))
    save_figure(figure, file)
