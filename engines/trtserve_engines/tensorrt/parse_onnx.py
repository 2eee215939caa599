"""TensorRT's ONNX parser: a file into a network, or every reason why not, with node, operator and name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trtserve_engines.errors import BackendUnavailableError, UnsupportedModelError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.tensorrt.tensor_types import NUMPY_TYPES
from trtserve_engines.tensorrt.trt_log import LogLines, TensorRtLog


class ParserProblem(NamedTuple):
    """One thing that the parser refuses. `node` is its index in the graph; -1 where no single node is to blame."""

    node: int
    name: str
    operator: str
    code: str
    reason: str

    def __str__(self) -> str:
        if self.node < 0 and not self.operator:
            return f"{self.reason} ({self.code})"
        return f"node {self.node} {self.name!r}, operator {self.operator or 'unknown'}: {self.reason} ({self.code})"


def make_builder(trt: Any, log: TensorRtLog, lines: LogLines) -> Any:
    """TensorRT's Builder. Raises BackendUnavailableError where TensorRT cannot use the GPU."""
    try:
        return trt.Builder(log.native)
    except TypeError as error:  # what the bindings make of a null pointer
        raise BackendUnavailableError(
            f"TensorRT {trt.__version__} cannot use the GPU: {lines.reason()}; check the driver with nvidia-smi"
        ) from error


def parse_onnx(trt: Any, network: Any, path: Path, log: TensorRtLog, lines: LogLines) -> Any:
    """Fills `network` from the file; external data is found beside it. Returns the parser, which must outlive it.

    Raises UnsupportedModelError with all that the parser found.
    """
    parser = trt.OnnxParser(network, log.native)
    if parser.parse_from_file(os.fspath(path)):
        return parser
    problems = list(_problems(parser))
    found = "; ".join(map(str, problems)) or lines.reason()
    raise UnsupportedModelError(
        f"TensorRT {trt.__version__} cannot take {path}: {found}."
        " Serve it with the onnxruntime backend, name a plugin library that has the operator, or export it otherwise",
        lines.at_least(0),
    )


def check_types(network: Any, model: OnnxModel) -> None:
    """Raises UnsupportedModelError where the parser gave an input or output another type than the graph has.

    It takes FP64 for FP32: clients would have to send what the model does not say.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    specs = {**model.signature.input_by_name, **model.signature.output_by_name}
    for tensor in [*inputs, *outputs]:
        wanted = specs[tensor.name].dtype
        if NUMPY_TYPES.get(tensor.dtype.name) != wanted:
            raise UnsupportedModelError(
                f"{model.path}: {tensor.name!r} is {wanted} in the graph and would be {tensor.dtype.name} in TensorRT,"
                f" which has {', '.join(NUMPY_TYPES)}; export it with one of these"
            )


def unsupported_nodes(trt: Any, path: Path, log: TensorRtLog) -> list[ParserProblem]:
    """Every node that this TensorRT cannot take, in the graph's order; empty for a model that can be built.

    Plugins that the model needs must be loaded before.
    """
    with log.collect() as lines:
        network = make_builder(trt, log, lines).create_network(strongly_typed(trt))
    parser = trt.OnnxParser(network, log.native)
    if parser.supports_model_v2(path.read_bytes(), os.fspath(path)):
        return []
    return list(_problems(parser))


def strongly_typed(trt: Any) -> int:
    """The flags of a network whose types are those of the graph; what 11 does anyway, and 10 only when told."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _problems(parser: Any) -> Iterator[ParserProblem]:
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        yield ParserProblem(
            node=error.node(),
            name=error.node_name(),
            operator=error.node_operator(),
            code=error.code().name,
            reason=" ".join(error.desc().split()),
        )
