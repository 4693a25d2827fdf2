"""What every test runs under: shape annotations that hold, and two threads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import beartype
import torch
from jaxtyping import install_import_hook

# Helpers beside the tests are found as `trees` and as `tests.trees`, however pytest was started.
_here = Path(__file__).resolve().parent
sys.path[:0] = [str(_here.parent), str(_here)]

# An int is welcome where a float is asked for, as everywhere in Python (PEP 484).
typechecker = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))

# Before anything imports the packages: each call checks that its tensors have the annotated types and shapes.
install_import_hook(["data", "nerf"], f"{__name__}.typechecker")

torch.set_num_threads(min(2, os.cpu_count() or 1))
