"""The harness's decisions, as tables: arrivals, histograms, shares, capacity, verdicts, ratios."""

import math

import numpy as np
import pytest

from trtserve_client.load.arrivals import constant, offsets_of, poisson, share
from trtserve_client.load.capacity import PRECISION, Trial, best_rate, next_rate
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.histogram import Histogram, merged
from trtserve_client.load.jobs import ClosedLoad, OpenLoad, Window
from trtserve_client.load.loads import Load, closed, due_of, jobs_of, loads_of, open_at, window_of, workers_of
from trtserve_client.load.ratios import interval
from trtserve_client.load.verdicts import client_limit, instability, rate_reached


def test_constant_arrivals_are_evenly_spaced_from_the_first_moment():
    assert constant(10, 0.5).tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_poisson_arrivals_have_the_rate_and_exponential_gaps():
    times = poisson(1000, 20, seed=1)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert times[-1] < 20
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert poisson(1000, 20, seed=1).tolist() == times.tolist() != poisson(1000, 20, seed=2).tolist()


def test_the_shares_of_workers_are_the_whole_sequence():
    times = offsets_of("poisson", 100, 3, 0)
    parts = [share(times, worker, 3) for worker in range(3)]
    assert sorted(np.concatenate(parts)) == times.tolist()


def test_percentiles_are_exact_to_three_digits_from_microseconds_to_minutes():
    for scale in (1e-4, 1e-2, 1.0):
        histogram = Histogram()
        histogram.record(np.arange(1, 1001) * scale)
        for percent in (50, 90, 99, 99.9, 100):
            assert histogram.percentile(percent) == pytest.approx(percent * 10 * scale * 1e3, rel=2e-3)


def test_histograms_merge_and_travel_without_loss():
    parts = [Histogram() for _ in range(3)]
    whole = Histogram()
    for number, part in enumerate(parts):
        latencies = np.random.default_rng(number).exponential(0.01, 500)
        part.record(latencies)
        whole.record(latencies)
    total = merged(Histogram.decode(part.encode()) for part in parts)
    assert total.count == whole.count == 1500
    assert total.curve() == whole.curve()


def test_a_curve_ends_where_the_count_ends():
    histogram = Histogram()
    assert (histogram.curve(), histogram.percentile(50), histogram.mean, histogram.maximum) == ([], 0, 0, 0)
    histogram.record(np.full(200, 0.01))
    assert max(percent for percent, _ in histogram.curve() if percent < 100) == 99.5


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        (LoadConfig(), ["1 at once", "4 at once", "16 at once"]),
        (LoadConfig(concurrency=(3,)), ["3 at once"]),
        (LoadConfig(streams=2, in_flight=(1, 8)), ["2 at once", "16 at once"]),
        (LoadConfig(streams=2), ["32 at once"]),
        (LoadConfig(rate=(10.0, 2.5)), ["10/s", "2.5/s"]),
    ],
)
def test_loads_by_configuration(config, labels):
    assert [load.label for load in loads_of(config)] == labels


@pytest.mark.parametrize(
    ("config", "cpus", "workers"),
    [
        (LoadConfig(), 1, 1),
        (LoadConfig(), 2, 1),
        (LoadConfig(), 8, 4),
        (LoadConfig(), 64, 8),
        (LoadConfig(workers=3), 2, 3),
        (LoadConfig(streams=4, workers=3), 8, 2),
        (LoadConfig(streams=3), 8, 3),
        (LoadConfig(streams=1), 8, 1),
    ],
)
def test_workers_share_streams_evenly(config, cpus, workers):
    assert workers_of(config, cpus) == workers


def test_a_closed_loop_is_split_into_slots_and_counts():
    window = Window(0, 1, math.inf, 0.2)
    jobs = jobs_of(closed(5), window, LoadConfig(count=11), 3)
    assert [job.load for job in jobs] == [ClosedLoad(2, 4), ClosedLoad(2, 4), ClosedLoad(1, 3)]
    assert len(jobs_of(closed(2), window, LoadConfig(), 3)) == 2


def test_an_open_loop_offers_its_rate_over_warm_up_and_window():
    config = LoadConfig(rate=(100.0,), arrivals="constant", warmup_s=1.0, duration_s=2.0, max_in_flight=8)
    window = window_of(open_at(100), config, 50.0)
    jobs = jobs_of(open_at(100), window, config, 2)
    assert (window.begins, window.measured, window.ends) == (50, 51, 53)
    assert sorted(np.concatenate([job.load.offsets for job in jobs])) == pytest.approx(np.arange(300) / 100)
    assert [job.load.max_in_flight for job in jobs] == [4, 4]
    assert due_of(jobs) == 200


def test_a_trace_is_measured_whole():
    load = Load("trace", offsets=np.array([0, 0.5, 4.0]))
    window = window_of(load, LoadConfig(), 10.0)
    jobs = jobs_of(load, window, LoadConfig(), 2)
    assert due_of(jobs) == 3
    assert window.measured == window.begins
    assert window.ends > 14
    assert all(isinstance(job.load, OpenLoad) for job in jobs)
    assert load.offered == pytest.approx(0.75)


def test_a_window_is_cut_into_thirds_of_whole_buckets():
    for seconds in (0.1, 1.0, 5.0, 60.0):
        window = window_of(closed(1), LoadConfig(duration_s=seconds), 0.0)
        assert (window.last_bucket + 1) % 3 == 0
        assert (window.last_bucket + 1) * window.bucket_s == pytest.approx(seconds)


@pytest.mark.parametrize("capacity", [0.7, 37.0, 1234.0, 250_000.0])
@pytest.mark.parametrize("start", [1.0, 600.0])
def test_the_search_finds_the_capacity_of_a_server_that_breaks_at_it(capacity, start):
    trials = []
    while rate := next_rate(trials, start):
        trials.append(Trial(rate, rate <= capacity))
        assert len(trials) < 40
    assert capacity / (PRECISION * 1.01) <= best_rate(trials) <= capacity


def test_the_search_ends_where_nothing_holds():
    trials = []
    while rate := next_rate(trials, 500.0):
        trials.append(Trial(rate, False))
        assert len(trials) < 40
    assert best_rate(trials) == 0


def test_a_rate_that_held_above_one_that_failed_does_not_count():
    assert best_rate([Trial(10, True), Trial(20, False), Trial(40, True)]) == 10


@pytest.mark.parametrize(
    ("rates", "p50s", "words"),
    [
        ([100, 105, 110], [1, 1, 1], ""),
        ([100, 125, 110], [1, 1, 1], "rate ran from 100/s to 125/s"),
        ([100, 100, 100], [1.0, 1.4, 1.1], "p50 ran from 1 ms to 1.4 ms"),
        ([], [1, 1.1, 1.2], ""),
        ([0, 0, 5], [0, 0, 1], "rate was 0"),
        ([0, 0, 0], [0, 0, 0], ""),
    ],
)
def test_stability_is_that_of_three_parts(rates, p50s, words):
    found = instability(rates, p50s, 10)
    assert words in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("due", "ended", "unsent", "reached"),
    [(0, 5, 0, True), (1000, 1000, 0, True), (1000, 920, 0, True), (1000, 880, 0, False), (1000, 1000, 1, False)],
)
def test_a_rate_is_reached_where_as_many_end_as_are_due(due, ended, unsent, reached):
    assert rate_reached(due, ended, unsent) is reached


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ""),
        ({"cpu_share": 0.95}, "95 % of a CPU, use more --workers"),
        ({"lag_p99_ms": 3.0}, "sent 3 ms late"),
        ({"lag_p99_ms": 3.0, "p50_ms": 50.0}, ""),
        ({"machine_cpu": 0.99}, "shares them with the load"),
        ({"machine_cpu": 0.99, "server_is_here": False}, "send from a larger one"),
    ],
)
def test_who_was_the_limit(values, words):
    calm = {"cpu_share": 0.3, "lag_p99_ms": 0.1, "p50_ms": 5.0, "machine_cpu": 0.5, "server_is_here": True}
    found = client_limit(**{**calm, **values})
    assert words in found
    assert bool(found) == bool(words)


def test_an_interval_holds_the_median_and_narrows_with_agreement():
    wide, narrow = interval([0.5, 1.0, 1.5, 0.8, 1.3]), interval([1.0, 1.01, 0.99, 1.0, 1.0])
    assert wide[1] <= wide[0] <= wide[2]
    assert narrow[2] - narrow[1] < wide[2] - wide[1]
    assert interval([2.0]) == (2.0, 2.0, 2.0)
    assert interval([1.0, 2.0, 3.0]) == interval([1.0, 2.0, 3.0])
