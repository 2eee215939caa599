"""What can go wrong with a model or an engine.

    EngineError(Exception)
    ├── ModelFileError             the file is missing, unreadable or not a usable ONNX model
    ├── BackendUnavailableError    the asked-for backend or device is not on this machine
    ├── ConfigError                a setting that is unknown, out of range or at odds with another; lives in config.py
    ├── EngineCacheError           the engine cache's folder cannot be trusted, read or written
    │   └── DamagedEntryError      an entry that is not what was published
    ├── EngineNotBuiltError        the engine would have to be built, and that was not wanted
    ├── BuildError                 an engine could not be built
    │   ├── UnsupportedModelError  the graph has operators or types that TensorRT's parser refuses
    │   └── BuildCancelledError    somebody ended the build
    ├── PlanError                  a plan that is damaged, or that this TensorRT on this GPU cannot run: build it again
    ├── DeviceMemoryError          the device has too little free memory for what is to be loaded
    ├── RecipeError                the graph could not be rewritten to the wanted precision
    ├── AccuracyError              an engine's outputs are too far from the model's
    ├── SignatureError             arrays that do not fit the model's inputs (the caller's mistake)
    └── ExecutionError             a batch failed while it ran (the model's or the machine's fault)
        ├── OutOfMemoryError           there was too little memory for that batch; others may fit
        └── DeviceLostError            the device cannot be used any more by this process; it has to be started again

Every message says what was given, what was wanted and, where it is known, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class EngineError(Exception):
    """Base of the errors of trtserve_engines."""


class ModelFileError(EngineError):
    """The model file is missing, unreadable or not a usable ONNX model."""


class BackendUnavailableError(EngineError):
    """The asked-for backend or device is not on this machine."""


class EngineCacheError(EngineError):
    """The engine cache's folder cannot be trusted, read or written."""


class DamagedEntryError(EngineCacheError):
    """An entry of the engine cache that is not what was published."""


class EngineNotBuiltError(EngineError):
    """The engine would have to be built, and that was not wanted."""


class BuildError(EngineError):
    """An engine could not be built. `log_lines` holds what TensorRT said, the last line last."""

    def __init__(self, message: str, log_lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_lines = tuple(log_lines)


class UnsupportedModelError(BuildError):
    """The graph has operators or types that TensorRT's parser refuses."""


class BuildCancelledError(BuildError):
    """Somebody ended the build."""


class PlanError(EngineError):
    """A plan that is damaged, or that this TensorRT on this GPU cannot run: build it again."""


class DeviceMemoryError(EngineError):
    """The device has too little free memory for what is to be loaded."""


class RecipeError(EngineError):
    """The graph could not be rewritten to the wanted precision."""


class AccuracyError(EngineError):
    """An engine's outputs are too far from the model's."""


class SignatureError(EngineError):
    """Arrays that do not fit the model's inputs."""


class ExecutionError(EngineError):
    """A batch failed while it ran."""


class OutOfMemoryError(ExecutionError):
    """There was too little memory for that batch, on the device or on the host. Others may fit."""


class DeviceLostError(ExecutionError):
    """The device, or this process's use of it, is lost: everything fails from here on until a new process starts."""
