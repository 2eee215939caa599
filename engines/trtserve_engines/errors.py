"""What can go wrong with a model or an engine.

    EngineError(Exception)
    ├── ModelFileError             the file is missing, unreadable or not a usable ONNX model
    ├── BackendUnavailableError    the asked-for backend or device is not on this machine
    ├── ConfigError                a setting that is unknown, out of range or at odds with another; lives in config.py
    ├── EngineCacheError           the engine cache's folder cannot be trusted, read or written
    │   └── DamagedEntryError      an entry that is not what was published
    ├── BuildCancelledError        a build was given up because it was asked to be
    ├── PlanRefusedError           TensorRT does not take a plan, for reasons that its log lines give
    ├── SignatureError             arrays that do not fit the model's inputs (the caller's mistake)
    └── ExecutionError             a batch failed while it ran (the model's or the machine's fault)

Every message says what was given, what was wanted and, where it is known, what to do.
"""

from __future__ import annotations


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


class BuildCancelledError(EngineError):
    """A build was given up because it was asked to be."""


class PlanRefusedError(EngineError):
    """TensorRT does not take a plan."""


class SignatureError(EngineError):
    """Arrays that do not fit the model's inputs."""


class ExecutionError(EngineError):
    """A batch failed while it ran."""
