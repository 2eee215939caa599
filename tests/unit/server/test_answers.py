"""The window of a call with many answers: what is held for a caller that does not read is counted, to the piece."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.slow_caller import SlowCaller
from trtserve_server.rpc.answers import Answers, Lane


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def turns() -> None:
    """Lets every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_answers_are_written_one_at_a_time_and_each_frees_a_place() -> None:
    async def test() -> None:
        caller = SlowCaller()
        answers = Answers(caller.write, 2)
        places = [answers.take(), answers.take()]
        assert answers.full
        writer = asyncio.ensure_future(answers.write_all())
        room = asyncio.ensure_future(answers.room())
        answers.put(places[1], b"b")
        answers.put(places[0], b"a")
        await turns()
        assert (caller.taken, answers.held, room.done()) == ([], 2, False)
        caller.read()
        await turns()
        assert (caller.taken, answers.held, room.done()) == ([b"b"], 1, True)
        answers.close()
        await turns()
        assert not writer.done()
        caller.read()
        await writer
        assert (caller.taken, answers.held) == ([b"b", b"a"], 0)

    run(test)


def test_a_lane_gives_its_answers_in_the_order_of_its_places_and_holds_up_no_other() -> None:
    async def test() -> None:
        caller = SlowCaller(reads=100)
        answers, one, other = Answers(caller.write, 100), Lane(), Lane()
        a, b, c = (answers.take(one) for _ in range(3))
        d, e = answers.take(other), answers.take()
        for place, answer in ((c, b"c"), (e, b"e"), (b, b"b"), (d, b"d"), (a, b"a")):
            answers.put(place, answer)
        answers.close()
        await answers.write_all()
        assert caller.taken == [b"e", b"d", b"a", b"b", b"c"]

    run(test)


def test_an_exception_ends_the_writing_in_its_turn() -> None:
    async def test() -> None:
        caller = SlowCaller(reads=100)
        answers, lane = Answers(caller.write, 100), Lane()
        first, second = answers.take(lane), answers.take(lane)
        answers.put(second, ValueError("second"))
        answers.put(first, b"first")
        with pytest.raises(ValueError, match="second"):
            await answers.write_all()
        assert caller.taken == [b"first"]

    run(test)


def test_a_call_that_is_abandoned_holds_no_answer_any_more() -> None:
    class Answer(Exception):
        pass

    async def test() -> None:
        answers = Answers(SlowCaller().write, 2)
        answer = Answer()
        alive = weakref.ref(answer)
        answers.put(answers.take(), answer)
        del answer
        assert alive() is not None
        answers.abandon()
        assert alive() is None

    run(test)


def test_a_call_that_closes_with_nothing_held_ends() -> None:
    async def test() -> None:
        answers = Answers(SlowCaller().write, 1)
        writer = asyncio.ensure_future(answers.write_all())
        await turns()
        answers.close()
        await writer

    run(test)
