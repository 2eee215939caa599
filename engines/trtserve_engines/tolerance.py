"""How exact an engine must be, as options. What is measured stands in `accuracy.py`."""

from __future__ import annotations

from dataclasses import dataclass

from trtserve_engines.config import ConfigError, check_at_least, option

LEAST_COSINE = {"as-is": 0.999, "fp32": 0.999, "fp16": 0.999, "bf16": 0.99, "int8": 0.98}
"""What an engine of each precision reaches unless something is wrong."""


@dataclass(frozen=True)
class Tolerance:
    """How far an engine's outputs may be from the reference's, in each output, over all samples."""

    accuracy_gate: bool = option(True, "compare each engine with ONNX Runtime before it serves")
    accuracy_samples: str = option("", ".npz file of real inputs to compare on; empty = made-up ones")
    accuracy_runs: int = option(8, "samples to compare on")
    min_cosine: float = option(0.0, "least cosine between outputs; 0 = what the precision can be expected to reach")
    max_error: float = option(0.0, "largest absolute error of an element; 0 = no limit")
    max_mean_error: float = option(0.0, "largest mean absolute error of an output; 0 = no limit")
    min_top1: float = option(0.0, "least share of rows whose largest element is the same; 0 = no limit")

    def __post_init__(self) -> None:
        check_at_least(self, 0, "min_cosine", "max_error", "max_mean_error", "min_top1")
        check_at_least(self, 1, "accuracy_runs")
        for name in ("min_cosine", "min_top1"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at most 1")

    def least_cosine(self, precision: str) -> float:
        """The limit for an engine of this precision."""
        return self.min_cosine or LEAST_COSINE[precision]
