"""Closed and open loops against a server that a test plays by hand, and what their outcomes become."""

import queue
import time

import numpy as np
import pytest

from trtserve_client.load.collector import Collector, run_from_collected
from trtserve_client.load.drives import make_drive
from trtserve_client.load.jobs import OK, Bucket, ClosedLoad, Finished, Job, OpenLoad, Progress, Window
from trtserve_client.load.recorder import Recorder, buckets_from_outcomes
from trtserve_client.load.results import ServerUse
from trtserve_client.load.timings import told as told_percentiles
from trtserve_protos.timing import Timing

WAIT_S = 30.0


class HandSender:
    """Keeps every request until the test answers it."""

    def __init__(self):
        self.requests = queue.SimpleQueue()
        self.numbers = []

    def send(self, number, done):
        self.numbers.append(number)
        self.requests.put(done)

    def close(self):
        pass

    def answer(self, status=OK):
        self.requests.get(timeout=WAIT_S)(status, "said so" if status else "")


def window(begins_in=0.0, seconds=1000.0, warmup=0.0):
    begins = time.monotonic() + begins_in
    return Window(begins, begins + warmup, begins + warmup + seconds, seconds / 30)


def start(load, within):
    sender, recorder = HandSender(), Recorder(within)
    drive = make_drive(Job(within, load), sender, recorder)
    drive.start()
    return sender, recorder, drive


def total(buckets):
    return sum(bucket.answered for bucket in buckets.values()), sum(
        sum(bucket.errors.values()) for bucket in buckets.values()
    )


def test_a_closed_loop_sends_the_next_request_for_each_answer():
    sender, recorder, drive = start(ClosedLoad(3, 0), window())
    for _ in range(7):
        sender.answer()
    held = [sender.requests.get(timeout=WAIT_S) for _ in range(3)]
    assert sender.requests.empty()
    assert sorted(sender.numbers) == list(range(10))
    drive.stop()
    assert not drive.sending
    for done in held:
        done(OK, "")
    assert drive.wait(WAIT_S)
    assert total(recorder.take()) == (10, 0)
    assert drive.finished().unanswered == 0


def test_a_closed_loop_ends_by_its_count():
    sender, recorder, drive = start(ClosedLoad(2, 5), window())
    for _ in range(5):
        sender.answer()
    assert drive.wait(WAIT_S)
    assert total(recorder.take()) == (5, 0)


def test_errors_are_counted_by_status_and_the_first_is_kept():
    sender, recorder, drive = start(ClosedLoad(1, 3), window())
    for status in (OK, "UNAVAILABLE", "INTERNAL"):
        sender.answer(status)
    assert drive.wait(WAIT_S)
    errors = {}
    for bucket in recorder.take().values():
        errors |= bucket.errors
    assert errors == {"UNAVAILABLE": 1, "INTERNAL": 1}
    assert recorder.first_error == "UNAVAILABLE: said so"


def test_an_open_loop_sends_without_waiting_for_answers():
    sender, recorder, drive = start(OpenLoad(np.zeros(20), 100), window())
    held = [sender.requests.get(timeout=WAIT_S) for _ in range(20)]
    for done in held:
        done(OK, "")
    assert drive.wait(WAIT_S)
    assert not drive.sending
    assert total(recorder.take()) == (20, 0)
    assert drive.finished().unsent == 0


def test_an_open_loop_waits_for_a_place_and_counts_the_wait_as_latency():
    sender, recorder, drive = start(OpenLoad(np.zeros(3), 1), window(begins_in=-5.0))
    for _ in range(3):
        sender.answer()
    assert drive.wait(WAIT_S)
    assert len(drive.finished().lags) <= 1, "what waited for a place is not the client's lag"
    outcomes = Collector(window())
    outcomes.add(0, Progress(0.0, 0.0, recorder.take()))
    assert outcomes.latencies().percentile(0) > 4990, "latency counts from the time that was due, not from sending"


def test_an_open_loop_that_falls_behind_ends_and_counts_what_it_could_not_send():
    sender, _, drive = start(OpenLoad(np.zeros(10), 1), window(begins_in=-100.0, seconds=10.0))
    assert drive.wait(WAIT_S)
    assert drive.finished().unsent == 10
    assert sender.requests.empty()


def test_what_comes_due_behind_a_server_that_holds_up_is_not_the_clients_lag():
    sender, _, drive = start(OpenLoad(np.zeros(40), 20), window(begins_in=-5.0))
    held = [sender.requests.get(timeout=WAIT_S) for _ in range(20)]
    for done in held:
        done(OK, "")
    for _ in range(20):
        sender.answer()
    assert drive.wait(WAIT_S)
    assert len(drive.finished().lags) == 20


def test_an_open_loop_ends_where_the_server_hangs():
    sender, _, drive = start(OpenLoad(np.zeros(10), 2), window(begins_in=-1.0, seconds=1.3))
    held = [sender.requests.get(timeout=WAIT_S) for _ in range(2)]
    assert not drive.wait(0.0)
    while drive.sending:
        assert sender.requests.empty()
    assert (drive.finished().unsent, drive.finished().unanswered) == (8, 2)
    for done in held:
        done(OK, "")


def test_an_open_loop_can_be_stopped_while_it_waits():
    _, _, drive = start(OpenLoad(np.array([1000.0]), 1), window())
    drive.stop()
    assert drive.wait(WAIT_S)
    assert not drive.sending


def test_what_ends_outside_the_window_is_not_measured():
    within = Window(0.0, 10.0, 20.0, 1.0)
    outcomes = [(9.9, 0.1, 9.9, OK), (10.0, 0.1, 10.0, OK), (19.9, 0.1, 20.5, OK), (20.1, 0.1, 20.1, OK)]
    buckets = buckets_from_outcomes(outcomes, within)
    assert sorted(buckets) == [0, 9]
    assert buckets[0].answered == 1
    assert len(buckets[9].latencies) == 1, "it was due inside"
    assert buckets[9].answered == 0, "it was answered outside"


def test_outcomes_are_counted_where_they_belong():
    within = Window(0.0, 0.0, 10.0, 1.0)
    buckets = buckets_from_outcomes([(0.5, 3.0, 3.5, OK), (0.6, 1.0, 1.6, "INTERNAL")], within)
    assert {number: (*bucket.latencies, bucket.answered, bucket.errors) for number, bucket in buckets.items()} == {
        0: (3.0, 0, {"INTERNAL": 1}),
        1: (0, {}),
        3: (1, {}),
    }


def test_timings_of_the_window_become_percentiles():
    within = Window(0.0, 10.0, 20.0, 1.0)
    recorder = Recorder(within)
    timing = Timing(1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 6, "m/1#0", "onnxruntime")
    for belongs_to, told in ((9.9, timing._replace(queue_ns=10**9)), (10.0, timing), (15.0, timing), (16.0, None)):
        recorder.add(belongs_to, 0.02, belongs_to, OK, timing=told)
    collector = Collector(within)
    collector.add(0, Progress(16.0, 1.0, recorder.take(), timings=recorder.take_timings()))
    figures = told_percentiles(collector.timings)
    assert {name: each["max"] for name, each in figures.items()} == pytest.approx(
        {"queue": 1, "batch_wait": 2, "input": 3, "compute": 4, "output": 5, "rest": 5, "batch_rows": 6}, rel=2e-3
    )
    assert recorder.take_timings() == {}


def test_how_soon_requests_failed_is_known():
    failed = buckets_from_outcomes([(0.5, 0.004, 0.5, "UNAVAILABLE")] * 3, Window(0.0, 0.0, 1.0, 1.0))
    assert run_of(failed).error_p50 == pytest.approx(4, rel=2e-3)


def test_cpu_over_a_moment_is_no_share():
    collector = Collector(Window(0.0, 0.0, 3.0, 1.0))
    for time_s, cpu_s in ((0.0, 0.0), (0.01, 0.02)):
        collector.add(0, Progress(time_s, cpu_s, {0: bucket(1, ends=0.01)}))
    assert collector.cpu_share() == 0


def run_of(buckets, finished=(), within=None, **changes):
    collector = Collector(within or Window(0.0, 0.0, 3.0, 1.0))
    for time_s, cpu_s in ((0.0, 0.0), (3.0, 1.5)):
        collector.add(0, Progress(time_s, cpu_s, {}))
    collector.add(0, Progress(3.0, 1.5, buckets))
    values = {
        "due": 0,
        "tolerance_percent": 10.0,
        "machine_cpu": 0.2,
        "server": ServerUse(),
        "batches": {1: 4.0},
        "server_is_here": True,
        "interrupted": False,
    }
    return run_from_collected(collector, list(finished), **{**values, **changes})


def bucket(count, latency_s=0.01, answered=None, ends=3.0):
    found = buckets_from_outcomes([(0.5, latency_s, 0.5, OK)] * count, Window(0.0, 0.0, 1.0, 1.0))[0]
    return Bucket(found.latencies, count if answered is None else answered, ends)


def test_figures_of_a_measurement():
    run = run_of({0: bucket(10), 1: bucket(10), 2: bucket(10, 0.02)}, [Finished(np.array([0.001]), 0, 2)])
    assert (run.answered, run.throughput, run.seconds, run.unanswered) == (30, 10, 3.0, 2)
    assert run.p50 == pytest.approx(10, rel=2e-3)
    assert run.max == pytest.approx(20, rel=2e-3)
    assert [point.rate for point in run.timeline] == [10, 10, 10]
    assert [point.batch for point in run.timeline] == [0, 4.0, 0]
    assert run.client.cpu_share == pytest.approx(0.5)
    assert run.client.lag_p99 == pytest.approx(1)
    assert not run.stable
    assert "p50 ran" in run.instability


def test_a_measurement_that_ends_by_count_or_stop_lasts_to_its_last_answer():
    endless = Window(0.0, 0.0, float("inf"), 1.0)
    assert run_of({0: bucket(10, ends=0.5)}, within=endless).throughput == pytest.approx(20)
    assert run_of({0: bucket(10, ends=0.5)}, interrupted=True).throughput == pytest.approx(20)


def test_an_open_loop_that_ends_fewer_than_were_due_did_not_reach_its_rate():
    assert run_of({0: bucket(100)}, due=100).reached
    assert not run_of({0: bucket(70)}, due=100).reached
    assert not run_of({0: bucket(100)}, [Finished(np.empty(0), 1)], due=100).reached


def test_a_measurement_without_any_answer_has_figures_too():
    run = run_of({0: Bucket(errors={"INTERNAL": 4})})
    assert (run.answered, run.p99, run.error_count, run.curve) == (0, 0, 4, [])
