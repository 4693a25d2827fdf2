"""The sinusoidal network: y = W_n (sin(omega ...)) + b_n, its initialisation, and its derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.kernels import Ops, load
from nerf.kernels.mlp_jet import Jet
from siren.loop import FitError


@dataclass(frozen=True)
class SirenConfig:
    """A network's shape; the defaults are the paper's for images (section 4.1): 2-256-256-256-256-1.

    Attributes:
        inputs, outputs: coordinates in, channels out.
        width, layers: of the layers that end in a sine; one linear layer follows.
        omega: frequency of all sines but the first layer's (section 3.2: 30).
        first_omega: of the first layer's; it spreads the initial network over the signal's frequencies.
    """

    inputs: int = 2
    outputs: int = 1
    width: int = 256
    layers: int = 4
    omega: float = 30.0
    first_omega: float = 30.0

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "width", "layers"):
            if getattr(self, name) < 1:
                raise FitError(f"network: {name}: expected at least 1, found {getattr(self, name)}")
        for name in ("omega", "first_omega"):
            if not 1e-9 < getattr(self, name) < 1e9:  # past these, weights are no float32 numbers
                raise FitError(
                    f"network: {name}: expected a positive number from 1e-9 to 1e9, found {getattr(self, name)}"
                )


class Siren(nn.Module):
    """A SIREN. Its weights start so that every sine's argument is distributed as a standard normal at any depth.

    First layer U(-1/n, 1/n), the others U(-sqrt(6/n)/omega, sqrt(6/n)/omega) for n inputs (section 3.2, theorem 1.8 of the
    supplement); biases U(-1/sqrt(n), 1/sqrt(n)), as the authors' code has them.

    Args:
        config: the shape.
        ops: the kernels' backend; None: the reference.
        generator: of the initial weights; None takes torch's own.
        precision: what the kernels multiply, "float32" or "bfloat16"; only the backend cpu has the second.

    Example:
        >>> siren = Siren(SirenConfig())
        >>> sum(p.numel() for p in siren.parameters())
        198401
    """

    def __init__(
        self,
        config: SirenConfig,
        ops: Ops | None = None,
        generator: torch.Generator | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.config, self.ops, self.precision = config, ops or load("reference"), precision
        if precision != "float32" and self.ops.name != "cpu":
            raise ValueError(f"Siren: precision: expected float32 on backend {self.ops.name}, found {precision!r}")
        widths = [config.inputs, *[config.width] * config.layers, config.outputs]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer, (n, outputs) in enumerate(pairwise(widths)):
            bound = 1 / n if layer == 0 else math.sqrt(6 / n) / config.omega
            weight, bias = torch.empty(outputs, n), torch.empty(outputs)
            self.weights.append(nn.Parameter(weight.uniform_(-bound, bound, generator=generator)))
            self.biases.append(nn.Parameter(bias.uniform_(-(n**-0.5), n**-0.5, generator=generator)))

    def layers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases as the kernels take them: all sines of one omega, the first layer scaled to have its own."""
        weights, biases = list(self.weights), list(self.biases)
        if (own := self.config.first_omega / self.config.omega) != 1:
            weights[0], biases[0] = weights[0] * own, biases[0] * own
        return weights, biases

    def forward(self, x: Float[Tensor, "p i"]) -> Float[Tensor, "p o"]:
        """The signal at coordinates x."""
        weights, biases = self.layers()
        return self.ops.mlp(x, weights, biases, "sine", "none", self.config.omega, dtype=self.precision)

    def squared_error(self, x: Float[Tensor, "p i"], target: Float[Tensor, "p o"]) -> Float[Tensor, ""]:
        """Mean squared difference of the outputs from `target`; trains a third faster than one made from `forward`."""
        weights, biases = self.layers()
        return self.ops.mlp_squared_error(x, target, weights, biases, "sine", self.config.omega, dtype=self.precision)

    def jet(self, x: Float[Tensor, "p i"], forms: Float[Tensor, "m i i"] | None = None) -> Jet:
        """Value, gradient and quadratic forms of second derivatives in one pass (`nerf.kernels.mlp_jet`).

        Args:
            forms: symmetric matrices; None: no second derivatives.
        """
        weights, biases = self.layers()
        if forms is None:
            forms = x.new_zeros(0, self.config.inputs, self.config.inputs)
        return self.ops.mlp_jet(x, weights, biases, forms.to(x), "sine", self.config.omega, dtype=self.precision)

    def gradient(self, x: Float[Tensor, "p i"]) -> Float[Tensor, "p o i"]:
        """Derivatives of every output by every coordinate."""
        return self.jet(x).gradient

    def laplacian(self, x: Float[Tensor, "p i"]) -> Float[Tensor, "p o"]:
        """Sum of every output's unmixed second derivatives."""
        return self.jet(x, torch.eye(self.config.inputs)[None]).second[..., 0]
