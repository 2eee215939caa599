"""What TensorRT would find out about an ONNX graph: types, unsupported nodes, shape tensors, shapes of outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

from ._real import DataType

Shape = tuple[int, ...]

DATA_TYPES = {
    TensorProto.FLOAT: (DataType.FLOAT, np.dtype(np.float32)),
    TensorProto.FLOAT16: (DataType.HALF, np.dtype(np.float16)),
    TensorProto.BFLOAT16: (DataType.BF16, np.dtype(ml_dtypes.bfloat16)),
    TensorProto.INT8: (DataType.INT8, np.dtype(np.int8)),
    TensorProto.UINT8: (DataType.UINT8, np.dtype(np.uint8)),
    TensorProto.INT32: (DataType.INT32, np.dtype(np.int32)),
    TensorProto.INT64: (DataType.INT64, np.dtype(np.int64)),
    TensorProto.BOOL: (DataType.BOOL, np.dtype(np.bool_)),
}
UNSUPPORTED_OPERATORS = frozenset({
    "BitShift", "CenterCropPad", "Col2Im", "ConcatFromSequence", "DeformConv", "Det", "MaxUnpool", "MelWeightMatrix",
    "Optional", "OptionalGetElement", "OptionalHasElement", "RegexFullMatch", "SequenceAt", "SequenceConstruct",
    "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence",
    "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique",
})  # fmt: skip
DATA_DEPENDENT_OPERATORS = frozenset({"NonZero", "NonMaxSuppression", "Compress"})
_SHAPE_OPERANDS = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Slice": (1, 2, 3, 4), "Range": (0, 1, 2),
    "Resize": (2, 3), "TopK": (1,), "Pad": (1,), "Squeeze": (1,), "Unsqueeze": (1,),
}  # fmt: skip
_SHAPE_ARITHMETIC = frozenset({
    "Cast", "Identity", "Concat", "Gather", "Add", "Sub", "Mul", "Div", "Min", "Max", "Squeeze", "Unsqueeze", "Slice",
})  # fmt: skip


class Problem(NamedTuple):
    """Why the parser refuses the graph: an error code's name, the reason, and the node."""

    code: str
    reason: str
    node: int = -1
    name: str = ""
    operator: str = ""


def problems(model: onnx.ModelProto, plugins: Mapping[str, Any]) -> list[Problem]:
    """All that the parser does not like, in the graph's order."""
    found = [
        Problem("UNSUPPORTED_NODE_DATATYPE", f"Found unsupported datatype ({value.type.tensor_type.elem_type})"
                f" when importing {kind}: {value.name}")
        for kind, values in (("network input", inputs_of(model)), ("network output", model.graph.output))
        for value in values
        if value.type.tensor_type.elem_type not in (*DATA_TYPES, TensorProto.DOUBLE)
    ]  # fmt: skip
    own = {(function.domain, function.name) for function in model.functions}
    for index, node in enumerate(model.graph.node):
        if (node.domain, node.op_type) in own or node.op_type in plugins:
            continue
        if node.domain not in ("", "ai.onnx") or node.op_type in UNSUPPORTED_OPERATORS:
            reason = (
                f"No importer registered for op: {node.op_type}. Attempting to import as plugin: Plugin not found, are"
                " the plugin name, version, and namespace correct?"
            )
            found.append(Problem("UNSUPPORTED_NODE", reason, index, node.name, node.op_type))
    return found


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are fed: no initializers."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def declared_shape(value: onnx.ValueInfoProto) -> Shape:
    """The shape in the graph, with -1 for what is not fixed."""
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)


def shape_inputs(model: onnx.ModelProto) -> frozenset[str]:
    """Inputs whose values the graph reads as a shape: integers of rank 0 or 1 that lead to a shape operand."""
    wanted: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type in _SHAPE_ARITHMETIC and wanted & set(node.output):
            wanted.update(node.input)
        wanted.update(node.input[index] for index in _SHAPE_OPERANDS.get(node.op_type, ()) if index < len(node.input))
    return frozenset(
        value.name
        for value in inputs_of(model)
        if value.name in wanted
        and value.type.tensor_type.elem_type in (TensorProto.INT32, TensorProto.INT64)
        and len(declared_shape(value)) <= 1
    )


def has_data_dependent_shapes(model: onnx.ModelProto) -> bool:
    """Whether the shape of anything may depend on values."""
    return any(node.op_type in DATA_DEPENDENT_OPERATORS for node in model.graph.node)


def output_shapes(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], values: Mapping[str, np.ndarray]
) -> dict[str, Shape]:
    """Shapes of the outputs for inputs of these shapes and, for shape inputs, values; -1 where data decides."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.input[:]
    for value in inputs_of(model):
        if value.name in values:
            fixed.graph.initializer.append(numpy_helper.from_array(values[value.name], value.name))
            continue
        changed = fixed.graph.input.add()
        changed.CopyFrom(value)
        for dim, size in zip(changed.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dim.dim_value = size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    outputs = {value.name: value for value in inferred.graph.output}
    known = {
        name: declared_shape(value) if value.type.tensor_type.HasField("shape") else (-1,)
        for name, value in outputs.items()
    }
    if any(-1 in shape for shape in known.values()) and not has_data_dependent_shapes(model):
        return _shapes_by_running(model, shapes, values)
    return known


def _shapes_by_running(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], values: Mapping[str, np.ndarray]
) -> dict[str, Shape]:
    feeds = {
        value.name: values.get(
            value.name, np.zeros(shapes[value.name], DATA_TYPES[value.type.tensor_type.elem_type][1])
        )
        for value in inputs_of(model)
    }
    names = [value.name for value in model.graph.output]
    outputs = run(session_of(model), model, feeds, names)
    return {name: array.shape for name, array in zip(names, outputs, strict=True)}


def session_of(model: onnx.ModelProto) -> Any:
    """An ONNX Runtime session of the model, on one thread, with BF16 as a GPU has it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    from trtserve_engines.tensorrt.bfloat16_on_cpu import runnable_on_cpu

    runnable = onnx.ModelProto()
    runnable.CopyFrom(model)
    model = runnable_on_cpu(runnable)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: Any, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], names: list[str]) -> list[np.ndarray]:
    """The outputs `names`; BF16 goes through ONNX Runtime as numbers of 16 bits, which is all that numpy can do."""
    import ctypes

    import onnxruntime

    values = {}
    for name, array in feeds.items():
        if array.dtype == ml_dtypes.bfloat16:
            values[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                array.view(np.uint16), TensorProto.BFLOAT16
            )
        else:
            values[name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    results = []
    for value in session.run_with_ort_values(names, values):
        if value.data_type() != "tensor(bfloat16)":
            results.append(value.numpy())
            continue
        shape = tuple(value.shape())
        memory = ctypes.string_at(value.data_ptr(), int(np.prod(shape)) * 2)
        results.append(np.frombuffer(memory, ml_dtypes.bfloat16).reshape(shape))
    return results
