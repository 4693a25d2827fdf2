"""The viewer's soak, but for the soaking: what is counted of a process, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from apps.soak import family, main, sample

CHILD = "import time; held = bytearray(200_000_000); held[::4096] = b'x' * len(held[::4096]); print(1, flush=True); time.sleep(60)"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_process_is_counted_with_what_it_started(tmp_path):
    (tmp_path / "runs" / "uploads" / "a").mkdir(parents=True)
    before = sample(os.getpid(), tmp_path, 1.0)
    assert before.temporary == 0 and before.threads >= 1
    (tmp_path / "runs" / "uploads" / "a" / "photo").write_bytes(bytes(3_000_000))
    (tmp_path / "runs" / "selfie").write_bytes(bytes(9_000_000))  # a run stays, and doesn't count
    over = threading.Event()
    threading.Thread(target=over.wait).start()
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        with open(tmp_path / "file", "w"), open(tmp_path / "other", "w"):
            assert child.pid in family(os.getpid())
            now = sample(os.getpid(), tmp_path, 2.0)
        child.kill()
    over.set()
    assert 200 < now.children - before.children < 300 and abs(now.memory - before.memory) < 50
    assert now.threads == before.threads + 1 and now.files >= before.files + 2
    assert now.temporary == pytest.approx(3.0)
    until = time.monotonic() + 10
    while child.pid in family(os.getpid()) and time.monotonic() < until:
        time.sleep(0.05)
    with pytest.raises(OSError):
        sample(child.pid, tmp_path, 3.0)


def test_what_is_wrong_is_said_before_the_time_is_spent(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("no markers")
    for arguments, said in (
        (["--minutes", "0"], "--minutes: expected at least 0.1, found 0"),
        (["--browsers", "0"], "--browsers: expected at least 1"),
        (["--budget", "soon"], "--budget: expected a time"),
        (["--scene", str(tmp_path)], "expected transforms"),
        (["--docs", str(page)], "expected the lines <!-- soak --> and <!-- /soak -->"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err
