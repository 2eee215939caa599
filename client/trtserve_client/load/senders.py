"""Sends prepared messages through gRPC and tells when each is answered: unary calls, or bidirectional streams.

For encrypted connections; socket_sender.py takes less CPU for plain ones. A sender may be called from any thread, also
out of the callback that tells of an answer.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grpc

from trtserve_client.channel import STREAM_PATH
from trtserve_client.endpoint import Endpoint
from trtserve_client.load.jobs import OK, Connection
from trtserve_client.load.timings import timing_of_response
from trtserve_protos import oip, wire
from trtserve_protos.errors import ProtocolError
from trtserve_protos.timing import Timing


class Done(Protocol):
    """Called once per request with its status, OK where it was answered, the server's words, and where time went."""

    def __call__(self, status: str, detail: str, timing: Timing | None = None, /) -> None:
        """Called from the thread that brought the answer."""
        ...


INFER_PATH = oip.METHODS["ModelInfer"].path
STREAM_REFUSED = "REFUSED_IN_STREAM"
"""What stands for the status of a request that a stream refused: the protocol sends words, no status."""


class Sender(Protocol):
    """A way to the server."""

    def send(self, number: int, done: Done) -> None:
        """Sends the message with this number, counted round the messages."""
        ...

    def close(self) -> None:
        """Gives up what is still under way."""
        ...


def open_channel(connection: Connection) -> grpc.Channel:
    """The channel of the connection; nothing is connected yet. Raises ClientError."""
    endpoint = Endpoint(connection.url, connection.tls, connection.options, connection.metadata)
    # Each worker has its own connection, as clients on different machines have; nothing is tried a second time.
    own: list[tuple[str, int | str]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    arguments = [*endpoint.options.channel_arguments(endpoint.target), *own]
    if endpoint.tls is None:
        return grpc.insecure_channel(endpoint.target, arguments)
    return grpc.secure_channel(endpoint.target, endpoint.tls.credentials(), arguments)


def make_sender(channel: grpc.Channel, connection: Connection, messages: Sequence[bytes]) -> Sender:
    """The sender that the connection asks for."""
    if connection.streams:
        return StreamSender(channel, connection, messages)
    return UnarySender(channel, connection, messages)


class UnarySender:
    """One call per request."""

    def __init__(self, channel: grpc.Channel, connection: Connection, messages: Sequence[bytes]) -> None:
        self._call: Any = channel.unary_unary(INFER_PATH)
        self._metadata = connection.metadata
        self._timeout_s = connection.timeout_s
        self._messages = messages
        self._timed = connection.timed
        self._channel = channel

    def send(self, number: int, done: Done) -> None:
        """See Sender."""
        message = self._messages[number % len(self._messages)]
        call = self._call.future(message, self._timeout_s, self._metadata)
        # gRPC calls back on the channel's thread: half the price of a call that waits.
        call.add_done_callback(lambda ended: _tell(ended, done, self._timed))

    def close(self) -> None:
        """See Sender."""
        self._channel.close()


class StreamSender:
    """Requests spread over streams; answers are told apart by their ids, and a stream that breaks is opened anew."""

    def __init__(self, channel: grpc.Channel, connection: Connection, messages: Sequence[bytes]) -> None:
        self._channel = channel
        call: Any = channel.stream_stream(STREAM_PATH)
        self._streams = [
            _Stream(lambda requests: call(requests, metadata=connection.metadata), connection.timed)
            for _ in range(connection.streams)
        ]
        self._messages = messages
        self._numbers = itertools.count()

    def send(self, number: int, done: Done) -> None:
        """See Sender."""
        unique = next(self._numbers)
        message = self._messages[number % len(self._messages)] + wire.id_entry(str(unique))
        self._streams[unique % len(self._streams)].send(str(unique), message, done)

    def close(self) -> None:
        """See Sender."""
        for stream in self._streams:
            stream.close()
        self._channel.close()


class _Stream:
    """One bidirectional call with a thread that reads it."""

    def __init__(self, open_call: Callable[[Iterator[bytes]], Any], timed: bool) -> None:
        self._open_call = open_call
        self._timed = timed
        self._lock = threading.Lock()
        self._pending: dict[str, Done] = {}
        self._requests: queue.SimpleQueue[bytes | None] | None = None
        self._call: Any = None

    def send(self, request_id: str, message: bytes, done: Done) -> None:
        with self._lock:
            if self._requests is None:
                self._open()
            assert self._requests is not None
            self._pending[request_id] = done
            self._requests.put(message)

    def close(self) -> None:
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()

    def _open(self) -> None:
        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._requests = requests
        self._call = call = self._open_call(iter(requests.get, None))
        threading.Thread(target=self._read, args=(call, requests), daemon=True).start()

    def _read(self, call: Any, requests: queue.SimpleQueue[bytes | None]) -> None:
        status, detail = "STREAM_ENDED", "the server ended the stream before all was answered"
        try:
            for message in call:
                self._answer(message)
        except grpc.RpcError as error:
            status, detail = error.code().name, error.details() or ""
        except ProtocolError as error:
            status, detail = "BAD_RESPONSE", str(error)
            call.cancel()
        with self._lock:
            self._requests = None
            lost, self._pending = self._pending, {}
        requests.put(None)
        for done in lost.values():
            done(status, detail)

    def _answer(self, message: bytes) -> None:
        error, response = wire.decode_stream_response(message)
        _, request_id, _ = wire.split_infer_response(response)
        with self._lock:
            # A server that refuses without saying whom is taken to mean the oldest.
            done = self._pending.pop(request_id or next(iter(self._pending), ""), None)
        if done is None:
            return
        if error:
            done(STREAM_REFUSED, error)
        else:
            tell_answer(done, response, timed=self._timed)


def tell_answer(done: Done, response: wire.Buffer, *, timed: bool) -> None:
    """Tells of an answer, and what it says of its time where that was asked for."""
    try:
        timing = timing_of_response(response) if timed else None
    except ProtocolError as error:
        done("BAD_RESPONSE", str(error))
    else:
        done(OK, "", timing)


def _tell(ended: Any, done: Done, timed: bool) -> None:
    code = ended.code()
    if code is grpc.StatusCode.OK:
        tell_answer(done, ended.result() if timed else b"", timed=timed)
    else:
        done(code.name, ended.details() or "")
