"""Sends prepared messages over a plain socket of its own, TCP or Unix, by http2.py: for load without encryption.

One thread reads and calls back; what its callbacks send goes out together, in one write.
"""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from trtserve_client.channel import STREAM_PATH, target_from_url
from trtserve_client.load.http2 import Ended, Event, Http2Client, Message, ProtocolBroken, framed, header_block
from trtserve_client.load.jobs import Connection
from trtserve_client.load.senders import INFER_PATH, STREAM_REFUSED, Done, tell_answer
from trtserve_protos import wire
from trtserve_protos.errors import ProtocolError
from trtserve_protos.splitter import Splitter

_READ_BYTES = 1 << 16
_CONNECT_S = 10.0
_PAUSE_S = 0.05
"""Between attempts to connect to a server that is gone; each request that fails by one waits so long."""

_LEAST_PAUSE_S = 0.002


class SocketSender:
    """See Sender. The first connection is made at once: raises OSError."""

    def __init__(self, connection: Connection, messages: Sequence[bytes]) -> None:
        target, _ = target_from_url(connection.url)
        self._target = target
        self._streams = connection.streams
        path = STREAM_PATH if self._streams else INFER_PATH
        headers = [*connection.metadata]
        if not self._streams:
            headers.append(("grpc-timeout", f"{max(1, round(connection.timeout_s * 1e3))}m"))
        authority = "localhost" if target.startswith("unix:") else target
        self._headers = header_block(path, authority, headers)
        # On streams each message gets an id of its own behind it.
        self._messages = messages if self._streams else [framed(message) for message in messages]
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._closed = False
        self._later = _Later()
        self._failed_at = -_PAUSE_S
        self._timed = connection.timed
        self._timeout_s = connection.timeout_s
        self._line = self._opened()

    def send(self, number: int, done: Done) -> None:
        """See Sender."""
        message = self._messages[number % len(self._messages)]
        try:
            line = self._usable_line()
        except OSError as error:
            self._later.tell(done, f"no connection: {error}")
            return
        if self._streams:
            unique = next(self._numbers)
            line.send_on_stream(unique % self._streams, str(unique), message, done)
        else:
            line.send(message, done)

    def close(self) -> None:
        """See Sender."""
        self._closed = True
        self._line.close()

    def _usable_line(self) -> _Line:
        if self._line.usable:
            return self._line
        with self._lock:
            if self._closed or time.monotonic() < self._failed_at + _PAUSE_S:
                raise OSError("the server is gone")
            if not self._line.usable:
                try:
                    self._line = self._opened()
                except OSError:
                    self._failed_at = time.monotonic()
                    raise
            return self._line

    def _opened(self) -> _Line:
        return _Line(self._connect(), self._headers, self._later, self._timeout_s, timed=self._timed)

    def _connect(self) -> socket.socket:
        if not self._target.startswith("unix:"):
            host, _, port = self._target.rpartition(":")
            found = socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.settimeout(None)
            return found
        found = socket.socket(socket.AF_UNIX)
        try:
            found.connect(self._target.removeprefix("unix:").removeprefix("//"))
        except OSError:
            found.close()
            raise
        return found


class _Line:
    """One connection with the thread that reads it, and who waits for what on it."""

    def __init__(
        self, own_socket: socket.socket, headers: bytes, later: _Later, timeout_s: float, *, timed: bool
    ) -> None:
        self._socket = own_socket
        self._timed = timed
        self._answers: dict[int, bytes] = {}
        self._later = later
        self._http2 = Http2Client(headers)
        self._split = Splitter(wire.RESPONSE_RAW_FIELD).split
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._waiting: dict[int, Done] = {}
        self._timeout_s = timeout_s
        self._limits: deque[tuple[float, int]] = deque()
        self._on_streams: dict[str, tuple[int, Done]] = {}
        self._stream_numbers: dict[int, int] = {}
        self._broken = False
        self._flush()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._give_up_late, daemon=True).start()

    @property
    def usable(self) -> bool:
        """Whether new requests may be sent on it."""
        return not self._broken and not self._http2.closing

    def send(self, message: bytes, done: Done) -> None:
        """A call of its own for the framed message."""
        with self._lock:
            taken = not self._broken
            if taken:
                number = self._http2.open(message, several=False, wanted=self._timed)
                self._waiting[number] = done
                limits = self._limits
                while limits and limits[0][1] not in self._waiting:
                    limits.popleft()
                limits.append((time.monotonic() + self._timeout_s, number))
        self._sent(done, taken)

    def send_on_stream(self, index: int, request_id: str, message: bytes, done: Done) -> None:
        """The message on the stream with this index, opened where it is not."""
        data = framed(message + wire.id_entry(request_id))
        with self._lock:
            taken = not self._broken
            if taken:
                number = self._stream_numbers.get(index)
                if number is None:
                    number = self._stream_numbers[index] = self._http2.open(data, several=True)
                else:
                    self._http2.send(number, data)
                self._on_streams[request_id] = (number, done)
        self._sent(done, taken)

    def close(self) -> None:
        """Gives up what is under way."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        reason = "the server closed the connection"
        try:
            while data := self._socket.recv(_READ_BYTES):
                with self._lock:
                    events = self._http2.receive(data)
                for event in events:
                    self._tell(event)
                self._flush()
        except (OSError, ProtocolBroken, ProtocolError) as error:
            reason = str(error)
        self._fail_all(reason)

    def _tell(self, event: Event) -> None:
        if isinstance(event, Message) and event.stream in self._waiting:
            self._answers[event.stream] = event.data
        elif isinstance(event, Message):
            error, response = wire.decode_stream_response(event.data)
            request_id = self._split(response).id
            # A server that refuses without saying whom is taken to mean the oldest.
            _, done = self._on_streams.pop(request_id or next(iter(self._on_streams), ""), (0, None))
            if done is not None and error:
                done(STREAM_REFUSED, error)
            elif done is not None:
                tell_answer(done, response, timed=self._timed)
        elif (waiting := self._waiting.pop(event.stream, None)) is not None:
            answer = self._answers.pop(event.stream, b"")
            if event.status == "OK":
                tell_answer(waiting, answer, timed=self._timed)
            else:
                waiting(event.status, event.detail)
        else:
            self._end_stream(event)

    def _give_up_late(self) -> None:
        """Ends calls at their limit, as every client of gRPC does: a server that hangs does not."""
        while not self._broken:
            now, late = time.monotonic(), []
            with self._lock:
                while self._limits and self._limits[0][0] <= now:
                    number = self._limits.popleft()[1]
                    if (done := self._waiting.pop(number, None)) is not None:
                        self._http2.cancel(number)
                        self._answers.pop(number, None)
                        late.append(done)
                # What is sent from now on is not late before that.
                next_look = self._limits[0][0] if self._limits else now + self._timeout_s
            for done in late:
                done("DEADLINE_EXCEEDED", f"no answer within {self._timeout_s:g} s")
            self._flush()
            time.sleep(max(_LEAST_PAUSE_S, next_look - time.monotonic()))

    def _end_stream(self, event: Ended) -> None:
        with self._lock:
            self._stream_numbers = {index: each for index, each in self._stream_numbers.items() if each != event.stream}
            lost = [key for key, (number, _) in self._on_streams.items() if number == event.stream]
            callbacks = [self._on_streams.pop(key)[1] for key in lost]
        status, detail = event.status, event.detail
        if status == "OK":
            status, detail = "STREAM_ENDED", "the server ended the stream before all was answered"
        for done in callbacks:
            done(status, detail)

    def _sent(self, done: Done, taken: bool) -> None:
        if not taken:
            self._later.tell(done, "the connection broke")
        elif threading.current_thread() is not self._reader:
            # What the reader's callbacks send is written once they have all been called.
            self._flush()

    def _flush(self) -> None:
        # Never waits for another thread that writes: that one writes this too, and the reader goes on reading.
        while self._http2.output and self._writing.acquire(blocking=False):
            try:
                with self._lock:
                    output, self._http2.output = self._http2.output, []
                self._socket.sendall(b"".join(output))
            except OSError:
                # The reader finds the same and tells all who wait.
                self.close()
            finally:
                self._writing.release()

    def _fail_all(self, reason: str) -> None:
        with self._lock:
            self._broken = True
            callbacks = [*self._waiting.values(), *(done for _, done in self._on_streams.values())]
            self._waiting, self._on_streams = {}, {}
            self._socket.close()
        time.sleep(_PAUSE_S)
        for done in callbacks:
            done("UNAVAILABLE", reason)


class _Later:
    """Fails requests after a pause, on a thread of its own: their callbacks send the next, and would go ever deeper."""

    def __init__(self) -> None:
        self._failed: queue.SimpleQueue[tuple[float, Done, str]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def tell(self, done: Done, detail: str) -> None:
        """Fails a request as UNAVAILABLE."""
        self._failed.put((time.monotonic() + _PAUSE_S, done, detail))

    def _run(self) -> None:
        while True:
            at, done, detail = self._failed.get()
            time.sleep(max(0.0, at - time.monotonic()))
            done("UNAVAILABLE", detail)
