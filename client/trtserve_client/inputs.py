"""The caller's inputs to arrays that fit the model, or an InputError that says why they do not.

Arrays pass as they are: a wrong type is the caller's to convert. Lists and scalars have no type of their own, so they
take the model's where no value changes by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from trtserve_client.errors import InputError
from trtserve_client.metadata import ModelMetadata, TensorMetadata
from trtserve_client.shared_memory import SharedTensor
from trtserve_protos import dtypes
from trtserve_protos.dtypes import DataType
from trtserve_protos.errors import DataTypeError

Inputs = Mapping[str, object]
"""Input names to arrays, or to what numpy makes arrays of (lists, scalars, objects with __array__), or to tensors in
shared memory.
"""

Tensor = np.ndarray | SharedTensor
"""An input that is ready to be sent, or to be referred to."""

_TAKEN_KINDS = {
    "b": ("bool",),
    "i": ("bool", "int"),
    "u": ("bool", "int"),
    "f": ("bool", "int", "float"),
    "O": ("str", "bytes"),
}


def arrays_from_inputs(inputs: Inputs) -> dict[str, Tensor]:
    """The inputs as arrays, without a look at any model: lists and scalars become what numpy makes of them."""
    return {name: _array(name, value, None) for name, value in _checked_mapping(inputs).items()}


def fit_inputs(model: ModelMetadata, inputs: Inputs) -> dict[str, Tensor]:
    """The inputs as arrays that fit `model`. Raises InputError that names the tensor, what was given and wanted."""
    specs = model.input_by_name
    if not specs:
        # Some servers describe no inputs at all; only they can judge.
        return arrays_from_inputs(inputs)
    if _checked_mapping(inputs).keys() != specs.keys():
        raise _wrong_names(model, inputs)
    return {name: _fit(specs[name], value) for name, value in inputs.items()}


def _checked_mapping(inputs: Inputs) -> Inputs:
    if not isinstance(inputs, Mapping):
        given = type(inputs).__name__
        raise InputError(f'inputs: {given} given, a mapping of names to arrays wanted, for example {{"x": array}}')
    return inputs


def _wrong_names(model: ModelMetadata, inputs: Inputs) -> InputError:
    missing = [name for name in model.input_by_name if name not in inputs]
    unexpected = [name for name in inputs if name not in model.input_by_name]
    faults = [f"{', '.join(map(repr, names))} {fault}" for names, fault in _named(missing, unexpected)]
    return InputError(f"model {model.name!r}: input {'; input '.join(faults)}; it takes {_listed(model.inputs)}")


def _named(missing: list[str], unexpected: list[str]) -> list[tuple[list[str], str]]:
    return [(names, fault) for names, fault in ((missing, "missing"), (unexpected, "unexpected")) if names]


def _listed(tensors: Iterable[TensorMetadata]) -> str:
    return ", ".join(map(str, tensors))


def _fit(spec: TensorMetadata, value: object) -> Tensor:
    try:
        wanted = dtypes.from_name(spec.datatype)
    except DataTypeError:
        # A datatype that this client does not know: the server will say whether the array fits.
        wanted = None
    array = _array(spec.name, value, wanted)
    if wanted is not None:
        _check_type(spec.name, array.dtype, wanted)
    _check_shape(spec, array.shape)
    return array


def _check_type(name: str, dtype: np.dtype, wanted: DataType) -> None:
    try:
        given = dtypes.from_numpy(dtype)
    except DataTypeError:
        given = None
    if given is wanted:
        return
    remedy = f"convert it with array.astype({_numpy_spelling(wanted)})"
    if wanted is dtypes.BYTES:
        remedy = "give an array of str or bytes elements"
    on_the_wire = f"({given.name})" if given else "(no type on the wire)"
    raise InputError(
        f"input {name!r}: {dtype} {on_the_wire} given, {wanted.numpy_name} ({wanted.name}) wanted; {remedy}"
    )


def _numpy_spelling(datatype: DataType) -> str:
    return "ml_dtypes.bfloat16" if datatype.numpy_name == "bfloat16" else f'"{datatype.numpy_name}"'


def _check_shape(spec: TensorMetadata, shape: tuple[int, ...]) -> None:
    if _shape_fits(shape, spec.shape):
        return
    message = f"input {spec.name!r}: shape {list(shape)} given, {list(spec.shape)} wanted"
    if -1 in spec.shape:
        message += " (-1 takes any size)"
    if _shape_fits((1, *shape), spec.shape):
        message += "; add the first dimension with array[np.newaxis]"
    elif len(shape) == len(spec.shape):
        axis = next(axis for axis, want in enumerate(spec.shape) if shape[axis] != want != -1)
        message += f"; dimension {axis} is {shape[axis]}, not {spec.shape[axis]}"
    else:
        message += f"; {len(shape)} dimensions given, {len(spec.shape)} wanted"
    raise InputError(message)


def _shape_fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    if len(shape) != len(wanted):
        return False
    return all(size == want or want == -1 for size, want in zip(shape, wanted, strict=True))


def _array(name: str, value: object, wanted: DataType | None) -> Tensor:
    if isinstance(value, np.ndarray | SharedTensor):
        return value
    try:
        if hasattr(value, "__array__"):
            return np.asarray(value)
        return _array_from_plain(value, wanted)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"input {name!r}: the {type(value).__name__} given does not fit: {error}") from error


def _array_from_plain(value: object, wanted: DataType | None) -> np.ndarray:
    """An array from a list or scalar. Raises ValueError where a value would have to change."""
    # By way of objects: numpy would cut trailing zero bytes off strings and make floats of mixed large integers.
    elements = np.array(value, dtype=object)
    kinds = {_kind(element) for element in elements.flat}
    if wanted is None:
        return elements if kinds & {"str", "bytes"} else np.array(elements.tolist())
    dtype = wanted.numpy
    kind = "f" if wanted.name.startswith(("FP", "BF")) else dtype.kind
    if strange := sorted(kinds.difference(_TAKEN_KINDS[kind])):
        hint = " (are its rows of different length?)" if "list" in strange or "tuple" in strange else ""
        raise ValueError(f"{wanted.name} takes {' and '.join(_TAKEN_KINDS[kind])}, not {strange[0]}{hint}")
    if kind == "O":
        return elements
    return _floats(elements, wanted) if kind == "f" else _integers(elements, wanted)


def _kind(element: object) -> str:
    if isinstance(element, bool | np.bool_):
        return "bool"
    for kind, types in (("int", int | np.integer), ("float", float | np.floating), ("str", str), ("bytes", bytes)):
        if isinstance(element, types):
            return kind
    return type(element).__name__


def _integers(elements: np.ndarray, wanted: DataType) -> np.ndarray:
    if elements.size and wanted.numpy.kind != "b":
        limits = np.iinfo(wanted.numpy)
        for element in (min(elements.flat), max(elements.flat)):
            if not limits.min <= element <= limits.max:
                raise ValueError(f"{element} is outside {limits.min} ... {limits.max}, the range of {wanted.name}")
    return elements.astype(wanted.numpy)


def _floats(elements: np.ndarray, wanted: DataType) -> np.ndarray:
    """Floats may be rounded, as 0.1 always is; integers stand for themselves and must arrive as they are."""
    try:
        wide = elements.astype(np.float64)
    except OverflowError as error:
        raise ValueError(f"a value is outside the range of {wanted.name}: {error}") from None
    with np.errstate(over="ignore"):
        array = wide.astype(wanted.numpy)
    for given, sent in zip(elements.flat, array.astype(np.float64).ravel().tolist(), strict=True):
        rounded = _kind(given) == "float" and math.isfinite(given) == math.isfinite(sent)
        if not rounded and given != sent:
            raise ValueError(f"{given} cannot be told in {wanted.name}; nearest is {sent}")
    return array
