"""The accuracy gate: an engine's outputs against those of a reference on the same samples, output by output.

Knows no backend: both sides are Engines. The reference is ONNX Runtime on the model as it was given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trtserve_engines.engine import Engine, ExecutionContext
from trtserve_engines.errors import AccuracyError
from trtserve_engines.sample_file import Sample
from trtserve_engines.signature import Signature
from trtserve_engines.tolerance import Tolerance as Tolerance


@dataclass(frozen=True)
class OutputAccuracy:
    """One output: errors in its own units, `largest` the reference's largest absolute value among them.

    `top1` is the share of rows whose largest element is at the same place, or, where elements are integers, of equal
    elements; None where there is nothing to choose from. `wrong_elements` are finite in the reference only.
    """

    name: str
    max_error: float
    mean_error: float
    cosine: float
    top1: float | None
    largest: float
    wrong_elements: int

    def __str__(self) -> str:
        top1 = "" if self.top1 is None else f", top-1 agreement {self.top1:.2%}"
        return (
            f"{self.name}: max error {self.max_error:.3g}, mean {self.mean_error:.3g}"
            f" (largest value {self.largest:.3g}), cosine {self.cosine:.6f}{top1}"
        )


@dataclass(frozen=True)
class AccuracyReport:
    """Every output, and on how many samples: those of the file with this digest, or made-up ones."""

    outputs: tuple[OutputAccuracy, ...]
    samples: int
    made_up: bool
    samples_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "outputs": [asdict(output) for output in self.outputs]}

    def __str__(self) -> str:
        kind = "made-up" if self.made_up else "given"
        return "\n".join([f"accuracy on {self.samples} {kind} samples:", *map(str, self.outputs)])


def compare(reference: Engine, candidate: Engine, samples: Sequence[Sample], *, made_up: bool) -> AccuracyReport:
    """Runs both on every sample, on the calling thread. Raises AccuracyError where an output has another shape."""
    sums = {spec.name: _Sums(spec.name) for spec in reference.signature.outputs}
    expected_context = reference.create_context(batched=False)
    try:
        context = candidate.create_context(batched=False)
        try:
            for sample in samples:
                _add(sums, _run(expected_context, sample), _run(context, _fitting(sample, candidate.signature)))
        finally:
            context.close()
    finally:
        expected_context.close()
    return AccuracyReport(tuple(each.accuracy() for each in sums.values()), len(samples), made_up)


def check(report: AccuracyReport, tolerance: Tolerance, precision: str) -> None:
    """Raises AccuracyError that says which outputs are off and by how much."""
    problems = [
        f"output {output.name!r}: {problem}"
        for output in report.outputs
        for problem in _problems(output, tolerance, precision)
    ]
    if problems:
        kind = "made-up" if report.made_up else "given"
        raise AccuracyError(
            f"the engine differs from ONNX Runtime on {report.samples} {kind} samples: {'; '.join(problems)}."
            " Use a higher precision, keep operators in FP32 with keep_fp32_ops, switch tf32 off, or, if this is good"
            " enough for you, change the limit"
        )


def _problems(output: OutputAccuracy, tolerance: Tolerance, precision: str) -> list[str]:
    least_cosine = tolerance.least_cosine(precision)
    found = []
    if output.wrong_elements:
        found.append(f"{output.wrong_elements} elements are NaN or infinite where the reference's are finite")
    if not output.cosine >= least_cosine:
        found.append(f"cosine {output.cosine:.6f}, least allowed is {least_cosine:g}")
    for name, error, limit in (
        ("max error", output.max_error, tolerance.max_error),
        ("mean error", output.mean_error, tolerance.max_mean_error),
    ):
        if limit and not error <= limit:
            found.append(f"{name} {error:.3g}, largest allowed is {limit:g} (largest value {output.largest:.3g})")
    if output.top1 is not None and output.top1 < tolerance.min_top1:
        found.append(f"top-1 agreement {output.top1:.2%}, least allowed is {tolerance.min_top1:.2%}")
    return found


class _Sums:
    """What an output's samples add up to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._largest_error = self._total_error = self._largest = 0.0
        self._dot = self._expected_square = self._square = 0.0
        self._elements = self._wrong = self._rows = self._agreeing = 0

    def add(self, expected: np.ndarray, got: np.ndarray) -> None:
        """One sample's output. Elements that are not finite in the reference say nothing and are left out."""
        if expected.shape != got.shape:
            raise AccuracyError(
                f"output {self._name!r} has the shape {list(got.shape)}; the reference's is {list(expected.shape)}"
            )
        self._add_agreement(expected, got)
        wanted, given = expected.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        finite = np.isfinite(wanted)
        self._wrong += int(np.count_nonzero(finite & ~np.isfinite(given)))
        finite &= np.isfinite(given)
        wanted, given = wanted[finite], given[finite]
        if wanted.size:
            error = np.abs(wanted - given)
            self._largest_error = max(self._largest_error, float(error.max()))
            self._largest = max(self._largest, float(np.abs(wanted).max()))
            self._total_error += float(error.sum())
            self._dot += float(wanted @ given)
            self._expected_square += float(wanted @ wanted)
            self._square += float(given @ given)
            self._elements += wanted.size

    def accuracy(self) -> OutputAccuracy:
        """What they come to."""
        return OutputAccuracy(
            name=self._name,
            max_error=self._largest_error,
            mean_error=self._total_error / self._elements if self._elements else 0.0,
            cosine=self._cosine(),
            top1=self._agreeing / self._rows if self._rows else None,
            largest=self._largest,
            wrong_elements=self._wrong,
        )

    def _cosine(self) -> float:
        if self._expected_square == 0 and self._square == 0:
            return 1.0
        norm = math.sqrt(self._expected_square * self._square)
        return self._dot / norm if norm else 0.0

    def _add_agreement(self, expected: np.ndarray, got: np.ndarray) -> None:
        if expected.dtype.kind in "biu":
            self._rows += expected.size
            self._agreeing += int(np.count_nonzero(expected == got))
        elif expected.ndim >= 2 and expected.shape[-1] > 1:
            same = expected.argmax(-1) == got.argmax(-1)
            self._rows += same.size
            self._agreeing += int(np.count_nonzero(same))


def _add(sums: Mapping[str, _Sums], expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> None:
    for name, each in sums.items():
        each.add(expected[name], got[name])


def _run(context: ExecutionContext, sample: Sample) -> Mapping[str, np.ndarray]:
    return context.run([sample]).outputs


def _fitting(sample: Sample, signature: Signature) -> Sample:
    """The sample in the candidate's types, which a recipe may have changed at the ends too."""
    return {spec.name: sample[spec.name].astype(spec.dtype, copy=False) for spec in signature.inputs}
