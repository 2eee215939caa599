"""The book of a stream without any stream: ids, order, errors, and what a server can get wrong."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, strategies as st

from trtserve_client import BadResponse, ClientError, InputError, Result, StreamError
from trtserve_client.ledger import StreamLedger
from trtserve_protos import oip

INPUTS = {"x": np.zeros(1, np.float32)}


def ledger_for(ordered: bool = True, errors: str = "raise") -> StreamLedger:
    return StreamLedger("m", in_flight=4, ordered=ordered, errors=errors)


def answer(wire_id: str) -> bytes:
    response = oip.ModelInferResponse(id=wire_id)
    return oip.ModelStreamInferResponse(infer_response=response).SerializeToString()


def error(wire_id: str, text: str = "bad") -> bytes:
    response = oip.ModelInferResponse(id=wire_id)
    return oip.ModelStreamInferResponse(error_message=text, infer_response=response).SerializeToString()


def ids(outcomes: list[Result | StreamError]) -> list[str]:
    return [outcome.id if isinstance(outcome, Result) else f"error {outcome.request_id}" for outcome in outcomes]


def test_a_request_is_known_by_its_id_or_its_index() -> None:
    ledger = ledger_for()
    wire_ids = [ledger.enter(element)[0] for element in (INPUTS, ("a", INPUTS), ("a", INPUTS), ("", INPUTS), INPUTS)]
    assert len(set(wire_ids)) == 5
    assert [ids(ledger.settle(answer(wire_id)))[0] for wire_id in wire_ids] == ["0", "a", "a", "", "4"]


@given(st.lists(st.sampled_from(["", "a", "b"]), max_size=8), st.randoms(use_true_random=False), st.booleans())
def test_answers_in_any_order_find_their_requests(names: list[str], chance: random.Random, ordered: bool) -> None:
    ledger = ledger_for(ordered)
    sent = [(name, ledger.enter((name, INPUTS))[0]) for name in names]
    shuffled = chance.sample(sent, len(sent))
    received = [id for _, wire_id in shuffled for id in ids(ledger.settle(answer(wire_id)))]
    assert received == (names if ordered else [name for name, _ in shuffled])
    ledger.complete = True
    ledger.finish()


def test_an_error_waits_for_its_turn_like_an_answer() -> None:
    ledger = ledger_for()
    first, second = ledger.enter(INPUTS)[0], ledger.enter(("b", INPUTS))[0]
    assert ledger.settle(error(second)) == []
    result, failure = ledger.settle(answer(first))
    assert ledger.handed_out(result) is result
    with pytest.raises(StreamError, match="stream to model 'm' request 'b': bad") as caught:
        ledger.handed_out(failure)
    assert caught.value.request_id == "b" and caught.value.details == "bad"


def test_an_error_can_be_handed_out_as_a_value() -> None:
    ledger = ledger_for(errors="return")
    (failure,) = ledger.settle(error(ledger.enter(INPUTS)[0]))
    assert ledger.handed_out(failure) is failure


def test_an_error_without_an_id_belongs_to_the_only_request_there_is() -> None:
    ledger = ledger_for()
    ledger.enter(("a", INPUTS))
    assert ids(ledger.settle(error(""))) == ["error a"]


def test_an_error_that_names_no_request_ends_the_stream() -> None:
    ledger = ledger_for(errors="return")
    ledger.enter(INPUTS)
    ledger.enter(INPUTS)
    with pytest.raises(StreamError, match="stream to model 'm': bad") as caught:
        ledger.settle(error(""))
    assert caught.value.request_id == ""


def test_an_answer_that_nobody_waits_for_ends_the_stream() -> None:
    ledger = ledger_for()
    wire_id = ledger.enter(INPUTS)[0]
    ledger.settle(answer(wire_id))
    for stranger in (wire_id, "17", ""):
        with pytest.raises(StreamError, match=f"answered with id '{stranger}', which no request waits for"):
            ledger.settle(answer(stranger))


def test_an_answer_that_is_no_message_is_a_bad_response() -> None:
    with pytest.raises(BadResponse):
        ledger_for().settle(b"\xff\xff")


def test_the_end_tells_what_went_wrong_first() -> None:
    ledger = ledger_for()
    with pytest.raises(StreamError, match="before the inputs came to their end"):
        ledger.finish()
    ledger.enter(("a", INPUTS))
    with pytest.raises(StreamError, match="1 requests unanswered, the first is") as caught:
        ledger.finish()
    assert caught.value.request_id == "a"
    failure = RuntimeError("source")
    ledger.fail(failure)
    with pytest.raises(RuntimeError) as raised:
        ledger.finish()
    assert raised.value is failure


def test_an_unfit_input_names_its_request() -> None:
    ledger = ledger_for()
    ledger.enter(("a", INPUTS))
    ledger.fail(InputError("input 'x': wrong"))
    with pytest.raises(InputError, match="request 'a': input 'x': wrong"):
        ledger.finish()


@pytest.mark.parametrize("element", [5, "x", ("a",), (1, INPUTS), ("a", 2), ["a", INPUTS]], ids=repr)
def test_an_element_of_another_form_is_refused(element: object) -> None:
    if element == ["a", INPUTS]:
        assert ledger_for().enter(element)[1] is INPUTS  # type: ignore[arg-type]
        return
    with pytest.raises(InputError, match=r"element 0 of the stream: .* given, a mapping of inputs or \(id, mapping\)"):
        ledger_for().enter(element)  # type: ignore[arg-type]


def test_settings_are_checked_at_once() -> None:
    with pytest.raises(ClientError, match="in_flight=0 given, at least 1 wanted"):
        StreamLedger("m", in_flight=0, ordered=True, errors="raise")
    with pytest.raises(ClientError, match="errors='ignore' given"):
        ledger_for(errors="ignore")
