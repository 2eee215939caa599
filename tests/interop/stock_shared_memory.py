"""Shared memory as users of tritonclient know it, against a trtserve server. Argument: its address. Prints "ok".

The server has `double` (FP32, four features) and `words` (strings, identity).
"""

import queue
import sys
from functools import partial

import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

URL = sys.argv[1]
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def status_of(call, *arguments):
    try:
        call(*arguments)
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError("no error")


def tensors(client):
    inputs = shm.create_shared_memory_region("inputs", "/trtserve_stock_inputs", X.nbytes)
    outputs = shm.create_shared_memory_region("outputs", "/trtserve_stock_outputs", X.nbytes + 16)
    shm.set_shared_memory_region(inputs, [X])
    client.register_system_shared_memory("inputs", "/trtserve_stock_inputs", X.nbytes)
    client.register_system_shared_memory("outputs", "/trtserve_stock_outputs", X.nbytes + 16)
    assert set(client.get_system_shared_memory_status(as_json=True)["regions"]) == {"inputs", "outputs"}
    x = triton.InferInput("x", [2, 4], "FP32")
    x.set_shared_memory("inputs", X.nbytes)
    y = triton.InferRequestedOutput("y")
    y.set_shared_memory("outputs", X.nbytes, offset=16)
    for number in range(3):
        shm.set_shared_memory_region(inputs, [X + number])
        output = client.infer("double", [x], outputs=[y]).get_output("y")
        array = shm.get_contents_as_numpy(outputs, np.float32, output.shape, offset=16)
        assert np.array_equal(array, 2 * (X + number))
    assert np.array_equal(client.infer("double", [x]).as_numpy("y"), 2 * (X + 2))
    callback(client, [x], [y])
    assert "ALREADY_EXISTS" in status_of(client.register_system_shared_memory, "inputs", "/trtserve_stock_inputs", 8)[0]
    assert "NOT_FOUND" in status_of(client.get_system_shared_memory_status, "nobody")[0]
    client.unregister_system_shared_memory("inputs")
    assert "NOT_FOUND" in status_of(client.infer, "double", [x])[0]
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status(as_json=True) == {}
    shm.destroy_shared_memory_region(inputs)
    shm.destroy_shared_memory_region(outputs)


def callback(client, inputs, outputs):
    results = queue.Queue()
    client.start_stream(partial(lambda result, error: results.put((result, error))))
    client.async_stream_infer("double", inputs, outputs=outputs, request_id="1")
    result, error = results.get(timeout=60)
    client.stop_stream()
    assert error is None and list(result.get_output("y").shape) == [2, 4]


def strings(client):
    words = np.array([[b"a", "\N{SNOWMAN}".encode()]], object)
    serialized = serialize_byte_tensor(words)
    size = serialized.item().__len__()
    region = shm.create_shared_memory_region("words", "/trtserve_stock_words", 2 * size)
    shm.set_shared_memory_region(region, [serialized])
    client.register_system_shared_memory("words", "/trtserve_stock_words", 2 * size)
    x = triton.InferInput("x", [1, 2], "BYTES")
    x.set_shared_memory("words", size)
    y = triton.InferRequestedOutput("y")
    y.set_shared_memory("words", size, offset=size)
    client.infer("words", [x], outputs=[y])
    assert shm.get_contents_as_numpy(region, np.object_, [1, 2], offset=size).tolist() == words.tolist()
    client.unregister_system_shared_memory("words")
    shm.destroy_shared_memory_region(region)


with triton.InferenceServerClient(URL) as client:
    tensors(client)
    strings(client)
print("ok")
