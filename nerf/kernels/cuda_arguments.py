"""What the `cuda` backend's launch code shares: structures that kernels take, and tensors as they read them."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from nerf.kernels import cuda_driver

_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "i": ctypes.c_int32, "f": ctypes.c_float}


def fields(**names: str) -> list[tuple[str, type]]:
    """Fields of a kernel's structure: names by type (p pointer, l int64, i int32, f float), in the order given."""
    return [(name, _TYPES[kind]) for kind, listed in names.items() for name in listed.split()]


def check(op: str, *tensors: Tensor) -> None:
    """Raise unless tensors are float32 and lie on one device that the backend runs on."""
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        found = ", ".join(str(tensor.dtype) for tensor in tensors)
        raise TypeError(
            f"{op}: the cuda backend takes float32 tensors; use backend reference for others, found {found}"
        )
    together(op, *tensors)


def together(op: str, *tensors: Tensor) -> None:
    """Raise unless tensors lie on one device that the backend runs on."""
    kind, devices = cuda_driver.device_type(), {tensor.device for tensor in tensors}
    if len(devices) != 1 or next(iter(devices)).type != kind:
        raise ValueError(
            f"{op}: the cuda backend takes tensors on one {kind} device, found {sorted(map(str, devices))}"
        )


def ready(tensor: Tensor) -> Tensor:
    """The tensor as kernels read it: contiguous, and on a boundary of 16 bytes, which some slices are not."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def place(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers begin; None: nowhere."""
    return None if tensor is None else tensor.data_ptr()
