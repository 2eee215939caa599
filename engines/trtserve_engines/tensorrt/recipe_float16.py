"""fp16 by ONNX Runtime's converter: the graph in half precision, but for listed operators and its ends."""

from __future__ import annotations

import logging

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from trtserve_engines.import_onnxruntime import import_onnxruntime
from trtserve_engines.tensorrt.build_config import BuildConfig

log = logging.getLogger(__name__)

LARGEST = float(np.finfo(np.float16).max)


def narrowed(model: onnx.ModelProto, config: BuildConfig) -> onnx.ModelProto:
    """The model in FP16. Weights that FP16 cannot hold are named in a warning; they are cut to its largest number."""
    too_large = _too_large(model)
    if too_large:
        log.warning(
            "weights %s are beyond what FP16 holds (%g) and were cut; keep the operators that use them in FP32"
            " with keep_fp32_ops, or use bf16",
            ", ".join(too_large),
            LARGEST,
        )
    float16 = import_onnxruntime("onnxruntime.transformers.float16")
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *config.keep_fp32_ops]
    converted: onnx.ModelProto = float16.convert_float_to_float16(
        model, keep_io_types=config.keep_io_types, op_block_list=blocked
    )
    return converted


def _too_large(model: onnx.ModelProto) -> list[str]:
    return [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and _largest(numpy_helper.to_array(tensor)) > LARGEST
    ]


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max()) if array.size else 0.0
