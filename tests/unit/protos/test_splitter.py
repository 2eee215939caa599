"""Messages like an earlier one, known by their bytes, against reading them."""

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.support.protobuf_messages import delimited, requests, responses
from trtserve_protos import oip, splitter as splitter_module, wire
from trtserve_protos.errors import WireError
from trtserve_protos.splitter import Splitter

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

HEADER = oip.ModelInferRequest(model_name="m").SerializeToString()


def request_splitter():
    return Splitter(wire.REQUEST_RAW_FIELD)


@quick
@given(
    st.sampled_from(
        [(wire.REQUEST_RAW_FIELD, wire.split_infer_request), (wire.RESPONSE_RAW_FIELD, wire.split_infer_response)]
    ),
    st.lists(requests | responses, min_size=1, max_size=2),
    st.lists(st.binary(min_size=3, max_size=3), max_size=3),
    st.lists(st.text("ab\x1aé", max_size=4), max_size=2),
    st.data(),
)
def test_takes_apart_as_reading_does(kind, messages, tensors, ids, data):
    """Entries in any order, and messages of the same length that differ in one byte anywhere."""
    raw_field, read = kind
    splitter = Splitter(raw_field)
    entries = [*map(wire.id_entry, ids), *(delimited(raw_field, tensor) for tensor in tensors), *messages]
    for _ in range(4):
        one = b"".join(data.draw(st.permutations(entries)))
        if not one:
            continue
        at = data.draw(st.integers(0, len(one) - 1))
        other = one[:at] + bytes([data.draw(st.integers(0, 255))]) + one[at + 1 :]
        for message in (one, other, one, memoryview(other)):
            assert outcome_of(splitter.split, message) == outcome_of(read, message)


def outcome_of(split, message):
    try:
        return split(message)
    except WireError as error:
        return str(error)


@pytest.mark.parametrize(
    ("message", "other", "request_id", "raw"),
    [
        (HEADER + delimited(7, b"abc"), HEADER + delimited(7, b"xyz"), "", [b"xyz"]),
        (HEADER, HEADER, "", []),
        (wire.id_entry("a") + HEADER, wire.id_entry("b") + HEADER, "b", []),
        (
            HEADER + wire.id_entry("1a") + delimited(7, b"abc"),
            HEADER + wire.id_entry("é") + delimited(7, b"xyz"),
            "é",
            [b"xyz"],
        ),
        (
            delimited(7, b"abc") + HEADER + wire.id_entry("a"),
            delimited(7, b"xyz") + HEADER + wire.id_entry("b"),
            "b",
            [b"xyz"],
        ),
        (
            HEADER + delimited(7, b"a") + delimited(7, b""),
            HEADER + delimited(7, b"x") + delimited(7, b""),
            "",
            [b"x", b""],
        ),
    ],
    ids=["tensor", "nothing", "id", "id before tensor", "id last", "two tensors"],
)
def test_a_message_that_differs_in_id_and_tensors_alone_is_not_read(monkeypatch, message, other, request_id, raw):
    splitter = request_splitter()
    first = splitter.split(message)
    monkeypatch.setattr(splitter_module, "split_fields", None)
    again = splitter.split(other)
    assert again == (HEADER, request_id, raw)
    assert again.header is first.header


def test_an_id_that_is_no_text_is_refused_in_a_known_message_too():
    splitter = request_splitter()
    splitter.split(HEADER + wire.id_entry("1a"))
    with pytest.raises(WireError, match="not UTF-8"):
        splitter.split(HEADER + delimited(3, b"\xff1"))


def test_what_is_remembered_is_bounded():
    splitter = request_splitter()
    for size in range(splitter_module._MAX_LAYOUTS + 10):
        splitter.split(HEADER + delimited(7, bytes(size)))
    assert len(splitter._layouts) <= splitter_module._MAX_LAYOUTS
    splitter = request_splitter()
    splitter.split(delimited(7, b"") * splitter_module._MAX_ENTRIES)
    splitter.split(delimited(9, bytes(splitter_module._MAX_HEADER_BYTES)))
    assert not splitter._layouts
