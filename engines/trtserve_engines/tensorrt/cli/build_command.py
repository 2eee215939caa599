"""trtserve-build build: an engine for each kind of GPU, into the cache and, where asked, into a file."""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from mmap import mmap
from pathlib import Path
from typing import Any

from trtserve_engines.command_line import CommandLine
from trtserve_engines.config import ConfigError
from trtserve_engines.errors import EngineCacheError
from trtserve_engines.step import Watch
from trtserve_engines.tensorrt.accuracy_gate import report_text
from trtserve_engines.tensorrt.cli.outcome import EXIT_FAILED, Outcome, duration_text, size_text
from trtserve_engines.tensorrt.cli.progress_line import ProgressLine
from trtserve_engines.tensorrt.cli.target import add_build_arguments, add_gpu_arguments, toolchains
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.provide import ProvidedEngine, provide_engine
from trtserve_engines.tensorrt.runtime import TensorRtEngine
from trtserve_engines.tensorrt.toolchain import TensorRtToolchain


def add_arguments(parser: CommandLine) -> None:
    """What `build` takes."""
    add_build_arguments(parser)
    add_gpu_arguments(parser)
    parser.add_argument("--output", metavar="FILE", help="write the plan into this file as well")


def build(cache: EngineCache, arguments: Namespace) -> Outcome:
    """Builds what the cache lacks. Exit code 1 where an engine was built but could not be kept."""
    chains = toolchains(arguments, cache)
    if arguments.output and len(chains) > 1:
        raise ConfigError(f"--output takes one engine, but {len(chains)} kinds of GPU are meant; name one by --device")
    if arguments.output:
        _check_target(Path(arguments.output))
    built = [_build(chain, cache, arguments.output) for chain in chains]
    failed = any(data["not_kept"] and not arguments.output for data in built)
    text = "\n\n".join(_report(data) for data in built)
    return Outcome({"engines": built}, text, EXIT_FAILED if failed else 0)


def _build(chain: TensorRtToolchain, cache: EngineCache, output: str | None) -> dict[str, Any]:
    with ProgressLine(sys.stderr, logging.getLogger()) as line:
        provided = provide_engine(chain, cache, Watch(line.show))
    try:
        if output:
            _write_plan(provided.plan, Path(output))
        return _data(chain, cache, provided, output)
    finally:
        provided.engine.close()


def _data(
    chain: TensorRtToolchain, cache: EngineCache, provided: ProvidedEngine[TensorRtEngine], output: str | None
) -> dict[str, Any]:
    sidecar = provided.sidecar
    return {
        "model": str(chain.model.path),
        "gpu": str(chain.gpu),
        "key": sidecar.digest,
        "from_cache": provided.from_cache,
        "build_s": sidecar.build_s,
        "plan_bytes": sidecar.plan_bytes,
        "profiles": list(chain.config.profiles),
        "recipe": chain.recipe()["tool"],
        "accuracy": sidecar.accuracy,
        "memory": sidecar.memory,
        "cache": str(cache.folder),
        "not_kept": provided.problem,
        "output": output,
    }


def _report(data: dict[str, Any]) -> str:
    took = duration_text(data["build_s"])
    how = f"was in the cache (built in {took})" if data["from_cache"] else f"built in {took}"
    lines = [
        f"{data['model']} for {data['gpu']}: {how}",
        f"  key       {data['key']}",
        f"  plan      {size_text(data['plan_bytes'])}",
        f"  profiles  {'; '.join(data['profiles']) or 'none, every shape is fixed'}",
    ]
    if data["recipe"]:
        lines.append(f"  recipe    {data['recipe']}")
    for name, size in (data["memory"] or {}).items():
        lines.append(f"  memory    {name.replace('_bytes', '').replace('_', ' ')}: {size_text(size)}")
    lines += [f"  {line}" for line in report_text(data["accuracy"])]
    if data["not_kept"]:
        lines.append(f"  NOT KEPT  {data['not_kept']}")
    if data["output"]:
        lines.append(f"  written   {data['output']}")
    return "\n".join(lines)


def _check_target(target: Path) -> None:
    """Raises ConfigError before a build where the plan could not be written after it."""
    if target.is_dir():
        raise ConfigError(f"--output {target}: that is a folder; wanted is the name of a file")
    if not target.parent.is_dir():
        raise ConfigError(f"--output {target}: there is no folder {target.parent}")


def _write_plan(plan: bytes | mmap, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.write_bytes(plan)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise EngineCacheError(f"the plan cannot be written to {target}: {error.strerror}") from error
