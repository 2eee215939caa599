"""`python -m tests.support.options_page` writes docs/options.md: every option and every metric, from the code's own."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.options import options_of, text_of
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig
from trtserve_server.config import (
    BatchConfig,
    InstanceGroupConfig,
    LevelConfig,
    ModelConfig,
    ServerConfig,
    StepConfig,
    TensorConfig,
    TraceConfig,
    WarmupConfig,
    WarmupInput,
)
from trtserve_server.metrics import Metrics
from trtserve_server.statistics import LoopStatistics, ModelStatistics

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "options.md"

_HEAD = """\
# Options and metrics

Written from the code by `python -m tests.support.options_page`; a test keeps it in step.

An option of the server is a flag (`--grpc-address`), an environment variable (`TRTSERVE_GRPC_ADDRESS`) and a key of the
`--config` file, which is TOML (`grpc_address = "..."`); the flag counts before the variable, and that before the file.
An option of a table has its name in front: `--batching-max-queue-size`, `TRTSERVE_BATCHING_MAX_QUEUE_SIZE`, and
`max_queue_size` below `[batching]`. A flag that is given once for each item of a list has the singular:
`--load-model a --load-model b`, `TRTSERVE_LOAD_MODEL=a,b`.

What is said of a model counts before what is said of the server, in whose tables stand the models' defaults.
"""

_TABLES: Sequence[tuple[str, str, type]] = (
    ("`[batching]`, of the server and of a model", "When requests share a run.", BatchConfig),
    ("`[onnxruntime]`, of the server and of a model", "How ONNX Runtime executes.", OnnxRuntimeOptions),
    ("`[tensorrt]`, of the server and of a model", "[tensorrt.md](tensorrt.md) has the whole of it.", TensorRtConfig),
    ("`[trace]`, of the server", "Which requests are traced.", TraceConfig),
)
_MODEL_LISTS: Sequence[tuple[str, type]] = (
    ("`inputs` and `outputs`", TensorConfig),
    ("`instance_groups`", InstanceGroupConfig),
    ("`levels`", LevelConfig),
    ("`warmup`", WarmupConfig),
    ("`inputs` of a `warmup`", WarmupInput),
    ("`ensemble`", StepConfig),
)


class _Nothing:
    """A model that has done nothing yet."""

    name, version, load_s, waiting = "m", "1", 0.0, 0

    def __init__(self) -> None:
        self.statistics = ModelStatistics()


def page() -> str:
    """The whole of docs/options.md."""
    sections = [_HEAD, "## Of the server\n", _options(ServerConfig)]
    sections += ["## Of a model\n", "In `NAME/model.toml` of a repository.\n", _options(ModelConfig)]
    for title, text, cls in _TABLES:
        sections += [f"## {title}\n", f"{text}\n", _options(cls)]
    sections += [
        "## Lists in model.toml\n",
        "Each item is a table: `levels = [{ level = 2, max_queue_size = 100 }]`.\n",
    ]
    for title, cls in _MODEL_LISTS:
        sections += [f"### {title}\n", _options(cls)]
    sections += ["## Metrics\n", "At `/metrics` of `--http-address`, in Prometheus' text format.\n", _metrics()]
    return "\n".join(sections).rstrip() + "\n"


def _options(cls: type) -> str:
    hints = typing.get_type_hints(cls)
    own = [option for option in options_of(cls) if not dataclasses.is_dataclass(hints[option.path[0]])]
    rows = [(f"`{option.path[0]}`", _default(option.default), _meaning(option)) for option in own]
    return _table(("option", "default", "what it is"), rows)


def _default(value: Any) -> str:
    return "" if value in ("", (), None, dataclasses.MISSING) else f"`{text_of(value)}`"


def _meaning(option: Any) -> str:
    choices = [f"`{choice}`" for choice in option.choices if choice]
    return option.help + (f"; one of {', '.join(choices)}" if choices else "")


def _metrics() -> str:
    lines = Metrics(lambda: [_Nothing()], lambda: [], LoopStatistics()).text().decode().splitlines()
    texts = dict(line.split(" ", 3)[2:] for line in lines if line.startswith("# HELP "))
    kinds = dict(line.split(" ", 3)[2:] for line in lines if line.startswith("# TYPE "))
    rows = [(f"`{name}`", kinds[name], text) for name, text in texts.items() if not name.startswith("process_")]
    return _table(("metric", "kind", "what it is"), [*rows, ("`process_*`", "", "memory, CPU time and descriptors")])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("|  |", "| |") + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(page())
