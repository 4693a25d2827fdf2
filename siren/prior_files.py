"""A prior on disk: weights as safetensors, with its shape in the metadata."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data.errors import shown
from data.files import write_atomically
from nerf.kernels import Ops
from siren.loop import FitError
from siren.prior_model import ImagePrior, PriorConfig
from siren.store import shapes as network_shapes

MODEL = "model.safetensors"


def save_prior(prior: ImagePrior, folder: Path) -> Path:
    """Write the prior, so that whoever reads it finds the old one or the new. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in prior.state_dict().items()}
    write_atomically(folder / MODEL, save(tensors, {"prior": json.dumps(dataclasses.asdict(prior.config))}))
    return folder / MODEL


def load_prior(path: Path, ops: Ops | None = None) -> ImagePrior:
    """A trained prior, ready to complete images.

    Args:
        path: a run's folder, or the file in it.
        ops: the kernels' backend; None: the reference.

    Raises:
        FitError: no file, a broken one, or one that is no prior.
    """
    file = path if path.suffix == ".safetensors" else path / MODEL
    if not file.is_file():
        raise FitError(f"{file}: expected a trained prior, found none; make one with python -m siren.prior train")
    try:
        with safe_open(file, "pt") as opened:
            config = _config(file, (opened.metadata() or {}).get("prior", "null"))
            # Shapes first: a wrong config must not get to ask for memory.
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
            if found != (expected := shapes(config)):
                raise FitError(f"{file}: expected tensors of shapes {shown(expected)}, found {shown(found)}")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise FitError(f"{file}: expected a whole safetensors file, found a broken one: {shown(str(error))}") from None
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise FitError(f"{file}: {name}: expected numbers, found NaN or infinity")
    prior = ImagePrior(config, ops, torch.Generator())  # its own: loading must not move anyone's random numbers
    prior.load_state_dict(tensors)
    return prior.eval().requires_grad_(False)


def shapes(config: PriorConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of a prior's tensors, by name."""
    written = sum(math.prod(shape) for shape in network_shapes(config.siren).values())
    n, hidden = config.encoder_features, range(config.encoder_hidden)
    return {
        **{f"encoder.read.{name}": shape for name, shape in network_shapes(config.encoder).items()},
        **{f"encoder.hidden.{index}.weight": (n, n) for index in hidden},
        **{f"encoder.hidden.{index}.bias": (n,) for index in hidden},
        "encoder.last.weight": (config.latent, n),
        "encoder.last.bias": (config.latent,),
        "hyper.start": (written,),
        "hyper.scale": (written,),
        "hyper.hidden.weight": (config.hyper_width, config.latent),
        "hyper.hidden.bias": (config.hyper_width,),
        "hyper.last": (written, config.hyper_width),
    }


def _config(file: Path, text: str) -> PriorConfig:
    kinds = {field.name: type(field.default) for field in dataclasses.fields(PriorConfig)}
    try:
        written = json.loads(text)
    except (ValueError, RecursionError):
        written = None
    if not isinstance(written, dict) or written.keys() != kinds.keys():
        raise FitError(f"{file}: prior: expected the fields {', '.join(kinds)} in the metadata, found {shown(text)}")
    for name, kind in kinds.items():
        if type(written[name]) is not kind or not abs(written[name]) < 1e5:
            raise FitError(
                f"{file}: prior: {name}: expected a number of kind {kind.__name__}, found {shown(written[name])}"
            )
    try:
        return PriorConfig(**written)
    except ValueError as error:
        raise FitError(f"{file}: {shown(str(error))}") from None
