"""The perceptron that fields and warps share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.kernels.backends import Ops, load


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
        inputs, start = x, 0
        for stop in [*self.skips, len(self.weights)]:
            last = stop == len(self.weights)
            if stop > start:
                activation = self.output_activation if last else "relu"
                weights, biases = list(self.weights)[start:stop], list(self.biases)[start:stop]
                x = self.ops.mlp(x, weights, biases, "relu", activation)
            if not last:
                x = torch.cat([x, inputs], dim=-1)
            start = stop
        return x
