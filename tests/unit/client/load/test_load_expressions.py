"""--fail-if: the language of conditions, and what it is asked of."""

import pytest

from tests.unit.client.load.made_results import level, run
from trtserve_client.load.errors import UsageError
from trtserve_client.load.expressions import parse_condition
from trtserve_client.load.gate import NAMES, conditions_from_words, failures

VALUES = {
    "p50": 2.0,
    "p99": 10.0,
    "p999": 30.0,
    "throughput": 100.0,
    "errors": 0.0,
    "baseline.p99": 8.0,
    "baseline.p999": 5.0,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("p99 > 9", True),
        ("p99 > 10", False),
        ("p99 >= 10", True),
        ("p99 == 10 and p50 != 2", False),
        ("p99 > 1.2 * baseline.p99", True),
        ("p99 > 1.3 * baseline.p99", False),
        ("p99.9 > 5 * baseline.p99.9", True),
        ("errors > 0 or throughput < 101", True),
        ("not errors > 0", True),
        ("p50 + 2 * 3 == 8", True),
        ("(p50 + 2) * 3 == 12", True),
        ("10 - 4 - 3 == 3", True),
        ("16 / 4 / 2 == 2", True),
        ("-p50 < -1.5e0", True),
        ("(p99 > 100 or p50 > 1) and (errors == 0)", True),
        ("not (p99 > 1 and p50 > 1)", False),
        ("p50>1", True),
        ("errors > 0 or errors == 0 and p50 > 5", False),
    ],
)
def test_conditions_mean_what_they_say(text, holds):
    assert parse_condition(text, NAMES).holds(VALUES) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a number or a name is wanted where the end stands"),
        ("p99", "a comparison such as >"),
        ("p99 > ", "where the end stands"),
        ("p99 > 1 p50", "the end is wanted where 'p50'"),
        ("p98 > 1", "'p98' is unknown; did you mean"),
        ("baseline.nope > 1", "'baseline.nope' is unknown"),
        ("p99 > 1; import os", "';' is not understood"),
        ("__import__('os') > 1", "is not understood"),
        ("__import__ > 1", "is unknown"),
        ("p99 > (1", "')' is wanted"),
        ("p99 > 1 and", "where the end stands"),
        ("(" * 60 + "p99 > 1", "parentheses"),
        ("p99 > 1" + " " * 600, "characters"),
        ("1 < p50 < 3", "the end is wanted where '<'"),
    ],
)
def test_mistakes_are_named(text, words):
    with pytest.raises(UsageError, match="--fail-if") as error:
        parse_condition(text, NAMES)
    assert words in str(error.value)


def test_dividing_by_nothing_is_a_mistake_and_no_crash():
    with pytest.raises(UsageError, match="divides by 0"):
        parse_condition("p99 / errors > 1", NAMES).holds(VALUES)


def test_every_load_is_held_to_its_own_baseline():
    levels = [level(run(p99=10.0), label="1 at once"), level(run(p99=30.0), label="4 at once")]
    baseline = {("", "1 at once"): {"p99": 10.0}, ("", "4 at once"): {"p99": 20.0}}
    found = failures(conditions_from_words(["p99 > 1.2 * baseline.p99"]), levels, baseline)
    assert found == ["4 at once: p99 > 1.2 * baseline.p99 holds (baseline.p99 = 20, p99 = 30)"]


def test_a_load_that_the_baseline_lacks_is_a_mistake():
    with pytest.raises(UsageError, match="no load '4 at once'; it has 1 at once"):
        failures(
            conditions_from_words(["p99 > baseline.p99"]), [level(run(), label="4 at once")], {("", "1 at once"): {}}
        )
