"""ModelStreamInfer: many requests in flight on one stream, bounded, answered by id, ended cleanly by either side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.oip_client import Client, arrays_of, infer_request
from tests.support.running_server import RunningServer
from tests.support.slow_caller import SlowCaller
from trtserve_protos import oip
from trtserve_protos.oip import ModelInferRequest
from trtserve_server.config import BatchConfig
from trtserve_server.rpc.stream import InferStream

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]
Script = Callable[..., Any]


def request(number: int, model: str = "m") -> ModelInferRequest:
    """One row whose number stands in the id too."""
    return infer_request(model, {"x": np.full((1, 4), number, np.float32)}, id=str(number))


def numbers(stream: Any, factor: float = 1) -> list[int]:
    """The ids of all answers, each of which must hold its number."""
    ids = []
    for answer in stream:
        assert answer.error_message == ""
        response = answer.infer_response
        np.testing.assert_array_equal(arrays_of(response)["y"], np.full((1, 4), factor * int(response.id)))
        ids.append(int(response.id))
    return ids


def begin(server: RunningServer, caller: SlowCaller, window: int) -> InferStream:
    """A stream of this caller."""
    stream: InferStream = server.run_on_loop(InferStream, server.app.codec, caller, window, lambda stream: None)
    server.run_on_loop(stream.begin)
    return stream


class Sender:
    """Requests of a stream that a test sends one by one; `end` half-closes it."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[ModelInferRequest | None] = SimpleQueue()

    def __iter__(self) -> Iterator[ModelInferRequest]:
        return iter(self._queue.get, None)

    def send(self, *requests: ModelInferRequest) -> None:
        for each in requests:
            self._queue.put(each)

    def end(self) -> None:
        self._queue.put(None)


@pytest.fixture
def sender() -> Iterator[Sender]:
    made = Sender()
    yield made
    made.end()  # else gRPC's thread waits for the next request for ever


@pytest.fixture
def double(serve: Serve, connect: Connect, tmp_path: Path) -> Client:
    """A client of a server with a model that doubles."""
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    return connect(serve(model=(str(file),)))


def test_every_request_of_a_stream_is_answered_with_its_id(double: Client) -> None:
    stream = double.stream(request(number, "double") for number in range(1000))
    assert sorted(numbers(stream, 2)) == list(range(1000))
    assert stream.code() is grpc.StatusCode.OK


def test_a_stream_without_requests_ends_well(double: Client) -> None:
    stream = double.stream([])
    assert list(stream) == []
    assert stream.code() is grpc.StatusCode.OK


def test_requests_may_have_the_same_id_or_none(double: Client) -> None:
    for request_id in ("same", ""):
        messages = [request(number, "double") for number in range(20)]
        for message in messages:
            message.id = request_id
        answers = [answer.infer_response for answer in double.stream(messages)]
        assert {answer.id for answer in answers} == {request_id}
        assert sorted(arrays_of(answer)["y"][0, 0] for answer in answers) == [2 * number for number in range(20)]


def test_streams_do_not_disturb_each_other(double: Client) -> None:
    with ThreadPoolExecutor(4) as pool:
        ranges = [range(start, start + 200) for start in range(0, 800, 200)]
        streams = [double.stream([request(number, "double") for number in each]) for each in ranges]
        answers = list(pool.map(lambda stream: sorted(numbers(stream, 2)), streams))
    assert answers == [list(each) for each in ranges]


def test_requests_of_one_stream_share_batches(script: Script) -> None:
    m = script()
    m.gate.shut()
    stream = m.client.stream(map(request, range(9)))
    first = len(m.gate.batch().inputs["x"])
    m.wait_for_queue(9 - first)
    m.gate.open()
    assert sorted(numbers(stream)) == list(range(9))
    assert m.engine.batches == [first, 9 - first]


def test_a_stream_answers_what_is_done_before_what_was_sent_earlier(script: Script) -> None:
    m = script()
    m.gate.shut()
    stream = m.client.stream([request(1), infer_request("nobody", {}, id="2")])
    assert next(stream).infer_response.id == "2"
    m.gate.open()
    assert numbers(stream) == [1]


def test_requests_in_flight_are_answered_after_the_client_has_half_closed(script: Script, sender: Sender) -> None:
    m = script()
    m.gate.shut()
    stream = m.client.stream(sender)
    sender.send(request(0))
    m.gate.batch()
    sender.send(*map(request, range(1, 5)))
    sender.end()
    m.wait_for_queue(4)
    m.gate.open()
    assert sorted(numbers(stream)) == [0, 1, 2, 3, 4]
    assert stream.code() is grpc.StatusCode.OK


def test_answers_come_while_the_stream_stays_open(double: Client, sender: Sender) -> None:
    stream = double.stream(sender)
    for number in range(5):
        sender.send(request(number, "double"))
        assert next(stream).infer_response.id == str(number)
    sender.end()
    assert list(stream) == []


def test_cancelling_a_stream_takes_its_requests_out_of_the_queue(script: Script, sender: Sender) -> None:
    m = script()
    m.gate.shut()
    stream = m.client.stream(sender)
    sender.send(request(0))
    m.gate.batch()
    sender.send(*map(request, range(1, 5)))
    m.wait_for_queue(4)
    stream.cancel()
    m.wait_for_queue(0)
    m.wait_for_failures(5)
    m.gate.open()
    assert numbers(m.client.stream([request(7)])) == [7]
    assert m.engine.batches == [1, 1]


def test_a_client_that_disconnects_frees_what_it_sent(script: Script, connect: Connect, sender: Sender) -> None:
    m = script()
    m.gate.shut()
    gone = connect(m.server)
    stream = gone.stream(sender)
    sender.send(request(0))
    m.gate.batch()
    sender.send(request(1))
    m.wait_for_queue(1)
    gone.close()
    m.wait_for_failures(2)
    m.gate.open()
    with pytest.raises(grpc.RpcError):
        next(stream)
    assert numbers(m.client.stream([request(7)])) == [7]


def test_no_more_requests_are_read_than_the_window_holds(script: Script) -> None:
    m = script(stream_window=3)
    m.gate.shut()
    stream = m.client.stream(map(request, range(10)))
    running = len(m.gate.batch().inputs["x"])
    m.wait_for_queue(3 - running)
    for _ in range(20):  # each goes through the loop that would read the fourth
        m.client.call("ServerLive")
    assert m.waiting + running == 3
    m.gate.open()
    assert sorted(numbers(stream)) == list(range(10))


def test_requests_that_come_while_answers_wait_to_be_written_run_together(serve: Serve, tmp_path: Path) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),))
    caller = SlowCaller(request(number, "double").SerializeToString() for number in range(40))
    stream = begin(server, caller, 20)
    server.wait_until(lambda: stream.held == 20)
    server.run_on_loop(caller.read, 40)
    server.wait_until(lambda: caller.is_over)
    statistics = server.app.registry.find("double").statistics
    answers = map(oip.ModelStreamInferResponse.FromString, caller.taken)
    assert sorted(numbers(answers, 2)) == list(range(40))
    assert statistics.requests.count == 40
    assert statistics.executions <= 10


def test_a_stream_that_breaks_gives_back_all_that_it_held(serve: Serve, tmp_path: Path) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),))
    caller = SlowCaller(request(number, "double").SerializeToString() for number in range(40))
    stream = begin(server, caller, 20)
    server.wait_until(lambda: stream.held == 20)
    server.run_on_loop(caller.leave)
    drained: list[bool] = []
    server.run_on_loop(server.app.registry.find("double").drain, lambda: drained.append(True))
    server.wait_until(lambda: drained == [True])


def test_a_client_that_does_not_read_its_answers_is_not_read_from(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    # Answers of 1 MiB fill what the transport buffers after a few; requests are so small that all would fit.
    file = make_models.save(make_models.linear(features=1, classes=2**18), tmp_path / "wide.onnx")
    server = serve(model=(str(file),), stream_window=4, default_max_batch_size=4)
    client, count = connect(server), 200
    one = np.ones((1, 1), np.float32)
    stream = client.stream(infer_request("wide", {"x": one}, id=str(number)) for number in range(count))
    statistics = server.app.registry.find("wide").statistics
    server.wait_until(lambda: statistics.requests.count >= 4)
    server.wait_until(lambda: [stream.held for stream in server.app.streams] == [4])  # the window is full ...
    answered = 0
    while answered != statistics.requests.count:  # ... for good, once the transport has taken what it takes
        answered = statistics.requests.count
        for _ in range(50):
            client.call("ServerLive")
            assert max(stream.held for stream in server.app.streams) <= 4
    assert answered < 32
    assert sorted(int(answer.infer_response.id) for answer in stream) == list(range(count))


def test_what_is_held_for_a_caller_that_does_not_read_is_its_window_and_not_one_request_more(
    serve: Serve, tmp_path: Path
) -> None:
    """On a caller without a transport's buffers between, so that every request can be counted."""
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),))
    caller = SlowCaller(request(number, "double").SerializeToString() for number in range(50))
    stream = begin(server, caller, 4)
    turns = iter(range(1000))
    server.wait_until(lambda: stream.held == 4 and next(turns) == 500)
    assert (caller.sent, stream.held) == (4, 4)
    for read in range(1, 51):
        server.run_on_loop(caller.read)
        taken = (read, min(read + 4, 50))
        server.wait_until(lambda taken=taken: (len(caller.taken), caller.sent) == taken)
        assert stream.held <= 4
    server.wait_until(lambda: caller.is_over)
    assert stream.held == 0


def held_answers(m: Any, stream: Any, sender: Sender) -> tuple[Any, Any]:
    """Two requests of a stream, each alone in a batch that is held at the gate; the second may overtake the first."""
    sender.send(request(1))
    first = m.gate.batch()
    sender.send(request(2))
    return first, m.gate.batch()


ORDERED, UNORDERED = [("trtserve-preserve-ordering", value) for value in ("true", "false")]


@pytest.mark.parametrize(
    ("configured", "metadata", "order"),
    [
        (False, [], [2, 1]),
        (False, [ORDERED], [1, 2]),
        (True, [], [1, 2]),
        (True, [UNORDERED], [2, 1]),
    ],
)
def test_answers_come_in_order_where_the_model_or_the_stream_wants_it(
    script: Script, sender: Sender, configured: bool, metadata: Any, order: list[int]
) -> None:
    m = script(instances=2, batching=BatchConfig(preserve_ordering=configured))
    m.gate.shut()
    stream = m.client.stream(sender, metadata=metadata)
    first, second = held_answers(m, stream, sender)
    second.release()
    statistics = m.server.app.registry.find("m").statistics
    m.server.wait_until(lambda: statistics.requests.count == 1)
    early = numbers([next(stream)]) if order == [2, 1] else []
    first.release()
    m.gate.open()
    sender.end()
    assert early + numbers(stream) == order


def test_an_error_stands_in_line_on_a_stream_in_order(script: Script, sender: Sender) -> None:
    m = script()
    m.gate.shut()
    stream = m.client.stream(sender, metadata=[ORDERED])
    sender.send(request(1), infer_request("nobody", {}, id="2"))
    m.gate.batch()
    m.server.wait_until(lambda: [each.held for each in m.server.app.streams] == [2])
    m.gate.open()
    sender.end()
    answers = list(stream)
    assert [answer.infer_response.id for answer in answers] == ["1", "2"]
    assert [bool(answer.error_message) for answer in answers] == [False, True]


def test_a_model_in_order_does_not_hold_up_others_of_its_stream(script: Script, sender: Sender, tmp_path: Path) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    m = script(beside=[str(file)], batching=BatchConfig(preserve_ordering=True))
    m.gate.shut()
    stream = m.client.stream(sender)
    sender.send(request(1))
    m.gate.batch()
    sender.send(request(2, "double"))
    assert next(stream).infer_response.id == "2"
    m.gate.open()
    sender.end()
    assert numbers(stream) == [1]


def test_a_choice_of_order_that_says_nothing_is_refused(double: Client) -> None:
    stream = double.stream([request(1, "double")], metadata=[("trtserve-preserve-ordering", "maybe")])
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'maybe'; wanted is true or false" in caught.value.details()


def test_a_stream_without_answers_to_wait_for_ends_when_the_server_stops(
    serve: Serve, connect: Connect, tmp_path: Path, sender: Sender
) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),))
    stream = connect(server).stream(sender)
    sender.send(request(1, "double"))
    assert next(stream).infer_response.id == "1"
    assert server.stop()
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "the server is stopping" in caught.value.details()


def test_a_stream_that_is_stopped_before_its_first_message_ends(serve: Serve, tmp_path: Path) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),))
    caller = SlowCaller([request(1, "double").SerializeToString()])

    def begin_and_stop() -> None:
        stream = InferStream(server.app.codec, caller, 4, lambda stream: None)
        stream.begin()
        stream.stop()

    server.run_on_loop(begin_and_stop)
    assert caller.status is not None
    assert caller.status[0] is grpc.StatusCode.UNAVAILABLE


def test_streams_that_begin_while_the_server_stops_do_not_hold_up_the_stop(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),))
    senders: list[Sender] = []
    begun: SimpleQueue[None] = SimpleQueue()

    def begin_streams(client: Client) -> grpc.RpcError:
        for _ in range(1000):
            senders.append(Sender())
            senders[-1].send(request(1, "double"))
            streams.append(client.stream(senders[-1]))
            try:
                next(streams[-1])
            except grpc.RpcError as error:
                return error
            begun.put(None)
        raise AssertionError("never refused")

    streams: list[Any] = []
    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(begin_streams, connect(server)) for _ in range(4)]
        for _ in range(20):
            begun.get(timeout=20)
        assert server.stop(drain_timeout_s=20)
        codes = {end.result().code() for end in ends}
    for sender in senders:
        sender.end()
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_a_good_stream_is_the_same_where_errors_are_wanted_as_status(double: Client) -> None:
    stream = double.stream([request(number, "double") for number in range(5)], metadata=[("triton_grpc_error", "true")])
    assert sorted(numbers(stream, 2)) == [0, 1, 2, 3, 4]
    assert stream.code() is grpc.StatusCode.OK


def test_a_refusal_for_memory_is_an_answer_or_a_status_that_says_when_to_send_again(script: Script) -> None:
    m = script(max_inflight_bytes=5000)
    large = infer_request("m", {"x": np.zeros((1, 1000), np.float32)}, id="1")
    m.gate.shut()
    running = m.client.future(large)
    m.gate.batch()
    (answer,) = m.client.stream([large])
    assert "max_inflight_bytes = 5000" in answer.error_message
    stream = m.client.stream([large], metadata=[("triton_grpc_error", "true")])
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1
    m.gate.open()
    running.result(20)
    (answer,) = m.client.stream([large])
    assert answer.error_message == ""


def test_an_error_wanted_as_status_cancels_what_is_in_flight(script: Script, sender: Sender) -> None:
    m = script()
    m.gate.shut()
    stream = m.client.stream(sender, metadata=[("triton_grpc_error", "true")])
    sender.send(request(0))
    m.gate.batch()
    sender.send(request(1), infer_request("nobody", {}, id="2"))
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    m.wait_for_failures(2)
    m.gate.open()
    assert numbers(m.client.stream([request(7)])) == [7]
    assert m.engine.batches == [1, 1]


@pytest.mark.parametrize("value", ["false", "", "1", "True"])
def test_errors_stay_inside_the_stream_unless_the_metadata_says_true(double: Client, value: str) -> None:
    stream = double.stream([infer_request("nobody", {}, id="1")], metadata=[("triton_grpc_error", value)])
    assert next(stream).error_message
    assert list(stream) == []


def test_a_request_whose_timeout_passes_is_an_error_inside_the_stream(script: Script) -> None:
    m = script()
    m.gate.shut()
    held = m.client.future(request(0))
    m.gate.batch()
    late = request(1)
    late.parameters["timeout"].int64_param = 50_000
    stream = m.client.stream([late, request(2)])
    answer = next(stream)
    assert answer.infer_response.id == "1"
    assert answer.error_message == "the request's timeout of 50 ms passed while it waited in the queue"
    m.gate.open()
    assert numbers(stream) == [2]
    held.result()
    assert m.engine.batches == [1, 1]


def test_the_deadline_of_a_stream_is_the_deadline_of_its_requests(script: Script, sender: Sender) -> None:
    m = script()
    m.gate.shut()
    held = m.client.future(request(0))
    m.gate.batch()
    stream = m.client.stream(sender, timeout=0.05)
    sender.send(request(1))
    answers: list[Any] = []
    with pytest.raises(grpc.RpcError) as caught:
        answers.extend(stream)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert all("deadline" in answer.error_message for answer in answers)  # the server may be the first to see it
    m.wait_for_queue(0)
    m.gate.open()
    held.result()
    assert m.engine.batches == [1]
