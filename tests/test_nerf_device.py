"""Runs tests/device_runs.py in a process of its own: a new kind of device has to be there before autograd is first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import elsewhere


@pytest.mark.skipif(bool(elsewhere.why_not()), reason=elsewhere.why_not())
def test_runs_on_a_device_that_is_not_the_cpu():
    file = Path(__file__).parent / "device_runs.py"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, cwd=file.parent.parent, capture_output=True, text=True)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout[-5000:] + done.stderr[-2000:]
