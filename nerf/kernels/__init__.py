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

# Named twice, which says that they are meant to be had from here; an __all__ would hide the modules from the reference.
from nerf.kernels.backends import BACKENDS as BACKENDS
from nerf.kernels.backends import BackendError as BackendError
from nerf.kernels.backends import Ops as Ops
from nerf.kernels.backends import available as available
from nerf.kernels.backends import choose as choose
from nerf.kernels.backends import load as load
from nerf.kernels.memory import keep_memory as keep_memory
from nerf.kernels.memory import release_memory as release_memory
