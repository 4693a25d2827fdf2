"""One camera, and a stack of them: pixels to rays and points to pixels."""

# NOTE [Conventions]
# The one statement of the conventions that every part of the project follows. Readers convert, nothing else does.
#
# World       right-handed; no axis is "up" by decree (a scene carries its own mean up direction).
# Pose        camera-to-world, 3x4, float32, rotation orthonormal. Camera axes as in OpenGL: x right, y up, and the
#             camera looks along -z.
# Pixels      (column, row) from the upper left corner of the image, in pixels, centres at +0.5: the first pixel's
#             centre is (0.5, 0.5), and the image spans [0, width] x [0, height]. The principal point is in the same
#             frame.
# Lens        x, y on the plane one unit ahead of the camera, x right and y DOWN (as in OpenCV, so that published
#             coefficients work unchanged), are distorted to x', y', then u = fx x' + skew y' + cx, v = fy y' + cy.
#             opencv   r2 = x2 + y2;  g = (1 + k1 r2 + k2 r4 + k3 r6) / (1 + k4 r2 + k5 r4 + k6 r6)
#                      x' = x g + 2 p1 x y + p2 (r2 + 2 x2);  y' = y g + p1 (r2 + 2 y2) + 2 p2 x y
#                      stored in OpenCV's order k1 k2 p1 p2 k3 k4 k5 k6; all zero is a pinhole.
#             fisheye  theta = angle from the optical axis; theta' = theta (1 + k1 theta2 + k2 theta4 + k3 theta6 +
#                      k4 theta8) is the distance of (x', y') from the centre; stored as k1 k2 k3 k4.
# Rays        directions have unit length, so a ray's `t` is distance in scene units everywhere.
# Colour      display-referred; uint8 in memory, [0, 1] in arithmetic. Density is in 1 / scene unit.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.errors import SceneError, shown

MODELS = ("opencv", "fisheye")
LARGEST = 1_000_000  # pixels a side
_NEWTON_STEPS = 10  # float64 converges in at most 6 for lenses that can be inverted; the rest serve extreme corners
_FISHEYE_STEPS = 20


@dataclass(frozen=True, eq=False)
class Camera:
    """One posed camera. See NOTE [Conventions] for axes, pixels and lens models.

    Lengths in pixels: `width`, `height`, `fx`, `fy`, `cx`, `cy`, `skew`. `distortion` holds up to 8 numbers (missing
    ones are zero). Raises SceneError if a number isn't finite, a size or focal length isn't positive, or the
    model is unknown.
    """

    pose: Float[Tensor, "3 4"]
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: str = "opencv"
    distortion: tuple[float, ...] = (0.0,) * 8
    skew: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "cx", "cy", "skew"):
            object.__setattr__(self, name, float(getattr(self, name)))
        lens = tuple(float(k) for k in self.distortion)
        object.__setattr__(self, "distortion", lens + (0.0,) * (8 - len(lens)))
        if self.model not in MODELS:
            raise SceneError(f"camera: model: expected one of {', '.join(MODELS)}, found {self.model!r}")
        if len(lens) > 8:
            raise SceneError(f"camera: distortion: expected at most 8 coefficients, found {len(lens)}")
        if self.width < 1 or self.height < 1:
            raise SceneError(f"camera: size: expected at least 1x1 pixels, found {self.width}x{self.height}")
        if max(self.width, self.height) > LARGEST:
            raise SceneError(
                f"camera: size: expected at most {LARGEST} pixels a side, found {shown((self.width, self.height))}"
            )
        for name in ("fx", "fy"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise SceneError(f"camera: {name}: expected a positive number, found {getattr(self, name)}")
        if not all(math.isfinite(v) for v in (self.cx, self.cy, self.skew, *lens)):
            raise SceneError("camera: cx, cy, skew, distortion: expected finite numbers, found NaN or infinity")

    @property
    def distorted(self) -> bool:
        """Whether rays need the lens undone (a fisheye always does)."""
        return self.model == "fisheye" or any(self.distortion)

    def scaled(self, factor: float, width: int | None = None, height: int | None = None) -> Camera:
        """The camera of the same photo resized by `factor`. Sizes default to the rounded ones; the intrinsics follow
        the exact ratio of sizes in each axis, so that the image's corners stay where they were."""
        w = max(1, round(self.width * factor)) if width is None else width
        h = max(1, round(self.height * factor)) if height is None else height
        sx, sy = w / self.width, h / self.height
        return replace(
            self,
            width=w,
            height=h,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
            skew=self.skew * sx,
        )

    def with_pose(self, pose: Float[Tensor, "3 4"]) -> Camera:
        """The same lens elsewhere."""
        return replace(self, pose=pose)

    def depth(self, x_world: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Distance along the optical axis, in scene units: positive in front of the camera."""
        return -_to_camera(self.pose, x_world)[:, 2]

    def project(self, x_world: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        """World points to pixels (column, row), in `x_world`'s precision. NaN for points that the lens can't see:
        on or behind the camera's plane, or for a fisheye the centre of projection itself."""
        x, y, z = _to_camera(self.pose, x_world).unbind(-1)
        x, y, z = x, -y, -z
        lens = x_world.new_tensor(self.distortion).unsqueeze(0)
        if self.model == "fisheye":
            r = torch.hypot(x, y)
            theta = torch.atan2(r, z)
            # r = 0 on the axis, where theta' / r tends to 1 / z.
            ratio = torch.where(r > 0, _fisheye(theta, lens)[0] / r.clamp_min(1e-30), 1 / z)
            xy = torch.stack((x * ratio, y * ratio), -1)
            xy = torch.where(((r > 0) | (z > 0)).unsqueeze(-1), xy, torch.nan)
        else:
            xy = torch.stack((x, y), -1) / torch.where(z > 0, z, torch.nan).unsqueeze(-1)
            xy = _opencv(xy, lens)[0]
        u = self.fx * xy[:, 0] + self.skew * xy[:, 1] + self.cx
        return torch.stack((u, self.fy * xy[:, 1] + self.cy), -1)

    def rays(self, pixels: Float[Tensor, "n 2"] | None = None) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Origins and unit directions in the world, in scene units, through `pixels` (column, row; fractional ones
        are welcome). None: through every pixel's centre, row by row. float64 pixels give float64 rays."""
        if pixels is None:
            pixels = self.pixel_centres()
        camera = Cameras.stack([self]).to(pixels.device)
        return camera.turned(slice(None), camera.local(slice(None), pixels))

    @property
    def lens(self) -> tuple[object, ...]:
        """What tells rays in the camera's axes from another camera's: all but its pose."""
        return (
            self.width, self.height, self.fx, self.fy, self.cx, self.cy, self.skew, self.model, self.distortion
        )  # fmt: skip

    def pixel_centres(self) -> Float[Tensor, "n 2"]:
        """Every pixel's centre, row by row, as (column, row)."""
        y = torch.arange(self.height, device=self.pose.device) + 0.5
        x = torch.arange(self.width, device=self.pose.device) + 0.5
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        return torch.stack((columns, rows), -1).reshape(-1, 2)


@dataclass(eq=False)
class Cameras:
    """A stack of cameras, for rays through random pixels of random photos at once.

    `poses` may be replaced or differentiated; the lenses are constants (kept in float64: pixels in the thousands
    leave float32 too few digits to undo a lens).
    """

    poses: Float[Tensor, "n 3 4"]
    intrinsics: Float[Tensor, "n 5"]  # fx fy cx cy skew
    distortion: Float[Tensor, "n 8"] | None  # None: no camera has any, and undistortion is skipped
    fisheye: tuple[bool, ...]

    @staticmethod
    def stack(cameras: Sequence[Camera]) -> Cameras:
        """A stack of `cameras`, which may differ in everything. Raises SceneError if there are none."""
        if not cameras:
            raise SceneError("cameras: expected at least one camera, found none")
        distorted = any(c.distorted for c in cameras)
        pose = torch.stack([c.pose for c in cameras])
        lens = torch.tensor([c.distortion for c in cameras], dtype=torch.float64, device=pose.device)
        inside = [(c.fx, c.fy, c.cx, c.cy, c.skew) for c in cameras]
        return Cameras(
            poses=pose,
            intrinsics=torch.tensor(inside, dtype=torch.float64, device=pose.device),
            distortion=lens if distorted else None,
            fisheye=tuple(c.model == "fisheye" for c in cameras),
        )

    def __len__(self) -> int:
        return self.poses.shape[0]

    def to(self, device: torch.device | str) -> Cameras:
        """The same stack on another device."""
        lens = None if self.distortion is None else self.distortion.to(device)
        return Cameras(self.poses.to(device), self.intrinsics.to(device), lens, self.fisheye)

    def rays(
        self, index: Int[Tensor, " n"], pixels: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Origins and unit directions through pixel `pixels[i]` (column, row) of camera `index[i]`."""
        return self.turned(index, self.local(index, pixels))

    def local(self, index: Int[Tensor, " n"] | slice, pixels: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """Unit directions through pixel `pixels[i]` of camera `index[i]`, in that camera's axes: the lens undone."""
        inside = self.intrinsics[index]
        lens = None if self.distortion is None else self.distortion[index]
        # Without a lens to undo, float32 is exact enough: one rounding of a pixel's place.
        work = pixels.to(inside.dtype) if lens is not None else pixels
        fx, fy, cx, cy, skew = inside.to(work.dtype).unbind(-1)
        y = (work[:, 1] - cy) / fy
        x = (work[:, 0] - cx - skew * y) / fx
        xy = torch.stack((x, y), -1)
        if lens is None:
            local = torch.stack((x, -y, -torch.ones_like(x)), -1)
        elif not any(self.fisheye):
            local = _ahead(_undo_opencv(xy, lens))
        elif all(self.fisheye):
            local = _undo_fisheye(xy, lens)
        else:
            fish = torch.tensor(self.fisheye, device=xy.device)[index].unsqueeze(-1)
            local = torch.where(fish, _undo_fisheye(xy, lens), _ahead(_undo_opencv(xy, lens)))
        return torch.nn.functional.normalize(local, dim=-1).to(pixels.dtype)

    def turned(
        self, index: Int[Tensor, " n"] | slice, local: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Origins and directions in the world of directions `local[i]` in the axes of camera `index[i]`."""
        pose = self.poses[index].to(local.dtype)
        return pose[:, :, 3].expand_as(local), (pose[:, :, :3] * local.unsqueeze(1)).sum(-1)


def _to_camera(pose: Tensor, x_world: Tensor) -> Tensor:
    pose = pose.to(x_world)
    return (x_world - pose[:, 3]) @ pose[:, :3]


def _ahead(xy: Tensor) -> Tensor:
    """Points on the image plane, y down, to directions in camera axes."""
    return torch.stack((xy[..., 0], -xy[..., 1], -torch.ones_like(xy[..., 0])), -1)


def _opencv(xy: Tensor, lens: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Distorted points, and their Jacobian's entries xx, xy = yx, yy (it is symmetric)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = lens.unbind(-1)
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    top = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    g = top / below
    slope = (k1 + r2 * (2 * k2 + r2 * 3 * k3) - g * (k4 + r2 * (2 * k5 + r2 * 3 * k6))) / below
    out_x = x * g + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    out_y = y * g + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    jxx = g + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    jxy = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    jyy = g + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return torch.stack((out_x, out_y), -1), (jxx, jxy, jyy)


def _undo_opencv(target: Tensor, lens: Tensor) -> Tensor:
    """The points that the lens moves to `target`, by Newton's method from `target` itself.

    The centre of the image is where the Jacobian is the identity; iterates that leave the region around it where it
    stays positive definite have crossed a fold of the lens and would converge to a wrong branch: there a step is half
    of the residual instead. Long steps are shortened. A pixel that no point reaches (outside of a folding lens's
    image) keeps the iterate of the least residual, so every ray is finite.
    """
    point, best = target, target
    least = torch.full_like(target[..., 0], torch.inf)
    for _ in range(_NEWTON_STEPS):
        image, (jxx, jxy, jyy) = _opencv(point, lens)
        miss = target - image
        size = torch.where(torch.isfinite(miss).all(-1), miss.square().sum(-1), torch.inf)
        better = size < least
        best = torch.where(better.unsqueeze(-1), point, best)
        least = torch.where(better, size, least)
        if _done(least):
            return best
        det = jxx * jyy - jxy * jxy
        safe = (det > 1e-3) & (jxx + jyy > 0)
        inverse = 1 / torch.where(safe, det, 1)
        newton = torch.stack((jyy * miss[..., 0] - jxy * miss[..., 1], jxx * miss[..., 1] - jxy * miss[..., 0]), -1)
        step = torch.where(safe.unsqueeze(-1), newton * inverse.unsqueeze(-1), 0.5 * miss)
        limit = 0.5 + 0.5 * point.norm(dim=-1)
        point = point + step * (limit / step.norm(dim=-1).clamp_min(1e-30)).clamp_max(1).unsqueeze(-1)
        point = torch.where(torch.isfinite(point), point, best)
    size = (target - _opencv(point, lens)[0]).square().sum(-1)
    return torch.where((size < least).unsqueeze(-1), point, best)


def _done(squared_miss: Tensor) -> bool:
    """Whether all misses are below 1e-10, so that the steps that are left can be saved. Asking a GPU would make it
    wait, which costs more than the steps."""
    return not squared_miss.is_cuda and bool((squared_miss < 1e-20).all())


def _fisheye(theta: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """theta' and its derivative by theta."""
    k1, k2, k3, k4 = lens[..., :4].unbind(-1)
    t2 = theta * theta
    value = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    return value, 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))


def _undo_fisheye(xy: Tensor, lens: Tensor) -> Tensor:
    """Directions in camera axes (unit) of distorted points `xy`: Newton's method on the angle, kept in a bracket.

    The bracket is [0, pi]: where a step would leave it or the slope isn't positive, it is halved instead. Angles at
    which the lens folds are treated as lying above the answer, so the branch that contains the centre is found.
    """
    radius = xy.norm(dim=-1)
    low, high = torch.zeros_like(radius), torch.full_like(radius, math.pi)
    theta = radius.clamp_max(0.5 * math.pi)
    for _ in range(_FISHEYE_STEPS):
        value, slope = _fisheye(theta, lens)
        if _done((value - radius).square()):
            break
        over = (value > radius) | (slope <= 0)
        low, high = torch.where(over, low, theta), torch.where(over, theta, high)
        step = theta + (radius - value) / torch.where(slope > 0, slope, 1)
        inside = (step >= low) & (step <= high) & (slope > 0)
        theta = torch.where(inside, step, 0.5 * (low + high))
    around = xy / radius.clamp_min(1e-30).unsqueeze(-1) * torch.sin(theta).unsqueeze(-1)
    return torch.stack((around[..., 0], -around[..., 1], -torch.cos(theta)), -1)
