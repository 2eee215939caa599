"""`trtserve` with an engine whose device is lost to the process by a batch with a number below -100 in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtserve_engines.engine import Arrays
from trtserve_engines.errors import DeviceLostError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_server.cli import main
from trtserve_server.models import loader


def _compute(inputs: Arrays) -> dict[str, np.ndarray]:
    if inputs["x"].min(initial=0) < -100:
        raise DeviceLostError("cuEventQuery failed with CUDA_ERROR_LAUNCH_FAILED (719)")
    return {"y": inputs["x"].copy()}


def _open_engine(model: OnnxModel, **_: Any) -> ScriptedEngine:
    return ScriptedEngine(model.signature, _compute)


if __name__ == "__main__":
    loader.open_engine = _open_engine  # type: ignore[assignment]
    main()
