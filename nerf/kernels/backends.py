"""Which implementations of the ops this machine has, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

BACKENDS = ("reference", "cpu", "cuda", "tcnn")  # slowest first; `auto` takes the last that can be had


class BackendError(RuntimeError):
    """A backend was asked for by name and can't be had. The message says why."""


@dataclass(frozen=True)
class Ops:
    """One backend's implementation of every op. Modules take it when they are built and call nothing else."""

    name: str
    hash_encode: Callable
    mlp: Callable
    mlp_jet: Callable
    mlp_squared_error: Callable
    composite: Callable
    transmittance: Callable
    march: Callable
    look: Callable
    frame: Callable
    shade: Callable
    warp: Callable
    adam: Callable


@cache
def available() -> dict[str, str]:
    """Every backend, with "" where it can be used and otherwise the reason why not."""
    from nerf.kernels import cpu

    absent = "not in this release"
    return {"reference": "", "cpu": cpu.why_not(), "cuda": absent, "tcnn": absent}


def choose(name: str = "auto") -> tuple[str, str]:
    """The backend to use, and one line that says what was taken.

    Args:
        name: "auto" takes the fastest one there is; any other choice that can't be had is a `BackendError`.
    """
    have = available()
    if name == "auto":
        chosen = next(backend for backend in reversed(BACKENDS) if not have[backend])
        others = "; ".join(f"no {backend}: {why}" for backend, why in have.items() if why)
        return chosen, f"backend {chosen}" + (f" ({others})" if others else "")
    if name not in have:
        raise BackendError(f"--backend: expected auto or one of {', '.join(have)}, found {name!r}")
    if have[name]:
        raise BackendError(f"--backend {name}: {have[name]}")
    return name, f"backend {name}"


@cache
def load(name: str) -> Ops:
    """The ops of the backend called `name`; a `BackendError` where it can't be had."""
    from nerf.kernels import adam, composite, cpu, frame, hash_encode, march, mlp, mlp_jet, shade, warp

    if choose(name)[0] == "cpu":
        return Ops(
            "cpu", cpu.hash_encode, cpu.mlp, cpu.mlp_jet, cpu.mlp_squared_error,
            cpu.composite, cpu.transmittance, cpu.march, cpu.look, cpu.frame, cpu.shade, cpu.warp, cpu.adam,
        )  # fmt: skip
    return Ops(
        "reference", hash_encode.hash_encode, mlp.mlp, mlp_jet.mlp_jet, mlp.mlp_squared_error,
        composite.composite, composite.transmittance, march.march, frame.look, frame.frame, shade.shade, warp.warp, adam.adam,
    )  # fmt: skip
