"""Which implementations of the ops this machine has, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

BACKENDS = ("reference", "cpu", "cuda", "tcnn")
# `auto` takes the first that can be had; tcnn's networks lack what most of ours have.
AUTO = ("cuda", "cpu", "reference")
ON_GPU = ("cuda", "tcnn")


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
    harmonics: Callable

    @property
    def device(self) -> torch.device:
        """Where its tensors lie; modules, photos and rays have to be there too."""
        from nerf.kernels import cuda_driver

        return torch.device(cuda_driver.driver().device_type if self.name in ON_GPU else "cpu")


@cache
def available() -> dict[str, str]:
    """Every backend, with "" where it can be used and otherwise the reason why not."""
    from nerf.kernels import cpu, cuda_driver, tcnn

    return {"reference": "", "cpu": cpu.why_not(), "cuda": cuda_driver.why_not(), "tcnn": tcnn.why_not()}


def choose(name: str = "auto", among: tuple[str, ...] = BACKENDS) -> tuple[str, str]:
    """The backend to use, and one line that says what was taken.

    Args:
        name: "auto" takes the fastest one there is; any other choice that can't be had is a `BackendError`.
        among: those that the caller can use.
    """
    here = "not for this command, whose tensors lie with the CPU"
    have = {backend: why if backend in among else here for backend, why in available().items()}
    if name == "auto":
        chosen = next(backend for backend in AUTO if not have[backend])
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
    match choose(name)[0]:
        case "cpu":
            return _cpu()
        case "cuda":
            return _cuda()
        case "tcnn":
            return _tcnn()
    return _reference()


def _reference() -> Ops:
    from nerf.kernels import adam, composite, frame, harmonics, hash_encode, march, mlp, mlp_jet, shade, warp

    return Ops(
        "reference", hash_encode.hash_encode, mlp.mlp, mlp_jet.mlp_jet, mlp.mlp_squared_error,
        composite.composite, composite.transmittance, march.march,
        frame.look, frame.frame, shade.shade, warp.warp, adam.adam, harmonics.harmonics,
    )  # fmt: skip


def _cpu() -> Ops:
    from nerf.kernels import cpu

    return Ops(
        "cpu", cpu.hash_encode, cpu.mlp, cpu.mlp_jet, cpu.mlp_squared_error,
        cpu.composite, cpu.transmittance, cpu.march, cpu.look, cpu.frame, cpu.shade, cpu.warp, cpu.adam, cpu.harmonics,
    )  # fmt: skip


def _cuda() -> Ops:
    from nerf.kernels import cuda, cuda_field

    return Ops(
        "cuda", cuda.hash_encode, cuda.mlp, cuda.mlp_jet, cuda.mlp_squared_error,
        cuda.composite, cuda.transmittance, cuda.march,
        cuda_field.look, cuda_field.frame, cuda_field.shade, cuda_field.warp, cuda.adam, cuda.harmonics,
    )  # fmt: skip


def _tcnn() -> Ops:
    from nerf.kernels import tcnn

    return replace(
        _cuda(), name="tcnn", hash_encode=tcnn.hash_encode, mlp=tcnn.mlp, mlp_squared_error=tcnn.mlp_squared_error,
        look=tcnn.look, frame=tcnn.frame, shade=tcnn.shade, warp=tcnn.warp,
    )  # fmt: skip
