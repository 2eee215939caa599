"""Precision is a recipe applied to the graph before the build: from an ONNX file to another one, and by which tool.

Needs neither TensorRT nor a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from trtserve_engines.errors import EngineError, RecipeError
from trtserve_engines.import_onnxruntime import import_onnxruntime
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.tensorrt import modelopt, recipe_float16, recipe_float32, recipe_int8
from trtserve_engines.tensorrt.build_config import BuildConfig

_LARGEST_FILE = 3 << 29  # a protobuf message ends at 2 GiB


@dataclass(frozen=True)
class RecipeResult:
    """The graph to build, and the tool that made it, with its version; "" where nothing had to be done."""

    path: Path
    tool: str


def recipe_tool(config: BuildConfig) -> str:
    """The tool, with its version, that `apply_recipe` would use: part of an engine's key. Raises RecipeError."""
    if config.precision == "as-is":
        return ""
    if config.precision == "fp32":
        return f"trtserve {recipe_float32.VERSION}"
    if config.precision == "int8":
        return _onnxruntime()
    tool = modelopt.find(config)
    if tool is not None:
        return tool.name
    if config.precision == "bf16":
        raise RecipeError(
            "precision bf16 needs NVIDIA's ModelOpt, which was not found: install nvidia-modelopt into an environment"
            " of its own and name its python with modelopt_python, or use fp16"
        )
    return _onnxruntime()


def apply_recipe(model: OnnxModel, config: BuildConfig, folder: Path) -> RecipeResult:
    """Rewrites the model as `config.precision` says, into a file in `folder`. Raises RecipeError.

    `config` holds the profiles that the model will have; see `profiles.with_profiles`.
    """
    tool = recipe_tool(config)
    if config.precision == "as-is":
        return RecipeResult(model.path, tool)
    target = folder / "model.onnx"
    try:
        if tool.startswith("modelopt"):
            modelopt.autocast(model, config, target)
        else:
            save(_rewritten(model, config), target)
    except EngineError:
        raise
    except Exception as error:  # the converters' errors share no base class
        raise RecipeError(
            f"{tool} could not rewrite {model.path} to {config.precision}: {' '.join(str(error).split())[:2000]};"
            " keep operators in FP32 with keep_fp32_ops, or build it as-is"
        ) from error
    return RecipeResult(target, tool)


def _rewritten(model: OnnxModel, config: BuildConfig) -> onnx.ModelProto:
    if config.precision == "fp32":
        return recipe_float32.widened(onnx.load(model.path), keep_io_types=config.keep_io_types)
    if config.precision == "int8":
        return recipe_int8.quantized(model, config)
    return recipe_float16.narrowed(onnx.load(model.path), config)


def _onnxruntime() -> str:
    return f"onnxruntime {import_onnxruntime().__version__} with onnx {onnx.__version__}"


def save(proto: onnx.ModelProto, target: Path) -> None:
    """Writes a graph, its weights beside it where they are too many for one file."""
    is_large = sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > _LARGEST_FILE
    onnx.save_model(proto, str(target), save_as_external_data=is_large, location="weights.bin")
