"""Radiance fields in canonical space: where things are, and what colour they have from a direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.encoding import Frequency, HashGrid, SphericalHarmonics, window
from nerf.kernels.backends import Ops, load
from nerf.kernels.frame import GridField, TruncatedExp
from nerf.kernels.hash_encode import GridGeometry
from nerf.kernels.space import Space, constant, to_unit
from nerf.network import MLP


@dataclass(frozen=True)
class NerfFieldConfig:
    """The network of Mildenhall et al. 2020 (figure 7 of the appendix).

    Attributes:
        width, depth, skip: 8 hidden layers of 256; the position enters again at the fifth layer's output.
        color_width: 128, the one hidden layer of the view branch.
        position_bands, direction_bands: L = 10 and L = 4 (section 5.1).
        density_activation: "relu" in NeRF; "softplus" in Nerfies.
        noise: standard deviation of the noise on the raw density in training (NeRF, appendix A: 1 for real scenes).
    """

    width: int = 256
    depth: int = 8
    skip: int = 5
    color_width: int = 128
    position_bands: int = 10
    direction_bands: int = 4
    density_activation: str = "relu"
    noise: float = 0.0


@dataclass(frozen=True)
class HashFieldConfig:
    """A hash grid with two small networks behind it (Mueller et al. 2022, section 5.4).

    Attributes:
        levels, features, log2_rows, base_resolution, finest_resolution: the grid, see `GridGeometry`.
        width: of the hidden layers.
        color_depth: hidden layers of the colour network (the density network has one).
        geometry_features: what the density network hands to the colour network, the raw density included.
        density_bias: density = exp(raw + bias): a bias above 0 lets the first steps see something.
    """

    levels: int = 8
    features: int = 4
    log2_rows: int = 17
    base_resolution: int = 16
    finest_resolution: int = 2048
    width: int = 64
    color_depth: int = 2
    geometry_features: int = 16
    density_bias: float = 0.0


class _Field(nn.Module):
    """What the fields share.

    Attributes:
        noise: standard deviation of the noise on the raw density in training.
        levels: how many there are of what the position's detail comes in: the grid's levels, or frequency bands.
        detail: how many of them are let in, from the coarsest (`nerf.encoding.window`); training's schedule moves it.
    """

    noise = 0.0
    levels: int
    detail: Tensor
    direction: nn.Module

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("detail", torch.tensor(float(levels)))

    @property
    def plain(self) -> bool:
        """Whether the kernels that go through a whole field can take it, as `grid_field` gives it."""
        return False

    def grid_field(self) -> GridField | None:
        """The field as those kernels take it; None: they can't."""
        return None

    def view(self, d: Float[Tensor, "r 3"], appearance: Float[Tensor, "r a"] | None) -> Float[Tensor, "r v"]:
        """What colour depends on beside the place: the encoded unit direction and the appearance code, per ray."""
        encoded = self.direction(d)
        return encoded if appearance is None else torch.cat([encoded, appearance], dim=-1)


class NerfField(_Field):
    """NeRF's network: density from the position, colour from its features, the direction and an appearance code."""

    def __init__(
        self,
        config: NerfFieldConfig,
        space: Space,
        appearance: int = 0,
        ops: Ops | None = None,
        generator: torch.Generator | None = None,
        ambient: int = 0,
    ) -> None:
        super().__init__(config.position_bands)
        self.config, self.space, self.noise = config, space, config.noise
        self.position, self.direction = Frequency(config.position_bands), Frequency(config.direction_bands)
        inputs, width = self.position.width(3) + ambient, config.width
        self.trunk = MLP(
            inputs,
            width,
            config.depth - 1,
            width,
            (config.skip,),
            output_activation="relu",
            ops=ops,
            generator=generator,
        )
        self.density_head = MLP(width, width, 0, 1, ops=ops, generator=generator)
        self.bottleneck = MLP(width, width, 0, width, ops=ops, generator=generator)
        self.color_head = MLP(
            width + self.direction.width(3) + appearance,
            config.color_width,
            1,
            3,
            output_activation="sigmoid",
            ops=ops,
            generator=generator,
        )

    def density(
        self,
        x_canonical: Float[Tensor, "p 3"],
        noise: Float[Tensor, "p"] | None = None,
        ambient: Float[Tensor, "p e"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Density "p" (1 / scene unit) and the features "p w" that colour needs.

        noise: added to the raw density. ambient: encoded ambient coordinates, where the scene is sliced.
        """
        center = constant(self.space.center, x_canonical)
        encoded = self.position((x_canonical - center) / self.space.half, float(self.detail))
        inputs = encoded if ambient is None else torch.cat([encoded, ambient], dim=-1)
        trunk, (weights, biases) = self.trunk, self._heads()
        layers = [*trunk.weights, weights], [*trunk.biases, biases]
        out = trunk.ops.mlp(inputs, *layers, "relu", "none", skips=trunk.skips)
        raw, features = out.split([1, out.shape[1] - 1], dim=1)
        raw = raw.squeeze(1)
        if noise is not None:
            raw = raw + noise
        sigma = torch.relu(raw) if self.config.density_activation == "relu" else nn.functional.softplus(raw)
        # The papers' densities are per unit of their normalised scenes, whose cube has the half side 1.
        return sigma / self.space.half, features

    def color(self, features: Tensor, view: Float[Tensor, "p v"]) -> Float[Tensor, "p 3"]:
        """Colour in [0, 1] of samples, from `density`'s features and each one's row of `view`."""
        first, last = self.color_head.weights
        hidden = torch.relu(torch.addmm(features, view, first[:, self.config.width :].T))
        return self.color_head.ops.mlp(hidden, [last], [self.color_head.biases[1]], output_activation="sigmoid")

    def _heads(self) -> tuple[Tensor, Tensor]:
        """One matrix and bias for the density head and all that leads from the trunk to the colour's hidden layer.

        Nothing bends between the bottleneck and that layer, so their product does what they do one after the other.
        """
        onward, bottleneck = self.color_head.weights[0][:, : self.config.width], self.bottleneck
        weights = torch.cat([self.density_head.weights[0], onward @ bottleneck.weights[0]])
        bias = self.color_head.biases[0] + onward @ bottleneck.biases[0]
        return weights, torch.cat([self.density_head.biases[0], bias])


class HashField(_Field):
    """Hash grid -> density network -> colour network with spherical harmonics of the direction."""

    def __init__(
        self,
        config: HashFieldConfig,
        space: Space,
        appearance: int = 0,
        ops: Ops | None = None,
        generator: torch.Generator | None = None,
        ambient: int = 0,
    ) -> None:
        super().__init__(config.levels)
        self.config, self.space, self.ambient = config, space, ambient
        geometry = GridGeometry(
            config.levels, config.features, config.log2_rows, config.base_resolution, config.finest_resolution
        )
        self.grid = HashGrid(geometry, ops, generator)
        self.direction = SphericalHarmonics(ops)
        out = config.geometry_features
        self.density_network = MLP(self.grid.width + ambient, config.width, 1, out, ops=ops, generator=generator)
        self.color_head = MLP(
            out + self.direction.width + appearance,
            config.width,
            config.color_depth,
            3,
            output_activation="sigmoid",
            ops=ops,
            generator=generator,
        )

    def density(
        self,
        x_canonical: Float[Tensor, "p 3"],
        noise: Float[Tensor, "p"] | None = None,
        ambient: Float[Tensor, "p e"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Density "p" (1 / scene unit) and the features "p g" that colour needs.

        noise: added to the raw density. ambient: encoded ambient coordinates, where the scene is sliced.
        """
        encoded = self.grid(to_unit(x_canonical, self.space))
        if float(self.detail) < self.levels:
            encoded = encoded * self._shares(encoded)
        features = self.density_network(encoded if ambient is None else torch.cat([encoded, ambient], dim=-1))
        raw = features[:, 0] + self.config.density_bias
        sigma = TruncatedExp.apply(raw if noise is None else raw + noise)
        return sigma / self.space.half, features

    def color(self, features: Tensor, view: Float[Tensor, "p v"]) -> Float[Tensor, "p 3"]:
        """Colour in [0, 1] of samples, from `density`'s features and each one's row of `view`."""
        return self.color_head(torch.cat([features, view], dim=-1))

    def _shares(self, like: Tensor) -> Float[Tensor, "o"]:
        """How far each of the grid's features is let in."""
        return window(self.levels, self.detail, like).repeat_interleave(self.config.features)

    @property
    def plain(self) -> bool:
        """A sliced field isn't."""
        return not self.ambient

    def grid_field(self) -> GridField | None:
        """The field as the kernels that go through all of it take it; None where it is sliced."""
        if not self.plain:
            return None
        density, color = self.density_network, self.color_head
        weights = list(density.weights)
        if float(self.detail) < self.levels:
            # What a feature counts for is the same whether it or its column of weights is made smaller.
            weights[0] = weights[0] * self._shares(weights[0])
        return GridField(
            self.grid.table, self.grid.geometry, weights, list(density.biases), list(color.weights),
            list(color.biases), self.config.density_bias, 1 / self.space.half,
        )  # fmt: skip


def build_field(
    config: NerfFieldConfig | HashFieldConfig,
    space: Space,
    appearance: int,
    ops: Ops | None = None,
    generator: torch.Generator | None = None,
    ambient: int = 0,
) -> NerfField | HashField:
    """The field that `config` describes; `ambient`: encoded ambient coordinates that it takes beside the position."""
    match config:
        case NerfFieldConfig():
            return NerfField(config, space, appearance, ops or load("reference"), generator, ambient)
        case HashFieldConfig():
            return HashField(config, space, appearance, ops or load("reference"), generator, ambient)
