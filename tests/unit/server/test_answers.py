"""The window of a call with many answers: what is held for a caller that does not read is counted, to the piece."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.slow_caller import SlowCaller
from trtserve_server.rpc.answers import Answers, Lane

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run() -> Run:
    return lambda test: asyncio.run(asyncio.wait_for(test(), 30))


async def turns() -> None:
    """Lets everything go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Window:
    """Answers to a caller, and what they have called."""

    def __init__(self, caller: SlowCaller, window: int) -> None:
        self.rooms = 0
        self.ends: list[Exception | None] = []
        self.answers = Answers(caller, window, self._room, self.ends.append)

    def _room(self) -> None:
        self.rooms += 1


def test_answers_are_sent_one_at_a_time_and_each_frees_a_place(run: Run) -> None:
    async def test() -> None:
        caller = SlowCaller()
        window = Window(caller, 2)
        answers = window.answers
        places = [answers.take(), answers.take()]
        assert answers.full
        answers.put(places[1], b"b")
        answers.put(places[0], b"a")
        await turns()
        assert (caller.taken, answers.held, window.rooms) == ([], 2, 0)
        caller.read()
        await turns()
        assert (caller.taken, answers.held, window.rooms) == ([b"b"], 1, 1)
        answers.close()
        await turns()
        assert window.ends == []
        caller.read()
        await turns()
        assert (caller.taken, answers.held, window.ends) == ([b"b", b"a"], 0, [None])

    run(test)


def test_it_is_said_of_each_answer_whether_the_next_is_there(run: Run) -> None:
    async def test() -> None:
        caller = SlowCaller(reads=100)
        answers = Window(caller, 100).answers
        for answer in (b"a", b"b", b"c", b"d"):
            answers.put(answers.take(), answer)
        await turns()
        assert (caller.taken, caller.more) == ([b"a", b"b", b"c", b"d"], [False, True, True, False])

    run(test)


def test_a_lane_gives_its_answers_in_the_order_of_its_places_and_holds_up_no_other(run: Run) -> None:
    async def test() -> None:
        caller = SlowCaller(reads=100)
        window = Window(caller, 100)
        answers, one, other = window.answers, Lane(), Lane()
        a, b, c = (answers.take(one) for _ in range(3))
        d, e = answers.take(other), answers.take()
        for place, answer in ((c, b"c"), (e, b"e"), (b, b"b"), (d, b"d"), (a, b"a")):
            answers.put(place, answer)
        answers.close()
        await turns()
        assert caller.taken == [b"e", b"d", b"a", b"b", b"c"]
        assert window.ends == [None]

    run(test)


def test_an_exception_ends_the_call_in_its_turn(run: Run) -> None:
    async def test() -> None:
        caller = SlowCaller(reads=100)
        window = Window(caller, 100)
        answers, lane = window.answers, Lane()
        first, second = answers.take(lane), answers.take(lane)
        error = ValueError("second")
        answers.put(second, error)
        answers.put(first, b"first")
        await turns()
        assert caller.taken == [b"first"]
        assert window.ends == [error]

    run(test)


def test_a_call_that_is_abandoned_holds_no_answer_any_more_and_calls_nobody(run: Run) -> None:
    class Answer(Exception):
        pass

    async def test() -> None:
        caller = SlowCaller()
        window = Window(caller, 2)
        answers = window.answers
        answers.put(answers.take(), b"first")
        answer = Answer()
        alive = weakref.ref(answer)
        answers.put(answers.take(), answer)
        del answer
        assert alive() is not None
        answers.abandon()
        assert alive() is None
        caller.read()
        await turns()
        assert (window.rooms, window.ends) == (0, [])

    run(test)


def test_a_call_that_closes_with_nothing_held_ends(run: Run) -> None:
    async def test() -> None:
        window = Window(SlowCaller(), 1)
        window.answers.close()
        assert window.ends == [None]

    run(test)
