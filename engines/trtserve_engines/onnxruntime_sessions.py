"""ONNX Runtime's sessions of one model: one for each number of threads that a run may be given, with shared weights.

The graph is optimised once and written to a temporary folder with its weights beside it, packed as the kernels want
them. Every session maps that file into memory, so a further one costs no copy of the model.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.cores import usable_cores
from trtserve_engines.errors import BackendUnavailableError, ModelFileError
from trtserve_engines.import_onnxruntime import import_onnxruntime
from trtserve_engines.onnxruntime_cuda import open_cuda_session

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

Sessions = dict[int, "onnxruntime.InferenceSession"]
"""Sessions by the number of their threads."""

_STEP = 2
_MIN_EXTERNAL_BYTES = "1024"
_CPU = ["CPUExecutionProvider"]


def one_line(error: Exception) -> str:
    """The text of one of ONNX Runtime's errors, which come with line breaks."""
    return " ".join(str(error).split())


def thread_choices(cores: int) -> tuple[int, ...]:
    """The numbers of threads worth offering: all cores for a lone run, 1 for a crowd, and steps between."""
    choices = {1}
    while cores > 1:
        choices.add(cores)
        cores //= _STEP
    return tuple(sorted(choices))


def open_sessions(path: Path, options: OnnxRuntimeOptions, gpu: int | None = None) -> Sessions:
    """The sessions of the model; one where the options say how many threads it has, and on a GPU.

    Raises ModelFileError with ONNX Runtime's own reason where it refuses the model, BackendUnavailableError where it
    cannot use the GPU.
    """
    ort = import_onnxruntime()
    fixed = options.intra_op_threads or options.execution_mode == "parallel"
    choices = (options.intra_op_threads,) if fixed else thread_choices(usable_cores())
    try:
        if gpu is not None:
            settings = _session_options(ort, options, options.intra_op_threads)
            return {options.intra_op_threads: open_cuda_session(path, settings, gpu, tf32=options.tf32)}
        if len(choices) > 1:
            return _open_sharing(ort, path, options, choices)
        (threads,) = choices
        return {threads: ort.InferenceSession(os.fspath(path), _session_options(ort, options, threads), _CPU)}
    except BackendUnavailableError:
        raise
    except Exception as error:  # its exceptions share no base class
        raise ModelFileError(f"ONNX Runtime {ort.__version__} cannot load {path}: {one_line(error)}") from error


def _open_sharing(ort: Any, path: Path, options: OnnxRuntimeOptions, choices: tuple[int, ...]) -> Sessions:
    most = choices[-1]
    # The folder goes once the sessions have mapped what is in it: the mapping keeps the content.
    with tempfile.TemporaryDirectory(prefix="trtserve-") as folder:
        optimised = os.path.join(folder, "model.onnx")
        settings = _session_options(ort, options, most)
        settings.optimized_model_filepath = optimised
        external = "session.optimized_model_external_initializers"
        settings.add_session_config_entry(f"{external}_file_name", "model.data")
        settings.add_session_config_entry(f"{external}_min_size_in_bytes", _MIN_EXTERNAL_BYTES)
        settings.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
        first = ort.InferenceSession(os.fspath(path), settings, _CPU)
        try:
            return {threads: _open_optimised(ort, optimised, options, threads) for threads in choices}
        except Exception as error:
            log.warning("%s: every run gets %d threads, because its optimised form %s", path, most, one_line(error))
            return {most: first}


def _open_optimised(ort: Any, path: str, options: OnnxRuntimeOptions, threads: int) -> Any:
    settings = _session_options(ort, options, threads)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, settings, _CPU)


def _session_options(ort: Any, options: OnnxRuntimeOptions, threads: int) -> Any:
    session = ort.SessionOptions()
    session.intra_op_num_threads = threads
    session.inter_op_num_threads = options.inter_op_threads
    session.graph_optimization_level = {
        "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }[options.graph_optimization_level]
    parallel = options.execution_mode == "parallel"
    session.execution_mode = ort.ExecutionMode.ORT_PARALLEL if parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    session.enable_cpu_mem_arena = options.memory_arena
    session.enable_mem_pattern = options.memory_pattern
    session.log_severity_level = 3  # errors; warnings are about the graph and of no use to the one who serves it
    spinning = "1" if options.spinning else "0"
    session.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    session.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    return session
