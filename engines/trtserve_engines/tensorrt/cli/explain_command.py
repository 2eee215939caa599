"""trtserve-build explain: would the cache have the engine, and if not, why; and what TensorRT cannot take."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from trtserve_engines.command_line import CommandLine
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import DamagedEntryError
from trtserve_engines.tensorrt.cli.outcome import Outcome
from trtserve_engines.tensorrt.cli.target import add_build_arguments, add_gpu_arguments, toolchains
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.parse_onnx import ParserProblem, unsupported_nodes
from trtserve_engines.tensorrt.plugins import load_plugins
from trtserve_engines.tensorrt.provide import key_of
from trtserve_engines.tensorrt.recipes import apply_recipe
from trtserve_engines.tensorrt.toolchain import TensorRtToolchain
from trtserve_engines.tensorrt.trt_log import tensorrt_log


def add_arguments(parser: CommandLine) -> None:
    """What `explain` takes: the same as `build`, because each of it counts."""
    add_build_arguments(parser)
    add_gpu_arguments(parser)


def explain(cache: EngineCache, arguments: Namespace) -> Outcome:
    """Builds nothing."""
    found = [_explain(chain, cache, arguments.cuda_driver) for chain in toolchains(arguments, cache)]
    return Outcome({"engines": found}, "\n\n".join(map(_text, found)))


def _explain(chain: TensorRtToolchain, cache: EngineCache, cuda_driver: str) -> dict[str, Any]:
    key = key_of(chain)
    problem = ""
    try:
        stored = cache.find(key)
    except DamagedEntryError as error:
        stored, problem = None, str(error)
    changes = () if stored else cache.closest(key, str(chain.model.path.absolute()))
    return {
        "model": str(chain.model.path),
        "gpu": str(chain.gpu),
        "key": key.digest,
        "hit": stored is not None,
        "damage": problem,
        "changes": None if changes is None else [str(change) for change in changes],
        "unsupported": [str(node) for node in _unsupported(chain, cuda_driver)],
    }


def _unsupported(chain: TensorRtToolchain, cuda_driver: str) -> list[ParserProblem]:
    trt = import_tensorrt()
    log = tensorrt_log(trt)
    device = open_driver(cuda_driver).open(chain.gpu_number)
    try:
        with tempfile.TemporaryDirectory(prefix="trtserve-explain-") as folder:
            load_plugins(trt, chain.config.plugins, log)
            graph = apply_recipe(chain.model, chain.config, Path(folder))
            return unsupported_nodes(trt, graph.path, log)
    finally:
        device.close()


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['model']} for {found['gpu']}", f"  key  {found['key']}"]
    if found["hit"]:
        lines.append("  The cache has this engine; nothing would be built.")
    elif found["damage"]:
        lines.append(f"  It would be built again: {found['damage']}")
    elif found["changes"] is None:
        lines.append("  It would be built: the cache has no engine of this model.")
    else:
        lines.append("  It would be built. What is different from the most similar engine in the cache:")
        lines += [f"    {change}" for change in found["changes"]]
    if found["unsupported"]:
        lines.append("  TensorRT cannot take it:")
        lines += [f"    {node}" for node in found["unsupported"]]
    else:
        lines.append("  TensorRT's parser takes every operator.")
    return "\n".join(lines)
