"""Ambient slicing: each photo is a slice of a scene with more than three dimensions (Park et al. 2021, "HyperNeRF").

A deformation maps the photo's space onto one canonical scene, so it can't open a mouth that is shut there. With m further
coordinates w beside the canonical place, the template F(x', w) holds many shapes, and a photo shows the slice of it that
its w lies on (section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerf.encoding import Frequency
from nerf.kernels.backends import Ops
from nerf.kernels.space import Space
from nerf.network import MLP

KINDS = ("plane", "sheet")


@dataclass(frozen=True)
class SliceConfig:
    """The slicing surface. Defaults are HyperNeRF's (section 5, "implementation details", and its authors' settings).

    Attributes:
        kind: "plane": axis-aligned slices, w is the same all over a photo: the first m numbers of its deformation code
            (section 4.2, "axis-aligned slicing plane"). "sheet": a network bends the slice, w = H(x, code) (equation 6).
        ambient: m, the ambient coordinates.
        ambient_bands: frequency bands that the template sees them through, without w itself.
        width, depth, skip, bands: the sheet's network, as `WarpConfig` has them.
    """

    kind: str = "sheet"
    ambient: int = 2
    ambient_bands: int = 1
    width: int = 64
    depth: int = 6
    skip: int = 4
    bands: int = 6


class Slicing(nn.Module):
    """x_world, code -> ambient coordinates, encoded as the template takes them.

    Args:
        config: which surface.
        space: the cube that positions are measured in, as the warp's.
        code: length of each photo's deformation code.
        fade: the sheet comes back to w = 0 on the cube's walls, over this share of its half side; 0: it goes on forever.
    """

    center: Tensor

    def __init__(
        self,
        config: SliceConfig,
        space: Space,
        code: int,
        fade: float = 0.0,
        ops: Ops | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if config.kind not in KINDS:
            raise ValueError(f"SliceConfig.kind: expected one of {', '.join(KINDS)}, found {config.kind!r}")
        if config.kind == "plane" and config.ambient > code:
            raise ValueError(f"SliceConfig.ambient: expected at most the code's {code}, found {config.ambient}")
        self.config, self.space, self.code, self.fade = config, space, code, fade
        self.register_buffer("center", torch.tensor(space.center), persistent=False)
        self.ambient = Frequency(config.ambient_bands, include_input=False)
        self.network: MLP | None = None
        if config.kind == "sheet":
            self.position = Frequency(config.bands)
            skips = (config.skip,) if config.skip < config.depth else ()
            inputs = self.position.width(3) + code
            # It starts flat: all photos lie on one slice until they have reason not to (HyperNeRF, appendix: 1e-5).
            self.network = MLP(
                inputs, config.width, config.depth, config.ambient, skips, output_scale=1e-5, ops=ops,
                generator=generator,
            )  # fmt: skip

    @property
    def width(self) -> int:
        """Features that the template gets."""
        return self.ambient.width(self.config.ambient)

    def forward(
        self,
        x_world: Float[Tensor, "p 3"],
        code: Float[Tensor, "p k"] | None,
        bands: float | None = None,
        ambient_bands: float | None = None,
    ) -> Float[Tensor, "p e"]:
        """Encoded ambient coordinates.

        Args:
            code: the photos' deformation codes; what follows them in a row isn't read. None: the canonical slice, w = 0.
            bands: frequency bands of the position that the sheet's network has so far; None: all.
            ambient_bands: those of w that the template has so far; None: all.
        """
        if code is None:
            w = x_world.new_zeros(len(x_world), self.config.ambient)
        elif self.network is None:
            w = code[:, : self.config.ambient]
        else:
            w = self._sheet(x_world, code[:, : self.code], bands)
        return self.ambient(w, ambient_bands)

    def _sheet(self, x_world: Tensor, code: Tensor, bands: float | None) -> Float[Tensor, "p m"]:
        assert self.network is not None
        y = (x_world - self.center.to(x_world)) / self.space.half
        if not self.fade:
            return self.network(torch.cat([self.position(y, bands), code], dim=-1))
        inside = (y.detach().abs().amax(-1) < 1).nonzero().squeeze(1)
        y = y[inside]
        share = ((1 - y.abs()) / self.fade).clamp(max=1).prod(-1, keepdim=True)
        w = self.network(torch.cat([self.position(y, bands), code[inside]], dim=-1)) * share
        return x_world.new_zeros(len(x_world), self.config.ambient).index_add(0, inside, w)
