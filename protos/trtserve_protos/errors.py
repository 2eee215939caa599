"""What can be wrong with bytes and arrays on their way to or from the wire.

ProtocolError(ValueError)      the message says what was given and what was wanted
├── DataTypeError              a datatype that the protocol does not have
├── TensorError                bytes or elements that do not fit the tensor's datatype and shape
└── WireError                  bytes that are not the message they should be
"""

from __future__ import annotations


class ProtocolError(ValueError):
    """Base of the errors of trtserve_protos."""


class DataTypeError(ProtocolError):
    """A datatype that the protocol does not have."""


class TensorError(ProtocolError):
    """Bytes or elements that do not fit the tensor's datatype and shape."""


class WireError(ProtocolError):
    """Bytes that are not the message they should be."""
