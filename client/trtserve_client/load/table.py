"""The closing table and the sentences beneath it, for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from trtserve_client.cli_output import table
from trtserve_client.load.results import Level, Result, Run
from trtserve_client.load.session import names_of

_HEAD = (
    "load",
    "rate/s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "errors",
    "batch",
    "server CPU",
    "client CPU",
)
_MIB = 1 << 20


def result_text(result: Result) -> str:
    """Everything that a person needs to know."""
    if not result.levels:
        return "nothing was measured"
    many = len(names_of(result.levels)) > 1
    head = ("target", *_HEAD) if many else _HEAD
    parts = [table(head, [_row(level, many) for level in result.levels])]
    if result.ratios:
        parts.append(ratios_text(result))
    if result.kind == "capacity":
        parts.append(capacity_sentence(result))
    if notes := notes_of(result):
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def ratios_text(result: Result) -> str:
    """The ratios as a table, one line per target."""
    metrics = list(dict.fromkeys(ratio.metric for ratio in result.ratios))
    rows = []
    for name in names_of(result.levels):
        by_metric = {ratio.metric: ratio for ratio in result.ratios if ratio.target == name}
        cells = [by_metric[metric] for metric in metrics if metric in by_metric]
        rows.append((name, *(f"{each.median:.3f} ({each.low:.3f} to {each.high:.3f})" for each in cells)))
    head = (f"ratio to {next(iter(names_of(result.levels)))}", *metrics)
    return table(head, rows)


def capacity_sentence(result: Result) -> str:
    """What the search found."""
    objective = f"p99 within {result.settings['p99_ms']:g} ms"
    if not result.capacity:
        return f"No rate held {objective}."
    return f"{result.capacity:g} requests/s is the highest rate that held {objective}."


def notes_of(result: Result) -> list[str]:
    """What must be known before a figure is believed, one sentence per line."""
    notes = ["Interrupted: what was measured until then."] if result.interrupted else []
    for level in result.levels:
        name = f"{level.target}, {level.label}" if len(names_of(result.levels)) > 1 else level.label
        notes += [f"{name}: {note}" for note in level_notes(level)]
    return notes


def level_notes(level: Level) -> list[str]:
    """What must be known of one load: each kind of note once, with the rounds that it is true of."""
    found: dict[str, list[str]] = {}
    for run in level.runs:
        for kind, note in run_notes(run, level).items():
            found.setdefault(kind, []).append(note)
    rounds = len(level.runs)
    return [notes[0] + (f" ({len(notes)} of {rounds} rounds)" if rounds > 1 else "") for notes in found.values()]


def run_notes(run: Run, level: Level) -> dict[str, str]:
    """What must be known of one measurement, by the kind of note."""
    notes = {}
    if run.errors:
        errors = ", ".join(f"{count:,} {status}" for status, count in sorted(run.errors.items()))
        notes["errors"] = f"errors: {errors}; the first: {run.first_error}"
    if run.unanswered:
        notes["unanswered"] = f"{run.unanswered:,} requests had no answer in time and were given up"
    if not run.reached:
        missed = f"; {run.unsent:,} requests could not be sent before the end" if run.unsent else ""
        answered = f"{run.throughput:,.0f}/s were answered"
        notes["rate"] = f"the rate of {level.offered:g}/s was not reached, {answered}{missed}"
    if run.client.limited:
        notes["client"] = f"the client may have been the limit: {run.client.limited}"
    if not run.stable and not run.interrupted:
        notes["stable"] = f"not stable: {run.instability}"
    return notes


def _row(level: Level, many: bool) -> Sequence[str]:
    rate = level.spread("throughput")
    run = level.median_run
    spread = f" ({rate.low:,.0f} to {rate.high:,.0f})" if len(level.runs) > 1 else ""
    latencies = [f"{level.spread(metric).median:.3g}" for metric in ("p50", "p90", "p99", "p999", "max")]
    cells = (
        level.label,
        f"{rate.median:,.0f}{spread}" if rate.median >= 10 else f"{rate.median:.2f}{spread}",
        *latencies,
        f"{sum(each.error_count for each in level.runs):,}",
        f"{run.server.batch:.1f}" if run.server.batch else "-",
        f"{run.server.cpu_share:.2f} CPU" if run.server.cpu_share else "-",
        f"{run.client.cpu_share:.2f} CPU",
    )
    return (level.target, *cells) if many else cells
