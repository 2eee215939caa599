"""trtserve-build recipe: rewrites a model to a precision and says on the CPU what that costs. Needs no GPU."""

from __future__ import annotations

import shutil
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from trtserve_engines.command_line import CommandLine
from trtserve_engines.errors import AccuracyError, RecipeError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.accuracy_gate import check_report, engine_on_cpu, measure, report_text
from trtserve_engines.tensorrt.cli.outcome import EXIT_FAILED, Outcome, size_text
from trtserve_engines.tensorrt.cli.target import add_build_arguments, config_of
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.recipes import apply_recipe
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig


def add_arguments(parser: CommandLine) -> None:
    """What `recipe` takes: the same as `build`, and where to put the new model."""
    add_build_arguments(parser)
    parser.add_argument("--output", metavar="FILE.onnx", help="write the rewritten model into this file")


def recipe(arguments: Namespace) -> Outcome:
    """Exit code 1 where the rewritten model is beyond the tolerance; it is written all the same."""
    with tempfile.TemporaryDirectory(prefix="trtserve-recipe-") as folder:
        data = _apply(Path(arguments.model), config_of(arguments), Path(folder), arguments.output)
    text = [
        f"{data['model']}: {data['precision']} by {data['tool'] or 'nothing: it is taken as it is'}",
        f"  size  {size_text(data['bytes_before'])} before, {size_text(data['bytes_after'])} after",
        *(f"  {line}" for line in report_text(data["accuracy"])),
    ]
    if data["problem"]:
        text.append(f"  BEYOND THE TOLERANCE: {data['problem']}")
    if data["output"]:
        text.append(f"  written to {data['output']}")
    return Outcome(data, "\n".join(text), EXIT_FAILED if data["problem"] else 0)


def _apply(path: Path, config: TensorRtConfig, folder: Path, output: str | None) -> dict[str, Any]:
    model = read_onnx_model(path)
    build = with_profiles(config.build, model.signature)
    rewritten = apply_recipe(model, build, folder)
    if output:
        _copy(rewritten.path, Path(output))
    engine = engine_on_cpu(read_onnx_model(rewritten.path))
    try:
        report = measure(model, build, config.tolerance, engine).to_json()
    finally:
        engine.close()
    problem = ""
    try:
        check_report(report, config.tolerance, build.precision)
    except AccuracyError as error:
        problem = str(error)
    return {
        "model": str(path),
        "precision": build.precision,
        "tool": rewritten.tool,
        "bytes_before": _size(model.path, *model.external_files),
        "bytes_after": _size(*_files(rewritten.path)),
        "accuracy": report,
        "problem": problem,
        "output": output,
    }


def _files(model: Path) -> tuple[Path, ...]:
    return (model, *read_onnx_model(model).external_files)


def _size(*files: Path) -> int:
    return sum(file.stat().st_size for file in files)


def _copy(model: Path, target: Path) -> None:
    try:
        for file in _files(model):
            shutil.copyfile(file, target if file == model else target.parent / file.name)
    except OSError as error:
        raise RecipeError(f"the rewritten model cannot be written to {target}: {error.strerror}") from error
