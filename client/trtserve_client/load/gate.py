"""--fail-if: which conditions hold for which load, with an earlier result as the baseline. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trtserve_client.load.errors import UsageError
from trtserve_client.load.expressions import Condition, parse_condition
from trtserve_client.load.results import METRICS, Level
from trtserve_client.load.scales import digits

NAMES = (*METRICS, "errors")

Summaries = Mapping[tuple[str, str], Mapping[str, float]]


def conditions_from_words(words: Sequence[str]) -> list[Condition]:
    """The conditions of --fail-if. Raises UsageError."""
    return [parse_condition(word, NAMES) for word in words]


def failures(conditions: Sequence[Condition], levels: Sequence[Level], baseline: Summaries) -> list[str]:
    """A sentence for every condition that holds for a load. Raises UsageError where the baseline lacks the load."""
    found = []
    for level in levels:
        values = _values(level)
        for condition in conditions:
            given = dict(values)
            if any(name.startswith("baseline.") for name in condition.names):
                earlier = baseline.get((level.target, level.label))
                if earlier is None:
                    known = ", ".join(label for _, label in baseline)
                    raise UsageError(f"the baseline has no load {level.label!r}; it has {known or 'none'}")
                given |= {f"baseline.{name}": value for name, value in earlier.items()}
            if condition.holds(given):
                used = ", ".join(f"{name} = {digits(given[name], 4)}" for name in sorted(condition.names))
                found.append(f"{level.label}: {condition.text} holds ({used})")
    return found


def _values(level: Level) -> dict[str, float]:
    errors = sorted(run.error_count for run in level.runs)
    return {metric: level.spread(metric).median for metric in METRICS} | {"errors": float(errors[len(errors) // 2])}
