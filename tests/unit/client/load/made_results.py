"""Results made by hand, for tests of what is done with them."""

from trtserve_client.load.histogram import Histogram
from trtserve_client.load.results import ClientUse, Level, Point, Result, Run, ServerUse


def run(**changes):
    values = {
        "seconds": 2.0,
        "answered": 200,
        "throughput": 100.0,
        "p50": 2.0,
        "p90": 5.0,
        "p99": 10.0,
        "p999": 20.0,
        "max": 25.0,
        "mean": 2.5,
        "errors": {},
        "first_error": "",
        "unsent": 0,
        "unanswered": 0,
        "stable": True,
        "instability": "",
        "reached": True,
        "curve": [(0, 1.0), (50, 2.0), (90, 5.0), (99, 10.0), (100, 25.0)],
        "timeline": [Point(0.0, 90.0, 2.0, 9.0, 0, 1.5), Point(1.0, 110.0, 2.1, 10.0, 2, 2.0)],
        "client": ClientUse(1, 0.4, 0.1, 0.6),
        "server": ServerUse(
            {"queue": 0.2, "compute_input": 0.1, "compute_infer": 1.0, "compute_output": 0.1},
            1.7,
            {"1": 50, "2": 75},
            0.8,
            2**28,
        ),
        "histogram": Histogram().encode(),
    }
    return Run(**{**values, **changes})


def level(*runs, target="", label="4 at once", concurrency=4, offered=0.0):
    return Level(target, label, concurrency, offered, runs)


def result(*levels, **changes):
    values = {
        "title": "m at 127.0.0.1:8001",
        "kind": "levels",
        "command": "trtserve-load m",
        "time": "2026-01-01 00:00:00+00:00",
        "environment": {"machine": "a CPU"},
        "settings": {"p99_ms": 20.0},
        "levels": levels,
    }
    return Result(**{**values, **changes})
