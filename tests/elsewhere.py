"""A device that is not the CPU, for tests of what lies where: its tensors are the CPU's under another name.

Whatever mixes tensors of two devices raises, as it does on a GPU, and every time that numbers are fetched or sent, which
waits for a GPU, is written down.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

NAME = "elsewhere"
# The host has to know what comes out of them: a number, or how long the result is.
FETCHES = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::bincount"}


def why_not() -> str:
    """Why this torch has no such devices; "" where it has."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # noqa: F401
    except ImportError:
        return "this PyTorch has no devices written in Python"
    return ""


@cache
def register() -> None:
    """Make such devices known to torch, for as long as the process lives."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)


class Placed(Tensor):
    """A tensor there, and the CPU's that holds its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Placed:
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=f"{NAME}:0",
            storage_offset=held.storage_offset(),
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor outlived the device that it was on")


class Elsewhere(TorchDispatchMode):
    """The device, while the context lasts.

    Attributes:
        waits: how often each op made the host wait, and the place in our code that called it.
        paused: waits aren't written down for now.
    """

    def __init__(self) -> None:
        super().__init__()
        register()
        self.waits: Counter[str] = Counter()
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name, given = func._schema.name, [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor)]
        placed = [tensor for tensor in given if isinstance(tensor, Placed)]
        there = bool(placed)
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == NAME
            kwargs["device"] = torch.device("cpu")
        self._watch(name, args, kwargs, given, placed, there)
        held = tree_map_only(Placed, lambda tensor: tensor.held, (args, kwargs))
        result = func(*held[0], **held[1])
        if not there:
            return result
        known = {id(tensor.held): tensor for tensor in placed}  # what was changed in place is itself
        return tree_map_only(
            Tensor, lambda tensor: known[id(tensor)] if id(tensor) in known else Placed(tensor), result
        )

    def _watch(self, name: str, args: Any, kwargs: Any, given: list, placed: list, there: bool) -> None:
        """Raise where devices are mixed, and write down what waits."""
        if name in ("aten::_to_copy", "aten::copy_"):
            patient = kwargs.get("non_blocking") or (name == "aten::copy_" and len(args) > 2 and args[2])
            if (len(placed) != len(given) or (placed and not there) or (there and not placed)) and not patient:
                self._waited(name)
            return
        # A GPU takes a single number from the host with the call, and indices too, but these have to be sent.
        others = [tensor for tensor in given if not isinstance(tensor, Placed) and tensor.ndim]
        if placed and others:
            if not name.startswith("aten::index"):
                shapes = [tuple(tensor.shape) for tensor in given]
                raise RuntimeError(f"{name}: tensors of two devices, of shapes {shapes}")
            self._waited(name)
        masked = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in placed[1:])
        if placed and (name in FETCHES or (name.startswith("aten::index") and masked)):
            self._waited(name)

    def _waited(self, name: str) -> None:
        if not self.paused:
            frame = sys._getframe()
            while frame is not None and "/nerf/" not in frame.f_code.co_filename:
                frame = frame.f_back
            self.waits[name if frame is None else f"{name} in {frame.f_code.co_name}"] += 1
