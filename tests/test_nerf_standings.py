"""A queue's figures: rows, means, and why something failed."""

from __future__ import annotations

import json

from nerf.claims import Claims
from nerf.standings import markdown, outcome, row


def test_a_row_for_every_scene_and_means_over_those_that_were_measured(tmp_path):
    claims = Claims(tmp_path / "claims")
    found = {
        "a": {"psnr": 30.0, "ssim": 0.9, "flip": 0.1, "views": [1], "train_seconds": 10.0},
        "b": {"psnr": 20.0, "ssim": 0.7, "flip": 0.3, "views": [1], "train_seconds": 30.0},
        "exact": {"psnr": None, "ssim": 1.0, "flip": 0.0, "views": [1], "train_seconds": 20.0},
        "unseen": {"psnr": None, "ssim": None, "flip": None, "views": [], "train_seconds": 5.0},
    }
    for name, metrics in found.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    for name, state in [*((name, "done") for name in found), ("lost", "done"), ("bad", "failed"), ("cut", "stopped")]:
        held = claims.take(name, None)
        assert held is not None
        held.release(state, "a | b\nc" if state == "failed" else "")
    held = claims.take("now", None)
    names = [*found, "lost", "bad", "cut", "now", "later", "theirs"]
    lines = markdown(tmp_path, names, claims.newest(), {"theirs"}).splitlines()
    cells = {line.split(" | ")[0][2:]: [cell.strip() for cell in line.split(" | ")[1:5]] for line in lines[2:]}
    ends = {line.split(" | ")[0][2:]: line.split(" | ")[-1].strip(" |") for line in lines[2:]}
    assert cells["a"] == ["30.00", "0.9000", "0.1000", "10"]
    assert cells["exact"][0] == "infinite" and cells["unseen"][0] == "-"
    assert cells["mean of 3"] == ["25.00", "0.8667", "0.1333", "20"]
    assert ends["bad"] == "failed: a \\| b c" and ends["cut"] == "stopped" and ends["lost"] == "its run is gone"
    assert (
        ends["later"] == "waits"
        and ends["theirs"].startswith("another's run")
        and ends["now"].startswith("trains since")
    )
    assert ends["unseen"] == "no view was held out"
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert row(tmp_path / "a") == "30.00 dB, SSIM 0.9000, 10 s"
    assert row(tmp_path / "unseen") == "no view was held out, 5 s"


def test_why_it_failed_is_the_last_line_or_the_signal(tmp_path):
    log = tmp_path / "queue.log"
    log.write_bytes(b"  3%| bar\r 10%| bar\rerror: photos: expected light\n\n")
    assert outcome(2, log) == "photos: expected light"
    assert outcome(-9, log).startswith("ended by SIGKILL, as the system does where memory is short")
    assert outcome(-11, log).startswith("ended by SIGSEGV; see")
    log.write_bytes(b"x" * 100_000 + b"\nRuntimeError: \xff" + b"y" * 1000)
    assert outcome(1, log).startswith("RuntimeError: ") and len(outcome(1, log)) == 300
    assert outcome(7, tmp_path / "none") == "exit code 7"
