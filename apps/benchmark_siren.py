"""Training steps of a SIREN, and of its derivatives, beside plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from apps.measure import Limits, best, relative
from nerf.kernels import available, keep_memory, load
from nerf.kernels.cpu_library import multiplies_bfloat16
from siren.network import Siren, SirenConfig


@dataclass(frozen=True)
class SirenOptions:
    """The fit of a 256 x 256 image with the paper's network, and its derivatives."""

    points: int = 65536
    """Points of a training step: 65536 is every pixel of 256 x 256."""
    jet_points: int = 16384
    """Points of a step on derivatives."""


class Peer(nn.Module):
    """The network as vsitzmann/siren and siren-pytorch compute it: Linear, then the sine of omega times it, in torch."""

    def __init__(self, siren: Siren) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for weight, bias in zip(siren.weights, siren.biases):
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data, linear.bias.data = weight.detach().clone(), bias.detach().clone()
            self.layers.append(linear)

    def forward(self, x: Tensor) -> Tensor:
        """The signal at coordinates x."""
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == len(self.layers) - 1 else torch.sin(30.0 * layer(x))
        return x


def step_of(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One training step of Adam on a loss."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def differentiated_twice(peer: Peer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient and Laplacian by differentiating twice, as the peers do."""
    x = x.detach().requires_grad_()
    value = peer(x)
    (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    bends = [torch.autograd.grad(gradient[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    return value, gradient, torch.stack(bends).sum(0)[:, None]


def networks() -> dict[str, Siren]:
    """The paper's network on every backend and format that this machine has, all with the same weights."""
    kinds = [("reference", "float32")]
    if not available()["cpu"]:
        kinds += [("cpu", "float32")] + ([("cpu", "bfloat16")] if multiplies_bfloat16() else [])
    return {
        f"{backend}, {precision}": Siren(
            SirenConfig(), load(backend), torch.Generator().manual_seed(0), precision=precision
        )
        for backend, precision in kinds
    }


def pixels(options: SirenOptions) -> tuple[Tensor, Tensor]:
    """Points and values of an image's size."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(options.points, 2, generator=generator) * 2 - 1
    return x, torch.rand(options.points, 1, generator=generator) * 2 - 1


def peers() -> dict[str, nn.Module]:
    """Networks of the same shape as others compute them; siren-pytorch where it is installed."""
    found: dict[str, nn.Module] = {"torch, as vsitzmann/siren": Peer(next(iter(networks().values())))}
    try:
        from siren_pytorch import SirenNet
    except ImportError:
        return found
    return found | {"siren-pytorch": SirenNet(2, 256, 1, 4, w0=30.0, w0_initial=30.0)}


def fitting_of_peers(options: SirenOptions, repeats: int) -> list[dict[str, Any]]:
    """Training steps a second of the peers on an image's values; the first one's are what ratios are of."""
    x, target = pixels(options)
    rows: list[dict[str, Any]] = []
    for name, network in peers().items():
        task = step_of(network, lambda network=network: (network(x) - target).square().mean())  # type: ignore[misc]
        seconds = best(task, repeats)
        rows.append(row("fit", name, seconds, rows[0]["seconds"] if rows else seconds, 0.0))
    return rows


def fitting(options: SirenOptions, repeats: int, baseline: float) -> list[dict[str, Any]]:
    """Training steps a second of ours on an image's values."""
    x, target = pixels(options)
    ours, rows = networks(), []
    expected = Peer(next(iter(ours.values())))(x[:2048]).detach()
    for name, siren in ours.items():
        error = relative(siren(x[:2048]), expected)
        seconds = best(step_of(siren, partial(siren.squared_error, x, target)), repeats)
        rows.append(row("fit", name, seconds, baseline, error))
    return rows


def jet_loss(siren: Siren, x: Tensor, forms: Tensor) -> Tensor:
    """A loss on all derivatives of one pass."""
    found = siren.jet(x, forms)
    loss = found.gradient.square().mean()
    return loss + 1e-4 * found.second.square().mean() if len(forms) else loss


def peer_loss(peer: Peer, x: Tensor, order: int) -> Tensor:
    """The same by differentiating once or twice."""
    if order == 2:
        _, gradient, laplacian = differentiated_twice(peer, x)
        return gradient.square().mean() + 1e-4 * laplacian.square().mean()
    point = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(peer(point).sum(), point, create_graph=True)
    return gradient.square().mean()


ORDERS = {1: "gradient", 2: "gradient and Laplacian"}


def places(options: SirenOptions) -> Tensor:
    """Points of a step on derivatives."""
    return torch.rand(options.jet_points, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1


def differentiating_peer(options: SirenOptions, repeats: int, order: int) -> list[dict[str, Any]]:
    """Training steps a second on gradients (order 1), or on gradients and Laplacians (order 2), by differentiating."""
    x, peer = places(options), Peer(next(iter(networks().values())))
    seconds = best(step_of(peer, lambda: peer_loss(peer, x, order)), max(2, repeats // 2))
    return [row(ORDERS[order], "torch, differentiating", seconds, seconds, 0.0)]


def differentiating(options: SirenOptions, repeats: int, order: int, baseline: float) -> list[dict[str, Any]]:
    """The same of ours."""
    x, ours, rows = places(options), networks(), []
    few, forms, what = x[:1024], torch.eye(2)[None][: order - 1], ORDERS[order]
    expected = differentiated_twice(Peer(next(iter(ours.values()))), few)[order].detach()
    for name, siren in ours.items():
        found = siren.jet(few, forms)
        error = relative(found.gradient[:, 0] if order == 1 else found.second[:, 0], expected)
        seconds = best(step_of(siren, partial(jet_loss, siren, x, forms)), repeats)
        rows.append(row(what, name, seconds, baseline, error))
    return rows


def row(what: str, how: str, seconds: float, baseline: float, error: float) -> dict[str, Any]:
    """One line of the table. Raises RuntimeError where the result is not the peer's: a wrong answer isn't fast."""
    if not error < (0.05 if "bfloat16" in how else 1e-5):
        raise RuntimeError(f"{what}, {how}: off by {error:.1e} of the size from torch's result")
    return {"what": what, "how": how, "seconds": seconds, "ratio": baseline / seconds, "error": error}


def siren_rows(options: SirenOptions, limit: Limits, repeats: int) -> list[dict[str, Any]]:
    """All of it. The peers run first, and keep torch's own memory handling, as their own programs do."""
    theirs = (
        fitting_of_peers(options, repeats),
        differentiating_peer(options, repeats, 1),
        differentiating_peer(options, repeats, 2),
    )
    keep_memory()  # ours run so, and theirs don't: their large arrays are fresh pages at every step
    rows = theirs[0] + fitting(options, repeats, theirs[0][0]["seconds"])
    for order in (1, 2):
        rows += theirs[order] + differentiating(options, repeats, order, theirs[order][0]["seconds"])
    multiplications = sum(p.numel() for p in networks()["reference, float32"].weights)
    for line in rows:
        if line["what"] == "fit":  # forward, and two products of the same size backward
            line["share"] = 6 * multiplications * options.points / line["seconds"] / limit.float32
    return rows


def siren_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'step on':<24}{'implementation':<26}{'steps/s':>9}{'ratio':>8}{'of float32':>12}{'error':>10}"]
    for line in rows:
        share = f"{line['share']:.0%}" if "share" in line else ""
        speed = f"{1 / line['seconds']:>9.2f}{line['ratio']:>7.1f}x{share:>12}"
        lines.append(f"{line['what']:<24}{line['how']:<26}{speed}{line['error']:>10.1e}")
    return "\n".join(lines)
