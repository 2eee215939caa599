"""The harness against a server of the protocol that is not ours: less of it, other answers, other ways to fail."""

import itertools
import json
import os
from pathlib import Path

import grpc
import numpy as np
import pytest

from trtserve_client import Client
from trtserve_client.load.cli import main
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import RefusedError
from trtserve_client.load.shared_memory import shared_messages
from trtserve_protos import oip

QUICK = ("--concurrency", "2", "--count", "10", "--warmup-s", "0", "--workers", "1")


def run(server, tmp_path, *words, code=0):
    path = tmp_path / "result.json"
    assert main(["echo", "--url", server.url, "--json", str(path), *(words or QUICK)]) == code
    document = json.loads(path.read_text())
    return document, document["levels"][0]["runs"][0]


def test_a_server_of_the_six_calls_alone_is_measured(server, tmp_path):
    for name in ("ModelStatistics", "RepositoryIndex", "ModelConfig", "Check", "ModelStreamInfer"):
        del server.answers[name]
    document, measured = run(server, tmp_path)
    assert measured["answered"] == 10
    assert measured["server"]["phases_ms"] == {}
    assert measured["server"]["unknown"] == (
        "the server's statistics cannot be had, UNIMPLEMENTED: ModelStatistics is not offered"
    )
    assert document["environment"]["server"] == "fake 0.1"


def test_a_server_that_tells_no_timing_is_named(server, capsys):
    assert main(["echo", "--url", server.url, "--timing"]) == 1
    assert "does not say where the time of an answer goes; go without --timing" in capsys.readouterr().err


def test_a_process_that_is_not_there_is_named(server, capsys):
    assert main(["echo", "--url", server.url, "--server-pid", str(2**31 - 1)]) == 2
    assert "this machine has no such process" in capsys.readouterr().err


def test_headers_go_with_every_call(server, tmp_path):
    run(server, tmp_path, *QUICK, "--metadata", "Authorization=Bearer t")
    assert server.headers["authorization"] == "Bearer t"
    assert "Bearer" not in (tmp_path / "result.json").read_text()


def test_a_model_that_is_not_ready_is_told_with_those_that_are(server, capsys):
    server.answers["ModelReady"] = lambda request, context: oip.ModelReadyResponse(ready=False).SerializeToString()
    assert main(["echo", "--url", server.url]) == 1
    assert "model 'echo' is not ready" in (words := capsys.readouterr().err)
    assert "broken (UNAVAILABLE)" in words


def test_an_input_that_needs_a_range_gets_the_advice(server, capsys):
    def refuse(request, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "indices element out of data bounds")

    server.answers["ModelInfer"] = refuse
    assert main(["echo", "--url", server.url]) == 2
    assert "out of data bounds. Where an input takes certain values only, say so with --range NAME=LOW:HIGH" in (
        capsys.readouterr().err
    )


def test_a_stream_that_the_server_ends_is_counted_and_opened_again(server, tmp_path):
    def two_answers(requests, context):
        for _ in range(2):
            yield server.stream_answer(next(requests))

    server.answers["ModelStreamInfer"] = two_answers
    words = ("--streams", "1", "--in-flight", "1", "--count", "9", "--warmup-s", "0", "--workers", "1")
    _, measured = run(server, tmp_path, *words)
    assert measured["answered"] + sum(measured["errors"].values()) == 9
    assert measured["answered"] >= 6
    assert set(measured["errors"]) == {"STREAM_ENDED"}


def test_requests_of_a_stream_that_are_never_answered_are_given_up(server, tmp_path, capsys):
    def silent(requests, context):
        for _ in requests:
            pass
        yield from ()

    server.answers["ModelStreamInfer"] = silent
    words = ("--streams", "1", "--in-flight", "3", "--duration-s", "0.3", "--warmup-s", "0", "--workers", "1")
    _, measured = run(server, tmp_path, *words, "--timeout-s", "0.5", code=1)
    assert (measured["answered"], measured["unanswered"]) == (0, 3)
    assert "no request was answered" in capsys.readouterr().err


def test_an_encrypted_connection(make_server, certificate, tmp_path):
    key, chain = certificate
    server = make_server(grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())]))
    for words in (QUICK, ("--streams", "1", "--in-flight", "2", *QUICK[2:])):
        _, measured = run(server, tmp_path, *words, "--root-certificates", str(chain))
        assert (measured["answered"], measured["errors"]) == (10, {})


def test_a_stranger_to_the_authority_gets_no_connection(make_server, certificate, capsys):
    key, chain = certificate
    server = make_server(grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())]))
    assert main(["echo", "--url", server.url, "--tls"]) == 3
    assert "nothing answers at" in capsys.readouterr().err


def test_tensors_in_shared_memory(server):
    registered, unregistered = [], []

    def register(request, context):
        registered.append(oip.SystemSharedMemoryRegisterRequest.FromString(request))
        return b""

    def unregister(request, context):
        unregistered.append(oip.SystemSharedMemoryUnregisterRequest.FromString(request))
        return b""

    server.answers |= {"SystemSharedMemoryRegister": register, "SystemSharedMemoryUnregister": unregister}
    config = LoadConfig(model="echo", url=server.url)
    requests = [{"x": np.full((1, 2), number, np.float32)} for number in (1, 2)]
    with Client(server.url) as client:
        answer = client.infer("echo", requests[0])
        with shared_messages(client, config, requests, answer) as messages:
            (region,) = registered
            file = Path("/dev/shm", region.key.removeprefix("/"))
            content = file.read_bytes()
            assert len(content) == region.byte_size
            places = []
            for message, request in zip(messages, requests, strict=True):
                header = oip.ModelInferRequest.FromString(message)
                assert not header.raw_input_contents
                start, size = place(header.inputs[0], region.name)
                assert content[start : start + size] == request["x"].tobytes()
                places += [(start, size), place(header.outputs[0], region.name)]
            assert [size for _, size in places] == [8] * 4
            starts = sorted(start for start, _ in places)
            assert all(after - before >= 8 for before, after in itertools.pairwise(starts))
    assert [each.name for each in unregistered] == [region.name]
    assert not file.exists()


def place(tensor, region):
    parameters = tensor.parameters
    assert parameters["shared_memory_region"].string_param == region
    return parameters["shared_memory_offset"].int64_param, parameters["shared_memory_byte_size"].int64_param


def test_a_server_without_shared_memory_is_told_and_nothing_is_left(server):
    before = set(Path("/dev/shm").iterdir())
    config = LoadConfig(model="echo", url=server.url)
    with Client(server.url) as client:
        request = {"x": np.zeros((1, 2), np.float32)}
        answer = client.infer("echo", request)
        with (
            pytest.raises(RefusedError, match="offers no shared memory"),
            shared_messages(client, config, [request], answer),
        ):
            pass
    assert {path for path in Path("/dev/shm").iterdir() if path.name.startswith(f"trtserve-{os.getpid()}-")} <= before
