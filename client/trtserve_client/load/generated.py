"""Made-up inputs that fit a model's metadata: random within the range of each input, or zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trtserve_client.load.errors import UsageError
from trtserve_client.metadata import ModelMetadata, TensorMetadata
from trtserve_protos import dtypes

Range = tuple[float, float]


def shapes_from_words(words: Sequence[str], model: ModelMetadata) -> dict[str, tuple[int, ...]]:
    """Sizes by input from words NAME=64x64. Raises UsageError."""
    shapes = {}
    for name, text in _pairs(words, "--shape", "NAME=64x64", model):
        parts = text.split("x")
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise UsageError(f"--shape {name}={text}: wanted are sizes with x between them, for example {name}=64x64")
        shapes[name] = tuple(map(int, parts))
    return shapes


def ranges_from_words(words: Sequence[str], model: ModelMetadata) -> dict[str, Range]:
    """Ranges by input from words NAME=LOW:HIGH. Raises UsageError."""
    ranges = {}
    for name, text in _pairs(words, "--range", "NAME=LOW:HIGH", model):
        low, _, high = text.partition(":")
        try:
            ranges[name] = (float(low), float(high))
        except ValueError:
            raise UsageError(f"--range {name}={text}: wanted is LOW:HIGH, two numbers") from None
        if not -np.inf < ranges[name][0] <= ranges[name][1] < np.inf:
            raise UsageError(f"--range {name}={text}: LOW must be finite and not above HIGH")
    return ranges


def input_shape(spec: TensorMetadata, rows: int, sizes: Sequence[int] | None) -> tuple[int, ...]:
    """The shape to send. A first dimension of any size gets `rows`, other ones `sizes`. Raises UsageError."""
    batched = bool(spec.shape) and spec.shape[0] == -1
    own = spec.shape[1:] if batched else spec.shape
    if rows > 1 and not batched:
        raise UsageError(f"--rows {rows}: input {spec} has no dimension for rows; drop --rows")
    if sizes is None:
        if -1 in own:
            raise UsageError(f"input {spec} has open dimensions; give their sizes with --shape {_example(spec, own)}")
        sizes = own
    if len(sizes) != len(own) or any(want not in (-1, size) for size, want in zip(sizes, own, strict=True)):
        given = "x".join(map(str, sizes))
        raise UsageError(f"--shape {spec.name}={given} does not fit input {spec}; wanted is {_example(spec, own)}")
    return (rows, *sizes) if batched else tuple(sizes)


def random_array(spec: TensorMetadata, shape: Sequence[int], limits: Range | None, seed: int) -> np.ndarray:
    """Floats from 0 to 1, integers 0 or 1 (an index into any table stays valid), words; or within `limits`."""
    random = np.random.default_rng(seed)
    dtype = dtypes.from_name(spec.datatype).numpy
    if dtype.kind == "O":
        return _words(shape, random)
    low, high = limits or (0.0, 1.0)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        _check_integers(spec, dtype, low, high)
        return random.integers(int(low), int(high), shape, dtype=dtype, endpoint=True)
    return (low + random.random(shape) * (high - low)).astype(dtype)


def zeros_array(spec: TensorMetadata, shape: Sequence[int]) -> np.ndarray:
    """Zeros; empty strings where the input takes strings."""
    dtype = dtypes.from_name(spec.datatype).numpy
    if dtype.kind == "O":
        return np.full(shape, b"", object)
    return np.zeros(shape, dtype)


def generated_inputs(
    model: ModelMetadata,
    *,
    zeros: bool,
    rows: int,
    shapes: Mapping[str, tuple[int, ...]],
    ranges: Mapping[str, Range],
    seed: int,
) -> dict[str, np.ndarray]:
    """One request's inputs. Raises UsageError where the metadata leaves something open that no option closes."""
    inputs = {}
    for number, spec in enumerate(model.inputs):
        shape = input_shape(spec, rows, shapes.get(spec.name))
        own_seed = seed + 1_000_003 * number
        inputs[spec.name] = (
            zeros_array(spec, shape) if zeros else random_array(spec, shape, ranges.get(spec.name), own_seed)
        )
    return inputs


def _words(shape: Sequence[int], random: np.random.Generator) -> np.ndarray:
    array = np.empty(int(np.prod(shape)), object)
    array[:] = [b"word %d" % number for number in random.integers(0, 1000, array.size)]
    return array.reshape(shape)


def _check_integers(spec: TensorMetadata, dtype: np.dtype, low: float, high: float) -> None:
    info = np.iinfo(dtype)
    if not info.min <= low <= high <= info.max or low != int(low) or high != int(high):
        raise UsageError(
            f"--range {spec.name}={low:g}:{high:g}: whole numbers within {info.min} and {info.max} are wanted"
            f" for {spec.datatype}"
        )


def _pairs(words: Sequence[str], option: str, form: str, model: ModelMetadata) -> list[tuple[str, str]]:
    pairs = []
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise UsageError(f"{option} {word!r}: wanted is {form}")
        if name not in model.input_by_name:
            raise UsageError(f"{option} {word!r}: the model has no input {name!r}; it takes {_inputs(model)}")
        pairs.append((name, text))
    return pairs


def _inputs(model: ModelMetadata) -> str:
    return ", ".join(map(str, model.inputs)) or "no inputs"


def _example(spec: TensorMetadata, own: Sequence[int]) -> str:
    return f"{spec.name}=" + "x".join(str(size if size != -1 else 64) for size in own)
