"""Which charts a result is shown by, each drawn twice: wide for a desk, narrow for a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from trtserve_client.load.results import Level, Ratio, Result, Run
from trtserve_client.load.scales import Linear, Logarithmic, Ordinal, Percentiles, digits
from trtserve_client.load.svg import (
    NARROW,
    WIDE,
    Axis,
    Bar,
    Series,
    Size,
    Stack,
    bar_chart,
    column_chart,
    line_chart,
    stacked_bars,
)

COLOURS = ("c0", "c1", "c2", "c3", "c4", "c5")
_PERCENTILES = (("p50", "p50", "p1"), ("p90", "p90", "p2"), ("p99", "p99", "p3"), ("p999", "p99.9", "p4"))
_PHASES = (
    ("queue", "waiting in the queue", "c3"),
    ("compute_input", "input", "c2"),
    ("compute_infer", "model", "c0"),
    ("compute_output", "output", "c4"),
    ("rest", "network, gRPC and client", "rest"),
)
_PANEL = 190.0


class Key(NamedTuple):
    """An entry of a legend."""

    colour: str
    text: str


def figure(draw: Callable[[Size], str], keys: Sequence[Key] = ()) -> str:
    """Both drawings under one legend; the page shows the one that fits."""
    entries = "".join(f'<li><span class="swatch {key.colour}"></span>{escape(key.text)}</li>' for key in keys)
    legend = f'<ul class="legend">{entries}</ul>' if entries else ""
    return f'<figure>{legend}<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div></figure>'


def name_of(level: Level) -> str:
    """What a level is called: its target where it has one, else its load."""
    return level.target or level.label


def rate_by_load(levels: Sequence[Level]) -> str:
    """Requests answered, by load."""
    x = _load_axis(levels)
    spreads = [level.spread("throughput") for level in levels]
    y = Axis(Linear(max(spread.high for spread in spreads)), "answered requests/s")
    points = [(_load_place(levels, index), spread.median) for index, spread in enumerate(spreads)]
    series = Series("rate", "c0", points, [(spread.low, spread.high) for spread in spreads])
    return figure(lambda size: line_chart(size, x, y, [series]))


def latency_by_load(levels: Sequence[Level]) -> str:
    """The percentiles of latency, by load."""
    x = _load_axis(levels)
    series = []
    for metric, name, colour in _PERCENTILES:
        spreads = [level.spread(metric) for level in levels]
        points = [(_load_place(levels, index), spread.median) for index, spread in enumerate(spreads)]
        series.append(Series(name, colour, points, [(spread.low, spread.high) for spread in spreads]))
    y = Axis(_latency_scale([value for each in series for _, value in each.points]), "latency, ms (logarithmic)")
    return figure(lambda size: line_chart(size, x, y, series), [Key(each.colour, each.name) for each in series])


def percentile_curves(levels: Sequence[Level]) -> str:
    """Latency against percentile, a line per level."""
    shown = levels[: len(COLOURS)]
    series = [
        Series(name_of(level), COLOURS[index], level.median_run.curve, markers=False)
        for index, level in enumerate(shown)
    ]
    most = max((percent for each in series for percent, _ in each.points if percent < 100), default=99.0)
    x = Axis(Percentiles(most), "share of the requests that were at least this fast")
    y = Axis(_latency_scale([value for each in series for _, value in each.points]), "latency, ms (logarithmic)")
    return figure(lambda size: line_chart(size, x, y, series), [Key(each.colour, each.name) for each in series])


def timeline(run: Run) -> str:
    """Rate, latency and batch size over the time of one measurement; errors are marked."""
    end = run.timeline[-1].at_s + (run.timeline[-1].at_s / max(1, len(run.timeline) - 1)) if run.timeline else 1.0
    x = Axis(Linear(end, 6), "seconds since measuring began")
    marks = [point.at_s for point in run.timeline if point.errors]
    rates = [Series("answered requests/s", "c0", [(each.at_s, each.rate) for each in run.timeline], markers=False)]
    parts = [_panel(x, Axis(Linear(max(each.rate for each in run.timeline), 3), "answered requests/s"), rates, marks)]
    latencies = [
        Series(
            name,
            colour,
            [(each.at_s, getattr(each, metric)) for each in run.timeline if getattr(each, metric)],
            markers=False,
        )
        for metric, name, colour in (_PERCENTILES[0], _PERCENTILES[2])
    ]
    values = [value for each in latencies for _, value in each.points]
    if values:
        keys = [Key(each.colour, each.name) for each in latencies]
        parts.append(_panel(x, Axis(_latency_scale(values), "latency, ms (logarithmic)"), latencies, marks, keys))
    batches = [(each.at_s, each.batch) for each in run.timeline if each.batch]
    if batches:
        y = Axis(Linear(max(value for _, value in batches), 3), "rows in a batch, mean")
        parts.append(_panel(x, y, [Series("batch", "c2", batches, markers=False)], ()))
    return "".join(parts)


def batch_sizes(run: Run) -> str:
    """How often each batch size was run."""
    total = sum(run.server.batch_sizes.values())
    sizes = sorted(run.server.batch_sizes.items(), key=lambda item: int(item[0]))
    bars = [Bar(f"{name} rows", 100 * count / total, 0, 0, "", "c2") for name, count in sizes]
    x = Axis(Ordinal([name for name, _ in sizes]), "rows in the batch")
    y = Axis(Linear(max(bar.value for bar in bars)), "share of the batches, %")
    return figure(lambda size: column_chart(size, x, y, bars))


def phases(levels: Sequence[Level]) -> str:
    """Where the mean latency goes, by the server's own statistics."""
    rows = []
    for level in levels:
        run = level.median_run
        parts = {name: run.server.phases_ms.get(name, 0.0) for name, _, _ in _PHASES}
        parts["rest"] = max(0.0, run.mean - sum(parts.values()))
        rows.append(
            Stack(name_of(level), [(colour, parts[name]) for name, _, colour in _PHASES], f"{digits(run.mean)} ms")
        )
    x = Axis(Linear(max(sum(value for _, value in row.parts) for row in rows), 6), "mean time of a request, ms")
    keys = [Key(colour, text) for _, text, colour in _PHASES]
    return figure(lambda size: stacked_bars(size.width, x, rows), keys)


def ratio_bars(result: Result, metric: str, title: str) -> str:
    """Each target by the first one, with its confidence interval."""
    ratios: list[Ratio] = [ratio for ratio in result.ratios if ratio.metric == metric]
    x = Axis(Linear(1.1 * max(1.0, *(ratio.high for ratio in ratios)), 6), title)
    bars = [
        Bar(each.target, each.median, each.low, each.high, _times(each.median), COLOURS[index % 6])
        for index, each in enumerate(ratios)
    ]
    return figure(lambda size: bar_chart(size.width, x, bars, 1.0))


def _times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 100 else f"{ratio:.2f}×" if ratio >= 1 else f"{ratio:.3f}×"


def _panel(x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[float], keys: Sequence[Key] = ()) -> str:
    return figure(lambda size: line_chart(Size(size.width, _PANEL), x, y, series, marks), keys)


def _load_axis(levels: Sequence[Level]) -> Axis:
    if all(level.offered for level in levels):
        return Axis(Linear(max(level.offered for level in levels), 6), "offered requests/s")
    return Axis(Ordinal([f"{level.concurrency}" for level in levels]), "requests under way at once")


def _load_place(levels: Sequence[Level], index: int) -> float:
    return levels[index].offered if all(level.offered for level in levels) else float(index)


def _latency_scale(values: Sequence[float]) -> Logarithmic:
    positive = [value for value in values if value > 0] or [1.0]
    return Logarithmic(min(positive), max(positive))
