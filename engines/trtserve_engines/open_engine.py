"""From a model and a wish for a backend and a device to an engine. The rule of choice is `backend_choice.py`."""

from __future__ import annotations

import logging

from trtserve_engines.backend_choice import choose_backend
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import Engine
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.step import Watch
from trtserve_engines.tensorrt.tensorrt_options import TensorRtOptions

log = logging.getLogger(__name__)


def open_engine(
    model: OnnxModel,
    *,
    backend: str,
    device: str,
    onnxruntime: OnnxRuntimeOptions,
    tensorrt: TensorRtOptions | None = None,
    watch: Watch | None = None,
) -> Engine:
    """Loads the model on the chosen backend, on the first GPU where several are meant.

    A TensorRT engine may have to be built first: `watch` hears of it. Raises EngineError.
    """
    tensorrt = tensorrt or TensorRtOptions()
    choice = choose_backend(backend, device, look_at_machine(tensorrt.cuda_driver))
    log.debug("%s: backend %s on %s, because %s", model.path, choice.backend, choice.device, choice.reason)
    gpu = choice.gpus[0] if choice.gpus else None
    if choice.backend == "tensorrt" and gpu is not None:
        # Imported here because it loads what only this backend needs.
        from trtserve_engines.tensorrt.open_tensorrt import open_tensorrt

        return open_tensorrt(model, gpu, tensorrt, watch or Watch())
    # Imported here because loading ONNX Runtime takes longer than everything else together.
    from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine.load(model, onnxruntime, gpu=gpu)
