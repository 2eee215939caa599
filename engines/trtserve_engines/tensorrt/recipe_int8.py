"""int8: explicit Quantize and Dequantize nodes with ranges from real samples, placed as TensorRT wants them.

Symmetric (its zero points must be 0), weights per channel, no quantised bias, a pair of nodes on each input of each
quantised operator and none on its output, so that TensorRT may fuse what follows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from trtserve_engines.errors import RecipeError
from trtserve_engines.import_onnxruntime import import_onnxruntime
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.sample_file import Sample, read_samples
from trtserve_engines.tensorrt.build_config import BuildConfig

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What TensorRT has INT8 kernels for that pay."""

_LEAST_OPSET = 13  # the first whose Dequantize has an axis
_BETTER_OPSET = 17
_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


def quantized(model: OnnxModel, config: BuildConfig) -> onnx.ModelProto:
    """The model with its matrix operators in INT8. Raises RecipeError where nothing of it can be quantised."""
    operators = [operator for operator in OPERATORS if operator not in config.keep_fp32_ops]
    proto = _with_opset(onnx.load(model.path), model.opset)
    if not any(node.op_type in operators for node in proto.graph.node):
        raise RecipeError(
            f"{model.path} has none of {', '.join(operators) or 'the operators'} that int8 is for; build it as-is"
        )
    samples = read_samples(Path(config.calibration), model.signature)
    ort = import_onnxruntime("onnxruntime.quantization")
    with tempfile.TemporaryDirectory(prefix="trtserve-int8-") as scratch:
        target = Path(scratch) / "model.onnx"
        ort.quantize_static(
            proto,
            str(target),
            _reader(ort, samples),
            quant_format=ort.QuantFormat.QDQ,
            op_types_to_quantize=operators,
            per_channel=True,
            activation_type=ort.QuantType.QInt8,
            weight_type=ort.QuantType.QInt8,
            calibrate_method=ort.CalibrationMethod[_METHODS[config.calibration_method]],
            extra_options=_placement(operators),
        )
        return onnx.load(target)


def _placement(operators: list[str]) -> dict[str, Any]:
    return {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": operators,
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    }


def _with_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    if opset >= _LEAST_OPSET:
        return proto
    converted: onnx.ModelProto = version_converter.convert_version(proto, _BETTER_OPSET)
    return converted


def _reader(ort: Any, samples: list[Sample]) -> Any:
    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        """Hands out the samples one by one."""

        def __init__(self) -> None:
            self._samples: Iterator[Sample] = iter(samples)

        def get_next(self) -> Sample | None:
            return next(self._samples, None)

    return Reader()
