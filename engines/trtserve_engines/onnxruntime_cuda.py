"""ONNX Runtime's CUDA provider, where onnxruntime-gpu is installed: whether it is there, and a session on it."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.import_onnxruntime import import_onnxruntime

_PROVIDER = "CUDAExecutionProvider"


def cuda_provider_problem() -> str:
    """Why ONNX Runtime cannot execute on a GPU, "" where it has what it takes. Loads ONNX Runtime."""
    ort = import_onnxruntime()
    if _PROVIDER in ort.get_available_providers():
        return ""
    return f"the installed ONNX Runtime {ort.__version__} has no CUDA provider"


def open_cuda_session(path: Path, settings: Any, gpu: int, *, tf32: bool) -> Any:
    """A session of the model on the GPU of this number; operators that CUDA lacks run on the CPU.

    Raises BackendUnavailableError where the GPU cannot be used, or what ONNX Runtime raises.
    """
    ort = import_onnxruntime()
    if problem := cuda_provider_problem():
        raise BackendUnavailableError(f"gpu:{gpu} cannot be used: {problem}; install onnxruntime-gpu in its place")
    missing = _load_libraries(ort)
    providers = [(_PROVIDER, {"device_id": gpu, "use_tf32": int(tf32)}), "CPUExecutionProvider"]
    session = ort.InferenceSession(os.fspath(path), settings, providers=providers)
    if _PROVIDER not in session.get_providers():  # it only warns and takes the CPU
        raise BackendUnavailableError(
            f"ONNX Runtime {ort.__version__} cannot use gpu:{gpu}: its CUDA provider does not start:"
            f" {missing or 'its own lines in the log say why'}"
        )
    return session


def _load_libraries(ort: Any) -> str:
    """Loads CUDA and cuDNN from pip's packages, where ONNX Runtime does not look by itself; what it says of them."""
    if not hasattr(ort, "preload_dlls"):  # it came with 1.21
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        ort.preload_dlls()
    return "; ".join(said.getvalue().splitlines())
