"""The requests of a synchronous stream on their way to gRPC, no more at a time than have a place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from trtserve_client.ledger import StreamInput, StreamLedger


class Requests:
    """The requests as gRPC takes them, in a thread of its own: waits for a free place, then encodes one element."""

    def __init__(
        self,
        elements: Iterator[StreamInput],
        encode: Callable[[StreamInput], bytes],
        ledger: StreamLedger,
        in_flight: int,
    ) -> None:
        self._elements = elements
        self._encode = encode
        self._ledger = ledger
        self._places = threading.Semaphore(in_flight)
        self._closed = False

    def __iter__(self) -> Requests:
        return self

    def __next__(self) -> bytes:
        self._places.acquire()
        if self._closed:
            raise StopIteration
        try:
            for element in self._elements:
                return self._encode(element)
            self._ledger.complete = True
        except BaseException as error:
            # gRPC would log it and end the call as UNKNOWN; the reader is the one to be told.
            self._ledger.fail(error)
        raise StopIteration

    def free_place(self) -> None:
        """Lets one more request go; to be called for each result that the reader takes."""
        self._places.release()

    def close(self) -> None:
        """Ends the requests, also for a thread that waits for a place."""
        self._closed = True
        self._places.release()
