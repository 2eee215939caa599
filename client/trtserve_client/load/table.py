"""The closing table and the sentences beneath it, for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trtserve_client.cli_output import table
from trtserve_client.load.results import Level, Ratio, Result, Run, names_of
from trtserve_client.load.scales import digits
from trtserve_client.load.timings import BATCH_ROWS, PHASES, STATISTICS

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
    "server",
    "client",
)
_LEAST_MS = 0.00103


def result_text(result: Result) -> str:
    """Everything that a person needs to know."""
    if not result.levels:
        return "nothing was measured"
    many = len(names_of(result.levels)) > 1
    head = ("target", *_HEAD) if many else _HEAD
    parts = [table(head, [_row(level, many) for level in result.levels])]
    parts += [timings_text(level) for level in result.levels if level.median_run.timings]
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
    once = all(len(level.runs) == 1 for level in result.levels)
    for name in names_of(result.levels):
        by_metric = {ratio.metric: ratio for ratio in result.ratios if ratio.target == name}
        cells = [by_metric[metric] for metric in metrics if metric in by_metric]
        rows.append((name, *(_ratio_text(each, once=once) for each in cells)))
    head = (f"ratio to {next(iter(names_of(result.levels)))}", *metrics)
    return table(head, rows)


def _ratio_text(ratio: Ratio, *, once: bool) -> str:
    """One round has no interval."""
    return f"{ratio.median:.3f}" + ("" if once else f" ({ratio.low:.3f} to {ratio.high:.3f})")


def timings_text(level: Level) -> str:
    """Where the time of a load's requests went, as their answers told it."""
    name = ", ".join(filter(None, (level.target, level.label)))
    rows = [(what, *figures) for what, figures in timing_rows(level.median_run)]
    return table((f"ms of a request, {name}", *STATISTICS), rows)


def timing_rows(run: Run) -> list[tuple[str, list[str]]]:
    """What each phase is, and its STATISTICS; the rows of the batch come last."""
    names = {**PHASES, BATCH_ROWS: "rows in its batch"}
    return [(names[phase], [_figure(figures[each]) for each in STATISTICS]) for phase, figures in run.timings.items()]


def _figure(ms: float) -> str:
    """Three digits; a microsecond is the least that a histogram tells apart."""
    return digits(ms) if ms > _LEAST_MS else "≤0.001"


def capacity_sentence(result: Result) -> str:
    """What the search found."""
    objective = f"p99 within {result.settings['p99_ms']:g} ms"
    if not result.capacity:
        return f"No rate held {objective}."
    return f"{result.capacity:g} requests/s is the highest rate that held {objective}."


def notes_of(result: Result) -> list[str]:
    """What must be known before a figure is believed, one sentence for each kind of doubt."""
    many = len(names_of(result.levels)) > 1
    found: dict[str, dict[str, list[str]]] = {}
    for level in result.levels:
        name = f"{level.target}, {level.label}" if many else level.label
        for run in level.runs:
            for kind, note in run_notes(run, level).items():
                found.setdefault(kind, {}).setdefault(name, []).append(note)
    notes = ["Interrupted: what was measured until then."] if result.interrupted else []
    rounds = max((len(level.runs) for level in result.levels), default=0)
    return notes + [_note(kind, by_level, rounds) for kind, by_level in found.items()]


def run_notes(run: Run, level: Level) -> dict[str, str]:
    """What must be known of one measurement, by the kind of doubt."""
    notes = {}
    if run.errors:
        errors = ", ".join(f"{count:,} {status}" for status, count in sorted(run.errors.items()))
        within = f", half of them within {digits(run.error_p50)} ms" if run.error_p50 else ""
        notes["Errors"] = f"{errors}{within}, of which the first is {run.first_error}"
    if run.unanswered:
        notes["No answer in time, given up"] = f"{run.unanswered:,} requests"
    if not run.reached:
        missed = f", {run.unsent:,} requests could not be sent before the end" if run.unsent else ""
        notes["The rate was not reached"] = f"{run.throughput:,.0f}/s were answered of {level.offered:g}/s{missed}"
    if run.client.limited:
        notes["The client may have been the limit"] = run.client.limited
    if not run.stable and not run.interrupted:
        notes["Not stable"] = run.instability
    if run.server.unknown:
        notes["No phases and no batch sizes"] = run.server.unknown
    return notes


def _note(kind: str, by_level: Mapping[str, Sequence[str]], rounds: int) -> str:
    """One sentence: the kind, then the first note of each load, and in how many rounds; equal notes are told once."""
    told: dict[str, list[str]] = {}
    for name, notes in by_level.items():
        often = f" ({len(notes)} of {rounds} rounds)" if rounds > 1 else ""
        told.setdefault(notes[0], []).append(name + often)
    return f"{kind}. " + "; ".join(f"{', '.join(names)}: {note}" for note, names in told.items()) + "."


def _server_use(run: Run) -> str:
    uses = [f"{run.server.cpu_share:.2f} CPU"] if run.server.cpu_share else []
    # A GPU without any memory in use is not the server's.
    uses += [f"{run.server.gpu_share:.0%} GPU"] if run.server.gpu_memory_bytes else []
    return ", ".join(uses) or "-"


def _row(level: Level, many: bool) -> Sequence[str]:
    rate = level.spread("throughput")
    run = level.median_run
    spread = f" ({rate.low:,.0f} to {rate.high:,.0f})" if len(level.runs) > 1 else ""
    latencies = [digits(level.spread(metric).median) for metric in ("p50", "p90", "p99", "p999", "max")]
    cells = (
        level.label,
        f"{rate.median:,.0f}{spread}" if rate.median >= 10 else f"{rate.median:.2f}{spread}",
        *latencies,
        f"{sum(each.error_count for each in level.runs):,}",
        f"{run.server.batch:.1f}" if run.server.batch else "-",
        _server_use(run),
        f"{run.client.cpu_share:.2f} CPU",
    )
    return (level.target, *cells) if many else cells
