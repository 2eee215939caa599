"""Reads an .npz file of real inputs: what int8 is calibrated with, and what accuracy is measured on."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trtserve_engines.errors import ModelFileError, SignatureError
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

Sample = dict[str, np.ndarray]


def read_samples(path: Path, signature: Signature, *, rows: int = 1) -> list[Sample]:
    """The inputs in the file, cut into samples that can be run one by one.

    The file holds an array per input, by name. An array with as many dimensions as the input is cut along the first:
    into pieces as long as the model's first dimension is, or of `rows` where that one is dynamic; what is left over
    stays out. An array with one dimension more holds a sample per element of its first. Raises ModelFileError for a
    file that is no such file, SignatureError for arrays that do not fit the model.
    """
    arrays = _load(path)
    cut = {spec.name: _pieces(arrays, spec, rows, path) for spec in signature.inputs}
    counts = {name: len(pieces) for name, pieces in cut.items()}
    if len(set(counts.values())) > 1:
        raise SignatureError(f"{path} holds different numbers of samples: {_listed(counts)}")
    if not counts or not min(counts.values()):
        raise SignatureError(f"{path} holds no whole sample; wanted is at least one for each of {_listed(counts)}")
    samples = [{name: pieces[index] for name, pieces in cut.items()} for index in range(next(iter(counts.values())))]
    for sample in samples:
        signature.check(sample)
    return samples


def _load(path: Path) -> Mapping[str, np.ndarray]:
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ModelFileError(f"{path} is one array; wanted is an .npz file with an array per input")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ModelFileError(
            f"sample file {path} cannot be read: {reason}; write it with numpy.savez(file, NAME=array, ...)"
        ) from error


def _pieces(arrays: Mapping[str, np.ndarray], spec: TensorSpec, rows: int, path: Path) -> list[np.ndarray]:
    array = arrays.get(spec.name)
    if array is None:
        given = ", ".join(map(repr, arrays)) or "none"
        raise SignatureError(f"{path} has no array for input {spec.name!r}; it has {given}")
    if array.ndim == len(spec.shape) + 1:
        return list(array)
    if array.ndim != len(spec.shape) or array.ndim == 0:
        raise SignatureError(
            f"{path}: the array for input {spec.name!r} has the shape {list(array.shape)};"
            f" wanted is {list(spec.shape)} with more rows, or with a dimension in front that counts samples"
        )
    length = rows if spec.shape[0] == DYNAMIC else spec.shape[0]
    return [array[start : start + length] for start in range(0, len(array) - length + 1, length)]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({count})" for name, count in counts.items())
