"""trtserve-build inspect: the layers of a cached engine, as TensorRT's inspector tells them."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from trtserve_engines.command_line import CommandLine
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import EngineCacheError
from trtserve_engines.tensorrt.cli.cache_commands import entry_of
from trtserve_engines.tensorrt.cli.outcome import Outcome, count_text
from trtserve_engines.tensorrt.cli.target import add_gpu_arguments, gpu_numbers, machine_of
from trtserve_engines.tensorrt.deserialise import deserialise
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.engine_key import EngineKey
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.plugins import load_plugins
from trtserve_engines.tensorrt.trt_log import tensorrt_log


def add_arguments(parser: CommandLine) -> None:
    """What `inspect` takes."""
    parser.add_argument("key", metavar="KEY", help="key of an engine, or its beginning")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="plugin library that the engine needs"
    )
    add_gpu_arguments(parser)


def inspect(cache: EngineCache, arguments: Namespace) -> Outcome:
    """Loads the engine on the GPU, after checking its bytes. Raises EngineError."""
    machine = machine_of(arguments)
    gpu = gpu_numbers(arguments.device, machine)[0]
    entry = entry_of(cache, arguments.key)
    stored = cache.find(EngineKey(entry.sidecar.key)) if entry.sidecar else None
    if stored is None:
        raise EngineCacheError(f"engine {entry.digest[:12]}... is damaged: {entry.problem}")
    device = open_driver(arguments.cuda_driver).open(gpu)
    try:
        information = _information(stored.plan, arguments.plugin, f"gpu:{gpu} ({machine.gpus[gpu].name})")
    finally:
        device.close()
    return Outcome({"key": entry.digest, **information}, _text(information))


def _information(plan: Any, plugins: Sequence[str], where: str) -> dict[str, Any]:
    trt = import_tensorrt()
    log = tensorrt_log(trt)
    load_plugins(trt, plugins, log)
    inspector = deserialise(trt, log, plan, where).create_engine_inspector()
    information: dict[str, Any] = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return information


def _text(information: dict[str, Any]) -> str:
    layers = information.get("Layers", [])
    lines = [f"{number:4}  {_layer(layer)}" for number, layer in enumerate(layers)]
    lines.append(count_text(len(layers), "layer"))
    if all(isinstance(layer, str) for layer in layers):
        lines.append("Build with --profiling-verbosity detailed to see types, shapes and tactics.")
    return "\n".join(lines)


def _layer(layer: Any) -> str:
    if isinstance(layer, str):
        return layer
    rest = {name: value for name, value in layer.items() if name not in ("Name", "LayerType") and value not in ("", [])}
    return f"{layer.get('Name', '')}  {layer.get('LayerType', '')}  {json.dumps(rest)}"
