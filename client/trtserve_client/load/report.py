"""The report: one self-contained HTML page that explains itself. It loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from trtserve_client.load import charts
from trtserve_client.load.results import Level, Result, Run, names_of
from trtserve_client.load.scales import digits
from trtserve_client.load.table import capacity_sentence, notes_of, timing_rows
from trtserve_client.load.timings import STATISTICS

_TITLES = {
    "throughput": ("Throughput", "requests/s by those of {first}; more is better"),
    "p50": ("Median latency", "p50 by that of {first}; less is better"),
    "p99": ("Tail latency", "p99 by that of {first}; less is better"),
}


def page(result: Result) -> str:
    """The whole page."""
    style = files(__package__).joinpath("report.css").read_text("utf-8")
    sections = [*_comparison(result), *_by_load(result), *_curves(result), *_where_time_goes(result)]
    sections += [*_timings(result), *_timelines(result), _figures(result), _how(result)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(result.title)}</title><style>{style}</style></head><body><main>"
        f"{_head(result)}{''.join(sections)}</main></body></html>\n"
    )


def best_level(levels: Sequence[Level]) -> Level:
    """The load with the most answers, which the page speaks of first."""
    return max(levels, key=lambda level: level.spread("throughput").median)


def _head(result: Result) -> str:
    level = _main_level(result)
    run, rate = level.median_run, level.spread("throughput").median
    whose = f", {level.target}" if level.target else ""
    tiles = [
        (f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}", f"requests/s answered{whose}"),
        (_ms(level, "p50"), f"p50: half are faster{whose}"),
        (_ms(level, "p99"), f"p99: 99 of 100 are faster{whose}"),
        (f"{sum(each.error_count for one in result.levels for each in one.runs):,}", "failed requests, all loads"),
    ]
    if run.server.batch > 1.05:
        tiles.append((f"{run.server.batch:.1f}", "rows in a batch, mean"))
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in tiles
    )
    badges = "".join(f'<li class="{kind}">{escape(text)}</li>' for kind, text in _badges(result))
    return (
        f"<h1>{escape(result.title)}</h1><p class=soft>Measured by trtserve-load on {escape(result.time)}</p>"
        f'<ul class="badges">{badges}</ul><p class="lead">{escape(_sentence(result, level))}</p>'
        f'<div class="tiles">{shown}</div>'
        f"{_notes(result)}"
    )


def _ms(level: Level, metric: str) -> str:
    """A latency as every other part of the page gives it: the median of the runs."""
    return f"{digits(level.spread(metric).median)} ms"


def _main_level(result: Result) -> Level:
    if result.kind == "capacity" and result.capacity:
        return min(result.levels, key=lambda level: abs(level.offered - result.capacity))
    if result.kind == "compare" and all(level.offered for level in result.levels):
        return min(result.levels, key=lambda level: level.spread("p99").median)
    return best_level(result.levels)


def _sentence(result: Result, level: Level) -> str:
    if result.kind == "capacity":
        return capacity_sentence(result)
    if result.kind == "compare":
        of = f"Of {len(names_of(result.levels))} targets, measured in turn,"
        if level.offered:
            return f"{of} {level.target} had the least p99: {_ms(level, 'p99')} at {level.label} offered."
        return f"{of} {level.target} answered most: {level.spread('throughput').median:,.0f} requests/s."
    load = f"With {level.concurrency} requests under way at once" if level.concurrency else f"At {level.label} offered"
    return (
        f"{load}, the server answered {level.spread('throughput').median:,.0f} requests/s:"
        f" half of them within {_ms(level, 'p50')}, 99 of 100 within {_ms(level, 'p99')}."
    )


def _badges(result: Result) -> Iterable[tuple[str, str]]:
    runs = [run for level in result.levels for run in level.runs]
    if result.interrupted:
        yield "warn", "interrupted"
    errors = sum(run.error_count for run in runs)
    yield ("bad", "some requests failed") if errors else ("good", "no request failed")
    yield _count("stable", "not stable", [run.stable for run in runs], "warn")
    if not all(run.reached for run in runs):
        yield "warn", "a rate was not reached"
    yield _count(
        "the client kept up", "the client may have been the limit", [not run.client.limited for run in runs], "warn"
    )


def _count(well: str, ill: str, holds: Sequence[bool], kind: str) -> tuple[str, str]:
    if all(holds):
        return "good", well
    missed = len(holds) - sum(holds)
    return kind, ill if missed == len(holds) else f"{ill} in {missed} of {len(holds)} measurements"


def _notes(result: Result) -> str:
    notes = notes_of(result)
    if not notes:
        return ""
    items = "".join(
        f"<li><b>{escape(head)}.</b>{escape(rest)}</li>" for head, _, rest in (each.partition(".") for each in notes)
    )
    return f'<section><h2>Before you use these figures</h2><ul class="notes">{items}</ul></section>'


def _comparison(result: Result) -> Iterable[str]:
    if not result.ratios:
        return
    first = next(iter(names_of(result.levels)))
    parts = []
    for metric, (title, unit) in _TITLES.items():
        if any(ratio.metric == metric for ratio in result.ratios):
            parts.append(f"<h3>{title}</h3>{charts.ratio_bars(result, metric, unit.format(first=first))}")
    note = "Every round measured each target once, in turn. A bar is the median of the rounds,"
    note += " its line the 95 % confidence interval."
    if all(len(level.runs) == 1 for level in result.levels):
        note = "Each target was measured once, so chance may be in these ratios; --repeats tells how much."
    yield _section(f"Side by side, in ratio to {first}", note, "".join(parts))


def _by_load(result: Result) -> Iterable[str]:
    if result.kind == "compare" or len(result.levels) < 2:
        return
    spread = " A thick line spans the repeated runs." if any(len(level.runs) > 1 for level in result.levels) else ""
    yield _section(
        "Latency against load",
        f"How long requests took as the load grew. A server at its limit makes them wait: the lines turn up.{spread}",
        charts.latency_by_load(result.levels),
    )
    yield _section(
        "Throughput against load",
        "How many requests were answered. Where the line stops growing, more load only makes requests wait.",
        charts.rate_by_load(result.levels),
    )


def _curves(result: Result) -> Iterable[str]:
    if any(level.median_run.curve for level in result.levels):
        yield _section(
            "How even the latency was",
            "Half of the requests were at least as fast as the line is at 50 %. Each further nine takes the same room,"
            " so that the few slowest requests can be seen; a steep end means rare, long waits.",
            charts.percentile_curves(_at_most_six(result.levels)),
        )


def _where_time_goes(result: Result) -> Iterable[str]:
    known = [level for level in result.levels if level.median_run.server.phases_ms]
    if not known:
        return
    body = charts.phases(known)
    run = best_level(known).median_run
    if len(run.server.batch_sizes) > 1:
        body += f"<h3>Batch sizes at {escape(_long_name(best_level(known)))}</h3>{charts.batch_sizes(run)}"
    yield _section("Where the time goes", "The mean time of a request, by the server's own statistics.", body)


def _timings(result: Result) -> Iterable[str]:
    known = [level for level in result.levels if level.median_run.timings]
    if not known:
        return
    heads = "".join(f"<th>{cell}</th>" for cell in ("", *STATISTICS))
    body, chosen = "", _main_level(result)
    for level in known:
        rows = "".join(
            f"<tr><td>{escape(what)}</td>{''.join(f'<td>{figure}</td>' for figure in figures)}</tr>"
            for what, figures in timing_rows(level.median_run)
        )
        table = f'<table class="phases"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        body += f"<details{' open' if level is chosen else ''}><summary>{escape(_long_name(level))}</summary>{table}"
        body += "</details>"
    note = (
        "As each answer told of its own request, in ms. Half of the requests took no longer for a phase than its p50,"
    )
    note += " 99 of 100 no longer than its p99; the slowest phase of one request need not be that of the next."
    yield _section("Where the time of single requests goes", note, body)


def _timelines(result: Result) -> Iterable[str]:
    shown = [level for level in result.levels if level.median_run.timeline]
    if not shown:
        return
    chosen = _main_level(result)
    body = "".join(
        f"<details{' open' if level is chosen else ''}><summary>{escape(_long_name(level))}</summary>"
        f"{charts.timeline(level.median_run)}</details>"
        for level in shown
    )
    note = (
        "Whether it went evenly: rate, latency and batch size over each measurement. A red line marks failed requests."
    )
    yield _section("Over time", note, body)


def _figures(result: Result) -> str:
    many = len(names_of(result.levels)) > 1
    head = [
        *(["target"] if many else []),
        "load",
        "requests/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "failed",
    ]
    gpu = any(run.server.gpu_memory_bytes for level in result.levels for run in level.runs)
    head += ["server CPUs", "server MiB", *(["GPU", "GPU MiB"] if gpu else []), "client CPUs"]
    rows = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(level, many, gpu))}</tr>" for level in result.levels
    )
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"
    note = (
        "Medians of the repeated runs, their spread beneath."
        if any(len(each.runs) > 1 for each in result.levels)
        else ""
    )
    return _section("All figures", note, f'<div class="scroll">{table}</div>')


def _cells(level: Level, many: bool, gpu: bool) -> list[str]:
    run = level.median_run
    cells = [escape(level.target)] if many else []
    cells.append(escape(level.label))
    for metric in ("throughput", "p50", "p90", "p99", "p999", "max"):
        spread = level.spread(metric)
        form = _whole if metric == "throughput" and spread.median >= 10 else digits
        beneath = f"<small>{form(spread.low)} to {form(spread.high)}</small>" if len(level.runs) > 1 else ""
        cells.append(f"{form(spread.median)}{beneath}")
    cells.append(f"{sum(each.error_count for each in level.runs):,}")
    return cells + _uses(run, gpu)


def _uses(run: Run, gpu: bool) -> list[str]:
    server = run.server
    cells = [f"{server.cpu_share:.2f}" if server.cpu_share else "-", _mib(server.memory_bytes)]
    if gpu:
        cells += [f"{server.gpu_share:.0%}" if server.gpu_memory_bytes else "-", _mib(server.gpu_memory_bytes)]
    return [*cells, f"{run.client.cpu_share:.2f}"]


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}" if size else "-"


def _how(result: Result) -> str:
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in result.environment.items())
    run = result.levels[0].runs[0]
    count = sum(len(level.runs) for level in result.levels)
    workers = max(each.client.workers for level in result.levels for each in level.runs)
    how = f"{count} measurement{'s' * (count > 1)} of about {run.seconds:.3g} s,"
    how += f" sent by {workers} worker process{'es' * (workers != 1)}."
    return _section(
        "How it was measured",
        "",
        f"<p>{escape(how)}</p><dl>{entries}</dl><h3>The command</h3><pre>{escape(result.command)}</pre>",
    )


def _section(title: str, note: str, body: str) -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>"


def _long_name(level: Level) -> str:
    return ", ".join(filter(None, (level.target, level.label)))


def _at_most_six(levels: Sequence[Level]) -> Sequence[Level]:
    """The levels whose lines can be told apart, evenly chosen."""
    most = len(charts.COLOURS)
    if len(levels) <= most:
        return levels
    return [levels[round(index * (len(levels) - 1) / (most - 1))] for index in range(most)]
