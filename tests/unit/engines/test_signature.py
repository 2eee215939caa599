"""What a model takes and gives: the check of arrays and its messages."""

import numpy as np
import pytest

from trtserve_engines.errors import SignatureError
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

IMAGE = TensorSpec("image", np.dtype(np.float32), (DYNAMIC, 3, DYNAMIC))
WORDS = TensorSpec("words", np.dtype(object), (DYNAMIC,))
FLAG = TensorSpec("flag", np.dtype(bool), ())
SIGNATURE = Signature((IMAGE, WORDS), (FLAG,))
NO_INPUTS = Signature((), (FLAG,))


def words(*elements):
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def arrays(**changes):
    return {"image": np.zeros((2, 3, 5), np.float32), "words": words(b"a", "b"), **changes}


def refused(signature, given, *arguments):
    with pytest.raises(SignatureError) as caught:
        signature.check(given, *arguments)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 3, 1), (0, 3, 0)], ids=str)
def test_arrays_that_fit_are_taken(shape):
    SIGNATURE.check(arrays(image=np.zeros(shape, np.float32)))


def test_a_model_without_inputs_takes_none():
    NO_INPUTS.check({})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"words": words(b"a")}, "input 'image' is missing: given 'words', wanted 'image', 'words'"),
        ({}, "input 'image' is missing: given none, wanted 'image', 'words'"),
        ({"imge": 0, "words": 0}, "input 'image' is missing: given 'imge', 'words', wanted 'image', 'words'"),
        (arrays(extra=words()), "input 'extra' is not one of the model's; wanted are 'image', 'words'"),
        (arrays(image=np.zeros((2, 3, 5))), "input 'image': datatype float64 given, float32 wanted"),
        (arrays(words=np.zeros(2, np.int8)), "input 'words': datatype int8 given, object wanted"),
        (
            arrays(image=np.zeros((2, 4, 5), np.float32)),
            "input 'image': shape [2, 4, 5] given, [-1, 3, -1] wanted (-1 takes any size)",
        ),
        (
            arrays(image=np.zeros((2, 3), np.float32)),
            "input 'image': shape [2, 3] given, [-1, 3, -1] wanted (-1 takes any size)",
        ),
        (
            arrays(image=np.zeros((), np.float32)),
            "input 'image': shape [] given, [-1, 3, -1] wanted (-1 takes any size)",
        ),
    ],
)
def test_refusals_name_the_input_and_what_was_given_and_wanted(given, message):
    assert refused(SIGNATURE, given) == message


def test_refusal_of_a_fixed_shape_mentions_no_dynamic_size():
    given = {"flag": np.zeros(1, bool)}
    assert refused(Signature((FLAG,), ()), given) == "input 'flag': shape [1] given, [] wanted"


def test_an_input_too_many_for_a_model_without_any():
    assert refused(NO_INPUTS, arrays()) == "input 'image' is not one of the model's; wanted are none"


def test_big_endian_arrays_are_not_of_the_models_type():
    assert "datatype >f4 given, float32 wanted" in refused(SIGNATURE, arrays(image=np.zeros((2, 3, 5), ">f4")))


def test_types_are_named_in_the_words_of_the_caller():
    message = refused(SIGNATURE, arrays(image=np.zeros((2, 3, 5))), lambda dtype: f"T{dtype.itemsize}")
    assert message == "input 'image': datatype T8 given, T4 wanted"


def test_strings_have_to_be_utf8():
    message = refused(SIGNATURE, arrays(words=words("a", b"\xff")))
    assert message.startswith("input 'words': element 1 is not UTF-8, as ONNX strings must be: ")


def test_tensors_are_found_by_name():
    assert SIGNATURE.input_by_name == {"image": IMAGE, "words": WORDS}
    assert SIGNATURE.output_by_name == {"flag": FLAG}


@pytest.mark.parametrize(
    ("inputs", "outputs", "dynamic"),
    [
        ((WORDS,), (IMAGE,), True),
        ((WORDS, FLAG), (IMAGE,), False),
        ((WORDS,), (IMAGE, FLAG), False),
        ((TensorSpec("x", np.dtype(bool), (1, DYNAMIC)),), (WORDS,), False),
        ((), (WORDS,), False),
        ((), (), False),
    ],
)
def test_a_batch_dimension_has_to_be_first_and_dynamic_everywhere(inputs, outputs, dynamic):
    assert Signature(inputs, outputs).first_dimension_is_dynamic() is dynamic
