"""The codec of the hot messages against protobuf's own reading and writing of the same bytes."""

import struct
import tracemalloc

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings, strategies as st

from tests.support.protobuf_messages import (
    END_GROUP,
    FIXED64,
    GROUP,
    VARINT,
    anything,
    delimited,
    key,
    requests,
    responses,
    short_text,
    unknown,
    varint,
)
from trtserve_protos import oip, row_inference, wire
from trtserve_protos.errors import WireError

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SIZES = [0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21]

# ---- the comparison ----


def exact(message):
    """What two messages have in common exactly when protobuf sees no difference: NaN and unknown fields included."""
    return message.SerializeToString(deterministic=True)


def assert_reads_as_protobuf(message, cls, decode, raw_field):
    """Both read the same out of `message`, or both refuse it."""
    try:
        wanted = cls.FromString(bytes(message))
    except DecodeError:
        with pytest.raises(WireError):
            decode(message)
        return
    header, raw = decode(message)
    assert not getattr(header, raw_field)
    getattr(header, raw_field).extend(map(bytes, raw))
    assert exact(header) == exact(wanted)


def assert_request(message):
    assert_reads_as_protobuf(message, oip.ModelInferRequest, wire.decode_infer_request, "raw_input_contents")


def assert_response(message):
    assert_reads_as_protobuf(message, oip.ModelInferResponse, wire.decode_infer_response, "raw_output_contents")


def assert_stream_response(message):
    try:
        wanted = oip.ModelStreamInferResponse.FromString(message)
    except DecodeError:
        with pytest.raises(WireError):
            wire.decode_infer_response(wire.decode_stream_response(message)[1])
        return
    error, response = wire.decode_stream_response(message)
    assert error == wanted.error_message
    header, raw = wire.decode_infer_response(response)
    header.raw_output_contents.extend(map(bytes, raw))
    assert exact(header) == exact(wanted.infer_response)


# ---- reading ----


@quick
@given(requests)
def test_any_request_reads_as_protobuf_reads_it(message):
    assert_request(message)


@quick
@given(responses)
def test_any_response_reads_as_protobuf_reads_it(message):
    assert_response(message)


@quick
@given(
    st.lists(
        st.one_of(
            responses.map(lambda response: delimited(2, response)),
            short_text.map(lambda text: delimited(1, text.encode())),
            unknown,
        ),
        max_size=5,
    ).map(b"".join)
)
@example(delimited(2, b"\x0a\x01a") + delimited(2, b"\x12\x01b"))
@example(b"\x02\x00")
def test_any_stream_response_reads_as_protobuf_reads_it(message):
    assert_stream_response(message)


@quick
@given(st.lists(requests | anything, max_size=6).map(b"".join))
@example(delimited(3, b"\xff") + delimited(3, b"a"))
@example(delimited(3, b"a") + delimited(3, b"\xff"))
@example(delimited(3, b"\xed\xa0\x80"))
@example(key(7, VARINT) + b"\x05")
@example(key(7, GROUP) + delimited(7, b"inside") + key(7, END_GROUP) + delimited(7, b"outside"))
@example(key(20, GROUP) + delimited(3, b"inside") + key(20, END_GROUP))
@example(key(20, GROUP) + key(21, END_GROUP))
@example(key(20, GROUP) + key(21, GROUP) + key(20, END_GROUP) + key(21, END_GROUP))
@example(key(20, END_GROUP))
@example(b"\xba\x00\x01a")
@example(b"\x3a\x81\x00a")
def test_wrong_content_is_refused_where_protobuf_refuses_it(message):
    assert_request(message)


@quick
@given(st.binary(max_size=60))
@example(b"\0")
@example(b"\x02\x00")
@example(b"\x3a")
@example(b"\x3a\x01")
@example(b"\x3a\xff")
@example(b"\x3a" + b"\xff" * 10)
@example(b"\x3a" + b"\x80" * 10 + b"\x00")
@example(b"\x80" * 11)
@example(b"\x3f")
@example(b"\x3e")
@example(b"\x1a\x80\x80\x80\x80\x10")
def test_garbage_is_refused_or_read_as_protobuf_reads_it(message):
    assert_request(message)
    assert_response(message)
    assert_stream_response(message)


@quick
@given(requests, st.data())
def test_one_changed_byte_is_refused_or_read_as_protobuf_reads_it(message, data):
    if message:
        broken = bytearray(message)
        broken[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 127))
        assert_request(bytes(broken))


def whole_request():
    request = oip.ModelInferRequest(model_name="m", id="i", raw_input_contents=[b"a" * 200, b""])
    request.inputs.add(name="x", shape=[1, 300]).contents.int_contents.extend([1, -1])
    request.parameters["priority"].uint64_param = 3
    return request.SerializeToString() + key(20, FIXED64) + b"12345678" + key(21, GROUP) + key(21, END_GROUP)


@pytest.mark.parametrize("cut", range(len(whole_request()) + 1))
def test_a_request_cut_off_anywhere_is_refused_where_protobuf_refuses_it(cut):
    assert_request(whole_request()[:cut])


@pytest.mark.parametrize("size", SIZES[1:])
def test_a_cut_off_tensor_is_said_to_be_cut_off(size):
    message = delimited(7, b"\0" * size)
    with pytest.raises(WireError, match=f"cut off: its field at byte 0 ends at byte {len(message)}, the message at "):
        wire.decode_infer_request(message[:-1])


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (key(7, GROUP), "not valid protobuf: its field at byte 0 of 1 cannot be read"),
        (b"\x0a\x01m\x3f", "not valid protobuf: its field at byte 3 of 4 cannot be read"),
        (b"\x0a\x02m\xff", "not a valid ModelInferRequest"),
        (b"\x1a\x01\xff", "the id of the message is not UTF-8"),
    ],
)
def test_refusals_say_what_is_wrong(message, words):
    with pytest.raises(WireError, match=words):
        wire.decode_infer_request(message)


NUMBER = key(15, VARINT) + varint(0)
GROUPED = key(15, GROUP) + NUMBER + key(15, END_GROUP)  # three fields


@pytest.mark.parametrize(
    ("field", "most"),
    [
        (delimited(7, b""), 2**16),
        (delimited(3, b""), 2**16),
        (delimited(5, b""), 2**16),
        (NUMBER, 2**16),
        (GROUPED, 2**16 // 3),
    ],
    ids=["tensors", "ids", "inputs", "unknown", "groups"],
)
def test_a_message_of_countless_fields_is_refused(field, most):
    wire.split_infer_request(field * most)
    with pytest.raises(WireError, match="more than 65536 fields"):
        wire.split_infer_request(field * (most + 2))


@quick
@given(requests, st.lists(short_text, max_size=2), st.lists(st.binary(max_size=200), max_size=3))
def test_header_does_not_change_with_id_and_tensors(message, ids, raw):
    """The server remembers what a header says, so nothing of a single request may be in it."""
    more = message + b"".join(map(wire.id_entry, ids)) + b"".join(delimited(7, data) for data in raw)
    assert wire.split_infer_request(more).header == wire.split_infer_request(message).header


@quick
@given(requests)
def test_messages_may_come_as_views(message):
    given_as = message, memoryview(message), memoryview(b"\1" + message)[1:]
    first, *others = [wire.split_infer_request(form) for form in given_as]
    assert others == [first, first]


@pytest.mark.parametrize("size", SIZES)
def test_tensors_are_views_of_the_message(size):
    message = oip.ModelInferRequest(id="i", raw_input_contents=[b"\1" * size, b"\2" * size]).SerializeToString()
    raw = wire.split_infer_request(message).raw
    assert [bytes(view) for view in raw] == [b"\1" * size, b"\2" * size]
    for view in raw:
        assert view.obj is message
        assert view.readonly


def test_taking_a_large_request_apart_allocates_nothing_of_its_size():
    message = oip.ModelInferRequest(model_name="m", id="i", raw_input_contents=[bytes(1 << 22)]).SerializeToString()
    tracemalloc.start()
    try:
        request, (raw,) = wire.decode_infer_request(message)
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()
    assert (request.model_name, request.id, len(raw)) == ("m", "i", 1 << 22)


# ---- writing ----

raws = st.lists(st.binary(max_size=300), max_size=3)


@quick
@given(requests, raws)
def test_requests_are_written_as_protobuf_reads_them(message, raw):
    header = oip.ModelInferRequest.FromString(message)
    header.ClearField("raw_input_contents")
    written = oip.ModelInferRequest.FromString(wire.encode_infer_request(header, raw))
    assert list(written.raw_input_contents) == raw
    header.raw_input_contents.extend(raw)
    assert exact(written) == exact(header)


@quick
@given(responses, raws)
def test_responses_are_written_as_protobuf_reads_them(message, raw):
    header = oip.ModelInferResponse.FromString(message)
    header.ClearField("raw_output_contents")
    data = wire.encode_infer_response(header, raw)
    stream_data = wire.encode_stream_response(header, raw)
    header.raw_output_contents.extend(raw)
    assert exact(oip.ModelInferResponse.FromString(data)) == exact(header)
    stream = oip.ModelStreamInferResponse.FromString(stream_data)
    assert exact(stream.infer_response) == exact(header)
    assert stream.error_message == ""


@pytest.mark.parametrize("size", SIZES)
def test_tensors_of_every_length_are_written_as_protobuf_writes_them(size):
    raw = [b"\1" * size, b"\2"]
    request = oip.ModelInferRequest(model_name="m", raw_input_contents=raw)
    response = oip.ModelInferResponse(model_name="m", raw_output_contents=raw)
    stream = oip.ModelStreamInferResponse(infer_response=response)
    empty_request, empty_response = oip.ModelInferRequest(model_name="m"), oip.ModelInferResponse(model_name="m")
    assert wire.encode_infer_request(empty_request, raw) == request.SerializeToString()
    assert wire.encode_infer_response(empty_response, raw) == response.SerializeToString()
    assert wire.encode_stream_response(empty_response, raw) == stream.SerializeToString()


def test_the_size_of_a_view_is_counted_in_bytes():
    array = np.array([1.0, 2.0], np.float32)
    message = wire.encode_infer_request(oip.ModelInferRequest(), [array.data])
    assert list(oip.ModelInferRequest.FromString(message).raw_input_contents) == [struct.pack("<2f", 1.0, 2.0)]


@given(st.text(max_size=200))
@settings(deadline=None)
def test_an_id_behind_a_message_is_its_id(text):
    message = oip.ModelInferResponse(model_name="m").SerializeToString() + wire.id_entry(text)
    assert oip.ModelInferResponse.FromString(message) == oip.ModelInferResponse(model_name="m", id=text)


def test_the_messages_of_large_batches_are_those_of_protobuf():
    batch = oip.ModelInferRequest(model_name="m", id="1")
    batch.inputs.add(name="x", datatype="UINT8", shape=[3])
    batch.raw_input_contents.append(b"abc")
    options = row_inference.InferRowsRequest(rows_per_answer=7, window=300, in_order=True)
    data = wire.encode_rows_request(options, batch.SerializeToString())
    assert row_inference.InferRowsRequest.FromString(data) == row_inference.InferRowsRequest(
        rows_per_answer=7, window=300, in_order=True, batch=batch
    )
    read, inside = wire.decode_rows_request(data)
    assert (read, bytes(inside)) == (options, batch.SerializeToString())

    response = oip.ModelInferResponse(model_name="m", raw_output_contents=[b"x" * 300])
    data = wire.rows_response(7, 300, [response.SerializeToString()])
    assert row_inference.InferRowsResponse.FromString(data) == row_inference.InferRowsResponse(
        first_row=7, row_count=300, response=response
    )
    read, inside = wire.decode_rows_response(data)
    assert (read.first_row, read.row_count, bytes(inside)) == (7, 300, response.SerializeToString())
