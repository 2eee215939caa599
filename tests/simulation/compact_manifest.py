"""Cuts the part that the simulation needs out of a full manifest of the real bindings, and writes it compactly.

    python -m tests.simulation.compact_manifest ../shared/tensorrt

A manifest says of each class of a real `tensorrt` package its kind and, per member, an enum's number, a method's
signatures, or a property's type. It was made by importing the real bindings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

VERSIONS = ("10.16", "11.4")
FOLDER = Path(__file__).parent / "manifests"
CLASSES = (
    "<module>",
    "Builder",
    "BuilderFlag",
    "DataType",
    "Dims",
    "EngineInspector",
    "EngineStat",
    "ErrorCode",
    "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "ILogger.Severity",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IOutputAllocator",
    "IPluginRegistry",
    "IProgressMonitor",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "LayerType",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserFlag",
    "ParserError",
    "PreviewFeature",
    "ProfilingVerbosity",
    "Runtime",
    "TacticSource",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "TilingOptimizationLevel",
)


def compact(full: dict[str, Any]) -> dict[str, Any]:
    """{"version": text, "classes": {name: {member: number | [signatures] | "property type rw"}}}."""
    classes = {name: full["classes"][name] for name in CLASSES}
    return {
        "version": full["version"],
        "classes": {
            name: {member: _member(value) for member, value in entry["members"].items() if _is_wanted(name, member)}
            for name, entry in classes.items()
        },
    }


def text_of(manifest: dict[str, Any]) -> str:
    """The manifest as JSON with a line per class."""
    lines = [f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in manifest["classes"].items()]
    return '{"version": %s, "classes": {\n%s\n}}\n' % (json.dumps(manifest["version"]), ",\n".join(lines))  # noqa: UP031


def _is_wanted(name: str, member: str) -> bool:
    layer_types = name == "INetworkDefinition" and member.startswith("add_")
    return not layer_types and not member.startswith("_")


def _member(value: Any) -> Any:
    if isinstance(value, int):
        return value
    if "sigs" in value:
        return value["sigs"]
    if value["kind"] == "const":
        return f"const {value['type']}.{value['name']}"
    return f"property {value['type']} {'rw' if value['rw'] else 'ro'}"


if __name__ == "__main__":
    for version in VERSIONS:
        full = json.loads((Path(sys.argv[1]) / f"api-{version}.json").read_text())
        (FOLDER / f"api-{version}.json").write_text(text_of(compact(full)))
