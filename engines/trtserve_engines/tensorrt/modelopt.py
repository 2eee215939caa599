"""NVIDIA ModelOpt's AutoCast as a program of its own: its packages fight with ours, so it has its own environment."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trtserve_engines.accuracy import Tolerance
from trtserve_engines.errors import RecipeError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.sample_file import Sample, read_samples
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.gate_samples import gate_samples

log = logging.getLogger(__name__)

_PACKAGE = "nvidia-modelopt"
_VERSION = f"import importlib.metadata as m; print(m.version({_PACKAGE!r}))"
_LAST_LINES = 5
_WAY_OUT = {
    "fp16": "Rewrite it with precision_tool = 'onnxruntime', or build it as-is",
    "bf16": "Build it as-is, or use fp16",
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Tool(NamedTuple):
    """Where ModelOpt runs, and its version."""

    python: str
    version: str

    @property
    def name(self) -> str:
        """As it stands in an engine's key."""
        return f"modelopt {self.version}"


def find(config: BuildConfig) -> Tool | None:
    """ModelOpt for fp16 and bf16; None where ONNX Runtime shall do it. Raises RecipeError for one asked for and absent.

    It is the one behind `modelopt_python`, else the one beside trtserve itself.
    """
    if config.precision_tool == "onnxruntime":
        return None
    if config.modelopt_python:
        return Tool(config.modelopt_python, _version_of(config.modelopt_python))
    try:
        return Tool(sys.executable, importlib.metadata.version(_PACKAGE))
    except importlib.metadata.PackageNotFoundError:
        if config.precision_tool == "auto":
            return None
        raise RecipeError(
            f"precision_tool = 'modelopt', but {_PACKAGE} is not installed; name the python of an environment that has"
            " it with modelopt_python"
        ) from None


def autocast(model: OnnxModel, config: BuildConfig, target: Path) -> None:
    """Writes the model in `config.precision` to `target`; `config` holds the model's profiles.

    AutoCast runs the model and keeps in FP32 what goes beyond the range of the type. Raises RecipeError with its last
    lines.
    """
    tool = find(config)
    if tool is None:
        raise RecipeError("ModelOpt was not found")
    with tempfile.TemporaryDirectory(prefix="trtserve-samples-", dir=target.parent) as folder:
        _write_samples(_samples(model, config), Path(folder))
        command = [tool.python, "-m", "modelopt.onnx.autocast", *_arguments(model, config, target)]
        command += ["--calibration_data", folder]
        log.info("running %s on %s", tool.name, model.path)
        result = subprocess.run(command, capture_output=True, text=True, env=_environment(os.environ))
    if result.returncode != 0 or not target.exists():
        raise RecipeError(
            f"{tool.name} ended with exit code {result.returncode} on {model.path}; its last lines:"
            f" {_last_lines(result.stdout + result.stderr)}. {_WAY_OUT[config.precision]}"
        )


def _arguments(model: OnnxModel, config: BuildConfig, target: Path) -> list[str]:
    arguments = ["--onnx_path", str(model.path), "--output_path", str(target)]
    arguments += ["--low_precision_type", config.precision, "--log_level", "ERROR"]
    if config.keep_io_types:
        arguments.append("--keep_io_types")
    if config.keep_fp32_ops:
        arguments += ["--op_types_to_exclude", *config.keep_fp32_ops]
    return arguments


def _samples(model: OnnxModel, config: BuildConfig) -> list[Sample]:
    """Real ones, else made-up ones that the profiles hold: its own have the size 1 in every dynamic dimension."""
    if config.calibration:
        return read_samples(Path(config.calibration), model.signature)
    return gate_samples(model.signature, config, Tolerance())


def _last_lines(output: str) -> str:
    """The end of what it said, without colours and the places in its code, which are indented."""
    lines = _COLOUR.sub("", output).splitlines()
    said = [line for line in lines if line.strip() and not line.startswith((" ", "Traceback "))]
    return " | ".join(said[-_LAST_LINES:])


def _write_samples(samples: list[Sample], folder: Path) -> None:
    for number, sample in enumerate(samples):
        arrays: dict[str, Any] = dict(sample)
        np.savez(folder / f"{number:06}.npz", **arrays)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Without our module path, which would put our packages before the tool's."""
    return {name: value for name, value in ours.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


@functools.cache
def _version_of(python: str) -> str:
    try:
        result = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, env=_environment(os.environ))
    except OSError as error:
        raise RecipeError(f"modelopt_python = {python!r} cannot be run: {error.strerror}") from None
    version = result.stdout.strip()
    if result.returncode != 0 or not version:
        raise RecipeError(f"modelopt_python = {python!r} has no {_PACKAGE}; install it there with pip")
    return version
