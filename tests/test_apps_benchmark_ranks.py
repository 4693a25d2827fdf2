"""What more workers would take, from what one was seen to do."""

from __future__ import annotations

import pytest

from apps.benchmark_ranks import Share, moved, predicted


def share(workers: int, rows: int) -> Share:
    return Share(workers, 0.1, rows, table=1000, row=16, small=4000, grid=0.0)


def test_two_workers_send_the_small_gradients_once_and_the_smaller_form_of_the_table():
    # Added up between two, every byte goes out once in each of a ring's two halves; a row has 4 bytes of number.
    assert moved(share(2, 100)) == (4000 + 100 * 20, 3)
    assert moved(share(2, 900)) == (4000 + 16000, 4)
    assert moved(share(1, 900)) == (0, 0)


def test_of_eight_each_sends_its_rows_to_seven():
    sent, messages = moved(share(8, 100))
    assert sent == pytest.approx(7000 + 7 * 2000) and messages == 14 + 7 + 1  # the grid's 14 messages, every 16 steps
    assert moved(share(8, 300))[0] == pytest.approx(7000 + 28000)


def test_a_step_is_computing_bytes_and_waits():
    assert predicted(share(1, 100), 1e6, 1.0, 1.0) == 0.1
    assert predicted(share(2, 100), 1e6, 0.01, 1e-6) == pytest.approx(0.1 + 2 * 100e-6 + 0.006 + 0.03)
