"""Models on their way out: that none is forgotten, and that the end waits for all of them."""

import pytest

from tests.support.immediate_executor import ImmediateExecutor
from tests.support.manual_reactor import ManualReactor
from trtserve_server.models.departures import Departures


class Leaver:
    """As much of a Model as departs. An idle one is drained at once, another when the test says so."""

    def __init__(self, *, idle=False):
        self.idle = idle
        self.stopped = self.closed = self.busy = False
        self.finish = None

    def drain(self, on_drained):
        self.finish = on_drained
        if self.idle:
            on_drained()

    def stop(self):
        self.stopped = True

    def close(self, timeout_s):
        self.closed = True
        return not self.busy


@pytest.fixture
def reactor():
    return ManualReactor()


@pytest.fixture
def departures(reactor):
    return Departures(reactor, ImmediateExecutor(), 1.0)


def test_the_end_waits_for_every_model_and_comes_once(departures):
    ends = []
    idle, working, longer = Leaver(idle=True), Leaver(), Leaver()
    for model in (idle, working, longer):
        departures.drain(model, lambda: None)
    departures.when_none(lambda: ends.append("end"))
    working.finish()
    assert ends == []
    longer.finish()
    assert ends == ["end"]
    departures.drain(idle, lambda: None)
    assert ends == ["end"]


def test_where_nothing_drains_the_end_is_at_once(departures):
    ends = []
    departures.when_none(lambda: ends.append("end"))
    assert ends == ["end"]


def test_what_a_drained_model_lets_go_is_waited_for_too(departures):
    ends = []
    ensemble, part = Leaver(), Leaver()
    departures.drain(ensemble, lambda: departures.drain(part, lambda: None))
    departures.when_none(lambda: ends.append("end"))
    ensemble.finish()
    assert (ends, departures.draining) == ([], {part})
    part.finish()
    assert ends == ["end"]


def test_a_model_is_freed_on_the_executor_and_its_caller_told_on_the_reactor(departures, reactor):
    model, told = Leaver(), []
    departures.free(model, lambda: told.append(model.closed))
    assert (model.stopped, told) == (True, [])
    reactor.run()
    assert told == [True]


def test_what_departs_while_the_server_stops_is_freed_by_its_close_with_the_others(departures):
    late, serving, told = Leaver(), Leaver(), []
    departures.stop()
    departures.free(late, lambda: told.append("late"))
    assert (late.stopped, late.closed, told) == (True, False, ["late"])
    assert departures.close({serving}, 1.0)
    assert (late.closed, serving.closed) == (True, True)


def test_close_says_where_one_still_runs_and_closes_the_others(departures):
    busy, serving = Leaver(), Leaver()
    busy.busy = True
    assert not departures.close({busy, serving}, 1.0)
    assert (busy.closed, serving.closed) == (True, True)
