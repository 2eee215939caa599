"""Keeps gRPC from writing a stack trace for every answer whose caller is gone when it is to be sent.

That is not the server's failure, and under load with deadlines it happens all the time.
"""

from __future__ import annotations

import logging

_LOGGER = "grpc._cython.cygrpc"
_MESSAGE = "ExecuteBatchError raised in core by servicer method"


class _GoneCallers(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_MESSAGE)


_FILTER = _GoneCallers()


def install() -> None:
    """Leaves those records out; a second call changes nothing."""
    logging.getLogger(_LOGGER).addFilter(_FILTER)
