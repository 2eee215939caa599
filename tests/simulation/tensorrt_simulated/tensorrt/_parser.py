"""The ONNX parser: fills a network, or says node by node why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from ._basics import log, log_error, register_logger
from ._graph import Problem, problems
from ._network import INetworkDefinition
from ._plugins import get_plugin_registry
from ._real import ErrorCode, Native, OnnxParserFlag, Severity, as_in_this_generation


class ParserError(Native):
    """One thing that the parser does not like."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def code(self) -> Any:
        return getattr(ErrorCode, self._problem.code)

    def desc(self) -> str:
        return self._problem.reason

    def file(self) -> str:
        return "ModelImporter.cpp"

    def line(self) -> int:
        return 1

    def func(self) -> str:
        return "parseNode"

    def node(self) -> int:
        return self._problem.node

    def node_name(self) -> str:
        return self._problem.name

    def node_operator(self) -> str:
        return self._problem.operator

    def local_function_stack(self) -> list[str]:
        return []

    def local_function_stack_size(self) -> int:
        return 0


class OnnxParser(Native):
    """Parses one model into one network."""

    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        if not isinstance(network, INetworkDefinition):
            raise TypeError("__init__(): incompatible constructor arguments")
        self._network = network
        self._logger = register_logger(logger)
        self._errors: list[Problem] = []
        self._subgraphs: list[tuple[bool, list[int]]] = []
        self._flags = 1 << int(OnnxParserFlag.NATIVE_INSTANCENORM)

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError | None:
        return ParserError(self._errors[index]) if 0 <= index < len(self._errors) else None

    def clear_errors(self) -> None:
        self._errors.clear()

    @property
    def flags(self) -> int:
        return self._flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._flags = value

    def set_flag(self, flag: Any) -> None:
        self._flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)

    def parse(self, model: Any, path: str | None = None) -> bool:
        proto = self._proto(bytes(memoryview(model)), Path(path).parent if path else None)
        return proto is not None and self._import(proto)

    def parse_from_file(self, model: str) -> bool:
        if not isinstance(model, str):
            raise TypeError("parse_from_file(): incompatible function arguments")
        path = Path(model)
        if not path.is_file():
            return self._fail(Problem("MODEL_DESERIALIZE_FAILED", f"Could not open file {path.resolve()}"))
        proto = self._proto(path.read_bytes(), path.parent)
        return proto is not None and self._import(proto)

    def supports_operator(self, op_name: str) -> bool:
        node = onnx.helper.make_node(op_name, [], [])
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
        return not problems(model, get_plugin_registry()._functions)

    def supports_model_v2(self, model: Any, path: str | None = None) -> bool:
        proto = self._proto(bytes(memoryview(model)), Path(path).parent if path else None)
        if proto is None:
            return False
        found = problems(proto, get_plugin_registry()._functions)
        self._errors = list(found)
        bad = {problem.node for problem in found}
        self._subgraphs = []
        for index in range(len(proto.graph.node)):
            supported = index not in bad
            if not self._subgraphs or self._subgraphs[-1][0] != supported:
                self._subgraphs.append((supported, []))
            self._subgraphs[-1][1].append(index)
        return not found

    @property
    def num_subgraphs(self) -> int:
        return len(self._subgraphs)

    def is_subgraph_supported(self, index: int) -> bool:
        return self._subgraphs[index][0]

    def get_subgraph_nodes(self, index: int) -> list[int]:
        return list(self._subgraphs[index][1])

    def set_builder_config(self, builder_config: Any) -> bool:
        return True

    def get_used_vc_plugin_libraries(self) -> list[str]:
        return []

    def _proto(self, data: bytes, folder: Path | None) -> onnx.ModelProto | None:
        try:
            proto = onnx.ModelProto.FromString(data)
        except DecodeError:
            self._fail(Problem("MODEL_DESERIALIZE_FAILED", "Failed to parse ONNX model"))
            return None
        try:
            if folder is not None:
                onnx.load_external_data_for_model(proto, str(folder))
            elif any(tensor.data_location for tensor in proto.graph.initializer):
                raise OSError("weights are external and no path was given")
        except Exception as error:
            self._fail(Problem("INVALID_GRAPH", f"Failed to import external weights: {error}"))
            return None
        return proto

    def _import(self, proto: onnx.ModelProto) -> bool:
        found = problems(proto, get_plugin_registry()._functions)
        if found:
            # The real one stops at the first node that it cannot import.
            return self._fail(found[0])
        self._network._fill(proto)
        log(Severity.INFO, f"Parsed {len(proto.graph.node)} nodes")
        return True

    def _fail(self, problem: Problem) -> bool:
        self._errors.append(problem)
        log_error("ModelImporter", f"In node {problem.node} with name: {problem.name}: {problem.reason}")
        return False


for _cls in (ParserError, OnnxParser):
    as_in_this_generation(_cls)
