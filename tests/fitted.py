"""What tests of the viewer's fits share: small networks on an engine of their own, and images as files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from apps.viewer import fits as fits_file
from apps.viewer.engine import Engine
from apps.viewer.fits import Fits


@pytest.fixture(name="fits")
def fits_of_small_networks():
    engine = Engine()
    yield Fits(engine, backend="reference")
    engine.stop()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Networks small enough to be quick."""
    for module in (fits_file.fitting, fits_file.poisson):
        options = module.Options
        monkeypatch.setattr(module, "Options", lambda *a, _make=options, **k: _make(*a, width=48, **k))
    monkeypatch.setattr(fits_file, "BATCH", dict.fromkeys(fits_file.BATCH, 512))


def waves(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """A smooth colour picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    parts = [np.cos(2 * np.pi * (a * x + b * y) + c) for a, b, c in rng.uniform(-1.5, 1.5, (3, 3))]
    return np.clip(127 + 60 * np.stack(parts, -1), 0, 255).astype(np.uint8)


def coded(pixels: np.ndarray, kind: str = "PNG", **more) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **more)
    return data.getvalue()
