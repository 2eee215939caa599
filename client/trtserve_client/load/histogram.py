"""A latency histogram of high dynamic range: three significant digits from 1 us to 1 hour, merged without loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from trtserve_client.load.errors import UsageError

try:
    from hdrh.histogram import HdrHistogram
except ImportError as error:
    raise UsageError("trtserve-load needs the packages of its extra: pip install 'trtserve[load]'") from error

_LEAST_NS, _MOST_NS, _DIGITS = 1_000, 3_600_000_000_000, 3
_MS = 1e6
CURVE = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999, 100)
"""The percentiles that a curve is drawn by; those beyond what the count can show are left out."""


class Histogram:
    """Latencies; recorded in seconds, told in milliseconds."""

    def __init__(self, hdr: Any = None) -> None:
        self._hdr = HdrHistogram(_LEAST_NS, _MOST_NS, _DIGITS) if hdr is None else hdr

    def record(self, seconds: np.ndarray) -> None:
        """Counts every element."""
        # Equal values are counted in one call: the library takes a microsecond for each.
        nanoseconds = np.clip(np.rint(seconds * 1e6) * 1e3, _LEAST_NS, _MOST_NS).astype(np.int64)
        values, counts = np.unique(nanoseconds, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._hdr.record_value(value, count)

    def add(self, other: Histogram) -> None:
        """Counts what `other` has counted."""
        self._hdr.add(other._hdr)

    @property
    def count(self) -> int:
        """How many latencies were counted."""
        return int(self._hdr.get_total_count())

    @property
    def mean(self) -> float:
        """The mean in ms; 0 where nothing was counted."""
        return float(self._hdr.get_mean_value()) / _MS if self.count else 0.0

    @property
    def maximum(self) -> float:
        """The largest in ms."""
        return float(self._hdr.get_max_value()) / _MS if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The latency in ms that `percent` of the requests did not pass."""
        return float(self._hdr.get_value_at_percentile(percent)) / _MS if self.count else 0.0

    def curve(self) -> list[tuple[float, float]]:
        """Percentiles and their latencies in ms, as far as the count can show them."""
        shown = [percent for percent in CURVE if percent == 100 or self.count * (100 - percent) / 100 >= 1]
        return [(percent, self.percentile(percent)) for percent in shown] if self.count else []

    def encode(self) -> str:
        """The histogram in HdrHistogram's own text form, which its tools for other languages read."""
        return str(self._hdr.encode(), "ascii")

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """The histogram that `encode` wrote."""
        return cls(HdrHistogram.decode(text.encode("ascii")))


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """All of them as one."""
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total
