"""Messages of inference as protobuf may meet them: any order, any repetition, anything unknown (hypothesis)."""

from hypothesis import strategies as st

from trtserve_protos import oip

VARINT, FIXED64, DELIMITED, GROUP, END_GROUP, FIXED32 = range(6)


def varint(value):
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])


def key(field, kind):
    return varint(field << 3 | kind)


def delimited(field, data):
    return key(field, DELIMITED) + varint(len(data)) + data


def entries_of(fields):
    """Single entries of unknown content for these field numbers, in every wire type."""
    numbers = st.integers(0, 2**64 - 1).map(varint)
    plain = st.one_of(
        st.builds(lambda field, data: key(field, VARINT) + data, fields, numbers),
        st.builds(lambda field, data: key(field, FIXED64) + data, fields, st.binary(min_size=8, max_size=8)),
        st.builds(lambda field, data: key(field, FIXED32) + data, fields, st.binary(min_size=4, max_size=4)),
        st.builds(delimited, fields, st.binary(max_size=20)),
    )
    return st.recursive(
        plain,
        lambda inner: st.builds(
            lambda field, parts: key(field, GROUP) + b"".join(parts) + key(field, END_GROUP),
            fields,
            st.lists(inner, max_size=3),
        ),
        max_leaves=5,
    )


short_text = st.text(max_size=8)
shapes = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)
contents = st.builds(
    oip.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=3),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    uint64_contents=st.lists(st.integers(0, 2**64 - 1), max_size=3),
    fp32_contents=st.lists(st.floats(width=32), max_size=3),
    bytes_contents=st.lists(st.binary(max_size=5), max_size=3),
)
parameters = st.dictionaries(
    short_text,
    st.one_of(
        st.builds(oip.InferParameter, bool_param=st.booleans()),
        st.builds(oip.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
        st.builds(oip.InferParameter, string_param=short_text),
    ),
    max_size=2,
)


def tensors_of(cls):
    return st.builds(
        cls, name=short_text, datatype=short_text, shape=shapes, parameters=parameters, contents=st.none() | contents
    )


def fragments(cls, tensors):
    """Messages of `cls` with one or two fields set; one after another they are one message."""
    return st.one_of(
        st.builds(cls, model_name=short_text, model_version=short_text),
        st.builds(cls, id=short_text),
        st.builds(cls, parameters=parameters),
        tensors,
    ).map(lambda message: message.SerializeToString())


request_tensors = st.one_of(
    st.builds(oip.ModelInferRequest, inputs=st.lists(tensors_of(oip.ModelInferRequest.InferInputTensor), max_size=2)),
    st.builds(
        oip.ModelInferRequest,
        outputs=st.lists(
            st.builds(oip.ModelInferRequest.InferRequestedOutputTensor, name=short_text, parameters=parameters),
            max_size=2,
        ),
    ),
    st.builds(oip.ModelInferRequest, raw_input_contents=st.lists(st.binary(max_size=200), max_size=3)),
)
response_tensors = st.one_of(
    st.builds(
        oip.ModelInferResponse, outputs=st.lists(tensors_of(oip.ModelInferResponse.InferOutputTensor), max_size=2)
    ),
    st.builds(oip.ModelInferResponse, raw_output_contents=st.lists(st.binary(max_size=200), max_size=3)),
)
unknown = entries_of(st.integers(8, 2**29 - 1))
# Also the message's own numbers, whose content or wire type is then mostly wrong.
anything = entries_of(st.integers(1, 9))

requests = st.lists(fragments(oip.ModelInferRequest, request_tensors) | unknown, max_size=8).map(b"".join)
responses = st.lists(fragments(oip.ModelInferResponse, response_tensors) | unknown, max_size=8).map(b"".join)
