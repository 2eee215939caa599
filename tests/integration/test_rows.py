"""trtserve.v1.RowInference: batches of any size, their rows back as they finish, each exactly once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto

import trtserve_client
from tests.models import make_models
from tests.support.oip_client import Client, arrays_of, infer_request, texts
from tests.support.running_server import RunningServer
from tests.support.shared_object import SharedObject
from tests.support.slow_caller import SlowCaller
from trtserve_client import aio
from trtserve_protos import row_inference
from trtserve_protos.oip import ModelInferRequest
from trtserve_protos.wishes import TIMING, metadata_key
from trtserve_server.config import BatchConfig, TraceConfig
from trtserve_server.rpc.rows import RowCall

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]
Script = Callable[..., Any]


def numbered(count: int, first: int = 0) -> np.ndarray:
    """Rows that hold their number."""
    return np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], 4, axis=1)


def batch(count: int, model: str = "m", **fields: Any) -> ModelInferRequest:
    return infer_request(model, {"x": numbered(count)}, **fields)


def infer_rows(client: Client, message: Any, metadata: Any = (), timeout: float = 20, **options: Any) -> Any:
    """The call under way: an iterator of answers."""
    method = row_inference.METHODS["InferRows"]
    call = client.channel.unary_stream(
        method.path,
        lambda each: each if isinstance(each, bytes) else each.SerializeToString(),
        method.response_class.FromString,
    )
    request = message if isinstance(message, bytes) else method.request_class(batch=message, **options)
    return call(request, metadata=metadata, timeout=timeout)


def ranges(answers: Iterable[Any], factor: float = 1) -> list[tuple[int, int]]:
    """First row and number of rows of each answer, whose rows must hold their numbers."""
    found = []
    for answer in answers:
        rows = numbered(answer.row_count, answer.first_row)
        np.testing.assert_array_equal(arrays_of(answer.response)["y"], factor * rows)
        found.append((answer.first_row, answer.row_count))
    return found


@pytest.fixture
def double(serve: Serve, tmp_path: Path) -> RunningServer:
    """A server with a model that doubles batches of up to 32 rows."""
    return serve(model=(str(make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")),))


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("raw", [True, False])
def test_every_row_of_a_large_batch_comes_back_once(
    double: RunningServer, connect: Connect, in_order: bool, raw: bool
) -> None:
    answers = infer_rows(connect(double), batch(1000, "double", raw=raw), in_order=in_order)
    found = ranges(answers, 2)
    wanted = [(first, min(32, 1000 - first)) for first in range(0, 1000, 32)]
    assert (found if in_order else sorted(found)) == wanted
    assert answers.code() is grpc.StatusCode.OK


def test_the_caller_chooses_the_rows_of_an_answer(double: RunningServer, connect: Connect) -> None:
    answers = infer_rows(connect(double), batch(20, "double"), rows_per_answer=7, window=1)
    assert ranges(answers, 2) == [(0, 7), (7, 7), (14, 6)]


def test_a_batch_smaller_than_an_answer_is_one_answer(double: RunningServer, connect: Connect) -> None:
    (answer,) = infer_rows(connect(double), batch(3, "double", id="mine"), metadata=[(metadata_key(TIMING), "true")])
    assert ranges([answer], 2) == [(0, 3)]
    assert (answer.response.id, answer.response.model_name) == ("mine", "double")
    assert answer.response.parameters[f"{TIMING}_batch_rows"].int64_param == 3


def test_strings_are_cut_like_all_else(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    file = make_models.save(make_models.identity(TensorProto.STRING), tmp_path / "s.onnx")
    server = serve(model=(str(file),), default_max_batch_size=2)
    words = np.concatenate([texts(b"a", b"b"), texts(b"c", b"d"), texts(b"e", b"f")])
    answers = list(infer_rows(connect(server), infer_request("s", {"x": words}), in_order=True))
    outputs = [arrays_of(answer.response)["y"].tolist() for answer in answers]
    assert outputs == [[[b"a", b"b"], [b"c", b"d"]], [[b"e", b"f"]]]


@pytest.mark.parametrize(("in_order", "wanted"), [(False, [(1, 1), (0, 1)]), (True, [(0, 1), (1, 1)])])
def test_answers_come_as_they_complete_or_in_the_order_of_the_rows(
    script: Script, in_order: bool, wanted: list[tuple[int, int]]
) -> None:
    m = script(instances=2, default_max_batch_size=1)
    m.gate.shut()
    answers = infer_rows(m.client, batch(2), in_order=in_order)
    held = {int(each.inputs["x"][0, 0]): each for each in (m.gate.batch(), m.gate.batch())}
    held[1].release()
    statistics = m.server.app.registry.find("m").statistics
    m.server.wait_until(lambda: statistics.requests.count == 1)
    early = [] if in_order else ranges([next(answers)])
    held[0].release()
    assert early + ranges(answers) == wanted


def test_no_more_pieces_are_under_way_than_the_window_holds(script: Script) -> None:
    m = script(default_max_batch_size=1)
    m.gate.shut()
    answers = infer_rows(m.client, batch(10), window=3)
    m.gate.batch()
    m.wait_for_queue(2)
    for _ in range(20):
        m.client.call("ServerLive")
    assert m.waiting == 2
    m.gate.open()
    assert sorted(ranges(answers)) == [(row, 1) for row in range(10)]


@pytest.mark.parametrize("levels", ["", "levels = [{ level = 1, max_queue_size = 1 }]\n"])
def test_the_pieces_of_a_batch_are_not_refused_because_of_each_other(
    serve: Serve, connect: Connect, tmp_path: Path, levels: str
) -> None:
    make_models.save(make_models.scale(2.0), tmp_path / "double" / "1" / "model.onnx")
    batching = "[batching]\nmax_queue_size = 2\npriority_levels = 2\n"
    (tmp_path / "double" / "model.toml").write_text(f"max_batch_size = 1\n{levels}{batching}")
    for inline_run_limit_us in (0, 1_000_000):
        server = serve(model_repository=(str(tmp_path),), inline_run_limit_us=inline_run_limit_us)
        assert len(ranges(infer_rows(connect(server), batch(50, "double")), 2)) == 50


def test_the_pieces_of_a_batch_count_among_the_bytes_that_may_wait(script: Script) -> None:
    m = script(default_max_batch_size=1, batching=BatchConfig(max_queue_bytes=100))
    m.gate.shut()
    answers = infer_rows(m.client, batch(50))  # 16 bytes a row: 6 of them may wait
    m.gate.batch()
    m.wait_for_queue(5)
    for refused in (
        m.client.future(infer_request("m", {"x": np.zeros((1, 20), np.float32)})),
        infer_rows(m.client, infer_request("m", {"x": np.zeros((2, 20), np.float32)})),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            refused.result() if isinstance(refused, grpc.Future) else list(refused)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "max_queue_bytes = 100" in caught.value.details()
        assert "grpc-retry-pushback-ms" in dict(caught.value.trailing_metadata())
    assert m.waiting == 5
    m.gate.open()
    assert len(ranges(answers)) == 50
    m.server.wait_until(lambda: m.server.app.registry._host.budget.held == 0)


@pytest.mark.parametrize("size", [1, 50])
def test_pieces_larger_than_all_that_may_wait_are_run_one_by_one(script: Script, size: int) -> None:
    m = script(default_max_batch_size=4, batching=BatchConfig(max_queue_bytes=size))
    assert sorted(ranges(infer_rows(m.client, batch(50)))) == [(row, min(4, 50 - row)) for row in range(0, 50, 4)]
    assert max(m.engine.batches) == 4


def test_rows_of_no_bytes_are_cut_like_others(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    file = make_models.save(make_models.identity(), tmp_path / "free.onnx")
    client = connect(serve(model=(str(file),)))
    answers = infer_rows(client, infer_request("free", {"x": np.zeros((1000, 0), np.float32)}))
    assert sum(arrays_of(answer.response)["y"].shape[0] for answer in answers) == 1000


def test_a_batch_counts_whole_among_the_memory_in_flight(script: Script) -> None:
    m = script(default_max_batch_size=1, max_inflight_bytes=5000)
    m.gate.shut()
    answers = infer_rows(m.client, batch(250), window=1)  # 4000 bytes
    m.gate.batch()
    for refused in (
        m.client.future(infer_request("m", {"x": np.zeros((1, 400), np.float32)})),
        infer_rows(m.client, batch(100)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            refused.result() if isinstance(refused, grpc.Future) else list(refused)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "max_inflight_bytes = 5000" in caught.value.details()
        assert "grpc-retry-pushback-ms" in dict(caught.value.trailing_metadata())
    m.gate.open()
    assert len(ranges(answers)) == 250
    m.server.wait_until(lambda: m.server.app.registry._host.budget.held == 0)
    assert len(ranges(infer_rows(m.client, batch(1000)))) == 1000  # alone it may pass the limit


def test_pieces_of_a_batch_in_shared_memory_do_not_count_again(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),), allow_client_shared_memory=True, max_inflight_bytes=1000)
    client, memory = connect(server), SharedObject(1600)
    try:
        client.call("SystemSharedMemoryRegister", name="r", key=memory.key, byte_size=1600)
        memory.put(numbered(100))
        message = batch(100, "double")
        del message.raw_input_contents[:]
        message.inputs[0].parameters["shared_memory_region"].string_param = "r"
        message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 1600
        answers = infer_rows(client, message, rows_per_answer=10)  # alone the batch may pass the limit
        assert len(ranges(answers, 2)) == 10
        server.wait_until(lambda: server.app.registry._host.budget.held == 0)
    finally:
        memory.close()


def test_the_servers_window_is_the_most(script: Script) -> None:
    m = script(default_max_batch_size=1, stream_window=2)
    m.gate.shut()
    answers = infer_rows(m.client, batch(10), window=1000)
    m.gate.batch()
    m.wait_for_queue(1)
    m.gate.open()
    assert len(ranges(answers)) == 10


def test_a_caller_that_does_not_read_gets_no_more_pieces_run(double: RunningServer) -> None:
    caller = SlowCaller()
    data = row_inference.InferRowsRequest(batch=batch(100, "double"), rows_per_answer=1, window=4).SerializeToString()
    call = double.run_on_loop(RowCall, double.app.codec, caller, data, 64)
    ended: list[bool] = []
    double.run_on_loop(call.begin, lambda: ended.append(True))
    statistics = double.app.registry.find("double").statistics
    turns = iter(range(1000))
    double.wait_until(lambda: statistics.requests.count == 4 and next(turns) == 500)
    assert statistics.requests.count == 4
    for read in range(1, 101):
        double.run_on_loop(caller.read)
        state = (read, min(read + 4, 100))
        double.wait_until(lambda state=state: (len(caller.taken), statistics.requests.count) == state)
    double.wait_until(lambda: ended == [True])
    assert caller.status == (grpc.StatusCode.OK, "")


def test_pieces_share_runs_with_the_requests_of_others(script: Script) -> None:
    m = script(default_max_batch_size=8)
    m.gate.shut()
    answers = infer_rows(m.client, batch(5), rows_per_answer=1, window=1)
    m.gate.batch()
    other = m.client.future(infer_request("m", {"x": numbered(1)}))
    m.wait_for_queue(1)
    more = infer_rows(m.client, batch(4), rows_per_answer=2)
    m.wait_for_queue(3)
    m.gate.open()
    assert len(ranges(answers)) == 5
    assert sorted(ranges(more)) == [(0, 2), (2, 2)]
    other.result(20)
    assert m.engine.batches[:2] in ([1, 5], [1, 6])  # with or without the next row of the first


def test_cancelling_the_call_gives_up_what_has_not_run(script: Script) -> None:
    m = script(default_max_batch_size=1)
    m.gate.shut()
    answers = infer_rows(m.client, batch(100), window=5)
    m.gate.batch()
    m.wait_for_queue(4)
    answers.cancel()
    m.wait_for_failures(5)
    m.wait_for_queue(0)
    m.gate.open()
    assert m.client.infer(infer_request("m", {"x": numbered(1)}))["y"].shape == (1, 4)
    assert m.engine.batches == [1, 1]


def test_the_first_failure_ends_the_call_after_the_good_rows_before_it(script: Script) -> None:
    m = script(default_max_batch_size=1)
    m.engine.failure = lambda number: RuntimeError("broken") if number == 2 else None
    answers = infer_rows(m.client, batch(10), window=1)
    found = []
    with pytest.raises(grpc.RpcError) as caught:
        found.extend(ranges([answer]) for answer in answers)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "broken" in caught.value.details()
    assert found == [[(0, 1)], [(1, 1)]]


def test_the_deadline_of_the_call_is_that_of_its_pieces(script: Script) -> None:
    m = script(default_max_batch_size=1)
    m.gate.shut()
    answers = infer_rows(m.client, batch(3), timeout=0.1)
    m.gate.batch()
    with pytest.raises(grpc.RpcError) as caught:
        list(answers)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    m.wait_for_queue(0)


def test_a_batch_that_was_accepted_is_answered_whole_when_the_server_stops(script: Script, connect: Connect) -> None:
    m = script(default_max_batch_size=1)
    m.gate.shut()
    answers = infer_rows(m.client, batch(50), window=2, in_order=True)
    m.gate.batch()
    m.wait_for_queue(1)
    watcher = m.client.watch("")
    assert next(watcher) == "SERVING"
    stopping = asyncio.run_coroutine_threadsafe(m.server.app.stop(20), m.server.loop)
    assert list(watcher) == ["NOT_SERVING"]
    refused = connect(m.server).error("ModelInfer", infer_request("m", {"x": numbered(1)}))
    assert (refused.code(), refused.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is stopping; send elsewhere",
    )
    m.gate.open()
    assert ranges(answers) == [(row, 1) for row in range(50)]
    assert stopping.result(20)


def test_a_model_that_is_drained_finishes_the_batches_that_it_has_begun(script: Script) -> None:
    m = script(default_max_batch_size=1)
    m.gate.shut()
    answers = infer_rows(m.client, batch(20), window=2)
    m.gate.batch()
    m.wait_for_queue(1)
    drained: list[bool] = []
    m.server.run_on_loop(m.server.app.registry.find("m").drain, lambda: drained.append(True))
    assert drained == []
    m.gate.open()
    assert len(ranges(answers)) == 20
    m.server.wait_until(lambda: drained == [True])


def test_the_pieces_of_a_batch_are_traced_like_requests(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    model = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    tracing = TraceConfig(file=str(tmp_path / "trace.json"), level=("TIMESTAMPS",), rate=1)
    server = serve(model=(str(model),), trace=tracing)
    assert len(ranges(infer_rows(connect(server), batch(3, "double", id="mine"), rows_per_answer=1), 2)) == 3
    server.stop()
    records = json.loads((tmp_path / "trace.json").read_text())
    assert [record["request_id"] for record in records if "model_name" in record] == ["mine"] * 3


@pytest.mark.parametrize(
    ("message", "options", "code", "text"),
    [
        (batch(2, "nobody"), {}, "NOT_FOUND", "model 'nobody' is unknown"),
        (batch(0, "double"), {}, "INVALID_ARGUMENT", "a batch of 0 rows given, 1 or more wanted"),
        (batch(2, "double"), {"rows_per_answer": 33}, "INVALID_ARGUMENT", "at most 32 rows at once"),
        (
            infer_request("double", {"x": np.zeros((2, 5), np.float32)}),
            {},
            "INVALID_ARGUMENT",
            "model 'double': input 'x'",
        ),
        (infer_request("double", {}), {}, "INVALID_ARGUMENT", "model 'double'"),
        (b"\xff\xff", {}, "INVALID_ARGUMENT", "not valid protobuf"),
        (b"", {}, "NOT_FOUND", "no model name given"),
    ],
)
def test_bad_batches_are_refused_and_the_next_one_is_served(
    double: RunningServer, connect: Connect, message: Any, options: dict[str, int], code: str, text: str
) -> None:
    client = connect(double)
    with pytest.raises(grpc.RpcError) as caught:
        list(infer_rows(client, message, **options))
    assert caught.value.code() is grpc.StatusCode[code]
    assert text in caught.value.details()
    assert ranges(infer_rows(client, batch(2, "double")), 2) == [(0, 2)]


def test_a_model_without_rows_is_refused(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    make_models.save(make_models.scale(2.0), folder / "model.onnx")
    (tmp_path / "m" / "model.toml").write_text("max_batch_size = 0\n")
    client = connect(serve(model_repository=(str(tmp_path),)))
    with pytest.raises(grpc.RpcError) as caught:
        list(infer_rows(client, batch(2)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is not batched" in caught.value.details() and "send ModelInfer" in caught.value.details()


# ---- Through the SDK


def rows_of(each: trtserve_client.Rows) -> tuple[list[int], list[float]]:
    return list(each.rows), each.result["y"][:, 0].tolist()


@pytest.mark.parametrize("ordered", [True, False])
def test_the_clients_give_ranges_and_results(double: RunningServer, ordered: bool) -> None:
    options: dict[str, Any] = {"rows_per_answer": 30, "window": 2, "ordered": ordered, "id": "mine"}
    pieces = (range(30), range(30, 60), range(60, 90), range(90, 100))
    wanted = [(list(rows), [2.0 * row for row in rows]) for rows in pieces]
    with trtserve_client.Client(double.url) as client:
        found = list(client.infer_rows("double", {"x": numbered(100)}, **options))
    assert {each.result.id for each in found} == {"mine"}
    assert sorted(map(rows_of, found)) == wanted

    async def asked() -> list[trtserve_client.Rows]:
        async with aio.Client(double.url) as client:
            return [each async for each in client.infer_rows("double", {"x": numbered(100)}, **options)]

    assert sorted(map(rows_of, asyncio.run(asked()))) == wanted


def test_the_clients_fit_lists_and_refuse_what_does_not_fit(double: RunningServer) -> None:
    with trtserve_client.Client(double.url) as client:
        ((rows, result),) = client.infer_rows("double", {"x": [[1, 2, 3, 4]]})
        assert (rows, result["y"].tolist()) == (range(1), [[2, 4, 6, 8]])
        with pytest.raises(trtserve_client.InputError, match="window=-1 given"):
            next(client.infer_rows("double", {"x": numbered(1)}, window=-1))
        with pytest.raises(trtserve_client.InputError):
            next(client.infer_rows("double", {"x": np.zeros((1, 5), np.float32)}))
        with pytest.raises(trtserve_client.NotFound):
            next(client.infer_rows("nobody", {"x": numbered(1)}, check=False))
        with pytest.raises(trtserve_client.InvalidRequest, match="at most 32 rows"):
            next(client.infer_rows("double", {"x": numbered(1)}, rows_per_answer=33))


def test_leaving_the_generator_of_either_client_cancels_the_call(script: Script) -> None:
    m = script(default_max_batch_size=1)
    m.gate.shut()
    held = infer_rows(m.client, batch(1))
    m.gate.batch()
    with trtserve_client.Client(m.server.url) as client:
        client.model_metadata("m")
        answers = client.infer_rows("m", {"x": numbered(50)}, window=1, timeout_s=20)
        m.gate.open()
        assert rows_of(next(answers)) == ([0], [0.0])
        m.gate.shut()
        answers.close()
    assert ranges(held) == [(0, 1)]
    m.server.wait_until(lambda: m.server.app.registry.find("m").waiting == 0)

    async def leave() -> None:
        async with aio.Client(m.server.url) as client, aclosing(client.infer_rows("m", {"x": numbered(50)})) as rows:
            m.gate.open()
            assert rows_of(await anext(rows)) == ([0], [0.0])

    asyncio.run(leave())
    m.server.wait_until(lambda: m.server.app.registry.find("m").waiting == 0)
