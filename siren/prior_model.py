"""A prior over images: a set encoder reads some pixels, a hypernetwork writes the weights of a SIREN that draws them all.

Sitzmann et al. 2020, section 4.4: the encoder C maps observations to a latent code z, the hypernetwork Psi maps z to
the weights theta of a SIREN, Phi_theta maps a place in the image to its value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.kernels import Ops
from siren.network import Siren, SirenConfig

Generated = list[tuple[Tensor, Tensor]]
"""A SIREN for each image: weights "b o i" and biases "b o" of its layers."""

SPREAD = 10.0  # brings the means over observations, which differ little between images at first, nearer to 1


@dataclass(frozen=True)
class PriorConfig:
    """A prior's shape. The paper's is larger: SIREN 2-256-256-256-256-c, everything else 256 wide.

    Attributes:
        size: width and height in pixels of the images that it learned from.
        channels: 1 (grey) or 3.
        latent: numbers in a code.
        encoder_width, encoder_layers: of the network that reads one observed pixel; its layers end in sines.
        encoder_omega: frequency of its sines.
        encoder_features: numbers that it says of each, of which the mean over the observations is taken.
        encoder_hidden: hidden layers, `encoder_features` wide, between the mean and the code.
        hyper_width: of the hypernetwork's one hidden layer.
        width, layers, omega: of the SIREN that is written, as in SirenConfig; omega is the first layer's too.
    """

    size: int = 32
    channels: int = 1
    latent: int = 128
    encoder_width: int = 128
    encoder_layers: int = 2
    encoder_omega: float = 10.0
    encoder_features: int = 512
    encoder_hidden: int = 1
    hyper_width: int = 256
    width: int = 64
    layers: int = 2
    omega: float = 15.0

    def __post_init__(self) -> None:
        for name in (
            "latent",
            "encoder_width",
            "encoder_layers",
            "encoder_features",
            "encoder_hidden",
            "hyper_width",
            "width",
            "layers",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"PriorConfig: {name}: expected at least 1, found {getattr(self, name)}")
        if self.size < 4 or self.channels not in (1, 3):
            raise ValueError(
                f"PriorConfig: expected size of at least 4 and 1 or 3 channels, found {self.size}, {self.channels}"
            )

    @property
    def siren(self) -> SirenConfig:
        """The shape of the SIREN that the hypernetwork writes."""
        return SirenConfig(2, self.channels, self.width, self.layers, self.omega, self.omega)

    @property
    def encoder(self) -> SirenConfig:
        """The shape of the network that reads where an observation is."""
        omega, outputs = self.encoder_omega, self.encoder_features * (1 + self.channels)
        return SirenConfig(2, outputs, self.encoder_width, self.encoder_layers, omega, omega)


class SetEncoder(nn.Module):
    """From a set of observed pixels, in whatever order, to a code (the paper's C).

    One observation of value v at x says a(x) + sum over channels of v_c b_c(x), where a and b are outputs of one SIREN;
    the mean over the set goes through a small network. The means of v b(x) over a whole image are its coordinates in a
    learned basis, and where all sets lie on one grid, the SIREN runs once for all of them.

    Args:
        config: the prior's shape.
        ops: the kernels' backend; None: the reference.
        generator: of the initial weights.
    """

    def __init__(self, config: PriorConfig, ops: Ops | None = None, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.channels = config.channels
        self.read = Siren(config.encoder, ops, generator)
        n = config.encoder_features
        self.hidden = nn.ModuleList(dense(n, n, generator) for _ in range(config.encoder_hidden))
        self.last = dense(n, config.latent, generator)

    def forward(self, x: Float[Tensor, "b n 2"], values: Float[Tensor, "b n c"]) -> Float[Tensor, "b k"]:
        """Codes of sets of `n` observations each.

        Args:
            x: where, in [-1, 1].
            values: what, in [-1, 1].
        """
        a, *b = self.read(x.flatten(0, 1)).unflatten(0, x.shape[:2]).chunk(1 + self.channels, dim=-1)
        said = a + sum(values[..., c, None] * b[c] for c in range(self.channels))
        return self._code(said.mean(1))

    def on_grid(
        self, places: Float[Tensor, "p 2"], values: Float[Tensor, "b p c"], share: Float[Tensor, "b p"]
    ) -> Float[Tensor, "b k"]:
        """The same for sets that lie on one grid of places.

        Args:
            values: at all places; those that aren't observed don't matter.
            share: 1/n at each set's n observed places, 0 elsewhere.
        """
        a, *b = self.read(places).chunk(1 + self.channels, dim=-1)
        return self._code(share @ a + sum((share * values[..., c]) @ b[c] for c in range(self.channels)))

    def _code(self, mean: Tensor) -> Tensor:
        h = torch.relu(SPREAD * mean)
        for layer in self.hidden:
            h = torch.relu(layer(h))
        return self.last(h)


def dense(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A layer whose outputs are as large as its inputs, which come from a ReLU."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.normal_(0, math.sqrt(2 / inputs), generator=generator)
        layer.bias.zero_()
    return layer


class Hypernetwork(nn.Module):
    """From codes to the weights of one SIREN each; before training, all codes give nearly the paper's initialisation.

    Its last layer's biases are an initial SIREN, and its last layer's outputs are in units of the bound that each layer
    of the SIREN was drawn within (1/sqrt(n) for the linear one at the end), so that one learning rate suits all of them.

    Args:
        config: the prior's shape.
        generator: of the initial weights.
    """

    scale: Tensor

    def __init__(self, config: PriorConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = config.siren
        start = Siren(self.shape, generator=generator)
        widths = [2, *[config.width] * config.layers, config.channels]
        self.sizes = [size for n, o in pairwise(widths) for size in (n * o, o)]
        flat, scale = [], []
        for layer, (weight, bias) in enumerate(zip(start.weights, start.biases)):
            n = weight.shape[1]
            bound = 1 / n if layer == 0 else math.sqrt(6 / n) / config.omega
            if layer == config.layers:
                bound = n**-0.5  # no sine follows: what is a large step for the others is a small one here
            flat += [weight.detach().flatten(), bias.detach()]
            scale += [torch.full((weight.numel(),), bound), torch.full((bias.numel(),), n**-0.5)]
        self.register_buffer("scale", torch.cat(scale))
        self.start = nn.Parameter(torch.cat(flat))
        self.hidden = dense(config.latent, config.hyper_width, generator)
        first = (
            0.01
            * math.sqrt(2 / config.hyper_width)
            * torch.randn(len(self.scale), config.hyper_width, generator=generator)
        )
        self.last = nn.Parameter(first)

    def forward(self, z: Float[Tensor, "b k"]) -> Float[Tensor, "b l"]:
        """All weights and biases, one layer after another, each layer's weights before its biases."""
        return self.start + self.scale * (torch.relu(self.hidden(z)) @ self.last.T)

    def layers(self, theta: Float[Tensor, "b l"]) -> Generated:
        """Those numbers as matrices and vectors."""
        parts = [theta[:, end - size : end] for size, end in zip(self.sizes, accumulate(self.sizes))]
        return [(w.unflatten(1, (b.shape[1], -1)), b) for w, b in zip(parts[::2], parts[1::2])]


def evaluate_sirens(layers: Generated, x: Float[Tensor, "b p 2"], omega: float) -> Float[Tensor, "b p c"]:
    """Every image's own SIREN at its own points: one matrix product for the whole batch a layer."""
    for index, (weight, bias) in enumerate(layers):
        x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
        if index < len(layers) - 1:
            x = torch.sin(omega * x)
    return x


class ImagePrior(nn.Module):
    """Encoder, hypernetwork and the SIRENs between a set of observed pixels and a whole image.

    Args:
        config: the shape.
        ops: the kernels' backend, for the encoder; None: the reference.
        generator: of the initial weights.

    Example:
        >>> prior = ImagePrior(PriorConfig())
        >>> z = prior.encode(torch.rand(4, 10, 2), torch.rand(4, 10, 1))
        >>> prior(z, torch.rand(4, 1024, 2)).shape
        torch.Size([4, 1024, 1])
    """

    def __init__(self, config: PriorConfig, ops: Ops | None = None, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = SetEncoder(config, ops, generator)
        self.hyper = Hypernetwork(config, generator)

    def encode(self, x: Float[Tensor, "b n 2"], values: Float[Tensor, "b n c"]) -> Float[Tensor, "b k"]:
        """Codes of sets of observed pixels: where and what, in [-1, 1] (`SetEncoder.forward`)."""
        return self.encoder(x, values)

    def forward(self, z: Float[Tensor, "b k"], x: Float[Tensor, "b p 2"]) -> Float[Tensor, "b p c"]:
        """Values of the images with codes `z`, at places `x`."""
        return self.draw(self.hyper(z), x)

    def draw(self, theta: Float[Tensor, "b l"], x: Float[Tensor, "b p 2"]) -> Float[Tensor, "b p c"]:
        """Values of the images whose SIRENs have the weights `theta`."""
        return evaluate_sirens(self.hyper.layers(theta), x, self.config.omega)

    def siren(self, z: Float[Tensor, "k"], ops: Ops | None = None) -> Siren:
        """One image's SIREN, a network of its own, with its derivatives and whatever else `Siren` has."""
        siren = Siren(self.config.siren, ops)
        with torch.no_grad():
            for index, (weight, bias) in enumerate(self.hyper.layers(self.hyper(z[None]))):
                siren.weights[index].copy_(weight[0])
                siren.biases[index].copy_(bias[0])
        return siren


def regularized(
    values: Float[Tensor, "b p c"],
    truth: Float[Tensor, "b p c"],
    z: Float[Tensor, "b k"],
    theta: Float[Tensor, "b l"],
    latent_weight: float,
    theta_weight: float,
) -> Float[Tensor, ""]:
    """Equation (10): mean squared error + latent_weight/k ||z||^2 + theta_weight/l ||theta||^2, mean over the images."""
    error = (values - truth).square().mean()
    return error + latent_weight * z.square().mean() + theta_weight * theta.square().mean()
