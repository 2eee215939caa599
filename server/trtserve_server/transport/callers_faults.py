"""Leaves out of the log what grpcio writes there, with a stack trace, for the doings of a caller alone."""

from __future__ import annotations

import logging


class _CallersFaults(logging.Filter):
    """Answers whose caller is gone when they are to be sent, and metadata that is no UTF-8: any client can send it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(
            ("ExecuteBatchError raised in core by servicer method", "Invalid encoding on ")
        )


_FILTER = _CallersFaults()


def leave_out_callers_faults() -> None:
    """From now on, for this process. May be called again."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_FILTER)
