"""What the command line prints: aligned tables for people, or one JSON document."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trtserve_client.metadata import ModelIndex, ModelMetadata, TensorMetadata
from trtserve_client.result import Result
from trtserve_protos import dtypes
from trtserve_protos.timing import Timing


@dataclass(frozen=True)
class ClassScore:
    """One line of the classification extension: the model's value for a class, its index and its label or ""."""

    value: float
    index: int
    label: str


def print_answer(arguments: argparse.Namespace, text: str, document: object) -> None:
    """Prints one or the other, as --json says."""
    print(json.dumps(document, ensure_ascii=False) if arguments.json else text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as columns of text, each as wide as its widest cell."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def models_text(models: Sequence[ModelIndex]) -> str:
    """The repository's index as a table."""
    if not models:
        return "the server knows no models"
    return table(("name", "version", "state", "reason"), [(m.name, m.version, m.state, m.reason) for m in models])


def settings_text(settings: Mapping[str, object]) -> str:
    """Names and values as a table."""
    shown = {name: str(value).lower() if isinstance(value, bool) else value for name, value in settings.items()}
    return table(("setting", "value"), shown.items())


def model_text(model: ModelMetadata, state: str) -> str:
    """One model: what it is, what it takes and gives."""
    about = table(
        ("name", model.name),
        [
            ("versions", ", ".join(model.versions)),
            ("state", state),
            ("platform", model.platform),
            *((name, str(value)) for name, value in sorted(model.parameters.items())),
        ],
    )
    return f"{about}\n\n{_tensors_text('input', model.inputs)}\n\n{_tensors_text('output', model.outputs)}"


def result_text(result: Result, ranked: Collection[str] = ()) -> str:
    """Every output with datatype, shape and values, long ones shortened; those in `ranked` as a table of classes."""
    texts = [_output_text(name, array, name in ranked) for name, array in result.items()]
    if result.timing is not None:
        texts.append(_timing_text(result.timing))
    return "\n\n".join(texts)


def result_document(result: Result, ranked: Collection[str] = ()) -> dict[str, object]:
    """The result as values that JSON has. Numbers that JSON lacks become "NaN", "Infinity", "-Infinity"."""
    return {
        "model": result.model_name,
        "version": result.model_version,
        "id": result.id,
        "parameters": result.parameters,
        "outputs": [_output_document(name, array, name in ranked) for name, array in result.items()],
    }


def classes_from_array(array: np.ndarray) -> list[list[ClassScore]] | None:
    """The classes of each row of an answer of the classification extension.

    None where the array is no such answer: a server that does not know the extension sends the output itself.
    """
    if array.dtype != object or not array.size:
        return None
    rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    try:
        return [[_class_score(element) for element in row] for row in rows]
    except ValueError:
        return None


def _class_score(element: bytes) -> ClassScore:
    value, index, *label = element.decode("utf-8", "backslashreplace").split(":", 2)
    return ClassScore(float(value), int(index), label[0] if label else "")


def _tensors_text(kind: str, tensors: Sequence[TensorMetadata]) -> str:
    return table((kind, "datatype", "shape"), [(each.name, each.datatype, list(each.shape)) for each in tensors])


def _timing_text(timing: Timing) -> str:
    phases = [(name.removesuffix("_ns"), value) for name, value in timing._asdict().items() if name.endswith("_ns")]
    rows = [(name, f"{ns / 1000:.1f}") for name, ns in phases]
    about = f"on {timing.instance} ({timing.engine}), in a batch of {timing.batch_rows} rows"
    return f"{table(('phase', 'us'), rows)}\n{about}"


def _output_text(name: str, array: np.ndarray, ranked: bool) -> str:
    title = f"{name}  {dtypes.from_numpy(array.dtype).name} {list(array.shape)}"
    classes = classes_from_array(array) if ranked else None
    if classes is None:
        values = _texts(array) if array.dtype == object else array
        return f"{title}\n{np.array2string(values, max_line_width=110, threshold=60)}"
    many = len(classes) > 1
    rows = [
        ((row,) if many else ()) + (f"{score.value:.6g}", score.index, score.label)
        for row, scores in enumerate(classes)
        for score in scores
    ]
    return f"{name}\n{table((('row',) if many else ()) + ('value', 'index', 'label'), rows)}"


def _output_document(name: str, array: np.ndarray, ranked: bool) -> dict[str, object]:
    document: dict[str, object] = {
        "name": name,
        "datatype": dtypes.from_numpy(array.dtype).name,
        "shape": list(array.shape),
    }
    classes = classes_from_array(array) if ranked else None
    if classes is None:
        document["data"] = _json_values(array)
    else:
        document["classes"] = [[vars(score) for score in scores] for scores in classes]
    return document


def _json_values(array: np.ndarray) -> object:
    if array.dtype == object:
        return _texts(array).tolist()
    if array.dtype.kind in "biu":
        return array.tolist()
    wide = array.astype(np.float64)
    if np.isfinite(wide).all():
        return wide.tolist()
    named = wide.astype(object)
    for index, value in np.ndenumerate(wide):
        if not math.isfinite(value):
            named[index] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return named.tolist()


def _texts(array: np.ndarray) -> np.ndarray:
    texts = np.empty(array.shape, object)
    for index, element in np.ndenumerate(array):
        texts[index] = element.decode("utf-8", "backslashreplace")
    return texts
