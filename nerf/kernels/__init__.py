"""The ops that everything is built from, each behind one signature with several implementations.

| backend     | what it is                                                        | where it runs           |
|-------------|-------------------------------------------------------------------|-------------------------|
| `reference` | plain torch, written to be read: it is the definition             | anywhere torch runs     |
| `cpu`       | C++ twin, SIMD and threads, built when the package is installed   | x86-64 and Arm          |
| `cuda`      | CUDA C++ that ships as text, compiled by NVRTC at first use       | NVIDIA, sm_75 and newer |
| `tcnn`      | tiny-cuda-nn's networks, where it is installed and can            | NVIDIA                  |

`python -m nerf.kernels` prints which of them this machine has, and why not the others. Nothing here imports the
rest of the project.
"""

from nerf.kernels.backends import BACKENDS, BackendError, Ops, available, choose, load
from nerf.kernels.memory import keep_memory

__all__ = ["BACKENDS", "BackendError", "Ops", "available", "choose", "keep_memory", "load"]
