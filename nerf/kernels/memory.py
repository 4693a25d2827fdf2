"""Keep the memory that the ops free, instead of handing it back to the system after every step.

On Linux, glibc returns each large block to the kernel as soon as a tensor dies, and the next one is paged in afresh:
a training step on the CPU then spends a third to half of its time in page faults.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def keep_memory(shared: bool = False) -> bool:
    """Ask the C library to serve large blocks from a heap that is kept. True where it did; harmless elsewhere.

    shared: one heap for all threads. Otherwise each thread may get one of its own, and all keep the most that they ever
    held: where many threads come and go, what one has freed serves no other, and memory grows for long.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    if shared and not mallopt(_M_ARENA_MAX, 1):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_TOP_PAD, 64 << 20)
    )


def release_memory() -> bool:
    """Hand back to the system what was kept and is free now, as after a long piece of work. True where there was any."""
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0)))
    except (OSError, AttributeError):  # not glibc
        return False
