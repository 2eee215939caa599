"""The live view: one line on a terminal that is written over, with rate, percentiles, a sparkline and the time left."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from typing import TextIO

from trtserve_client.load.collector import Collector
from trtserve_client.load.scales import digits

_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 24
_EVERY_S = 0.25


class LiveView:
    """Writes to `stream` where it is a terminal, and is silent where it is not or `quiet` is set."""

    def __init__(self, stream: TextIO, *, quiet: bool) -> None:
        self._stream = stream
        self._shown = not quiet and stream.isatty()
        self._title = ""
        self._last = -math.inf

    def begin(self, title: str) -> None:
        """Names what is measured from now on."""
        self._title = title
        self._last = -math.inf

    def update(self, collector: Collector) -> None:
        """Shows how it goes, a few times a second."""
        now = time.monotonic()
        if self._shown and now >= self._last + _EVERY_S:
            self._last = now
            width = shutil.get_terminal_size().columns
            self._stream.write("\r\x1b[K" + line(self._title, collector, now)[: width - 1])
            self._stream.flush()

    def end(self) -> None:
        """Clears the line."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def line(title: str, collector: Collector, now: float) -> str:
    """What the view says at the time `now`."""
    window = collector.window
    if now < window.measured:
        return f"{title}  warming up, {window.measured - now:.0f} s"
    numbers = range(max(collector.buckets, default=-1) + 1)
    counts = [collector.buckets[number].answered if number in collector.buckets else 0 for number in numbers]
    # The last bucket is still filling.
    rates = [count / window.bucket_s for count in (counts[:-1] or counts)]
    latencies = collector.latencies()
    errors = sum(sum(total.errors.values()) for total in collector.buckets.values())
    parts = [title, f"{rates[-1] if rates else 0:,.0f}/s", sparkline(rates[-_SPARKS:])]
    parts += [f"p50 {digits(latencies.percentile(50))} ms", f"p99 {digits(latencies.percentile(99))} ms"]
    if errors:
        parts.append(f"{errors:,} errors")
    if math.isfinite(window.ends):
        parts.append(f"{max(0.0, window.ends - now):.0f} s left")
    return "  ".join(parts)


def sparkline(values: Sequence[float]) -> str:
    """The values as bars from the least to the greatest, 0 being the least."""
    most = max(values, default=0.0)
    return "".join(_BARS[min(7, int(8 * value / most))] if most else _BARS[0] for value in values)
