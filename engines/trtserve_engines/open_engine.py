"""From a model and a wish for a backend and a device to an engine. The rule of choice is one function."""

from __future__ import annotations

import logging
from typing import NamedTuple

from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import Engine
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.onnx_model import OnnxModel

log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """The backend and device that will serve, and why."""

    backend: str
    device: str
    reason: str


def choose_backend(backend: str, device: str) -> Choice:
    """The fallback rule. `backend` is one of BACKENDS, `device` "auto", "cpu", "gpu" or "gpu:0,1".

    Only "auto" ever falls back; what was asked for by name is served or refused (BackendUnavailableError).
    """
    if backend == "tensorrt":
        raise BackendUnavailableError(
            "backend tensorrt was asked for, but this version of trtserve cannot run TensorRT engines yet;"
            " use --backend onnxruntime or --backend auto"
        )
    if device not in ("auto", "cpu"):
        raise BackendUnavailableError(
            f"device {device} was asked for, but this version of trtserve executes on the CPU only;"
            " use --device cpu or --device auto"
        )
    wish = "it was asked for" if backend == "onnxruntime" else "this version of trtserve has no other backend"
    return Choice("onnxruntime", "cpu", wish)


def open_engine(model: OnnxModel, *, backend: str, device: str, onnxruntime: OnnxRuntimeOptions) -> Engine:
    """Loads the model on the chosen backend. Raises BackendUnavailableError or ModelFileError."""
    choice = choose_backend(backend, device)
    log.debug("%s: backend %s on %s, because %s", model.path, choice.backend, choice.device, choice.reason)
    # Imported here because loading ONNX Runtime takes longer than everything else together.
    from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine.load(model, onnxruntime)
