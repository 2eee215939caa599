"""`python -m tests.support.scripted_server` is `trtserve` whose models are scripted: y = x.

A batch with a number below 0 in it is held at the gate that GATE_PORT names, and so is, with GATE_AT_LOAD, the load.
"""

from __future__ import annotations

import os
from typing import Any

from tests.support.server_process import hold_at
from trtserve_engines.engine import Arrays
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_server import cli
from trtserve_server.models import loader


def _open_engine(model: OnnxModel, **_: Any) -> ScriptedEngine:
    if "GATE_AT_LOAD" in os.environ:
        hold_at(int(os.environ["GATE_PORT"]))
    return ScriptedEngine(model.signature, _compute)


def _compute(inputs: Arrays) -> dict:
    # Made-up inputs of the load are below 0 too, but never as far.
    if inputs["x"].min() <= -100:
        hold_at(int(os.environ["GATE_PORT"]))
    return {"y": inputs["x"].copy()}


if __name__ == "__main__":
    loader.open_engine = _open_engine  # type: ignore[assignment]
    cli.main()
