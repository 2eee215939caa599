"""The plugin registry. A "plugin library" of the simulation is an ONNX file: its functions are the operators."""

from __future__ import annotations

import onnx

from ._basics import log, log_error, register_logger
from ._real import Native, Severity, as_in_this_generation


class IPluginRegistry(Native):
    """Operators that the parser and engines know beyond their own."""

    def __init__(self) -> None:
        self._functions: dict[str, onnx.FunctionProto] = {}
        self._libraries: dict[int, list[str]] = {}

    def load_library(self, plugin_path: str) -> object:
        try:
            library = onnx.load(plugin_path)
        except Exception as error:
            log_error(
                "IPluginRegistry::loadLibrary",
                f"Unable to load library {plugin_path}: {error}",
                "Error Code 2: Internal",
            )
            return None
        handle = object()
        self._libraries[id(handle)] = [function.name for function in library.functions]
        self._functions.update({function.name: function for function in library.functions})
        return handle

    def deregister_library(self, handle: object) -> None:
        for name in self._libraries.pop(id(handle), []):
            self._functions.pop(name, None)

    def _with_plugins(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        """The model with the bodies of the plugins that it uses; None where one is missing."""
        own = {(function.domain, function.name) for function in model.functions}
        complete = onnx.ModelProto()
        complete.CopyFrom(model)
        for node in model.graph.node:
            if node.domain in ("", "ai.onnx") or (node.domain, node.op_type) in own:
                continue
            function = self._functions.get(node.op_type)
            if function is None:
                log_error(
                    "IRuntime::deserializeCudaEngine",
                    f"getPluginCreator could not find plugin: {node.op_type} version: 1",
                    "Error Code 1: Serialization",
                )
                return None
            own.add((node.domain, node.op_type))
            body = complete.functions.add()
            body.CopyFrom(function)
            body.domain = node.domain
        return complete


_registry = IPluginRegistry()


def get_plugin_registry() -> IPluginRegistry:
    """The process's one registry."""
    return _registry


def init_libnvinfer_plugins(logger: object, namespace: str) -> bool:
    """Registers the plugins that come with TensorRT; the simulation has none."""
    if logger is not None:
        register_logger(logger)
    log(Severity.VERBOSE, "Plugin library of the simulation initialised")
    return True


as_in_this_generation(IPluginRegistry)
