"""The response cache: what is the same question, what is kept, what goes, and what a hit and a miss count as."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from trtserve_server.errors import InferenceFailed
from trtserve_server.models.response_cache import ENTRY_BYTES, ModelCache, ResponseCache, digest
from trtserve_server.request import BatchTiming, InferRequest, InferResponse, Outcome
from trtserve_server.scheduling.batch import resolve
from trtserve_server.statistics import ModelStatistics


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def strings(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


QUESTIONS: dict[str, tuple[dict[str, np.ndarray], tuple[str, ...], int]] = {
    "plain": ({"x": floats(1, 2)}, (), 0),
    "other value": ({"x": floats(1, 3)}, (), 0),
    "other name": ({"z": floats(1, 2)}, (), 0),
    "other shape": ({"x": floats(1, 2).reshape(1, 2)}, (), 0),
    "other type of the same bytes": ({"x": floats(1, 2).view(np.int32)}, (), 0),
    "output asked for": ({"x": floats(1, 2)}, ("y",), 0),
    "other output asked for": ({"x": floats(1, 2)}, ("z",), 0),
    "both outputs asked for": ({"x": floats(1, 2)}, ("y", "z"), 0),
    "later epoch": ({"x": floats(1, 2)}, (), 1),
    "two inputs": ({"x": floats(1), "z": floats(2)}, (), 0),
    "two inputs, exchanged": ({"x": floats(2), "z": floats(1)}, (), 0),
    "strings": ({"x": strings(b"ab", b"c")}, (), 0),
    "strings cut elsewhere": ({"x": strings(b"a", b"bc")}, (), 0),
    "no input": ({}, (), 0),
}


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(QUESTIONS, 2)))
def test_different_questions_have_different_digests(one: str, other: str) -> None:
    assert digest(*QUESTIONS[one]) != digest(*QUESTIONS[other])


def test_the_same_question_has_the_same_digest_whatever_its_order_and_layout() -> None:
    x, z = np.arange(6, dtype=np.float32).reshape(2, 3), floats(1)
    question = digest({"x": x, "z": z}, ("a", "b"), 0)
    assert digest({"z": z.copy(), "x": x.copy()}, ("b", "a"), 0) == question
    assert digest({"z": z, "x": np.asfortranarray(x)}, ("a", "b"), 0) == question
    assert digest({"z": z, "x": x.astype(">f4").astype("<f4")}, ("a", "b"), 0) == question


def key(number: int, model: int = 0) -> tuple[int, bytes]:
    return model, bytes([number])


def test_the_least_recently_used_go_first() -> None:
    cache = ResponseCache(3 * (ENTRY_BYTES + 8))
    for number in range(3):
        cache.put(key(number), {"y": floats(number, number)})
    assert cache.get(key(0)) is not None
    cache.put(key(3), {"y": floats(3, 3)})
    assert [cache.get(key(number)) is not None for number in range(4)] == [True, False, True, True]
    cache.put(key(4), {"y": np.zeros(2 + 2 * (ENTRY_BYTES + 8) // 4, np.float32)})
    assert [cache.get(key(number)) is not None for number in range(5)] == [False, False, False, False, True]
    assert cache.size <= 3 * (ENTRY_BYTES + 8)


def test_what_is_larger_than_the_cache_is_not_kept_and_drops_nothing() -> None:
    cache = ResponseCache(ENTRY_BYTES + 100)
    cache.put(key(0), {"y": floats(1)})
    cache.put(key(1), {"y": np.zeros(26, np.float32)})
    assert cache.get(key(0)) is not None
    assert cache.get(key(1)) is None


def test_the_size_counts_what_is_kept() -> None:
    cache = ResponseCache(1 << 20)
    cache.put(key(0), {"y": floats(1, 2), "z": floats(3)})
    assert cache.size == ENTRY_BYTES + 12
    cache.put(key(0), {"y": floats(1)})
    assert cache.size == ENTRY_BYTES + 4
    cache.put(key(1, model=1), {"y": strings(b"abc", b"x" * 1000)})
    assert cache.size > 2 * ENTRY_BYTES + 4 + 1003
    cache.forget(1)
    assert cache.size == ENTRY_BYTES + 4
    assert len(cache) == 1


def test_rows_of_a_batch_are_copied_and_cannot_be_changed() -> None:
    batch = np.arange(1000, dtype=np.float32).reshape(100, 10)
    cache = ResponseCache(1 << 20)
    cache.put(key(0), {"y": batch[3:4]})
    batch[3] = -1
    outputs = cache.get(key(0))
    assert outputs is not None
    np.testing.assert_array_equal(outputs["y"], np.arange(30, 40, dtype=np.float32)[None])
    assert outputs["y"].base is None
    with pytest.raises(ValueError, match="read-only"):
        outputs["y"][0] = 1


class Asked:
    """Requests with one input to one model's cache, each answered by hand."""

    def __init__(self, cache: ResponseCache, **options: Any) -> None:
        self.statistics = ModelStatistics()
        self.cache = ModelCache(cache, self.statistics, **options)

    def ask(self, value: float, wanted: tuple[str, ...] | None = ()) -> tuple[InferRequest, list[Outcome], bool]:
        outcomes: list[Outcome] = []
        request = InferRequest({"x": floats(value)}, outcomes.append, arrived=1.0)
        request.cached_outputs = wanted
        return request, outcomes, self.cache.answer(request, 3.0)


def answer(request: InferRequest, value: float) -> None:
    timing = BatchTiming("i", 1, 0, 0, 0, 0, 0, 0, 0)
    resolve(request, InferResponse({"y": floats(value), "z": floats(-value)}, 0, timing))


def test_a_question_is_answered_from_the_cache_the_second_time() -> None:
    asked = Asked(ResponseCache(1 << 20))
    request, outcomes, known = asked.ask(1)
    assert not known and outcomes == []
    answer(request, 10)
    assert len(outcomes) == 1
    request, outcomes, known = asked.ask(1)
    assert known and request.done
    (outcome,) = outcomes
    assert isinstance(outcome, InferResponse)
    assert list(outcome.outputs) == ["y", "z"] and outcome.outputs["y"] == 10
    assert outcome.timing.started == outcome.timing.ended == 3.0
    statistics = asked.statistics
    assert (statistics.cache_hits, statistics.cache_misses, statistics.requests.count) == (1, 1, 0)
    assert statistics.success_ns == 2_000_000_000
    assert statistics.cache_hit_ns > 0 < statistics.cache_miss_ns
    assert not asked.ask(2)[2]


def test_only_the_outputs_that_were_asked_for_are_kept() -> None:
    asked = Asked(ResponseCache(1 << 20))
    answer(asked.ask(1, ("z",))[0], 10)
    assert not asked.ask(1)[2]
    _, (outcome,), known = asked.ask(1, ("z",))
    assert known and isinstance(outcome, InferResponse) and list(outcome.outputs) == ["z"]


def test_a_request_can_go_past_the_cache() -> None:
    asked = Asked(ResponseCache(1 << 20))
    answer(asked.ask(1, None)[0], 10)
    assert not asked.ask(1)[2]
    answer(asked.ask(1)[0], 10)
    assert not asked.ask(1, None)[2]
    assert asked.statistics.cache_hits == 0


def test_failures_are_not_kept() -> None:
    asked = Asked(ResponseCache(1 << 20))
    request, outcomes, _ = asked.ask(1)
    resolve(request, InferenceFailed("no"))
    assert isinstance(outcomes[0], InferenceFailed)
    assert not asked.ask(1)[2]
    assert asked.statistics.cache_misses == 0


def test_models_and_loads_of_a_model_do_not_answer_for_each_other() -> None:
    cache = ResponseCache(1 << 20)
    one, other = Asked(cache), Asked(cache)
    answer(one.ask(1)[0], 10)
    assert not other.ask(1)[2]
    answer(other.ask(1)[0], 20)
    one.cache.close()
    assert not one.ask(1)[2]
    assert other.ask(1)[2]
    assert len(cache) == 1


def test_a_new_epoch_forgets_the_old_answers() -> None:
    epochs = [0]
    asked = Asked(ResponseCache(1 << 20), epoch=lambda: epochs[0])
    answer(asked.ask(1)[0], 10)
    epochs[0] = 1
    assert not asked.ask(1)[2]
