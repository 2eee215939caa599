"""The same cases in this process: which ones ONNX Runtime passes, what it gives, and why the others are left out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import onnxruntime
from onnx.backend.test.runner import Runner

from tests.onnx_backend.cases import Case
from trtserve_protos import dtypes
from trtserve_protos.errors import DataTypeError

_BF16 = dtypes.from_name("BF16")

INTRA_OP_THREADS = 1
"""As at the server: how a sum is split over threads changes its last bits."""


class LeftOut(Exception):
    """The case cannot be compared; says why in words that many cases share."""


def outputs_of(case: Case) -> list[list[np.ndarray]]:
    """What ONNX Runtime gives for each data set of a case that it passes. Raises LeftOut."""
    _check_values(case)
    session = _session(case)
    found = []
    for inputs, expected in case.data:
        outputs = _run(session, case, inputs)
        try:
            Runner.assert_similar_outputs(expected, outputs, rtol=case.rtol, atol=case.atol)
        except Exception:
            raise LeftOut("ONNX Runtime gives other numbers than the case expects") from None
        found.append(outputs)
    return found


def _check_values(case: Case) -> None:
    graph = case.model.graph
    for value in (*graph.input, *graph.output):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise LeftOut(f"an input or output is of kind {kind.removesuffix('_type')}, and only tensors travel")
        try:
            dtypes.from_onnx(value.type.tensor_type.elem_type)
        except DataTypeError:
            raise LeftOut("an input or output has a datatype that the protocol does not have") from None
        if not value.type.tensor_type.HasField("shape"):
            raise LeftOut("an input or output has no shape in the graph, not even its number of dimensions")
    if not case.data:
        raise LeftOut("there is no data for it")
    if any(len(inputs) != len(case.input_names) for inputs, _ in case.data):
        raise LeftOut("the data leaves inputs out")


def _session(case: Case) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = INTRA_OP_THREADS
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(case.model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception:
        raise LeftOut("ONNX Runtime cannot load it") from None


def _run(session: onnxruntime.InferenceSession, case: Case, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    feeds = dict(zip(case.input_names, inputs, strict=True))
    values = (*case.model.graph.input, *case.model.graph.output)
    try:
        if all(value.type.tensor_type.elem_type != _BF16.onnx for value in values):
            return [np.asarray(output) for output in session.run(case.output_names, feeds, options)]
        given = {name: _value(array) for name, array in feeds.items()}
        return [_array(value) for value in session.run_with_ort_values(case.output_names, given, options)]
    except Exception:
        raise LeftOut("ONNX Runtime cannot run it") from None


def _value(array: np.ndarray) -> onnxruntime.OrtValue:
    if array.dtype.name == _BF16.numpy_name:  # numpy does not know it, so neither do ONNX Runtime's conversions
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _BF16.onnx)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _array(value: onnxruntime.OrtValue) -> np.ndarray:
    if value.element_type() != _BF16.onnx:
        return np.array(value.numpy())
    shape = value.shape()
    memory = (ctypes.c_uint16 * int(np.prod(shape))).from_address(value.data_ptr())
    return np.frombuffer(memory, np.uint16).reshape(shape).view(_BF16.numpy).copy()
