"""Lets an engine pass, or not, by what it gives on samples that its profiles take, against ONNX Runtime's answers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from trtserve_engines.accuracy import AccuracyReport, OutputAccuracy, Tolerance, check, compare
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import Engine
from trtserve_engines.errors import AccuracyError, ModelFileError
from trtserve_engines.onnx_model import OnnxModel, read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.signature import Signature
from trtserve_engines.tensorrt.bfloat16_on_cpu import has_bfloat16, runnable_on_cpu
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_key import file_digest
from trtserve_engines.tensorrt.gate_samples import gate_samples
from trtserve_engines.tensorrt.profile_shapes import ProfileShapes
from trtserve_engines.tensorrt.recipes import save


def measure(model: OnnxModel, config: BuildConfig, tolerance: Tolerance, engine: Engine) -> AccuracyReport:
    """How far the engine's outputs are from ONNX Runtime's on the model as it was given.

    Raises AccuracyError where ONNX Runtime does not take the model, as with operators of plugins, or EngineError.
    """
    samples = gate_samples(model.signature, config, tolerance)
    try:
        reference = engine_on_cpu(model)
    except ModelFileError as error:
        raise AccuracyError(
            f"ONNX Runtime has nothing to compare the engine with: {error}; with accuracy_gate = false it serves"
            " unmeasured"
        ) from error
    try:
        report = compare(reference, engine, samples, made_up=not tolerance.accuracy_samples)
        return replace(report, samples_sha256=_samples_sha256(tolerance))
    finally:
        reference.close()


def is_of_samples(report: Mapping[str, Any], tolerance: Tolerance) -> bool:
    """Whether a report that was written down is of the samples that are given today. Raises ConfigError."""
    return _read(report).samples_sha256 == _samples_sha256(tolerance)


def _samples_sha256(tolerance: Tolerance) -> str:
    path = tolerance.accuracy_samples
    return file_digest(path, "accuracy_samples") if path else ""


def engine_on_cpu(model: OnnxModel) -> OnnxRuntimeEngine:
    """ONNX Runtime's engine of the model, which may be in BF16. Raises EngineError."""
    if not has_bfloat16(onnx.load(model.path, load_external_data=False)):
        return OnnxRuntimeEngine.load(model, OnnxRuntimeOptions())
    # The folder goes once the engine has loaded what is in it.
    with tempfile.TemporaryDirectory(prefix="trtserve-bf16-") as folder:
        path = Path(folder) / "model.onnx"
        save(runnable_on_cpu(onnx.load(model.path)), path)
        return OnnxRuntimeEngine.load(read_onnx_model(path), OnnxRuntimeOptions())


def check_report(report: Mapping[str, Any], tolerance: Tolerance, precision: str) -> None:
    """Raises AccuracyError where a report that was written down is beyond the tolerance of today."""
    check(_read(report), tolerance, precision)


def report_text(report: Mapping[str, Any] | None) -> list[str]:
    """A report that was written down, for people; the gate may have been switched off."""
    return str(_read(report)).splitlines() if report else ["accuracy was not measured"]


def _read(report: Mapping[str, Any]) -> AccuracyReport:
    outputs = tuple(OutputAccuracy(**output) for output in report["outputs"])
    return AccuracyReport(outputs, report["samples"], report["made_up"], report.get("samples_sha256", ""))


def tensor_table(signature: Signature, profiles: Sequence[ProfileShapes]) -> tuple[dict[str, Any], ...]:
    """Inputs and outputs as plain values: name, type, shape, and each input's range in each profile."""
    rows = []
    for mode, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            ranges = [str(shapes) for profile in profiles if (shapes := profile.range_of(spec.name)) is not None]
            rows.append({"name": spec.name, "mode": mode, "type": str(spec.dtype), "shape": list(spec.shape)})
            if ranges:
                rows[-1]["profiles"] = ranges
    return tuple(rows)
