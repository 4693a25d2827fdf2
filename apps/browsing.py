"""The viewer as a process, and a Chromium to look at it with: what measuring it from outside takes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nerf.config import ConfigError

# Without a screen, and silent towards the outside.
BROWSER = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START, STOP = 90.0, 60.0  # seconds until the viewer must answer, and must have ended
HOME = Path(__file__).resolve().parent.parent


@contextmanager
def viewer(
    arguments: Sequence[str], folder: Path, log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`python -m apps.viewer` in a folder: its address and its process, which is ended with Ctrl-C. What it says goes to
    `log`; `variables` are added to its environment. Raises ConfigError where it doesn't start."""
    command = [sys.executable, "-m", "apps.viewer", "--port", "0", *arguments]
    path = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, **(variables or {})}
    with open(log, "wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT, env=environment)
    try:
        until = time.monotonic() + START
        while not (found := re.search(r"open (http://\S+)", log.read_text(errors="replace"))):
            if process.poll() is not None or time.monotonic() > until:
                told = " ".join(log.read_text(errors="replace").split())[-300:]
                raise ConfigError(f"apps.viewer {' '.join(arguments)}: expected it to start, found: {told}")
            time.sleep(0.1)
        yield found[1], process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium. Raises ConfigError where it, or what drives it, is missing."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise ConfigError("expected playwright to drive a browser with, found none; pip install playwright") from None
    with sync_playwright() as playwright:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        try:
            browser = playwright.chromium.launch(executable_path=program, args=BROWSER)
        except Error as error:
            raise ConfigError(f"expected Chromium, found none: {str(error).splitlines()[0]}") from None
        try:
            yield browser
        finally:
            browser.close()
