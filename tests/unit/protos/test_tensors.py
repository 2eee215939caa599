"""Arrays to tensor bytes and back: round trips of every datatype, views instead of copies, every refusal."""

import tracemalloc

import numpy as np
import pytest

from trtserve_protos import dtypes, oip, tensors, wire
from trtserve_protos.errors import TensorError

VALUES = {
    "BOOL": [True, False, True, True, False, False],
    "UINT8": [0, 1, 2, 127, 128, 255],
    "UINT16": [0, 1, 2, 3, 256, 2**16 - 1],
    "UINT32": [0, 1, 2, 3, 2**31, 2**32 - 1],
    "UINT64": [0, 1, 2, 3, 2**63, 2**64 - 1],
    "INT8": [0, 1, -1, 2, 127, -128],
    "INT16": [0, 1, -1, 256, 2**15 - 1, -(2**15)],
    "INT32": [0, 1, -1, 256, 2**31 - 1, -(2**31)],
    "INT64": [0, 1, -1, 256, 2**63 - 1, -(2**63)],
    "FP16": [0.0, -0.5, 65504.0, 6e-8, float("inf"), float("nan")],
    "FP32": [0.0, -0.5, 3e38, 1e-45, float("-inf"), float("nan")],
    "FP64": [0.0, -0.5, 1e308, 5e-324, float("inf"), float("nan")],
    "BF16": [0.0, -0.5, 3e38, 1e-38, float("inf"), float("nan")],
    "BYTES": [b"", b"a", b"\0", b"a\0b", b"\xff\xfe", b"x" * 300],
}
FP32, UINT8, BOOL, BYTES = (dtypes.from_name(name) for name in ("FP32", "UINT8", "BOOL", "BYTES"))

every_datatype = pytest.mark.parametrize("datatype", dtypes.TABLE, ids=lambda datatype: datatype.name)
with_contents = pytest.mark.parametrize(
    "datatype", [datatype for datatype in dtypes.TABLE if datatype.contents_field], ids=lambda datatype: datatype.name
)


def values_of(datatype):
    return np.array(VALUES[datatype.name], datatype.numpy).reshape(2, 3)


def same(one, other):
    """Equal in type, shape and bits: NaN and -0.0 included."""
    if one.dtype.kind == "O":
        return one.shape == other.shape and one.tolist() == other.tolist()
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def contents(**fields):
    return oip.InferTensorContents(**fields)


def framed(*elements):
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


# ---- round trips ----


def test_the_values_cover_the_table():
    assert set(VALUES) == {datatype.name for datatype in dtypes.TABLE}


@every_datatype
def test_arrays_survive_the_raw_form(datatype):
    array = values_of(datatype)
    raw = bytes(tensors.raw_from_array(array))
    if datatype.item_size:
        assert raw == array.tobytes()
    assert same(tensors.array_from_raw(raw, datatype, (2, 3)), array)
    assert same(tensors.array_from_raw(memoryview(raw), datatype, [3, 2]), array.reshape(3, 2))


@with_contents
def test_arrays_survive_the_typed_contents(datatype):
    array = values_of(datatype)
    message = contents()
    tensors.fill_contents(message, array)
    assert [descriptor.name for descriptor, _ in message.ListFields()] == [datatype.contents_field]
    sent = contents()
    sent.ParseFromString(message.SerializeToString())
    assert same(tensors.array_from_contents(sent, datatype, (2, 3)), array)


@every_datatype
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (3, 0, 2)], ids=str)
def test_arrays_without_elements_survive(datatype, shape):
    array = np.empty(shape, datatype.numpy)
    raw = tensors.raw_from_array(array)
    assert bytes(raw) == b""
    assert same(tensors.array_from_raw(raw, datatype, shape), array)
    if tensors.has_contents(datatype):
        assert same(tensors.array_from_contents(contents(), datatype, shape), array)


@every_datatype
def test_scalars_survive(datatype):
    array = values_of(datatype)[0, 1].reshape(()) if datatype is not BYTES else np.array(b"a", object)
    assert same(tensors.array_from_raw(bytes(tensors.raw_from_array(array)), datatype, ()), array)


def test_typed_fields_exist_for_all_but_the_half_precision_types():
    assert {datatype.name for datatype in dtypes.TABLE if not tensors.has_contents(datatype)} == {"FP16", "BF16"}


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.arange(12, dtype=np.int32).reshape(2, 6)[:, ::2],
        np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        np.broadcast_to(np.array([1, 2, 3], np.int32), (2, 3)),
    ],
    ids=["big-endian", "strided", "column-major", "broadcast"],
)
def test_raw_form_is_row_major_and_little_endian_however_the_array_lies(array):
    assert bytes(tensors.raw_from_array(array)) == array.astype("<i4").tobytes("C")


@pytest.mark.parametrize(
    "array", [np.array(["a", "\u00e9"]), np.array([b"a", b"\xc3\xa9"]), np.array(["a", b"\xc3\xa9"], object)], ids=str
)
def test_strings_of_every_numpy_kind_travel_as_utf8(array):
    assert bytes(tensors.raw_from_array(array)) == framed(b"a", b"\xc3\xa9")
    message = contents()
    tensors.fill_contents(message, array)
    assert list(message.bytes_contents) == [b"a", b"\xc3\xa9"]


def test_text_decoded_with_surrogates_gives_its_bytes_back():
    text = b"\xff a".decode("utf-8", "surrogateescape")
    assert bytes(tensors.raw_from_array(np.array([text], object))) == framed(b"\xff a")


@pytest.mark.parametrize("element", [1, None, 1.5, bytearray(b"a"), ["a"]], ids=repr)
def test_elements_that_are_not_strings_are_refused(element):
    array = np.empty(1, object)
    array[0] = element
    message = f"a BYTES element must be bytes or str; {type(element).__name__} given"
    with pytest.raises(TensorError, match=message):
        tensors.raw_from_array(array)
    with pytest.raises(TensorError, match=message):
        tensors.fill_contents(contents(), array)


# ---- views ----


@pytest.mark.parametrize("datatype", [d for d in dtypes.TABLE if d.item_size], ids=lambda datatype: datatype.name)
def test_decoding_a_request_copies_no_tensor_byte(datatype):
    array = values_of(datatype)
    message = wire.encode_infer_request(oip.ModelInferRequest(model_name="m"), [tensors.raw_from_array(array)])
    _, (raw,) = wire.decode_infer_request(message)
    decoded = tensors.array_from_raw(raw, datatype, (2, 3))
    memory = np.frombuffer(message, np.uint8)
    start = decoded.ctypes.data - memory.ctypes.data
    assert np.shares_memory(decoded, memory)
    assert message[start : start + decoded.nbytes] == array.tobytes()
    assert not decoded.flags.writeable


def test_a_view_keeps_its_message_alive():
    def decode():
        _, (raw,) = wire.decode_infer_request(wire.encode_infer_request(oip.ModelInferRequest(), [b"\1\2\3"]))
        return tensors.array_from_raw(raw, UINT8, (3,))

    assert decode().tolist() == [1, 2, 3]


def test_views_are_read_only():
    view = tensors.array_from_raw(b"\0" * 8, FP32, (2,))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


@pytest.mark.parametrize("datatype", [d for d in dtypes.TABLE if d.item_size], ids=lambda datatype: datatype.name)
def test_encoding_looks_at_the_memory_of_a_large_array(datatype):
    array = np.resize(values_of(datatype), 1025)
    assert np.shares_memory(np.frombuffer(tensors.raw_from_array(array), np.uint8), array)


@pytest.mark.parametrize("datatype", [d for d in dtypes.TABLE if d.item_size], ids=lambda datatype: datatype.name)
@pytest.mark.parametrize("size", [0, 1, 2000])
def test_small_and_large_arrays_have_the_same_raw_form_in_any_layout(datatype, size):
    array = np.resize(values_of(datatype), size)
    for same in (array, np.repeat(array, 2)[::2], array.astype(array.dtype.newbyteorder(">"))):
        assert bytes(tensors.raw_from_array(same)) == array.tobytes()


def test_encoding_leaves_the_array_as_it_is():
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    array.flags.writeable = False
    tensors.raw_from_array(array)
    assert array.shape == (2, 3)
    assert array.dtype == np.int32


# ---- refusals ----


def refused(call, *arguments):
    with pytest.raises(TensorError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("given", [0, 1, 23, 25, 48])
def test_raw_of_another_length_than_the_shape_is_refused(given):
    message = refused(tensors.array_from_raw, b"\0" * given, FP32, (2, 3))
    assert message == f"{given} bytes given, 24 wanted for datatype FP32 and shape [2, 3]"


@every_datatype
def test_negative_dimensions_are_refused(datatype):
    wanted = "shape [2, -1] has a negative dimension; every dimension must be 0 or more"
    assert refused(tensors.array_from_raw, b"", datatype, [2, -1]) == wanted
    if tensors.has_contents(datatype):
        assert refused(tensors.array_from_contents, contents(), datatype, [2, -1]) == wanted


def test_two_negative_dimensions_do_not_make_a_count():
    assert "negative dimension" in refused(tensors.array_from_raw, b"\0" * 8, FP32, [-1, -2])


@pytest.mark.parametrize("shape", [[2**40], [2**40, 2**40], [2**62, 4], [2**63 - 1] * 8], ids=str)
@every_datatype
def test_giant_shapes_are_refused_without_memory_for_them(datatype, shape):
    tracemalloc.start()
    try:
        refused(tensors.array_from_raw, b"\0" * 16, datatype, shape)
        if tensors.has_contents(datatype):
            refused(tensors.array_from_contents, contents(), datatype, shape)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def raw_and_contents(datatype, count):
    """Both forms of `count` elements."""
    element = b"" if datatype is BYTES else 1
    raw = framed(*[b""] * count) if datatype is BYTES else b"\1" * (datatype.item_size * count)
    return raw, contents(**{datatype.contents_field: [element] * count})


few_datatypes = pytest.mark.parametrize("datatype", [FP32, UINT8, BYTES], ids=lambda datatype: datatype.name)


@few_datatypes
@pytest.mark.parametrize(
    ("shape", "count"),
    [([1] * 65, 1), ([0, 2**62, 2**62], 0), ([0, 2**63 - 1, 2**63 - 1], 0)],
    ids=["65 dimensions", "large beside 0", "largest beside 0"],
)
def test_shapes_that_no_array_can_have_are_refused(datatype, shape, count):
    raw, typed = raw_and_contents(datatype, count)
    assert refused(tensors.array_from_raw, raw, datatype, shape).startswith("shape ")
    assert refused(tensors.array_from_contents, typed, datatype, shape).startswith("shape ")


@few_datatypes
@pytest.mark.parametrize("size", [1, 2**62])
def test_a_shape_of_many_dimensions_is_refused_at_once_and_briefly(datatype, size):
    """The product of a million large numbers takes minutes, and its digits more than Python will print."""
    shape = [size] * 1_000_000
    for call, given in zip(
        (tensors.array_from_raw, tensors.array_from_contents), raw_and_contents(datatype, 1), strict=True
    ):
        message = refused(call, given, datatype, shape)
        assert "1000000 dimensions" in message
        assert len(message) < 200


@pytest.mark.parametrize("rank", [0, 1, 32])
def test_shapes_of_up_to_32_dimensions_are_taken(rank):
    assert tensors.array_from_raw(b"\0" * 4, FP32, [1] * rank).shape == (1,) * rank


@pytest.mark.parametrize("byte", [2, 128, 255])
def test_bool_bytes_other_than_0_and_1_are_refused(byte):
    message = refused(tensors.array_from_raw, bytes([0, 1, byte]), BOOL, (3,))
    assert message == "BOOL bytes must be 0 or 1; another value is among those given"


@pytest.mark.parametrize(
    ("raw", "shape", "message"),
    [
        (b"", [1], "0 bytes given, at least 4 wanted for 1 BYTES elements"),
        (b"\1\0\0", [1], "3 bytes given, at least 4 wanted for 1 BYTES elements"),
        (framed(b"abcd"), [3], "8 bytes given, at least 12 wanted for 3 BYTES elements"),
        (framed(b"abcd"), [2], "BYTES element 1 of 2: its length is cut off at byte 8"),
        (framed(b"abcd") + b"\0\0", [2], "BYTES element 1 of 2: its length is cut off at byte 10"),
        (b"\5\0\0\0abcd", [1], "BYTES element 0 of 1: 5 bytes announced, 4 left"),
        (b"\xff\xff\xff\xff", [1], "BYTES element 0 of 1: 4294967295 bytes announced, 0 left"),
        (framed(b"abcd", b"e"), [1], "5 bytes are left over after the 1 BYTES elements of the shape"),
        (b"\0", [0], "1 bytes are left over after the 0 BYTES elements of the shape"),
    ],
)
def test_broken_bytes_framing_is_refused(raw, shape, message):
    assert refused(tensors.array_from_raw, raw, BYTES, shape) == message
    assert refused(tensors.array_from_raw, memoryview(raw), BYTES, shape) == message


def test_contents_in_the_field_of_another_datatype_are_refused():
    message = refused(tensors.array_from_contents, contents(int_contents=[1]), FP32, (1,))
    assert message == "contents.int_contents given, contents.fp32_contents wanted for FP32"


def test_contents_in_a_second_field_are_refused():
    given = contents(fp32_contents=[1], bytes_contents=[b"a"])
    message = refused(tensors.array_from_contents, given, FP32, (1,))
    assert message == "contents.bytes_contents given, contents.fp32_contents wanted for FP32"


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("datatype", [FP32, BYTES], ids=lambda datatype: datatype.name)
def test_another_count_of_elements_than_the_shape_is_refused(datatype, count):
    given = contents(**{datatype.contents_field: [b"" if datatype is BYTES else 1] * count})
    message = refused(tensors.array_from_contents, given, datatype, (1, 2))
    assert message == f"{count} elements in contents.{datatype.contents_field} given, 2 wanted for [1, 2]"


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("UINT8", "uint_contents", 256),
        ("UINT8", "uint_contents", 300),
        ("UINT8", "uint_contents", 2**32 - 1),
        ("UINT16", "uint_contents", 2**16),
        ("INT8", "int_contents", 128),
        ("INT8", "int_contents", -129),
        ("INT16", "int_contents", 2**15),
        ("INT16", "int_contents", -(2**31)),
    ],
)
def test_values_outside_the_range_of_a_small_integer_are_refused(name, field, value):
    given = contents(**{field: [0, value, 1]})
    message = refused(tensors.array_from_contents, given, dtypes.from_name(name), (3,))
    assert message == f"contents.{field} holds {value}, outside the range of {name}"


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_half_precision_in_contents_is_refused_with_where_it_belongs(name):
    datatype = dtypes.from_name(name)
    wanted = f"{name} has no field in contents; send it in raw_input_contents"
    assert refused(tensors.array_from_contents, contents(fp32_contents=[1]), datatype, (1,)) == wanted
    assert refused(tensors.fill_contents, contents(), np.zeros(1, datatype.numpy)) == wanted
