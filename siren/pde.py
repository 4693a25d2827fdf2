"""Differential equations solved with a SIREN (section 4.3): `python -m siren.pde helmholtz|wave|poisson --out DIR`.

For equations of one's own take the functions: `helmholtz`, `wave` and `poisson` accept any sources, media, initial states
and right-hand sides, and return a `Solution`: call it for the field, ask it for `residuals()`, save its `siren`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from data.errors import shown
from data.films import write_video
from siren.command import backend, follow, length, run, write_metrics
from siren.loop import FitError, Schedule
from siren.pde_basis import Function, nothing
from siren.pde_helmholtz import helmholtz
from siren.pde_linear import Solution
from siren.pde_plot import film, plot_field, plot_wave
from siren.pde_poisson import poisson
from siren.pde_wave import Boundary, wave
from siren.store import NETWORK, save_network

__all__ = ["Solution", "helmholtz", "poisson", "wave"]


@dataclass(frozen=True)
class Common:
    """What all equations share."""

    out: Path | None = None
    """Folder for field.png, metrics.json and network.safetensors. Default: runs/<equation>."""
    features: int | None = None
    """Width of the sine layer (at most so many for wave and poisson). Default: as many as it takes, up to 4500."""
    steps: int | None = None
    """Then refine all layers with so many steps of Adam; kept where the residual falls. Default: none."""
    budget: str | None = None
    """Or refine for this long: 15s, 5m, 1h."""
    rate: float = 1e-7
    """Adam's learning rate: small, since it starts at what least squares found."""
    resume: bool = False
    """Go on with the refinement in the folder."""
    backend: str = "auto"
    """Kernels for the refinement: auto, reference or cpu."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True)
class Helmholtz(Common):
    """Waves of one frequency from Gaussian sources in free space: u_xx + u_yy + k^2 m u = -f on [-1, 1]^2."""

    wavenumber: float = 20.0
    """k."""
    sources: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    """Centres: --sources 0.2 -0.1 0.5 0.5 are two."""
    width: float = 0.05
    """The Gaussians' standard deviation."""
    slowness: Path | None = None
    """Squared slowness m as FILE.npy, "h w" over the square, top row at y = 1; read bilinearly. Default: 1."""


@dataclass(frozen=True)
class Wave(Common):
    """A Gaussian pulse that moves: u_tt = c^2 (u_xx + u_yy) on [-1, 1]^2, or u_tt = c^2 u_xx on [-1, 1]."""

    dims: int = 2
    """1 or 2."""
    speed: float = 1.0
    """c."""
    position: tuple[float, float] = (0.0, 0.0)
    """The pulse's centre (x alone counts in one dimension)."""
    width: float = 0.1
    """Its standard deviation."""
    displacement: float = 1.0
    """Its height in u at t = 0."""
    velocity: float = 0.0
    """Its height in u_t at t = 0."""
    duration: float = 0.8
    """The last instant."""
    boundary: Boundary = "free"
    """free: the wave leaves; dirichlet: u = 0 on the edges."""


@dataclass(frozen=True)
class Poisson(Common):
    """u_xx + u_yy = f on [-1, 1]^2 with u given on the edges, both made from a known u: a Gaussian plus x^2 - y^2."""

    position: tuple[float, float] = (0.2, -0.1)
    """The Gaussian's centre."""
    width: float = 0.1
    """Its standard deviation."""


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Solve a differential equation with a SIREN."""

    equation: (
        Annotated[Helmholtz, tyro.conf.subcommand("helmholtz")]
        | Annotated[Wave, tyro.conf.subcommand("wave")]
        | Annotated[Poisson, tyro.conf.subcommand("poisson")]
    )
    """helmholtz, wave or poisson."""


def bar(chunks: Sequence[Any]) -> Iterable[Any]:
    """A list with a progress bar."""
    return tqdm(chunks, desc="least squares", dynamic_ncols=True, leave=False)


def grid_slowness(values: np.ndarray, extent: float = 1.0) -> Function:
    """A squared slowness given as samples "h w" over [-extent, extent]^2, top row at y = extent, read bilinearly."""
    table = torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float64)[None, None]

    def read(x: Tensor) -> Tensor:
        places = (x / extent * torch.tensor([1.0, -1.0], dtype=x.dtype))[None, None]
        return F.grid_sample(table, places, padding_mode="border", align_corners=True)[0, 0, 0]

    return read


def read_slowness(file: Path) -> Function:
    """`grid_slowness` of a .npy file. Raises FitError."""
    try:
        values = np.load(file, allow_pickle=False)
    except Exception as error:  # NumPy's reader ends in anything from EOFError to tokenize.TokenError
        raise FitError(f"{file}: expected an array (.npy), found: {shown(str(error))}") from None
    if (
        not isinstance(values, np.ndarray)
        or values.ndim != 2
        or min(values.shape) < 2
        or values.dtype.kind not in "fiu"
    ):
        found = getattr(values, "shape", type(values).__name__)
        raise FitError(f"{file}: expected numbers of shape h w, at least 2 each, found {found}")
    if not (np.isfinite(values).all() and values.min() > 0):
        raise FitError(f"{file}: expected positive finite squared slownesses, found others")
    return grid_slowness(values)


def pulse(position: Sequence[float], width: float, height: float = 1.0) -> Function:
    """A Gaussian hill."""
    if not 0 < width < math.inf:
        raise FitError(f"--width: expected a positive number, found {width}")
    centre = torch.tensor(list(position), dtype=torch.float64)
    return lambda x: height * torch.exp(-(x - centre).square().sum(1) / (2 * width**2))


def solve_helmholtz(options: Helmholtz, ops: Any) -> tuple[Solution, dict[str, float]]:
    """The equation with the command's sources, and its error against the closed form where m = 1 and scipy is there."""
    medium = None if options.slowness is None else read_slowness(options.slowness)
    sources = list(options.sources)
    solution = helmholtz(
        options.wavenumber, sources, options.width, medium, None, 1.0, None, options.features, options.seed, ops, bar
    )
    if medium is not None:
        return solution, {}
    try:
        from scipy.special import hankel1
    except ImportError:
        print("no scipy, so the field isn't compared with its closed form; pip install scipy")
        return solution, {}
    x = torch.rand(8192, 2, generator=torch.Generator().manual_seed(options.seed), dtype=torch.float64) * 2 - 1
    r = (x[:, None] - torch.tensor(sources, dtype=torch.float64)).norm(dim=-1)
    k, s = options.wavenumber, options.width
    exact = 0.25j * math.exp(-((k * s) ** 2) / 2) * torch.from_numpy(hankel1(0, k * r.numpy())).sum(1)
    beyond = (r > 4 * solution.about["solved_width"]).all(1)
    return solution, {"relative_error": difference(solution(x)[beyond], exact[beyond])}


def solve_wave(options: Wave, ops: Any) -> tuple[Solution, dict[str, float]]:
    """The equation with the command's pulse, and its error against d'Alembert's formula on a line without edges."""
    place = options.position[: options.dims]
    initial, velocity = (pulse(place, options.width, h) for h in (options.displacement, options.velocity))
    if options.velocity == 0:
        velocity = nothing
    more: dict[str, Any] = {} if options.features is None else {"features": options.features}
    solution = wave(
        initial, velocity, options.speed, options.duration, options.dims, options.boundary,
        seed=options.seed, ops=ops, wrap=bar, **more,
    )  # fmt: skip
    if options.dims != 1 or options.boundary != "free":
        return solution, {}
    x = torch.rand(8192, 2, generator=torch.Generator().manual_seed(options.seed), dtype=torch.float64)
    t, y = x[:, 0] * options.duration, x[:, 1] * 2 - 1
    ahead, behind = ((y + sign * options.speed * t - options.position[0]) for sign in (1, -1))
    s = options.width
    hills = [torch.exp(-(z**2) / (2 * s**2)) for z in (ahead, behind)]
    areas = [math.sqrt(math.pi / 2) * s * torch.erf(z / (s * math.sqrt(2))) for z in (ahead, behind)]
    exact = options.displacement * (hills[0] + hills[1]) / 2
    exact += options.velocity * (areas[0] - areas[1]) / (2 * options.speed)
    return solution, {"relative_error": difference(solution(torch.stack((t, y), 1)), exact)}


def solve_poisson(options: Poisson, ops: Any) -> tuple[Solution, dict[str, float]]:
    """The equation for a known solution, and the error."""
    hill, s = pulse(options.position, options.width), options.width
    centre = torch.tensor(options.position, dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        return hill(x) + x[:, 0] ** 2 - x[:, 1] ** 2

    def rhs(x: Tensor) -> Tensor:
        return hill(x) * ((x - centre).square().sum(1) / s**4 - 2 / s**2)

    more: dict[str, Any] = {} if options.features is None else {"features": options.features}
    solution = poisson(rhs, exact, seed=options.seed, ops=ops, wrap=bar, **more)
    x = torch.rand(8192, 2, generator=torch.Generator().manual_seed(options.seed), dtype=torch.float64) * 2 - 1
    return solution, {"relative_error": difference(solution(x), exact(x))}


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative L2 error."""
    return float((found - expected).norm() / expected.norm())


def command(chosen: Options) -> None:
    """Solve, refine if asked, and write."""
    options = chosen.equation
    if options.resume and options.steps is None and options.budget is None:
        raise FitError("--resume: expected --steps or --budget with it, found none")
    ops = backend(options.backend)
    name = type(options).__name__.lower()
    out = options.out or Path("runs") / name
    if isinstance(options, Helmholtz):
        solution, figures = solve_helmholtz(options, ops)
    elif isinstance(options, Wave):
        solution, figures = solve_wave(options, ops)
    else:
        solution, figures = solve_poisson(options, ops)
    if options.steps is not None or options.budget is not None:
        steps, budget = length(options.steps, options.budget, Schedule())
        schedule = Schedule(steps, budget, options.rate, seed=options.seed)
        again = f"Go on with the same command and --out {out} --resume"
        last = follow(solution.refine(schedule, out=out, resume=options.resume), "refine", again)
        solution.about["steps"] = last.step
    write(solution, figures, out)


def write(solution: Solution, figures: dict[str, float], out: Path) -> None:
    """The folder's files, and one line on screen."""
    about = solution.about
    residuals = solution.residuals()
    save_network(out / NETWORK, solution.siren, about)
    pictures = "field.png"
    if about["equation"] == "wave":
        plot_wave(solution, out / "field.png")
        if about["dims"] == 2:
            write_video(out / "wave.mp4", film(solution), 24)
            pictures += ", wave.mp4"
    else:
        square = about.get("extent", 1.0)
        plot_field(solution, about.get("low", [-square] * 2), about.get("high", [square] * 2), out / "field.png")
    write_metrics(out, {**about, "residuals": residuals, "residual": max(residuals.values()), **figures})
    error = f", relative error {100 * figures['relative_error']:.3g} %" if figures else ""
    print(
        f"{about['equation']}: {about['features']} features in {about['seconds']:.1f} s, relative residual "
        f"{max(residuals.values()):.2g}{error}\n{out}: {pictures}, metrics.json, {NETWORK}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    run(Options, command, "siren.pde", arguments)


if __name__ == "__main__":
    main()
