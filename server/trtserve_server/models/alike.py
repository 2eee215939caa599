"""Whether nothing but the number of rows makes a run of a model longer: then what was measured holds for all inputs."""

from __future__ import annotations

from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.signature import DYNAMIC


def rows_are_alike(model: OnnxModel, *, batched: bool) -> bool:
    """Whether all tensors of as many rows have the same size, and the graph neither loops nor branches."""
    tensors = (*model.signature.inputs, *model.signature.outputs)
    fixed = all(spec.dtype.kind != "O" and DYNAMIC not in spec.shape[batched:] for spec in tensors)
    return fixed and not model.has_control_flow
