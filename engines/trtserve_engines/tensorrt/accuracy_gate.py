"""Lets an engine pass, or not, by what it gives on samples that its profiles take, against ONNX Runtime's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtserve_engines.accuracy import AccuracyReport, OutputAccuracy, Tolerance, check, compare
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import Engine
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.sample_file import Sample, read_samples
from trtserve_engines.samples import sample_inputs
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.profile_shapes import ProfileShapes, Shape


def measure(model: OnnxModel, config: BuildConfig, tolerance: Tolerance, engine: Engine) -> AccuracyReport:
    """How far the engine's outputs are from ONNX Runtime's on the model as it was given. Raises EngineError."""
    samples = gate_samples(model.signature, config, tolerance)
    reference = OnnxRuntimeEngine.load(model, OnnxRuntimeOptions())
    try:
        return compare(reference, engine, samples, made_up=not tolerance.accuracy_samples)
    finally:
        reference.close()


def check_report(report: Mapping[str, Any], tolerance: Tolerance, precision: str) -> None:
    """Raises AccuracyError where a report that was written down is beyond the tolerance of today."""
    outputs = tuple(OutputAccuracy(**output) for output in report["outputs"])
    check(AccuracyReport(outputs, report["samples"], report["made_up"]), tolerance, precision)


def gate_samples(signature: Signature, config: BuildConfig, tolerance: Tolerance) -> list[Sample]:
    """The samples given, or made-up ones: of the smallest shapes of each profile in turn, the last of a usual one."""
    if tolerance.accuracy_samples:
        return read_samples(Path(tolerance.accuracy_samples), signature)[: tolerance.accuracy_runs]
    profiles = config.profile_shapes() or (ProfileShapes(()),)
    runs = tolerance.accuracy_runs
    return [_made_up(signature, profiles[run % len(profiles)], usual=run == runs - 1, seed=run) for run in range(runs)]


def _made_up(signature: Signature, profile: ProfileShapes, *, usual: bool, seed: int) -> Sample:
    ranges = {name: shapes.opt if usual else shapes.min for name, shapes in profile.inputs}
    shaped = tuple(_with_shape(spec, ranges.get(spec.name)) for spec in signature.inputs)
    sample = sample_inputs(Signature(shaped, ()), seed=seed)
    for spec in signature.inputs:
        if spec.name in ranges and DYNAMIC not in spec.shape:  # read as a shape: the range is of its values
            sample[spec.name] = np.array(ranges[spec.name], spec.dtype).reshape(spec.shape)
    return sample


def _with_shape(spec: TensorSpec, shape: Shape | None) -> TensorSpec:
    return TensorSpec(spec.name, spec.dtype, shape) if shape is not None and DYNAMIC in spec.shape else spec


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
