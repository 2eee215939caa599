"""Whether a runtime failed for want of memory, by its words: neither ONNX Runtime nor TensorRT has a code for it."""

from __future__ import annotations

_WORDS = (
    "out of memory",
    "outofmemory",
    "could not be allocated",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",  # of cuBLAS and cuDNN
    "cudaerrormemoryallocation",
)


def is_lack_of_memory(reason: str) -> bool:
    """Whether a runtime's reason for a failure is that it got no memory, on a device or on the host."""
    reason = reason.lower()
    return any(words in reason for words in _WORDS)
