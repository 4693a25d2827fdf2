"""Page faults, counted by the kernel itself, with and without memory that is kept."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nerf.kernels import memory

PROBE = """
import ctypes, resource, sys
from nerf.kernels.memory import keep_memory
kept = keep_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 64 << 20
def use():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", PROBE, mode], capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_blocks_are_reused_without_page_faults():
    kept, count = faults("keep")
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    # Above 32 MiB glibc never keeps a block by itself. Ten rounds of 64 MiB are 163840 small pages, or 320 huge ones.
    assert faults("leave")[1] > 300
    assert count < 30


RELEASED = """
import ctypes
from nerf.kernels.memory import keep_memory, release_memory
kept = keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
resident = lambda: next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))
block, above = libc.malloc(64 << 20), libc.malloc(1 << 20)
ctypes.memset(block, 1, 64 << 20)
libc.free(block)  # in the middle of the heap
before = resident()
print(kept and release_memory(), before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_what_is_free_is_handed_back_when_asked():
    done = subprocess.run([sys.executable, "-c", RELEASED], capture_output=True, text=True, check=True)
    there, released = done.stdout.split()
    if there == "False":
        pytest.skip("this C library has no malloc_trim")
    assert 60 < float(released) < 70


THREADS = """
import ctypes, sys, threading
from nerf.kernels.memory import keep_memory
kept = keep_memory(shared=sys.argv[1] == "shared")
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
turn, met = threading.Lock(), threading.Barrier(6)
def use():
    libc.free(libc.malloc(100))
    met.wait()  # all are there at once, but take memory one after another
    with turn:
        block = libc.malloc(40 << 20)
        ctypes.memset(block, 1, 40 << 20)
        libc.free(block)
    met.wait()
threads = [threading.Thread(target=use) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(kept, next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_threads_that_share_a_heap_use_what_others_have_freed():
    found = {}
    for mode in ("shared", "own"):
        done = subprocess.run([sys.executable, "-c", THREADS, mode], capture_output=True, text=True, check=True)
        kept, found[mode] = done.stdout.split()
        if kept == "False":
            pytest.skip("this C library has no mallopt")
    assert float(found["own"]) > float(found["shared"]) + 3 * 40  # MB: six threads' and one's


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.keep_memory() is False and memory.release_memory() is False


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(memory.sys, "platform", "linux")
    assert memory.keep_memory() is False and memory.release_memory() is False
