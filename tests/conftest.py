"""What every test runs under: shape annotations that hold, and two threads."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 (the hook finds it by its name)

# Before anything imports the packages: each call checks that its tensors have the annotated types and shapes.
install_import_hook(["data", "nerf", "siren", "apps"], "tests.typechecker.typechecker")

torch.set_num_threads(min(2, os.cpu_count() or 1))

# After the hook, since it imports the kernels.
from tests.cpu_levels import level, seed  # noqa: E402, F401 (fixtures)
