"""Where the time of each request went, as its answer says that was asked to: read, gathered, told by percentiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from trtserve_client.load.config import LoadConfig
from trtserve_client.load.histogram import Histogram
from trtserve_client.load.jobs import Window
from trtserve_client.messages import Parameters
from trtserve_client.result import values_from_parameters
from trtserve_protos import timing, wire, wishes
from trtserve_protos.timing import Timing

PHASES = {
    "queue": "waiting for its turn",
    "batch_wait": "waiting for others to share its batch",
    "input": "input",
    "compute": "model",
    "output": "output",
    "rest": "network, gRPC and client",
}
"""The parts of a request's latency, in their order, and what they are."""
BATCH_ROWS = "batch_rows"
"""Beside the phases: the rows of the batch that a request ran in."""
STATISTICS = ("mean", "p50", "p90", "p99", "max")


class Timed(NamedTuple):
    """An answer with its timing: the time that its request belongs to, its latency in seconds, and what it says."""

    belongs_to: float
    latency: float
    timing: Timing


def asking(config: LoadConfig) -> Parameters:
    """The parameters that ask for the timing where the configuration does."""
    return {wishes.TIMING: True} if config.timing else {}


def timing_of_response(response: wire.Buffer) -> Timing | None:
    """What a ModelInferResponse says of its timing; None where it says nothing. Raises WireError."""
    header, _ = wire.decode_infer_response(response)
    return timing.from_parameters(values_from_parameters(header.parameters))


def histograms_from_timed(timed: Sequence[Timed], window: Window) -> dict[str, Histogram]:
    """Those within the window, by phase, in ms; the rows of batches count as if they were ms."""
    inside = [each for each in timed if window.measured <= each.belongs_to < window.ends]
    if not inside:
        return {}
    columns = {
        name: np.array([getattr(each.timing, f"{name}_ns") for each in inside]) / 1e9
        for name in PHASES
        if name != "rest"
    }
    latencies = np.array([each.latency for each in inside])
    columns["rest"] = np.maximum(0.0, latencies - sum(columns.values()))
    columns[BATCH_ROWS] = np.array([each.timing.batch_rows for each in inside]) / 1e3
    histograms = {}
    for name, seconds in columns.items():
        histograms[name] = Histogram()
        histograms[name].record(seconds)
    return histograms


def told(histograms: Mapping[str, Histogram]) -> dict[str, dict[str, float]]:
    """STATISTICS of each phase and of the rows, in the order of PHASES; {} where nothing was timed."""
    return {
        name: {
            "mean": each.mean,
            "p50": each.percentile(50),
            "p90": each.percentile(90),
            "p99": each.percentile(99),
            "max": each.maximum,
        }
        for name in (*PHASES, BATCH_ROWS)
        if (each := histograms.get(name)) is not None
    }
