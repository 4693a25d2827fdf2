"""A fitted network as one file: safetensors, with its shape and what it stands for as JSON in the metadata."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from data.errors import shown
from data.files import write_atomically
from nerf.kernels import Ops
from siren.loop import FitError
from siren.network import Siren, SirenConfig

NETWORK = "network.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_KEY = "siren"  # one entry: safetensors doesn't keep the order of several, and equal fits should give equal files


def save_network(path: Path, siren: Siren, about: dict[str, Any], dtype: str = "float32") -> int:
    """Write a network so that whoever reads `path` finds the old file or the whole new one.

    Args:
        about: what a reader needs to use it (such as a sound's sample rate); anything that JSON can say.
        dtype: of the stored numbers: float32, or half as many bytes with float16 or bfloat16.

    Returns:
        The file's size in bytes.

    Raises:
        FitError: a number that isn't finite or doesn't fit `dtype`, `about` that isn't JSON, or a place that can't be
            written.
    """
    if dtype not in DTYPES:
        raise FitError(f"{path}: dtype: expected one of {', '.join(DTYPES)}, found {dtype!r}")
    tensors = {}
    for name, value in siren.state_dict().items():
        tensors[name] = value.detach().cpu().to(DTYPES[dtype]).contiguous()
        if not tensors[name].isfinite().all():
            raise FitError(f"{path}: {name}: expected finite numbers that fit {dtype}, found {_worst(value)}")
    try:
        said = json.dumps({"config": asdict(siren.config), "about": about}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FitError(f"{path}: about: expected values that JSON can say, found: {error}") from None
    data = save(tensors, {_KEY: said})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise FitError(f"{path}: expected a place that can be written, found: {error}") from None
    return len(data)


def load_network(path: Path, ops: Ops | None = None) -> tuple[Siren, dict[str, Any]]:
    """The network that `save_network` wrote, in float32, and what was said about it.

    Args:
        ops: the kernels to run it with; None: the reference.

    Raises:
        FitError: a file that is missing, broken, or not a network's; the sentence names the field.
    """
    if not path.is_file():
        raise FitError(
            f"{path}: expected a fitted network ({NETWORK}), found {'a folder' if path.is_dir() else 'none'}"
        )
    try:
        with safe_open(path, "pt") as file:
            config, about = _read_metadata((file.metadata() or {}).get(_KEY), path)
            # Shapes first: a wrong config must not get to ask for memory.
            _check({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, config, path)  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise FitError(f"{path}: expected a whole safetensors file, found a broken one: {shown(str(error))}") from None
    for name, value in tensors.items():
        if value.dtype not in DTYPES.values():
            raise FitError(f"{path}: {name}: expected {', '.join(DTYPES)}, found {str(value.dtype)[6:]}")
        if not value.isfinite().all():
            raise FitError(f"{path}: {name}: expected finite numbers, found {_worst(value)}")
    siren = Siren(config, ops, torch.Generator())  # its own generator: loading must not move anyone's random numbers
    siren.load_state_dict({name: value.float() for name, value in tensors.items()})
    return siren, about


def shapes(config: SirenConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of a network's tensors, by name."""
    widths = [config.inputs, *[config.width] * config.layers, config.outputs]
    sizes = list(enumerate(pairwise(widths)))
    return {f"weights.{i}": (o, n) for i, (n, o) in sizes} | {f"biases.{i}": (o,) for i, (_, o) in sizes}


def _read_metadata(said: str | None, path: Path) -> tuple[SirenConfig, dict[str, Any]]:
    if said is None:
        raise FitError(f"{path}: metadata: expected an entry {_KEY!r}, found none; it is no network of this project")
    try:
        metadata = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise FitError(f"{path}: metadata: expected JSON, found: {error}") from None
    for name in ("config", "about"):
        if not isinstance(metadata, dict) or not isinstance(metadata.get(name), dict):
            raise FitError(f"{path}: metadata: {name}: expected an object, found {_short(said)}")
    return _read_config(metadata["config"], path), metadata["about"]


def _read_config(values: dict[str, Any], path: Path) -> SirenConfig:
    names = {field.name: field.type for field in fields(SirenConfig)}
    if odd := sorted(set(values) ^ set(names)):
        found = "none" if odd[0] in names else "it"
        raise FitError(f"{path}: config: {odd[0]}: expected the fields {', '.join(names)}, found {found}")
    checked: dict[str, Any] = {}
    for name, kind in names.items():
        value, whole = values[name], kind in (int, "int")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or abs(value) > 1e18:
            wanted = "a whole number" if whole else "a number"
            raise FitError(f"{path}: config: {name}: expected {wanted}, found {_short(value)}")
        checked[name] = value if whole else float(value)
    try:
        config = SirenConfig(**checked)
    except ValueError as error:
        raise FitError(f"{path}: config: {error}") from None
    if config.layers > 1000:  # before a list of so many shapes is made
        raise FitError(f"{path}: config: layers: expected at most 1000, found {config.layers}")
    return config


def _check(found: dict[str, tuple[int, ...]], config: SirenConfig, path: Path) -> None:
    expected = shapes(config)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise FitError(f"{path}: {name}: expected shape {expected.get(name)}, found {found.get(name)}")


def _worst(value: Tensor) -> float:
    """The number that is least at home in a network: NaN, else the one of largest magnitude."""
    flat = value.detach().float().flatten()
    return math.nan if flat.isnan().any() else float(flat[flat.abs().argmax()])


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
