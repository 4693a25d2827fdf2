"""What a run over a long time is judged by: lines through series that were made to leak, or not to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from apps.growth import Sample, figures, line, markdown, plot, verdict

SECONDS = np.arange(0, 1800, 5.0)


def series(seed: int, leak: float = 0.0, noise: float = 8.0, threads: float = 0.0, files: float = 0.0) -> list[Sample]:
    """Half an hour of a viewer: a warm-up, trainings that come and go every two minutes, noise, and so many MB, threads and
    files more every minute."""
    random = np.random.default_rng(seed)
    memory = (
        900 - 200 * np.exp(-SECONDS / 60) + 30 * (SECONDS % 120 < 60) + noise * random.standard_normal(len(SECONDS))
    )
    minutes = SECONDS / 60
    counts = 20 + random.integers(0, 6, len(SECONDS))
    return [
        Sample(s, m + leak * t, int(n + threads * t), int(2 * n + files * t), 30.0 * (n > 22), 0.1 * t)
        for s, m, t, n in zip(SECONDS, memory, minutes, counts)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_what_comes_and_goes_is_flat_and_what_leaks_is_not(seed):
    assert verdict(figures(series(seed))) == []
    said = verdict(figures(series(seed, leak=3.0)))
    assert len(said) == 1 and said[0].startswith("memory may grow by")
    assert figures(series(seed, leak=3.0))["memory"]["slope"] == pytest.approx(3.0, abs=0.3)
    assert verdict(figures(series(seed, threads=1.0)))[0].startswith("threads: ")
    assert verdict(figures(series(seed, files=2.0)))[0].startswith("open files: ")


def test_a_late_step_is_seen_even_where_the_line_is_blind():
    steps = [Sample(s, 900.0 + 60 * (s > 1300), 20, 30, 0.0, 0.0) for s in SECONDS]
    assert any(
        "resident memory, MB: 960 in the last third, 900 in the middle one" in s for s in verdict(figures(steps))
    )


def test_what_swings_too_much_is_not_called_flat():
    random = np.random.default_rng(0)
    wild = [Sample(s, 900 + 400 * random.standard_normal(), 20, 30, 0.0, 0.0) for s in SECONDS]
    assert any("may grow by" in s for s in verdict(figures(wild)))


def test_a_line_has_its_slope_and_the_error_of_it():
    slope, error = line(SECONDS, 5 + 0.7 * SECONDS / 60)
    assert slope == pytest.approx(0.7) and error == pytest.approx(0, abs=1e-9)
    found = np.array([line(SECONDS, np.random.default_rng(k).standard_normal(len(SECONDS))) for k in range(400)])
    assert found[:, 0].mean() == pytest.approx(0, abs=3e-3)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.15)  # what it says of itself is so
    assert all(math.isnan(value) for value in line(SECONDS[:20], SECONDS[:20]))


def test_thirds_begin_after_the_warm_up_and_peaks_count_always():
    samples = [Sample(s, 5000.0 if s < 200 else 100 * (s // 600), 10, 10, 0.0, 0.0) for s in SECONDS]
    found = figures(samples)["memory"]
    # Of the 25 minutes that are left, the thirds end at 13:20, 21:40 and 30:00.
    assert (found["first"], found["middle"], found["last"], found["peak"]) == (0.0, 100.0, 200.0, 5000.0)


def test_the_report_says_what_was_found(tmp_path):
    told = {
        "minutes": 30.0, "browsers": 3, "trainings": 7, "budget": "60s", "figures": figures(series(0, leak=4.0)),
        "done": {"film": 12, "drag": 1234}, "errors": ["film: x"], "console": [],
    }  # fmt: skip
    text = markdown(told)
    assert "| resident memory, MB | " in text and "drag 1,234, film 12. Errors: 1; of the pages' scripts: 0." in text
    assert "**Not flat: memory may grow by 4." in text
    assert "**Flat.**" in markdown(told | {"figures": figures(series(0))})
    short = markdown(told | {"figures": figures(series(0)[:20])})
    assert "too short" in short and "nan" not in short
    plot(series(0), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 5000
