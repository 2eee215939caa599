"""TraceSetting and LogSettings through gRPC, and what they bring about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from tests.support.server_process import ServerProcess
from trtserve_protos import oip
from trtserve_server.config import TraceConfig

Connect = Callable[..., Client]
Serve = Callable[..., RunningServer]

X = np.ones((1, 4), np.float32)
INVALID, UNIMPLEMENTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED


def trace(client: Client, model: str = "", **settings: list[str]) -> dict[str, list[str]]:
    answer = client.call("TraceSetting", trace_request(model, **settings))
    return {name: list(value.value) for name, value in answer.settings.items()}


def trace_request(model: str = "", **settings: list[str]) -> Any:
    request = oip.TraceSettingRequest(model_name=model)
    for name, values in settings.items():
        request.settings[name].value.extend(values)
        request.settings[name].SetInParent()
    return request


def log_request(**settings: Any) -> Any:
    request = oip.LogSettingsRequest()
    for name, value in settings.items():
        field = {bool: "bool_param", int: "uint32_param", str: "string_param"}.get(type(value))
        if field:
            setattr(request.settings[name], field, value)
        else:
            request.settings[name].SetInParent()
    return request


def log_settings(client: Client, **settings: Any) -> dict[str, Any]:
    answer = client.call("LogSettings", log_request(**settings))
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "") for name, value in answer.settings.items()}


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(make_models.save(make_models.scale(2.0), tmp_path / "k.onnx"))


def test_requests_are_traced_while_the_setting_says_so(
    serve: Serve, connect: Connect, tmp_path: Path, model: str
) -> None:
    file = tmp_path / "trace.json"
    server = serve(model=(model,), trace=TraceConfig(file=str(file)))
    client = connect(server)
    assert trace(client) == {
        "trace_file": [str(file)],
        "trace_level": ["OFF"],
        "trace_rate": ["1000"],
        "trace_count": ["-1"],
        "log_frequency": ["0"],
    }
    client.infer(infer_request("k", {"x": X}))
    given = trace(client, trace_level=["TIMESTAMPS", "TENSORS"], trace_rate=["1"], trace_count=["3"])
    assert (given["trace_level"], given["trace_rate"], given["trace_count"]) == (
        ["TIMESTAMPS", "TENSORS"],
        ["1"],
        ["3"],
    )
    client.infer(infer_request("k", {"x": X}, id="one"))
    list(client.stream([infer_request("k", {"x": X}, id="two")]))
    assert trace(client)["trace_count"] == ["1"]
    trace(client, trace_level=["OFF"])
    client.infer(infer_request("k", {"x": X}, id="three"))
    server.stop()
    records = json.loads(file.read_text())
    heads = [record for record in records if "model_name" in record]
    assert [(head["model_name"], head["model_version"], head["request_id"]) for head in heads] == [
        ("k", 1, "one"),
        ("k", 1, "two"),
    ]
    tensors = [record["tensor"] for record in records if record.get("activity") == "TENSOR_BACKEND_OUTPUT"]
    assert tensors == [{"name": "y", "data": "2.0,2.0,2.0,2.0", "shape": "1,4", "dtype": "FP32"}] * 2
    stamps = [(record["id"], record["timestamps"][0]["ns"]) for record in records if "timestamps" in record]
    assert stamps == sorted(stamps) and len(stamps) == 20
    names = {
        number: [r["timestamps"][0]["name"] for r in records if r["id"] == number and "timestamps" in r]
        for number in (1, 2)
    }
    assert names[1] == [*names[2], "GRPC_SEND_START", "GRPC_SEND_END"]
    assert names[2][0] == "GRPC_WAITREAD_END" and names[2][-2:] == ["INFER_RESPONSE_COMPLETE", "REQUEST_END"]


def test_a_call_that_its_caller_gave_up_is_traced_without_an_answer(script: Any, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    m = script(trace=TraceConfig(file=str(file), level=("TIMESTAMPS",), rate=1), max_running=1)
    m.gate.shut()
    first = m.client.future(infer_request("m", {"x": X}, id="first"))
    m.gate.batch()
    given_up = m.client.future(infer_request("m", {"x": X}, id="given up"))
    m.wait_for_queue(1)
    given_up.cancel()
    m.wait_for_queue(0)
    m.gate.open()
    first.result()
    m.server.stop()
    records = json.loads(file.read_text())
    ids = {record["request_id"]: record["id"] for record in records if "request_id" in record}
    assert ids.keys() == {"first", "given up"}
    names = [r["timestamps"][0]["name"] for r in records if r["id"] == ids["given up"] and "timestamps" in r]
    assert names[-1] == "REQUEST_END" and "GRPC_SEND_START" not in names


def test_a_model_can_have_settings_of_its_own(serve: Serve, connect: Connect, tmp_path: Path, model: str) -> None:
    client = connect(serve(model=(model,), trace=TraceConfig(file=str(tmp_path / "t"))))
    assert trace(client, "k", trace_level=["TIMESTAMPS"], trace_rate=["5"])["trace_rate"] == ["5"]
    assert trace(client)["trace_level"] == ["OFF"]
    assert trace(client, "k", trace_rate=[])["trace_rate"] == ["1000"]
    assert trace(client, "k", trace_level=[]) == trace(client)
    assert client.error("TraceSetting", trace_request("none")).code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"trace_level": ["TIMESTAMPS"]}, INVALID, "--trace-file"),
        ({"trace_level": ["MAX"]}, INVALID, "['MAX']"),
        ({"trace_rate": ["0"]}, INVALID, "rate = 0; it must be at least 1"),
        ({"trace_rate": ["x"]}, INVALID, "wanted is one whole number"),
        ({"trace_rate": ["1", "2"]}, INVALID, "wanted is one whole number"),
        ({"trace_rate": ["9" * 30]}, INVALID, "wanted is one whole number"),
        ({"trace_count": ["-2"]}, INVALID, "count = -2"),
        ({"trace_file": ["/tmp/x"]}, UNIMPLEMENTED, "--trace-file"),
        ({"trace_rat": ["1"]}, INVALID, "did you mean 'trace_rate'"),
    ],
)
def test_wrong_trace_settings_are_refused_and_change_nothing(
    serve: Serve, connect: Connect, model: str, settings: dict[str, list[str]], code: grpc.StatusCode, words: str
) -> None:
    client = connect(serve(model=(model,)))
    before = trace(client)
    error = client.error("TraceSetting", trace_request(log_frequency=["5"], **settings))
    assert (error.code(), words in error.details()) == (code, True), error.details()
    assert trace(client) == before


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"log_info": 1}, INVALID, "log_info = 1; wanted is true or false"),
        ({"log_verbose_level": True}, INVALID, "wanted is a whole number"),
        ({"log_format": "xml"}, INVALID, "'xml'; wanted is one of default, ISO8601"),
        ({"log_file": "/tmp/x"}, UNIMPLEMENTED, "--log-file"),
        ({"log_inf": True}, INVALID, "did you mean 'log_info'"),
    ],
)
def test_wrong_log_settings_are_refused_and_change_nothing(
    serve: Serve, connect: Connect, model: str, settings: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    client = connect(serve(model=(model,)))
    before = log_settings(client)
    error = client.error("LogSettings", log_request(log_warning=False, **settings))
    assert (error.code(), words in error.details()) == (code, True), error.details()
    assert log_settings(client) == before


@pytest.fixture
def process(tmp_path: Path, model: str) -> Iterator[ServerProcess]:
    started = ServerProcess(model, "--log-file", str(tmp_path / "log"), "--model-control-mode", "explicit")
    yield started
    started.close()


def test_log_settings_change_what_a_server_writes(process: ServerProcess, connect: Connect, tmp_path: Path) -> None:
    client = connect(process.url)
    defaults = log_settings(client)
    assert defaults == {
        "log_file": str(tmp_path / "log"),
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }

    def lines() -> list[str]:
        """What an inference, an unload and a load add to the log."""
        before = (tmp_path / "log").read_text()
        client.infer(infer_request("k", {"x": X}))
        client.call("RepositoryModelUnload", model_name="k")
        client.call("RepositoryModelLoad", model_name="k")
        return (tmp_path / "log").read_text().removeprefix(before).splitlines()

    assert {line.split()[2] for line in lines()} == {"INFO"}
    assert log_settings(client, log_verbose_level=1, log_format="ISO8601")["log_verbose_level"] == 1
    verbose = lines()
    assert {line.split()[1] for line in verbose} == {"DEBUG", "INFO"}
    assert all(line[10] == "T" for line in verbose)
    log_settings(client, log_info=False, log_warning=False, log_verbose_level=0)
    assert "log settings are changed by a call: {" in (tmp_path / "log").read_text().splitlines()[-1]
    assert lines() == []
    assert log_settings(client, log_info=None, log_warning=None, log_format=None) == defaults
