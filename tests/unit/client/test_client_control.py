"""What both clients and trtserve-client send to control a server, and what they make of the answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.unit.client.command import Run, failed
from trtserve_client import (
    Client,
    ClientError,
    CudaSharedMemory,
    CudaSharedMemoryStatus,
    FailedPrecondition,
    InputError,
    ModelIndex,
    aio,
)
from trtserve_client.messages import infer_request, result_from_response
from trtserve_protos import oip

Call = Callable[[Callable[[Any], Any]], Any]


class ControlledServer:
    """The control calls of the test's server: `last` is the request that came in last; settings are kept."""

    def __init__(self, server: Any) -> None:
        self.last: Any = None
        self.trace = oip.TraceSettingResponse()
        self.trace.settings["trace_level"].value.append("OFF")
        self.log = oip.LogSettingsResponse()
        self.log.settings["log_info"].bool_param = True
        self.log.settings["log_verbose_level"].uint32_param = 0
        self.log.settings["log_file"].string_param = ""
        regions = oip.CudaSharedMemoryStatusResponse()
        regions.regions["g"].MergeFrom(
            oip.CudaSharedMemoryStatusResponse.RegionStatus(name="g", device_id=1, byte_size=64)
        )
        answers = {
            "RepositoryModelLoad": oip.RepositoryModelLoadResponse(),
            "RepositoryModelUnload": oip.RepositoryModelUnloadResponse(),
            "CudaSharedMemoryRegister": oip.CudaSharedMemoryRegisterResponse(),
            "CudaSharedMemoryUnregister": oip.CudaSharedMemoryUnregisterResponse(),
            "CudaSharedMemoryStatus": regions,
            "SystemSharedMemoryUnregister": oip.SystemSharedMemoryUnregisterResponse(),
            "TraceSetting": self.trace,
            "LogSettings": self.log,
        }
        for name, answer in answers.items():
            server.answers[name] = self._answering(name, answer)

    def _answering(self, name: str, answer: Any) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.last = oip.METHODS[name].request_class.FromString(request)
            if name in ("TraceSetting", "LogSettings"):
                for setting, value in self.last.settings.items():
                    answer.settings[setting].Clear()
                    answer.settings[setting].MergeFromString(value.SerializeToString())
            return bytes(answer.SerializeToString())

        return handle


@pytest.fixture
def control(server: Any) -> ControlledServer:
    """The control calls of `server`."""
    return ControlledServer(server)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, server: Any, control: ControlledServer) -> Call:
    """Makes one call, by either client."""

    def sync(make: Callable[[Any], Any]) -> Any:
        with Client(server.url) as client:
            return make(client)

    def asynchronous(make: Callable[[Any], Any]) -> Any:
        async def main() -> Any:
            async with aio.Client(server.url) as client:
                return await make(client)

        return asyncio.run(main())

    return {"sync": sync, "async": asynchronous}[request.param]


def test_load_and_unload(call: Call, control: ControlledServer) -> None:
    call(lambda client: client.load_model("m"))
    assert control.last == oip.RepositoryModelLoadRequest(model_name="m")
    call(lambda client: client.unload_model("m"))
    assert control.last == oip.RepositoryModelUnloadRequest(model_name="m")
    call(lambda client: client.unload_model("m", unload_dependents=True))
    assert control.last.parameters["unload_dependents"].bool_param


@pytest.mark.parametrize(
    "config", ['{"max_batch_size": 4}', {"max_batch_size": 4}, oip.ModelConfig(max_batch_size=4)], ids=type
)
def test_a_configuration_is_sent_as_json(call: Call, control: ControlledServer, config: Any) -> None:
    call(lambda client: client.load_model("m", config=config, files={"1/model.onnx": b"onnx"}))
    parameters = control.last.parameters
    sent = json.loads(parameters["config"].string_param)
    assert sent in ({"max_batch_size": 4}, {"maxBatchSize": 4})
    assert (parameters["file:1/model.onnx"].bytes_param, len(parameters)) == (b"onnx", 2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"files": {"1/model.onnx": b""}}, "files given without a config"),
        ({"config": "{}", "files": {"1/model.onnx": "path"}}, "str given, its content as bytes wanted"),
        ({"config": {"x": object()}}, "cannot be written as JSON"),
    ],
)
def test_what_cannot_be_loaded_is_not_sent(call: Call, server: Any, fields: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(lambda client: client.load_model("m", **fields))
    assert server.calls == []


def test_a_refused_load_names_the_model(call: Call, server: Any) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no explicit mode")
        return b""

    server.answers["RepositoryModelLoad"] = refuse
    with pytest.raises(FailedPrecondition, match=r"model 'm': FAILED_PRECONDITION: no explicit mode"):
        call(lambda client: client.load_model("m"))


def test_trace_settings_are_read_and_changed(call: Call, control: ControlledServer) -> None:
    assert call(lambda client: client.trace_settings()) == {"trace_level": ["OFF"]}
    assert control.last == oip.TraceSettingRequest()
    changes = {"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": 1, "trace_count": "5", "log_frequency": None}
    settings = call(lambda client: client.trace_settings(changes, model="m"))
    assert control.last.model_name == "m"
    assert settings == {
        "trace_level": ["TIMESTAMPS", "TENSORS"],
        "trace_rate": ["1"],
        "trace_count": ["5"],
        "log_frequency": [],
    }
    with pytest.raises(InputError, match="trace_rate"):
        call(lambda client: client.trace_settings({"trace_rate": [1.5]}))


def test_log_settings_are_read_and_changed(call: Call, control: ControlledServer) -> None:
    read = {"log_file": "", "log_info": True, "log_verbose_level": 0}
    assert call(lambda client: client.log_settings()) == read
    changed = call(lambda client: client.log_settings({"log_info": False, "log_verbose_level": 2, "log_file": "x"}))
    assert changed == {"log_file": "x", "log_info": False, "log_verbose_level": 2}
    call(lambda client: client.log_settings({"log_info": None}))
    assert control.last.settings["log_info"].WhichOneof("parameter_choice") is None
    for value in (-1, 2**32, 1.5):
        with pytest.raises(InputError, match="log_verbose_level"):
            call(lambda client, value=value: client.log_settings({"log_verbose_level": value}))


GPU = CudaSharedMemory("g", b"handle", 64, device_id=1)


def test_memory_of_a_gpu_is_registered_listed_and_forgotten(call: Call, control: ControlledServer) -> None:
    call(lambda client: client.register_cuda_shared_memory(GPU))
    assert control.last == oip.CudaSharedMemoryRegisterRequest(
        name="g", raw_handle=b"handle", device_id=1, byte_size=64
    )
    assert call(lambda client: client.cuda_shared_memory_status()) == [CudaSharedMemoryStatus("g", 1, 64)]
    for memory, name in ((GPU, "g"), ("other", "other"), ("", "")):
        call(lambda client, memory=memory: client.unregister_cuda_shared_memory(memory))
        assert control.last == oip.CudaSharedMemoryUnregisterRequest(name=name)
        call(lambda client, name=name: client.unregister_shared_memory(name))
        assert control.last == oip.SystemSharedMemoryUnregisterRequest(name=name)


def test_tensors_in_memory_of_a_gpu_are_referred_to_and_not_in_the_result() -> None:
    room = GPU.room(16, offset=32)
    request = oip.ModelInferRequest.FromString(
        infer_request("m", {"x": GPU.tensor((2, 2), np.float32, offset=8)}, outputs={"y": room, "z": {}})
    )
    assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == ("FP32", [2, 2])
    places = [
        {name: value.string_param or value.int64_param for name, value in tensor.parameters.items()}
        for tensor in (request.inputs[0], request.outputs[0])
    ]
    names = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
    assert places == [dict(zip(names, place, strict=True)) for place in (("g", 16, 8), ("g", 16, 32))]
    response = oip.ModelInferResponse()
    response.outputs.add(name="y", datatype="FP32", shape=[2, 2])
    response.outputs.add(name="z", datatype="INT32", shape=[1]).contents.int_contents.append(7)
    assert dict(result_from_response(response.SerializeToString(), {"y": room, "z": {}})) == {"z": [7]}


@pytest.mark.parametrize(("size", "offset"), [(65, 0), (8, 60), (8, -1), (-1, 0)])
def test_places_beyond_the_memory_of_a_gpu_are_refused(size: int, offset: int) -> None:
    with pytest.raises(InputError, match="has 64"):
        GPU.room(size, offset=offset)
    with pytest.raises(InputError, match="fixed size"):
        GPU.tensor((1,), object)
    with pytest.raises(ClientError, match="lies on GPU 1"):
        _ = GPU.tensor((1,), np.float32).array


def test_index_is_the_name_of_models_too(run: Run, server: Any) -> None:
    assert run("index") == run("models")
    assert [ModelIndex(**each) for each in json.loads(run("index", "--ready", "--json")[1])] == [
        ModelIndex("echo", "1", "READY", "")
    ]


def test_load_and_unload_as_commands(run: Run, control: ControlledServer, tmp_path: Path) -> None:
    table = "name  version  state  reason\necho  1        READY\n"
    assert run("load", "echo") == (0, table, "")
    assert control.last == oip.RepositoryModelLoadRequest(model_name="echo")
    model, pbtxt = tmp_path / "new.onnx", tmp_path / "config.pbtxt"
    model.write_bytes(b"onnx")
    pbtxt.write_text("max_batch_size: 4")
    for config in ('{"maxBatchSize": 4}', f"@{pbtxt}"):
        code, out, _ = run("load", "echo", "--config", config, "--file", f"1/model.onnx={model}", "--json")
        assert (code, json.loads(out)) == (0, [vars(ModelIndex("echo", "1", "READY", ""))])
        assert json.loads(control.last.parameters["config"].string_param) == {"maxBatchSize": 4}
        assert control.last.parameters["file:1/model.onnx"].bytes_param == b"onnx"
    assert run("unload", "echo", "--dependents") == (0, table, "")
    assert control.last.parameters["unload_dependents"].bool_param


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--config", "@nowhere.json"), ("--config", "'nowhere.json' cannot be read")),
        (("--config", "{}", "--file", "1/model.onnx=nowhere"), ("--file 1/model.onnx", "'nowhere' cannot be read")),
        (("--config", "{}", "--file", "nowhere"), ("'nowhere' given, NAME=FILE wanted",)),
        (("--file", f"1/model.onnx={__file__}"), ("files given without a config",)),
    ],
)
def test_wrong_words_of_load_are_wrong_use(run: Run, server: Any, words: tuple[str, ...], parts: Any) -> None:
    failed(run("load", "echo", *words), 2, *parts)
    assert server.calls == []


def test_a_server_without_repository_control_says_no(run: Run) -> None:
    failed(run("load", "echo"), 1, "UNIMPLEMENTED")


def test_trace_as_a_command(run: Run, control: ControlledServer) -> None:
    assert run("trace") == (0, "setting      value\ntrace_level  OFF\n", "")
    code, out, _ = run("trace", "--model", "m", "trace_level=TIMESTAMPS,TENSORS", "trace_rate=", "--json")
    assert (code, json.loads(out)) == (0, {"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": []})
    assert control.last.model_name == "m"
    failed(run("trace", "trace_level"), 2, "'trace_level' given, NAME=VALUE wanted")


def test_log_as_a_command(run: Run, control: ControlledServer) -> None:
    code, out, _ = run("log", "log_info=false", "log_verbose_level=3", "log_format=ISO8601", "log_file=")
    assert code == 0
    assert out.splitlines()[1:] == ["log_format         ISO8601", "log_info           false", "log_verbose_level  3"]
    assert json.loads(run("log", "--json")[1]) == {"log_format": "ISO8601", "log_info": False, "log_verbose_level": 3}
    failed(run("log", "=1"), 2, "'=1' given, NAME=VALUE wanted")
