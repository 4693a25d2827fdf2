"""Radiance fields of still and moving scenes."""

import os

# Idle OpenMP threads otherwise spin on the cores that our own kernels use; torch reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
