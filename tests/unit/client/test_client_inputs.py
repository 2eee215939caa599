"""The check of inputs against a model's metadata: what passes, what is converted, and what each refusal says."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from trtserve_client import InputError, ModelMetadata, TensorMetadata
from trtserve_client.inputs import arrays_from_inputs, fit_inputs
from trtserve_protos import dtypes


def model_with(datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2), name: str = "x") -> ModelMetadata:
    return ModelMetadata("m", ("1",), "p", (TensorMetadata(name, datatype, shape),), ())


def fit(value: object, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> np.ndarray:
    return fit_inputs(model_with(datatype, shape), {"x": value})["x"]


def refusal(value: object, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> str:
    with pytest.raises(InputError) as caught:
        fit(value, datatype, shape)
    return str(caught.value)


def test_a_fitting_array_passes_as_it_is() -> None:
    array = np.zeros((3, 2), np.float32)
    assert fit(array) is array


@pytest.mark.parametrize("datatype", dtypes.TABLE, ids=lambda datatype: datatype.name)
def test_every_datatype_passes_as_itself_only(datatype: dtypes.DataType) -> None:
    array = np.zeros((1, 2), datatype.numpy)
    for wanted in dtypes.TABLE:
        if wanted is datatype:
            assert fit(array, wanted.name) is array
        else:
            assert f"{datatype.numpy_name} ({datatype.name}) given, {wanted.numpy_name} ({wanted.name}) wanted" in (
                refusal(array, wanted.name)
            )


def test_strings_in_any_numpy_form_are_bytes() -> None:
    for array in (np.array(["a", "b"]), np.array([b"a", b"b"]), np.array(["a", b"b"], object)):
        assert fit(array, "BYTES", (2,)) is array


def test_names_that_are_missing_or_unexpected_are_all_told() -> None:
    two = ModelMetadata("m", (), "", (TensorMetadata("a", "FP32", (1,)), TensorMetadata("b", "INT64", (-1, 4))), ())
    with pytest.raises(InputError) as caught:
        fit_inputs(two, {"a": [1.0], "c": [1], "d": [1]})
    assert str(caught.value) == (
        "model 'm': input 'b' missing; input 'c', 'd' unexpected; it takes a FP32 [1], b INT64 [-1, 4]"
    )


MESSAGES = [
    (
        np.zeros((1, 2)),
        "FP32",
        (-1, 2),
        "input 'x': float64 (FP64) given, float32 (FP32) wanted; convert it with array.astype(\"float32\")",
    ),
    (
        np.zeros((1, 2)),
        "BF16",
        (-1, 2),
        "input 'x': float64 (FP64) given, bfloat16 (BF16) wanted; convert it with array.astype(ml_dtypes.bfloat16)",
    ),
    (
        np.zeros(2, np.complex64),
        "FP32",
        (2,),
        "input 'x': complex64 (no type on the wire) given, float32 (FP32) wanted; "
        'convert it with array.astype("float32")',
    ),
    (
        np.zeros((1, 2)),
        "BYTES",
        (-1, 2),
        "input 'x': float64 (FP64) given, object (BYTES) wanted; give an array of str or bytes elements",
    ),
    (
        np.zeros(2, np.float32),
        "FP32",
        (-1, 2),
        "input 'x': shape [2] given, [-1, 2] wanted (-1 takes any size); "
        "add the first dimension with array[np.newaxis]",
    ),
    (
        np.zeros((1, 3), np.float32),
        "FP32",
        (-1, 2),
        "input 'x': shape [1, 3] given, [-1, 2] wanted (-1 takes any size); dimension 1 is 3, not 2",
    ),
    (
        np.zeros((1, 1, 2), np.float32),
        "FP32",
        (1, 2),
        "input 'x': shape [1, 1, 2] given, [1, 2] wanted; 3 dimensions given, 2 wanted",
    ),
]


@pytest.mark.parametrize(("value", "datatype", "shape", "message"), MESSAGES, ids=[m[-1][:40] for m in MESSAGES])
def test_a_refusal_says_what_was_given_wanted_and_what_to_do(
    value: np.ndarray, datatype: str, shape: tuple[int, ...], message: str
) -> None:
    assert refusal(value, datatype, shape) == message


@pytest.mark.parametrize(
    ("value", "datatype", "shape"),
    [
        ([[1, 2]], "FP32", (-1, 2)),
        ([[1, 0.1]], "FP32", (-1, 2)),
        ([True, 2, 3.5], "FP64", (3,)),
        ([float("nan"), float("inf")], "FP16", (2,)),
        ([1, 2.5], "BF16", (2,)),
        ([0, 255], "UINT8", (2,)),
        ([-128, 127], "INT8", (2,)),
        ([1, 2**63], "UINT64", (2,)),
        ([True, False], "BOOL", (2,)),
        ([True, 5], "INT32", (2,)),
        (7, "INT64", ()),
        ([], "INT64", (-1,)),
        ([], "BYTES", (-1,)),
        ([np.float32(1), np.int8(2)], "FP32", (2,)),
        ([np.zeros(2), np.ones(2)], "FP32", (2, 2)),
        ((1, 2), "INT16", (2,)),
        (["a\0", b"b\0"], "BYTES", (2,)),
        ("text", "BYTES", ()),
    ],
    ids=repr,
)
def test_lists_and_scalars_take_the_models_type(value: object, datatype: str, shape: tuple[int, ...]) -> None:
    array = fit(value, datatype, shape)
    assert array.dtype == dtypes.from_name(datatype).numpy
    if datatype == "BYTES":
        assert array.tolist() == (value if isinstance(value, str) else list(value))  # type: ignore[call-overload]
    else:
        np.testing.assert_array_equal(array, np.array(value, array.dtype))


@pytest.mark.parametrize(
    ("value", "datatype", "reason"),
    [
        ([1.0], "INT32", "INT32 takes bool and int, not float"),
        (["1"], "FP32", "FP32 takes bool and int and float, not str"),
        ([1], "BOOL", "BOOL takes bool, not int"),
        ([1], "BYTES", "BYTES takes str and bytes, not int"),
        ([None], "FP32", "not NoneType"),
        ([[1], [2, 3]], "FP32", "not list (are its rows of different length?)"),
        ([256], "UINT8", "256 is outside 0 ... 255, the range of UINT8"),
        ([-1], "UINT64", "-1 is outside 0"),
        ([2**63], "INT64", "is outside"),
        ([2**24 + 1], "FP32", "16777217 cannot be told in FP32; nearest is 16777216.0"),
        ([2**53 + 1], "FP64", "cannot be told in FP64"),
        ([1e300], "FP32", "1e+300 cannot be told in FP32; nearest is inf"),
        ([70000], "FP16", "cannot be told in FP16"),
        ([10**400], "FP64", "outside the range of FP64"),
        ({"a": 1}, "FP32", "not dict"),
    ],
    ids=repr,
)
def test_a_list_whose_values_would_change_is_refused(value: object, datatype: str, reason: str) -> None:
    message = refusal(value, datatype, (1,))
    assert message.startswith(f"input 'x': the {type(value).__name__} given does not fit: ")
    assert reason in message


@given(
    st.lists(st.integers(-(2**70), 2**70), max_size=4), st.sampled_from(["INT8", "UINT16", "INT64", "UINT64", "FP32"])
)
def test_integers_arrive_exactly_or_not_at_all(values: list[int], datatype: str) -> None:
    try:
        array = fit(values, datatype, (-1,))
    except InputError:
        dtype = dtypes.from_name(datatype).numpy
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            assert any(not limits.min <= value <= limits.max for value in values)
        else:
            assert any(float(np.float32(value)) != value for value in values)
    else:
        assert [int(value) for value in array] == values


def test_objects_that_make_an_array_are_taken_at_their_type() -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.zeros((1, 2), np.float32)

    class OnAnotherDevice:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise TypeError("copy it to the host first")

    assert fit(Tensor()).dtype == np.float32
    assert "(FP32) given, int8 (INT8) wanted" in refusal(Tensor(), "INT8")
    assert "copy it to the host first" in refusal(OnAnotherDevice())
    assert "float64 (FP64) given" in refusal(np.float64(1), "FP32", ())


def test_a_model_that_describes_no_inputs_is_not_checked() -> None:
    bare = ModelMetadata("m", (), "", (), ())
    assert fit_inputs(bare, {"any": [1.5]})["any"].dtype == np.float64


def test_an_unknown_datatype_is_left_to_the_server() -> None:
    assert fit([[1.5, 2]], "FP8").dtype == np.float64
    assert "shape" in refusal([1.5], "FP8", (2,))


def test_without_a_model_lists_become_what_numpy_makes() -> None:
    arrays = arrays_from_inputs({"i": [1], "f": [1.5], "s": ["a\0"], "b": True})
    assert [array.dtype.kind for array in arrays.values()] == ["i", "f", "O", "b"]
    assert arrays["s"][0] == "a\0"


def test_inputs_must_be_a_mapping() -> None:
    for inputs in (np.zeros(2), [("x", 1)], None):
        with pytest.raises(InputError, match=f"{type(inputs).__name__} given, a mapping of names to arrays wanted"):
            fit_inputs(model_with(), inputs)  # type: ignore[arg-type]


def test_bf16_without_its_package_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.delitem(vars(dtypes.from_name("BF16")), "numpy", raising=False)
    assert "pip install ml_dtypes" in refusal([1.0], "BF16", (1,))
