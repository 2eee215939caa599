"""What tritonclient does all day, against a trtserve server. Argument: its address. Prints "ok".

The server has `digits` from the examples, `words` (strings) and `half` (FP16), both identity models.
"""

import asyncio
import queue
import sys
from functools import partial

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

URL = sys.argv[1]


def tensor(name, array, datatype):
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


IMAGE = np.zeros((2, 1, 8, 8), np.float32)


def state(client):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert client.get_server_metadata().name == "trtserve"
    metadata = client.get_model_metadata("digits", as_json=True)
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["-1", "1", "8", "8"]}]
    config = client.get_model_config("digits").config
    assert (config.max_batch_size, list(config.input[0].dims)) == (32, [1, 8, 8])
    assert {model.name for model in client.get_model_repository_index().models} == {"digits", "half", "words"}


def unary(client):
    result = client.infer("digits", [tensor("image", IMAGE, "FP32")], request_id="abc")
    assert result.get_response().id == "abc"
    assert result.as_numpy("probabilities").shape == (2, 10)
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
    classes = client.infer("digits", [tensor("image", IMAGE, "FP32")], outputs=wanted).as_numpy("probabilities")
    assert classes.shape == (2, 3) and classes[0, 0].decode().count(":") == 2
    text = np.array([["a", "\N{SNOWMAN}"]], object)
    assert [word.decode() for word in client.infer("words", [tensor("x", text, "BYTES")]).as_numpy("y")[0]] == [
        "a",
        "\N{SNOWMAN}",
    ]
    half = np.array([[1.5, -2]], np.float16)
    assert np.array_equal(client.infer("half", [tensor("x", half, "FP16")]).as_numpy("y"), half)


def errors(client):
    for call, status, word in (
        (lambda: client.infer("digitz", [tensor("image", IMAGE, "FP32")]), "NOT_FOUND", "did you mean 'digits'"),
        (lambda: client.infer("digits", [tensor("image", IMAGE[:, 0], "FP32")]), "INVALID_ARGUMENT", "[2, 8, 8]"),
        (lambda: client.get_model_metadata("digits", "9"), "NOT_FOUND", "'9'"),
    ):
        try:
            call()
        except InferenceServerException as error:
            assert status in error.status() and word in error.message(), error
        else:
            raise AssertionError(f"no {status}")


def callbacks(client):
    results = queue.Queue()
    client.async_infer(
        "digits", [tensor("image", IMAGE, "FP32")], partial(lambda result, error: results.put((result, error)))
    )
    result, error = results.get(timeout=30)
    assert error is None and result.as_numpy("probabilities").shape == (2, 10)
    client.start_stream(partial(lambda result, error: results.put((result, error))))
    for number in range(20):
        client.async_stream_infer("digits", [tensor("image", IMAGE, "FP32")], request_id=str(number))
    client.async_stream_infer("nobody", [tensor("image", IMAGE, "FP32")], request_id="bad")
    answers = [results.get(timeout=30) for _ in range(21)]
    client.stop_stream()
    assert sorted(int(result.get_response().id) for result, error in answers if error is None) == list(range(20))
    assert ["nobody" in error.message() for _, error in answers if error is not None] == [True]


def statistics(client):
    (stats,) = client.get_inference_statistics("digits").model_stats
    assert stats.inference_count == 2 * stats.inference_stats.success.count > 0
    assert sum(batch.compute_infer.count for batch in stats.batch_stats) == stats.execution_count


async def asyncio_client():
    async with triton_aio.InferenceServerClient(URL) as client:
        assert await client.is_server_ready()
        calls = [client.infer("digits", [tensor("image", IMAGE, "FP32")]) for _ in range(8)]
        assert all(result.as_numpy("probabilities").shape == (2, 10) for result in await asyncio.gather(*calls))


with triton.InferenceServerClient(URL) as client:
    for check in (state, unary, errors, callbacks, statistics):
        check(client)
asyncio.run(asyncio_client())
print("ok")
