"""Every kind of call that a client makes, right and wrong, each with what must come of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
import numpy as np

from tests.support.oip_client import arrays_of, infer_request, texts
from tests.support.server_process import ServerProcess
from trtserve_protos import health, oip, row_inference
from trtserve_protos.wishes import TIMING

METHODS = {**oip.METHODS, **health.METHODS, **row_inference.METHODS}
_UNLIMITED = [("grpc.max_receive_message_length", -1)]


class Kinds:
    """Calls to one server over one connection, but for those that open their own."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._random = random.Random(7)
        self.made: Counter[str] = Counter()

    async def __aenter__(self) -> Kinds:
        self._channel = grpc.aio.insecure_channel(self._server.url, _UNLIMITED)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.close()

    def forever(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Every kind in turn, in an order that chance changes each time; to be called.

        Peers that vanish in the middle of a message are not among them: for each gRPC itself keeps some kB, as a bare
        server of grpc.aio does. tests/integration/test_faults.py has them.
        """
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.unary, self.typed, self.strings, self.explained, self.classified, self.threaded, self.large,
            self.unknown_model, self.bad_shape, self.garbage, self.failing, self.cancelled, self.late,
            self.stream, self.stream_in_order, self.stream_cancelled, self.stream_refused,
            self.rows, self.rows_cancelled, self.about, self.watch, self.new_connection, self.scrape,
        ]  # fmt: skip
        while True:
            self._random.shuffle(kinds)
            for kind in kinds:
                self.made[kind.__name__] += 1
                yield kind

    def check(self) -> None:
        """Every kind must have been made."""
        assert len(self.made) == 23 and min(self.made.values()) > 0, self.made

    # ---- Inference, one request

    async def unary(self) -> None:
        await self._double()

    async def typed(self) -> None:
        await self._double(raw=False)

    async def strings(self) -> None:
        words = texts(b"a" * self._random.randrange(1000), b"b")
        response = await self._call("ModelInfer", infer_request("strings", {"x": words}))
        assert arrays_of(response)["y"].tolist() == words.tolist()

    async def explained(self) -> None:
        response = await self._double(parameters={TIMING: True})
        assert response.parameters[f"{TIMING}_instance"].string_param == "double/1#0"

    async def classified(self) -> None:
        request = infer_request("double", {"x": np.array([[1, 4, 2, 3]], np.float32)}, outputs=["y"])
        request.outputs[0].parameters["classification"].int64_param = 1
        assert arrays_of(await self._call("ModelInfer", request))["y"].tolist() == [[b"8.000000:1"]]

    async def threaded(self) -> None:
        images = np.ones((self._random.randrange(1, 9), 3, 16, 16), np.float32)
        (output,) = arrays_of(await self._call("ModelInfer", infer_request("threaded", {"image": images}))).values()
        assert len(output) == len(images)

    async def large(self) -> None:
        rows = self._random.randrange(1, 9)
        response = await self._call("ModelInfer", infer_request("wide", {"x": np.zeros((rows, 1), np.float32)}))
        assert arrays_of(response)["y"].shape == (rows, 2**16)

    # ---- Requests that are refused, fail or are given up

    async def unknown_model(self) -> None:
        await self._refused(infer_request("nobody", {"x": np.ones((1, 4), np.float32)}), grpc.StatusCode.NOT_FOUND)

    async def bad_shape(self) -> None:
        bad = infer_request("double", {"x": np.ones((1, 5), np.float32)})
        await self._refused(bad, grpc.StatusCode.INVALID_ARGUMENT)

    async def garbage(self) -> None:
        cut_off = b"\x0a\x64" + self._random.randbytes(50)  # a name of 100 bytes is promised
        await self._refused(cut_off, grpc.StatusCode.INVALID_ARGUMENT)

    async def failing(self) -> None:
        await self._refused(infer_request("gather", {"index": np.array([9])}), grpc.StatusCode.INTERNAL)

    async def cancelled(self) -> None:
        call = self._unary("ModelInfer")(infer_request("wide", {"x": np.ones((8, 1), np.float32)}))
        for _ in range(self._random.randrange(5)):
            await asyncio.sleep(0)
        call.cancel()
        assert await call.code() in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED), await call.details()

    async def late(self) -> None:
        request = infer_request("wide", {"x": np.ones((8, 1), np.float32)})
        call = self._unary("ModelInfer")(request, timeout=self._random.random() / 500)
        assert await call.code() in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED), await call.details()

    # ---- Many requests in one call

    async def stream(self) -> None:
        assert sorted([number async for number in self._stream()]) == list(range(20))

    async def stream_in_order(self) -> None:
        metadata = (("trtserve-preserve-ordering", "true"),)
        assert [number async for number in self._stream(metadata)] == list(range(20))

    async def stream_cancelled(self) -> None:
        stream = self._stream()
        async for _ in stream:
            if self._random.random() < 0.2:
                break
        await stream.aclose()

    async def stream_refused(self) -> None:
        bad = infer_request("nobody", {}, id="bad").SerializeToString()
        call = self._channel.stream_stream(METHODS["ModelStreamInfer"].path)(iter([bad] * 3))
        errors = [METHODS["ModelStreamInfer"].response_class.FromString(each).error_message async for each in call]
        assert len(errors) == 3 and all("nobody" in error for error in errors)

    async def rows(self) -> None:
        firsts = [answer.first_row async for answer in self._rows()]
        assert firsts == list(range(0, 200, 32))

    async def rows_cancelled(self) -> None:
        answers = self._rows()
        await anext(answers)
        await answers.aclose()

    # ---- All around

    async def about(self) -> None:
        for name in ("ModelMetadata", "ModelConfig", "ModelStatistics"):
            await self._call(name, METHODS[name].request_class(name="double"))
        assert len((await self._call("RepositoryIndex", oip.RepositoryIndexRequest())).models) == 5
        assert (await self._call("ServerReady", oip.ServerReadyRequest())).ready
        assert "trace_level" in (await self._call("TraceSetting", oip.TraceSettingRequest())).settings
        assert "log_info" in (await self._call("LogSettings", oip.LogSettingsRequest())).settings

    async def watch(self) -> None:
        method = METHODS["Watch"]
        call = self._channel.unary_stream(method.path, None, method.response_class.FromString)(b"")
        assert (await call.read()).status == 1
        call.cancel()

    async def new_connection(self) -> None:
        async with grpc.aio.insecure_channel(self._server.url, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            await channel.unary_unary(METHODS["ServerLive"].path)(b"")

    async def scrape(self) -> None:
        address = self._server.metrics_url.removeprefix("http://").removesuffix("/metrics")
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"trtserve_loop_lag_seconds" in await reader.read()
        writer.close()

    def _unary(self, name: str) -> Any:
        method = METHODS[name]
        return self._channel.unary_unary(method.path, _serialized, method.response_class.FromString)

    async def _call(self, name: str, request: Any, **options: Any) -> Any:
        return await self._unary(name)(request, **options)

    async def _double(self, **options: Any) -> Any:
        x = np.full((self._random.randrange(1, 5), 4), self._random.randrange(1000), np.float32)
        response = await self._call("ModelInfer", infer_request("double", {"x": x}, **options))
        np.testing.assert_array_equal(arrays_of(response)["y"], 2 * x)
        return response

    async def _refused(self, request: Any, code: grpc.StatusCode) -> None:
        call = self._unary("ModelInfer")(request)
        assert await call.code() is code, await call.details()

    async def _stream(self, metadata: Any = ()) -> AsyncIterator[int]:
        """The numbers of 20 requests as their answers come."""
        requests = [
            infer_request("double", {"x": np.full((1, 4), number, np.float32)}, id=str(number)).SerializeToString()
            for number in range(20)
        ]
        method = METHODS["ModelStreamInfer"]
        call = self._channel.stream_stream(method.path, None, method.response_class.FromString)(
            iter(requests), metadata=metadata
        )
        try:
            async for answer in call:
                assert answer.error_message == ""
                number = int(answer.infer_response.id)
                assert (arrays_of(answer.infer_response)["y"] == 2 * number).all()
                yield number
        finally:
            call.cancel()

    async def _rows(self) -> AsyncIterator[Any]:
        """The answers to a batch of 200 rows, in order."""
        method = METHODS["InferRows"]
        batch = infer_request("double", {"x": np.ones((200, 4), np.float32)})
        request = row_inference.InferRowsRequest(batch=batch, in_order=True)
        call = self._channel.unary_stream(method.path, _serialized, method.response_class.FromString)(request)
        try:
            async for answer in call:
                assert (arrays_of(answer.response)["y"] == 2).all()
                yield answer
        finally:
            call.cancel()


def _serialized(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())
