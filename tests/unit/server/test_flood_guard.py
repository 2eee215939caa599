"""Records of one place in the code: how many are written, and what becomes of the others."""

import logging

from trtserve_server.flood_guard import MOST, PERIOD_S, FloodGuard


def written(guard, times, line=1):
    """The texts that are written of one record at each of the times."""
    texts = []
    for time in times:
        record = logging.LogRecord("m", logging.WARNING, "file.py", line, "batch %d failed", (7,), None)
        record.created = time
        if guard.filter(record):
            texts.append(record.getMessage())
    return texts


def test_a_place_that_speaks_too_often_is_heard_now_and_then_with_the_number_of_the_others():
    guard = FloodGuard()
    assert written(guard, [100.0] * (MOST + 30)) == ["batch 7 failed"] * MOST
    assert written(guard, [99.9 + PERIOD_S]) == []
    later = written(guard, [100.0 + PERIOD_S] * 2)
    assert later == ["batch 7 failed (and 31 more like it before)", "batch 7 failed"]


def test_each_place_has_a_limit_of_its_own():
    guard = FloodGuard()
    written(guard, [100.0] * (MOST + 1))
    assert written(guard, [100.0], line=2) == ["batch 7 failed"]


def test_a_clock_that_is_set_back_silences_nobody():
    guard = FloodGuard()
    written(guard, [1e9] * (MOST + 1))
    assert written(guard, [100.0]) == ["batch 7 failed (and 1 more like it before)"]
