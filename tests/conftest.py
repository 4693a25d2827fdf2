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

# Files are given to workers one after another. Those with a test that takes a minute come first: at the end, the other
# worker would wait for it.
FIRST = ("test_style.py", "test_nerf_kernels_cpu_runtime.py", "test_apps_viewer_browser.py", "test_nerf_poses_train.py")


def pytest_collection_modifyitems(items: list) -> None:
    """Order files."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))
