"""Both ways to send, over gRPC's channel and over a socket of our own, against the same servers."""

import dataclasses
import queue
import socket
import threading

import grpc
import numpy as np
import pytest

from trtserve_client.load.config import LoadConfig
from trtserve_client.load.probe import connection_of
from trtserve_client.load.senders import STREAM_REFUSED, make_sender, open_channel
from trtserve_client.load.socket_sender import SocketSender
from trtserve_client.messages import infer_request
from trtserve_protos import oip
from trtserve_protos.timing import Timing, fill_parameters

WAIT_S = 30.0
MESSAGES = [infer_request("echo", {"x": np.full((1, 2), number, np.float32)}) for number in range(3)]


def over_channel(connection, messages):
    return make_sender(open_channel(connection), connection, messages)


@pytest.fixture(params=[over_channel, SocketSender], ids=["channel", "socket"])
def open_sender(request):
    """Makes senders of both kinds; they end with the test."""
    senders = []

    def make(url, messages=MESSAGES, **options):
        connection = connection_of(LoadConfig(url=url, timeout_s=options.pop("timeout_s", WAIT_S), metadata=("k=v",)))
        senders.append(request.param(dataclasses.replace(connection, **options), messages))
        return senders[-1]

    yield make
    for sender in senders:
        sender.close()


class Answers:
    """Outcomes as they come."""

    def __init__(self):
        self.queue = queue.SimpleQueue()
        self.timings = []

    def done(self, status, detail, timing=None):
        self.timings.append(timing)
        self.queue.put((status, detail))

    def next(self):
        return self.queue.get(timeout=WAIT_S)


@pytest.mark.parametrize("streams", [0, 2])
def test_every_request_is_answered_once(server, open_sender, streams):
    sender, answers = open_sender(server.url, streams=streams), Answers()
    for number in range(100):
        sender.send(number, answers.done)
    assert [answers.next() for _ in range(100)] == [("", "")] * 100
    assert answers.queue.empty()
    sent = [header.raw_input_contents[0] for header in server.requests]
    assert sorted(set(sent)) == sorted(np.full((1, 2), number, np.float32).tobytes() for number in range(3))
    assert server.headers["k"] == "v"


def test_callbacks_may_send_the_next_request(server, open_sender):
    sender, answers, left = open_sender(server.url), Answers(), iter(range(50))

    def done(status, detail, timing=None):
        if next(left, None) is None:
            answers.done(status, detail)
        else:
            sender.send(0, done)

    sender.send(0, done)
    assert answers.next() == ("", "")
    assert len(server.requests) == 51


def test_many_threads_may_send(server, open_sender):
    sender, answers = open_sender(server.url), Answers()
    threads = [threading.Thread(target=lambda: [sender.send(n, answers.done) for n in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert [answers.next() for _ in range(200)] == [("", "")] * 200
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("streams", [0, 1])
def test_messages_larger_than_every_window_go_both_ways(server, open_sender, streams):
    large = infer_request("echo", {"x": np.random.default_rng(0).random((500_000, 2), np.float32)})
    sender, answers = open_sender(server.url, [large], streams=streams), Answers()
    for number in range(6):
        sender.send(number, answers.done)
    assert [answers.next() for _ in range(6)] == [("", "")] * 6
    assert all(len(header.raw_input_contents[0]) == 4_000_000 for header in server.requests)


def test_a_refusal_has_its_status_and_the_servers_words(server, open_sender):
    def refuse(request, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nein: é 100%")

    server.answers["ModelInfer"] = refuse
    sender, answers = open_sender(server.url), Answers()
    sender.send(0, answers.done)
    assert answers.next() == ("INVALID_ARGUMENT", "nein: é 100%")


def test_a_refusal_in_a_stream_leaves_the_stream_open(server, open_sender):
    def every_other(requests, context):
        for number, request in enumerate(requests):
            yield server.stream_error(request, "odd") if number % 2 else server.stream_answer(request)

    server.answers["ModelStreamInfer"] = every_other
    sender, answers = open_sender(server.url, streams=1), Answers()
    for number in range(4):
        sender.send(number, answers.done)
    assert sorted(answers.next() for _ in range(4)) == [("", "")] * 2 + [(STREAM_REFUSED, "odd")] * 2
    assert server.calls.count("ModelStreamInfer") == 1


def test_a_call_ends_by_its_limit_where_the_server_does_not_end_it(open_sender):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender, answers = open_sender(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2), Answers()
        for number in range(3):
            sender.send(number, answers.done)
        assert [answers.next()[0] for _ in range(3)] == ["DEADLINE_EXCEEDED"] * 3


def test_a_request_without_an_answer_ends_by_its_limit(server, open_sender):
    server.answers["ModelInfer"] = server.wait_for_cancel
    sender, answers = open_sender(server.url, timeout_s=0.2), Answers()
    sender.send(0, answers.done)
    assert answers.next()[0] == "DEADLINE_EXCEEDED"
    assert server.cancelled.wait(WAIT_S)


@pytest.mark.parametrize("streams", [0, 1])
def test_an_answer_that_tells_its_timing_is_read_where_that_is_wanted(server, open_sender, streams):
    told = Timing(1, 2, 3, 4, 5, 6, "echo#0", "echo")

    def explained(request):
        response = oip.ModelInferResponse.FromString(server.echo(request))
        fill_parameters(response.parameters, told)
        return response

    server.answers["ModelInfer"] = lambda request, context: explained(request).SerializeToString()
    server.answers["ModelStreamInfer"] = lambda requests, context: (
        oip.ModelStreamInferResponse(infer_response=explained(request)).SerializeToString() for request in requests
    )
    for timed, wanted in ((True, told), (False, None)):
        sender, answers = open_sender(server.url, streams=streams, timed=timed), Answers()
        for number in range(3):
            sender.send(number, answers.done)
        assert [answers.next() for _ in range(3)] == [("", "")] * 3
        assert answers.timings == [wanted] * 3


@pytest.mark.parametrize("streams", [0, 1])
def test_a_server_that_ends_and_comes_back(make_server, open_sender, tmp_path, streams):
    address = f"unix:{tmp_path}/s"
    first = make_server(None, address)
    sender, answers = open_sender(address, streams=streams), Answers()
    sender.send(0, answers.done)
    assert answers.next() == ("", "")
    first.stop()
    sender.send(0, answers.done)
    assert answers.next()[0] == "UNAVAILABLE"
    make_server(None, address)
    statuses = []
    while "" not in statuses:
        sender.send(0, answers.done)
        statuses.append(answers.next()[0])
    assert set(statuses) <= {"", "UNAVAILABLE"}
