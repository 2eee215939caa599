"""Every metric: its name, Triton's where Triton has it, its help, and which of the models' statistics it is.

Nothing is counted here: a scrape reads what the models count anyway. `http_server` answers scrapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from trtserve_server.statistics import Histogram, LoopStatistics, ModelStatistics

_NS_PER_US = 1000
# The library writes `_total` behind the names of counters; Triton's have none.
_TRITON_COUNTER = re.compile(rb"^# (HELP|TYPE) (nv_\w+)_total ", re.MULTILINE)


class Measured(Protocol):
    """What the endpoint has to know of a model."""

    name: str
    version: str
    statistics: ModelStatistics

    @property
    def load_s(self) -> float:
        """Seconds that loading took."""
        ...

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        ...


Value = Callable[[Measured], float]

COUNTERS: tuple[tuple[str, str, Value], ...] = (
    ("nv_inference_request_success", "Requests answered", lambda m: m.statistics.answered),
    ("nv_inference_count", "Inferences, counted in rows", lambda m: m.statistics.inferences),
    ("nv_inference_exec_count", "Batches run", lambda m: m.statistics.executions),
    (
        "nv_inference_request_duration_us",
        "Time from arrival to answer",
        lambda m: m.statistics.success_ns // _NS_PER_US,
    ),
    ("nv_inference_queue_duration_us", "Time in the queue", lambda m: m.statistics.queue_ns // _NS_PER_US),
    (
        "nv_inference_compute_input_duration_us",
        "Time gathering inputs",
        lambda m: m.statistics.requests.input_ns // _NS_PER_US,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Time running the model",
        lambda m: m.statistics.requests.compute_ns // _NS_PER_US,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Time taking outputs",
        lambda m: m.statistics.requests.output_ns // _NS_PER_US,
    ),
    ("nv_cache_num_hits_per_model", "Requests answered from the cache", lambda m: m.statistics.cache_hits),
    ("nv_cache_num_misses_per_model", "Requests that the cache did not know", lambda m: m.statistics.cache_misses),
    (
        "nv_cache_hit_duration_per_model",
        "Time finding answers in the cache, in microseconds",
        lambda m: m.statistics.cache_hit_ns // _NS_PER_US,
    ),
    (
        "nv_cache_miss_duration_per_model",
        "Time looking in vain and storing answers, in microseconds",
        lambda m: m.statistics.cache_miss_ns // _NS_PER_US,
    ),
    (
        "trtserve_nan_searched_batches",
        "Batches whose outputs were searched for NaN",
        lambda m: m.statistics.nan.searched,
    ),
    ("trtserve_nan_batches", "Batches in whose outputs NaN was found", lambda m: m.statistics.nan.found),
)
GAUGES: tuple[tuple[str, str, Value], ...] = (
    ("nv_inference_pending_request_count", "Requests waiting in the queue", lambda m: m.waiting),
    ("nv_model_load_duration_secs", "Seconds that loading the model took", lambda m: m.load_s),
)
HISTOGRAMS: tuple[tuple[str, str, Callable[[ModelStatistics], Histogram]], ...] = (
    ("trtserve_queue_seconds", "Time of a request in the queue", lambda s: s.queue_s),
    ("trtserve_compute_seconds", "Time of a request's batch in the engine", lambda s: s.compute_s),
    ("trtserve_request_seconds", "Time of a request from arrival to answer", lambda s: s.total_s),
    ("trtserve_batch_rows", "Rows of a batch", lambda s: s.batch_rows),
)
BUILDS = "trtserve_engine_build_progress", "How far the build of a model's TensorRT engine is, from 0 to 1"
_FAILURES = ("nv_inference_request_failure", "Requests refused or failed, by reason")


class Build(NamedTuple):
    """A TensorRT engine that is being built."""

    name: str
    version: str
    progress: float


class ModelCollector(Collector):
    """Reads the statistics of every model, and what is being built, at each scrape."""

    def __init__(self, models: Callable[[], Iterable[Measured]], builds: Callable[[], Iterable[Build]]) -> None:
        self._models = models
        self._builds = builds

    def collect(self) -> Iterator[Metric]:
        """Every family with its samples."""
        models = list(self._models())
        yield from (_family(name, text, "counter", models, value) for name, text, value in COUNTERS)
        yield from (_family(name, text, "gauge", models, value) for name, text, value in GAUGES)
        failures = Metric(*_FAILURES, "counter")
        for model in models:
            for reason, count in sorted(dict(model.statistics.failures).items()):
                failures.add_sample(failures.name, {**_labels(model), "reason": reason}, count)
        yield failures
        builds = Metric(*BUILDS, "gauge")
        for build in self._builds():
            builds.add_sample(builds.name, {"model": build.name, "version": build.version}, build.progress)
        yield builds
        for name, text, select in HISTOGRAMS:
            histogram = HistogramMetricFamily(name, text, labels=("model", "version"))
            for model in models:
                data = select(model.statistics)
                histogram.add_metric((model.name, model.version), _buckets(data), data.sum)
            yield histogram


class LoopCollector(Collector):
    """Reads how late the event loop is at each scrape."""

    def __init__(self, statistics: LoopStatistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """A histogram of the lag and a counter of the stalls."""
        lag_s = self._statistics.lag_s
        yield HistogramMetricFamily(
            "trtserve_loop_lag_seconds", "How late the event loop was, each 0.1 s", _buckets(lag_s), lag_s.sum
        )
        stalls = Metric("trtserve_loop_stalls", "Times that the event loop was blocked", "counter")
        stalls.add_sample("trtserve_loop_stalls_total", {}, self._statistics.stalls)
        yield stalls


class Metrics:
    """All of them as one text, of what the models and the loop have counted by then."""

    def __init__(
        self,
        models: Callable[[], Iterable[Measured]],
        builds: Callable[[], Iterable[Build]],
        loop: LoopStatistics,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(ModelCollector(models, builds))
        self._registry.register(LoopCollector(loop))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Prometheus' text format, version 0.0.4. From any thread."""
        return _TRITON_COUNTER.sub(rb"# \1 \2 ", generate_latest(self._registry))


def _family(name: str, text: str, kind: str, models: Iterable[Measured], value: Value) -> Metric:
    family = Metric(name, text, kind)
    sample = f"{name}_total" if kind == "counter" and not name.startswith("nv_") else name
    for model in models:
        family.add_sample(sample, _labels(model), value(model))
    return family


def _labels(model: Measured) -> dict[str, str]:
    return {"model": model.name, "version": model.version}


def _buckets(histogram: Histogram) -> Sequence[tuple[str, float]]:
    total = 0
    buckets = []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
