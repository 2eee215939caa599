"""What tritonclient's control calls do to a trtserve server in explicit mode. Prints "ok".

Arguments: its address, and the file of `digits`, which is in its repository and not loaded. It has a trace file.
"""

import asyncio
import json
import queue
import sys
from functools import partial

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

URL = sys.argv[1]
IMAGE = np.zeros((2, 1, 8, 8), np.float32)


def tensors(array=IMAGE):
    given = triton.InferInput("image", list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    return [given]


def refused(call, status, words):
    try:
        call()
    except InferenceServerException as error:
        assert status in error.status() and words in error.message(), error
    else:
        raise AssertionError(f"no {status}")


def client_files():
    with open(sys.argv[2], "rb") as file:
        return {"file:1/model.onnx": file.read()}


def repository(client):
    states = {model.name: model.state for model in client.get_model_repository_index().models}
    assert states == {"digits": "UNAVAILABLE"}
    assert client.is_server_ready()
    refused(lambda: client.load_model("digitz"), "NOT_FOUND", "did you mean 'digits'")
    client.load_model("digits")
    assert client.is_model_ready("digits")
    (model,) = client.get_model_repository_index(as_json=True)["models"]
    assert (model["version"], model["state"]) == ("1", "READY")
    client.load_model("digits", config=json.dumps({"max_batch_size": 4}))
    assert client.get_model_config("digits").config.max_batch_size == 4
    refused(lambda: client.load_model("digits", config="{"), "INVALID_ARGUMENT", "JSON")
    content = client_files()
    client.load_model("given", config=json.dumps({"max_batch_size": 2}), files=content)
    assert client.get_model_config("given").config.max_batch_size == 2
    given, own = (client.infer(name, tensors()).as_numpy("probabilities") for name in ("given", "digits"))
    assert np.array_equal(given, own)
    client.unload_model("given")
    refused(lambda: client.load_model("given", files=content), "INVALID_ARGUMENT", "config")
    client.unload_model("digits")
    assert not client.is_model_ready("digits")
    refused(lambda: client.infer("digits", tensors()), "UNAVAILABLE", "unloaded")
    client.load_model("digits")
    client.infer("digits", tensors())


def settings(client):
    log = client.get_log_settings(as_json=True)["settings"]
    assert log["log_info"] == {"bool_param": True} and log["log_format"] == {"string_param": "default"}
    changed = client.update_log_settings({"log_verbose_level": 1, "log_format": "ISO8601"}, as_json=True)["settings"]
    assert changed["log_verbose_level"] == {"uint32_param": 1}
    refused(lambda: client.update_log_settings({"log_file": "x"}), "UNIMPLEMENTED", "--log-file")
    client.update_log_settings({"log_verbose_level": 0, "log_format": "default"})
    trace = client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "1"})
    assert list(trace.settings["trace_level"].value) == ["TIMESTAMPS", "TENSORS"]
    client.infer("digits", tensors(), request_id="traced")
    client.update_trace_settings("digits", {"trace_level": "OFF"})
    client.infer("digits", tensors(), request_id="not traced")
    trace = client.update_trace_settings("digits", {"trace_level": None})
    assert list(trace.settings["trace_level"].value) == ["TIMESTAMPS", "TENSORS"]
    client.update_trace_settings(settings={"trace_level": None, "trace_rate": None})
    assert list(client.get_trace_settings().settings["trace_level"].value) == ["OFF"]


def parameters(client):
    result = client.infer("digits", tensors(), parameters={"tenant": "blue"}, priority=1, timeout=10_000_000)
    assert result.get_response(as_json=True)["parameters"] == {"tenant": {"string_param": "blue"}}
    refused(lambda: client.infer("digits", tensors(), sequence_id=7), "UNIMPLEMENTED", "keeps no state")
    one = client.infer("digits", tensors(IMAGE[0])).as_numpy("probabilities")
    assert one.shape == (10,)
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    classes = client.infer("digits", tensors(), outputs=wanted).as_numpy("probabilities")
    assert classes.shape == (2, 2)
    value, index, label = classes[0, 0].decode().split(":")
    assert float(value) > 0 and label == NAMES[int(index)]


def stream(client):
    results = queue.Queue()
    client.start_stream(partial(lambda result, error: results.put((result, error))))
    client.async_stream_infer("digits", tensors(), request_id="a", enable_empty_final_response=True)
    client.async_stream_infer("digits", tensors(), request_id="b")
    for _ in range(2):
        result, error = results.get(timeout=60)
        assert error is None and result.get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()
    assert results.empty()


def statistics(client):
    """Counts and durations of ten requests of two rows add up, and a failed one counts as failed."""
    before = client.get_inference_statistics("digits", "1").model_stats[0]
    for _ in range(10):
        client.infer("digits", tensors())
    after = client.get_inference_statistics("digits").model_stats[0]
    then, now = before.inference_stats, after.inference_stats
    assert now.success.count - then.success.count == 10
    assert after.inference_count - before.inference_count == 20
    assert after.execution_count - before.execution_count == 10
    assert after.last_inference >= before.last_inference > 1.6e12
    phases = [getattr(now, name).ns - getattr(then, name).ns for name in PHASES]
    assert all(ns >= 0 for ns in phases) and 0 < sum(phases) <= now.success.ns - then.success.ns
    batches = {batch.batch_size: batch.compute_infer.count for batch in after.batch_stats}
    assert sum(batches.values()) == after.execution_count
    assert sum(size * count for size, count in batches.items()) == after.inference_count
    assert {model.name for model in client.get_inference_statistics().model_stats} == {"digits"}


PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


async def asyncio_client():
    async with triton_aio.InferenceServerClient(URL) as client:
        await client.unload_model("digits")
        assert not await client.is_model_ready("digits")
        await client.load_model("digits")
        assert (await client.get_model_repository_index()).models[0].state == "READY"
        assert (await client.get_inference_statistics("digits")).model_stats[0].inference_count == 0
        settings = await client.update_trace_settings(settings={"trace_rate": "7"})
        assert list(settings.settings["trace_rate"].value) == ["7"]
        assert not (await client.update_log_settings({"log_info": False})).settings["log_info"].bool_param

        async def requests():
            for number in range(5):
                yield {"model_name": "digits", "inputs": tensors(), "request_id": str(number)}

        answers = [answer async for answer in client.stream_infer(requests())]
        assert sorted(result.get_response().id for result, error in answers if error is None) == list("01234")


with triton.InferenceServerClient(URL) as client:
    for check in (repository, settings, parameters, stream, statistics):
        check(client)
asyncio.run(asyncio_client())
print("ok")
