"""What the transport can do at best: it answers unary calls and streams with bytes that were made once.

`python -m tests.bench.echo_server` prints its port. Serves until killed.
"""

from __future__ import annotations

import asyncio
from collections import deque

import uvloop

from trtserve_protos import oip, wire
from trtserve_protos.splitter import Splitter
from trtserve_server.transport.call import Call, Handlers, Streaming, Unary
from trtserve_server.transport.queue_server import QueueServer

_TOGETHER = 8
"""Answers that leave together: the caller works on these while the next are sent. With 16 in flight 8 is the best."""


class Answers:
    """One answer for all requests; on a stream it has the request's id."""

    def __init__(self) -> None:
        response = oip.ModelInferResponse(model_name="tiny", model_version="1")
        response.outputs.add(name="y", datatype="FP32", shape=(1, 8))
        response.raw_output_contents.append(bytes(32))
        self._unary = response.SerializeToString()
        self._split = Splitter(wire.REQUEST_RAW_FIELD).split

    def handlers(self) -> Handlers:
        """The two calls."""
        return {
            oip.METHODS["ModelInfer"].path: Unary(lambda message, call: call.answer(self._unary)),
            oip.METHODS["ModelStreamInfer"].path: Streaming(self._echo),
        }

    def _echo(self, call: Call) -> None:
        waiting: deque[bytes] = deque()
        is_sending = False
        soon = asyncio.get_running_loop().call_soon

        def received(message: bytes | None) -> None:
            nonlocal is_sending
            if message is None:
                call.end()
                return
            waiting.append(message)
            if not is_sending:
                is_sending = True
                soon(send)  # with what else comes in this turn
            call.receive(received)

        def send(_: bool = True) -> None:
            nonlocal is_sending
            is_sending = bool(waiting)
            if waiting:
                answer = self._on_stream(waiting.popleft())
                call.send(answer, send, more=bool(len(waiting) % _TOGETHER))

        call.receive(received)

    def _on_stream(self, message: bytes) -> bytes:
        return wire.stream_response([self._unary, wire.id_entry(self._split(message).id)])


async def serve() -> None:
    """Serves until killed."""
    server = QueueServer(Answers().handlers(), [])
    port = server.listen("127.0.0.1:0", None)
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
