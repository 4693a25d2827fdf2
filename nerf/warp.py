"""Deformation fields: from a photo's world into the canonical scene (Park et al. 2021, "Nerfies", sections 3.1 to 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from nerf.encoding import Frequency, window
from nerf.kernels.backends import Ops, load
from nerf.kernels.frame import Motion
from nerf.kernels.screw import screw_jet
from nerf.kernels.space import Space
from nerf.kernels.warp import WarpField, displacement, share
from nerf.network import MLP
from nerf.slicing import SliceConfig

PART_WIDTH = 32  # of the network that shares places out among the rigid parts
BLOCK = 1 << 14  # points of a lattice that are warped at once: their activations stay in cache


@dataclass(frozen=True)
class WarpConfig:
    """The warp's network. Defaults are the paper's (section 4, appendix A; google/nerfies, warping.py).

    Attributes:
        kind: "se3" (equations 3 to 5) or "translation" (equation 2).
        width, depth, skip: the trunk's hidden layers; the input enters again before layer `skip` (no skip where skip >= depth).
        bands: frequency bands m of the encoded position.
        code: length of each photo's deformation code.
        start: how codes start. "random": uniform in +-0.05, as the paper's. "time": the positional encoding of their
            instant, so that a short run need not first learn to tell photos apart, and neighbours in time start alike.
        fade: 0: everything may move, as in the paper. Otherwise only what is inside the scene's cube, and motion sets in
            over this share of its half side behind the walls: the room around is spared the noise and the work.
        parts: rigid parts that a photo moves as wholes, beneath the network's own motion; 0: none, as in the paper.
        slicing: ambient coordinates beside the deformation, for what can't be deformed into one scene; None: none.
    """

    kind: str = "se3"
    width: int = 128
    depth: int = 6
    skip: int = 4
    bands: int = 8
    code: int = 8
    start: str = "random"
    fade: float = 0.0
    parts: int = 0
    slicing: SliceConfig | None = None


class Warp(nn.Module):
    """x_world -> x_canonical for a photo's code: W(x, omega_i) (Nerfies, equations 2 and 3).

    The network moves positions in units of the scene's cube (its middle at 0, its sides at +-1), so that frequency
    bands and rotations mean the same in every scene.

    Rigid parts: every photo has a twist (r, v) for each of `parts` parts, and every place belongs to them in shares that
    are the same in all photos, a softmax of a small network. The twist there is the shares' mean of the photo's twists,
    plus what the network adds. Few numbers a photo hold a head's turn to a millimetre where a network's code, which a few
    rays a step pull at, does not; they start at 0, the identity.
    """

    center: Tensor

    def __init__(
        self,
        config: WarpConfig,
        space: Space,
        ops: Ops | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if config.kind not in ("se3", "translation"):
            raise ValueError(f"WarpConfig.kind: expected 'se3' or 'translation', found {config.kind!r}")
        self.config, self.space = config, space
        self.register_buffer("center", torch.tensor(space.center), persistent=False)
        self.encoding = Frequency(config.bands)
        skips = (config.skip,) if config.skip < config.depth else ()
        outputs = 6 if config.kind == "se3" else 3
        inputs = self.encoding.width(3) + config.code
        self.shares: MLP | None = None
        if config.parts:
            if config.kind != "se3":
                raise ValueError(f"WarpConfig.parts: expected kind 'se3', found {config.kind!r}: rigid parts turn")
            self.shares = MLP(self.encoding.width(3), PART_WIDTH, 1, config.parts, ops=ops, generator=generator)
        # Heads start at 1e-4, so that training begins at the identity (section 3.1).
        self.network = MLP(
            inputs, config.width, config.depth, outputs, skips, output_scale=1e-4, ops=ops, generator=generator
        )

    def forward(
        self,
        x_world: Float[Tensor, "p 3"],
        code: Float[Tensor, "r k"],
        bands: float | None = None,
        ray: Int[Tensor, "p"] | None = None,
    ) -> Float[Tensor, "p 3"]:
        """Warp points.

        Args:
            code: a row a point; a row a ray, where `ray` says which ray each point is of.
            bands: anneals the encoding from 0 to config.bands; None leaves it fully on.
        """
        return self.network.ops.warp(x_world, code, ray, self.space, self.field(bands))

    def field(self, bands: float | None = None) -> WarpField:
        """The deformation as the kernels take it, with so many bands let in."""
        config, network, shares = self.config, self.network, self.shares
        let_in = window(config.bands, config.bands if bands is None else bands, self.center)
        return WarpField(
            list(network.weights), list(network.biases), network.skips,
            [] if shares is None else list(shares.weights), [] if shares is None else list(shares.biases),
            let_in, config.fade, config.kind == "se3",
        )  # fmt: skip

    @property
    def bakes(self) -> bool:
        """Whether a motion says all that the warp does: what lies beyond the cube stays there, or nothing does."""
        return self.config.fade > 0 or not self.space.contract

    @torch.no_grad()
    def bake(
        self,
        code: Float[Tensor, "k"],
        bands: float | None = None,
        size: int = 65,
        where: Bool[Tensor, "n n n"] | None = None,
    ) -> Motion:
        """The warp of one code on a lattice, for pictures: a sample reads it for a hundredth of what the network costs.

        65 points an axis are 275 000 points of the network; a small picture asks for millions. Of a portrait's warp of 6
        bands, pictures keep 46 to 48 dB to those of the warp itself, and held-out views their PSNR.

        Args:
            size: lattice points along an axis.
            where: lattice points that are asked for (`OccupancyGrid.corners`), 0 at all others; None: everywhere.
        """
        if not self.bakes:
            raise ValueError(
                "Warp.bake: expected fade > 0 or a space that isn't contracted, found motion out of the cube"
            )
        axis = torch.linspace(-1, 1, size, dtype=self.center.dtype, device=self.center.device)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        points = torch.stack([x, y, z], dim=-1).view(-1, 3)
        lattice = torch.zeros_like(points)
        rows = torch.arange(len(points)) if where is None else where.flatten().nonzero().squeeze(1)
        for block in rows.split(BLOCK):
            here = points[block]
            motion = displacement(here, code.expand(len(here), -1), self.field(bands), self.network.ops.mlp)
            lattice[block] = motion * share(here, self.config.fade) if self.config.fade else motion
        return Motion(lattice.view(size, size, size, 3))

    def jacobian(
        self, x_world: Float[Tensor, "p 3"], code: Float[Tensor, "p k"], bands: float | None = None
    ) -> Float[Tensor, "p 3 3"]:
        """dW/dx in closed form: the networks' derivatives in forward mode, and the product rule from there on.

        Differentiable in the weights, the codes and the points.
        """
        y = (x_world - self.center.to(x_world)) / self.space.half
        still = torch.eye(3, dtype=y.dtype, device=y.device).expand(len(y), 3, 3)
        if not self.config.fade:
            return still + self._motion_jet(y, code, bands)[1]
        inside = (y.detach().abs().amax(-1) < 1).nonzero().squeeze(1)
        y = y[inside]
        motion, slopes = self._motion_jet(y, code[inside], bands)
        made = share(y, self.config.fade)
        pull = -y.sign() / (1 - y.abs())  # of a factor below 1: its derivative over itself
        pull = torch.where(1 - y.abs() < self.config.fade, pull * made, 0.0)
        return still.index_add(0, inside, slopes * made[:, :, None] + motion[:, :, None] * pull[:, None, :])

    def _motion_jet(
        self, y: Float[Tensor, "p 3"], code: Float[Tensor, "p k"], bands: float | None
    ) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3 3"]]:
        """`displacement`, and its derivatives by y."""
        encoded, parts = self.encoding(y, bands), self.config.parts
        code, twists = code.split([code.shape[1] - 6 * parts, 6 * parts], dim=1)
        slopes = self.encoding.slopes(encoded, 3)
        own = torch.arange(slopes.shape[1], device=y.device) % 3 == torch.arange(3, device=y.device)[:, None]
        tangents = slopes * own[:, None].to(y)  # 3 p o: each feature depends on one coordinate alone
        out, slope, _ = self.network.jet(torch.cat([encoded, code], dim=-1), F.pad(tangents, (0, code.shape[1])))
        if self.shares is not None:
            raw = self.shares.jet(encoded, tangents)
            shares, twists = torch.softmax(raw.value, dim=-1)[:, :, None], twists.reshape(len(y), parts, 6)
            out = out + (shares * twists).sum(1)
            by_share = shares * (raw.gradient - (shares * raw.gradient).sum(1, keepdim=True))
            slope = slope + twists.transpose(1, 2) @ by_share
        if self.config.kind == "translation":
            return out, slope
        moved, by_y = screw_jet(y, out[:, :3], out[:, 3:], slope[:, :3], slope[:, 3:])
        return moved - y, by_y - torch.eye(3, dtype=y.dtype, device=y.device)


class reference_ops:
    """Run a module's networks on the reference ops, the ones that can be differentiated twice, inside the block."""

    def __init__(self, module: nn.Module) -> None:
        self.networks = [network for network in module.modules() if isinstance(network, MLP)]

    def __enter__(self) -> None:
        self.kept = [network.ops for network in self.networks]
        for network in self.networks:
            network.ops = load("reference")

    def __exit__(self, *_: object) -> None:
        for network, ops in zip(self.networks, self.kept):
            network.ops = ops


class Codes(nn.Module):
    """One latent code per photo or instant; between two instants codes are mixed linearly (section 3.2).

    Args:
        times: the instant of each code in [0, 1], in any order.
        size: length of a code.
        start: see `WarpConfig`.
        zeros: numbers that follow the code and start at 0.
    """

    times: Tensor
    order: Tensor

    def __init__(
        self,
        times: Float[Tensor, "n"],
        size: int,
        generator: torch.Generator | None = None,
        start: str = "random",
        zeros: int = 0,
    ) -> None:
        super().__init__()
        self.register_buffer("times", times.float(), persistent=False)
        self.register_buffer("order", times.argsort(), persistent=False)
        match start:
            case "random":
                codes = torch.empty(len(times), size).uniform_(-0.05, 0.05, generator=generator)
            case "time":
                codes = Frequency((size + 1) // 2, include_input=False)(times.float()[:, None])[:, :size]
            case _:
                raise ValueError(f"WarpConfig.start: expected 'random' or 'time', found {start!r}")
        self.table = nn.Parameter(torch.cat([codes, torch.zeros(len(times), zeros)], dim=1))

    def forward(self, index: Tensor) -> Float[Tensor, "r k"]:
        """Codes by index."""
        return self.table[index]

    def at(self, time: Float[Tensor, "r"]) -> Float[Tensor, "r k"]:
        """Codes at any instants, mixed from the neighbours in time; held beyond the first and the last."""
        if len(self.times) == 1:
            return self.table.expand(len(time), -1)
        ascending = self.times[self.order]
        upper = torch.searchsorted(ascending, time.contiguous()).clamp(1, len(ascending) - 1)
        low, high = ascending[upper - 1], ascending[upper]
        share = ((time - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)[:, None]
        return torch.lerp(self.table[self.order[upper - 1]], self.table[self.order[upper]], share)
