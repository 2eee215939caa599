"""The live view: what it says, and that it keeps quiet where nobody looks."""

import io
import time

import numpy as np
import pytest

from trtserve_client.load.collector import Collector
from trtserve_client.load.jobs import OK, Progress, Window
from trtserve_client.load.live import LiveView, line, sparkline
from trtserve_client.load.recorder import buckets_from_outcomes


def collected(window, errors=0):
    collector = Collector(window)
    times = window.measured + np.array([0.1, 0.2, 1.1, 1.2, 1.3, 2.1])
    outcomes = [(at, 0.02, at, OK) for at in times] + [(window.measured, 0.1, window.measured, "INTERNAL")] * errors
    collector.add(0, Progress(window.measured + 2, 0.1, buckets_from_outcomes(outcomes, window)))
    return collector


def test_it_tells_rate_percentiles_a_sparkline_and_the_time_left():
    window = Window(0.0, 1.0, 11.0, 1.0)
    said = line("m 4 at once", collected(window), 4.0)
    assert said == "m 4 at once  3/s  ▆█  p50 20 ms  p99 20 ms  7 s left"
    assert "2 errors" in line("m", collected(window, errors=2), 4.0)
    assert line("m", Collector(window), 0.2) == "m  warming up, 1 s"


@pytest.mark.parametrize(("values", "bars"), [([], ""), ([0, 0], "▁▁"), ([1, 2, 4], "▃▅█"), ([5], "█")])
def test_sparklines_begin_at_nothing(values, bars):
    assert sparkline(values) == bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_it_writes_one_line_over_itself_on_a_terminal_and_clears_it():
    terminal = Terminal()
    view = LiveView(terminal, quiet=False)
    view.begin("m")
    now = time.monotonic()
    view.update(collected(Window(now - 3, now - 3, now + 5, 1.0)))
    view.end()
    assert terminal.getvalue().startswith("\r\x1b[Km  3/s")
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert "\n" not in terminal.getvalue()


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO(), False), (Terminal(), True)])
def test_it_is_silent_where_there_is_no_terminal_or_quiet_is_wanted(stream, quiet):
    view = LiveView(stream, quiet=quiet)
    view.begin("m")
    view.update(collected(Window(0.0, 0.0, 10.0, 1.0)))
    view.end()
    assert stream.getvalue() == ""
