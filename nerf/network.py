"""The perceptron that fields and warps share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.kernels.backends import Ops, load
from nerf.kernels.mlp_jet import Jet


class MLP(nn.Module):
    """`depth` hidden layers of `width`, then a linear layer; inputs may enter again before the layers in `skips`.

    Args:
        inputs, outputs: features in and out.
        width, depth: of the hidden layers.
        skips: indices of hidden layers that see the inputs beside the layer before (NeRF: layer 5 of 8, index 5).
        output_activation: one of `nerf.kernels.mlp.ACTIVATIONS`.
        output_scale: the last layer starts uniform in +-output_scale with zero bias; None: as the hidden ones.
        ops: the kernels' backend.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        outputs: int,
        skips: tuple[int, ...] = (),
        output_activation: str = "none",
        output_scale: float | None = None,
        ops: Ops | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.ops, self.skips, self.output_activation = ops or load("reference"), skips, output_activation
        sizes = [inputs] + [width] * depth
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for index, into in enumerate(sizes):
            last = index == depth
            fan_in, fan_out = into + (inputs if index in skips else 0), outputs if last else width
            weight = torch.empty(fan_out, fan_in)
            # Glorot's uniform range, as both papers' code starts its layers.
            bound = output_scale if last and output_scale is not None else (6 / (fan_in + fan_out)) ** 0.5
            self.weights.append(nn.Parameter(weight.uniform_(-bound, bound, generator=generator)))
            self.biases.append(nn.Parameter(torch.zeros(fan_out)))

    def forward(self, x: Float[Tensor, "p i"]) -> Float[Tensor, "p o"]:
        """The last layer's outputs, behind `output_activation`."""
        weights, biases = list(self.weights), list(self.biases)
        return self.ops.mlp(x, weights, biases, "relu", self.output_activation, skips=self.skips)

    def jet(self, x: Float[Tensor, "p i"], tangents: Float[Tensor, "d p i"], dtype: str = "auto") -> Jet:
        """Outputs before their activation and, as `gradient` "p o d", their derivatives by the d coordinates that x moves
        along `tangents` with; both in one pass (`nerf.kernels.mlp_jet`). `second` is empty."""
        forms = x.new_zeros(0, len(tangents), len(tangents))
        weights, biases = list(self.weights), list(self.biases)
        return self.ops.mlp_jet(x, weights, biases, forms, "relu", dtype=dtype, tangents=tangents, skips=self.skips)
