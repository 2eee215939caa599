"""Shared memory through a real server: tensors in and out, beside tensors in messages, and everything that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from tests.models import make_models
from tests.support.oip_client import Client, arrays_of, infer_request, raw_of, texts
from tests.support.running_server import RunningServer
from tests.support.shared_object import SharedObject, shared_objects
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import BackendUnavailableError
from trtserve_protos import dtypes

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
UNIMPLEMENTED, EXISTS = grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.ALREADY_EXISTS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with models of several datatypes and of two inputs."""
    folder: Path = tmp_path_factory.mktemp("models")
    models = {
        "double": make_models.scale(2.0),
        "add": make_models.add(),
        "words": make_models.identity(TensorProto.STRING),
        "flags": make_models.identity(TensorProto.BOOL),
        "half": make_models.identity(TensorProto.FLOAT16),
        "brain": make_models.identity(TensorProto.BFLOAT16),
        "whole": make_models.identity(TensorProto.INT64),
    }
    paths = [str(make_models.save(proto, folder / f"{name}.onnx")) for name, proto in models.items()]
    running = RunningServer(
        model=tuple(paths),
        allow_client_shared_memory=True,
        client_shared_memory_prefix="trtserve-test",
        max_message_bytes=1 << 20,
    )
    yield running
    running.stop()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    connected = Client(server.url)
    yield connected
    connected.call("SystemSharedMemoryUnregister")
    connected.close()


Make = Callable[..., SharedObject]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes shared memory objects; they end with the test."""
    with shared_objects() as of_size:
        yield of_size


def register(client: Client, shared: SharedObject, name: str = "r", **fields: Any) -> None:
    client.call("SystemSharedMemoryRegister", **{"name": name, "key": shared.key, "byte_size": shared.size, **fields})


def lie(tensor: Any, region: str = "r", size: int | None = None, offset: int = 0) -> None:
    """Says in the message that the tensor lies in shared memory."""
    tensor.parameters["shared_memory_region"].string_param = region
    if size is not None:
        tensor.parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        tensor.parameters["shared_memory_offset"].int64_param = offset


def shared_request(model: str, array: np.ndarray, size: int, **fields: Any) -> Any:
    """A request whose one input lies at the beginning of region "r"."""
    message = infer_request(model, {"x": array}, **fields)
    del message.raw_input_contents[:]
    lie(message.inputs[0], size=size)
    return message


ONES = np.ones((1, 4), np.float32)


def test_an_input_and_an_output_lie_in_shared_memory(client: Client, make: Make) -> None:
    shared = make(64)
    register(client, shared)
    for number in range(3):  # the second and third go by what was worked out for the first
        array = np.arange(4, dtype=np.float32).reshape(1, 4) + number
        shared.put(array)
        message = shared_request("double", array, 16, outputs=["y"], id=str(number))
        lie(message.outputs[0], size=48, offset=16)
        response = client.call("ModelInfer", message)
        np.testing.assert_array_equal(shared.get(np.float32, (1, 4), 16), 2 * array)
        (output,) = response.outputs
        parameters = output.parameters
        assert (response.id, output.name, output.datatype, list(output.shape)) == (str(number), "y", "FP32", [1, 4])
        assert parameters["shared_memory_region"].string_param == "r"
        assert parameters["shared_memory_byte_size"].int64_param == 16
        assert parameters["shared_memory_offset"].int64_param == 16
        assert list(response.raw_output_contents) == [b""]


def test_one_input_in_shared_memory_and_one_in_the_message(client: Client, make: Make) -> None:
    shared = make(16)
    register(client, shared)
    shared.put(ONES)
    for first, second in (("a", "b"), ("b", "a")):
        for number in range(2):
            message = infer_request("add", {first: ONES, second: ONES * 10 * number})
            del message.raw_input_contents[0]
            lie(message.inputs[0], size=16)
            np.testing.assert_array_equal(client.infer(message)["total"], ONES + ONES * 10 * number)
    typed = infer_request("add", {"a": ONES, "b": ONES}, raw=False)
    typed.inputs[0].ClearField("contents")
    lie(typed.inputs[0], size=16)
    for number in (5, 6):
        typed.inputs[1].contents.fp32_contents[:] = [number] * 4
        np.testing.assert_array_equal(client.infer(typed)["total"], ONES + number)


def test_both_inputs_lie_in_one_region_at_their_offsets(client: Client, make: Make) -> None:
    shared = make(100)
    register(client, shared, offset=4, byte_size=90)
    shared.put(ONES, 4 + 8)
    shared.put(ONES * 2, 4 + 50)
    message = infer_request("add", {"a": ONES, "b": ONES})
    del message.raw_input_contents[:]
    lie(message.inputs[0], size=16, offset=8)
    lie(message.inputs[1], size=16, offset=50)
    np.testing.assert_array_equal(client.infer(message)["total"], ONES * 3)


@pytest.mark.parametrize(
    ("model", "array"),
    [
        ("words", texts(b"", b"snow\xe2\x98\x83", b"x" * 300)),
        ("flags", np.array([[True, False, True]])),
        ("half", np.array([[1.5, -2, np.inf]], np.float16)),
        ("brain", np.array([[1.5, -2, 3]], dtypes.from_name("BF16").numpy)),
        ("whole", np.array([[-(2**63), 2**63 - 1]], np.int64)),
    ],
)
def test_every_kind_of_datatype(client: Client, make: Make, model: str, array: np.ndarray) -> None:
    raw = raw_of(array)
    shared = make(2 * len(raw))
    register(client, shared)
    shared.memory[: len(raw)] = raw
    message = shared_request(model, array, len(raw), outputs=["y"])
    lie(message.outputs[0], size=len(raw), offset=len(raw))
    for _ in range(2):
        shared.memory[len(raw) :] = bytes(len(raw))
        response = client.call("ModelInfer", message)
        assert shared.memory[len(raw) :] == raw
        assert list(response.outputs[0].shape) == list(array.shape)


def test_a_tensor_without_its_batch_dimension(client: Client, make: Make) -> None:
    shared = make(32)
    register(client, shared)
    shared.put(ONES * 3)
    message = shared_request("double", ONES[0], 16, outputs=["y"])
    lie(message.outputs[0], size=16, offset=16)
    for _ in range(2):
        assert list(client.call("ModelInfer", message).outputs[0].shape) == [4]
        np.testing.assert_array_equal(shared.get(np.float32, (4,), 16), [6] * 4)


def test_classes_of_an_output_lie_in_shared_memory_too(client: Client, make: Make) -> None:
    shared = make(100)
    register(client, shared)
    message = infer_request("double", {"x": np.array([[1, 4, 2, 3]], np.float32)}, outputs=["y"])
    message.outputs[0].parameters["classification"].int64_param = 2
    lie(message.outputs[0], size=100)
    size = client.call("ModelInfer", message).outputs[0].parameters["shared_memory_byte_size"].int64_param
    assert shared.memory[:size] == raw_of(texts(b"8.000000:1", b"6.000000:3"))


def test_streams_share_memory_too(client: Client, make: Make) -> None:
    shared = make(160)
    register(client, shared)
    requests = []
    for number in range(5):
        shared.put(ONES * number, 16 * number)
        message = shared_request("double", ONES, 16, id=str(number))
        lie(message.inputs[0], size=16, offset=16 * number)
        message.outputs.add(name="y")
        lie(message.outputs[0], size=16, offset=80 + 16 * number)
        requests.append(message)
    assert all(answer.error_message == "" for answer in client.stream(requests))
    np.testing.assert_array_equal(
        shared.get(np.float32, (5, 4), 80), 2 * np.arange(5, dtype=np.float32)[:, None] * np.ones(4)
    )


def test_the_status_lists_what_is_registered(client: Client, make: Make) -> None:
    first, second = make(10), make(20)
    register(client, first, "one", offset=2, byte_size=5)
    register(client, second, "two")
    regions = client.call("SystemSharedMemoryStatus").regions
    assert sorted(regions) == ["one", "two"]
    one = client.call("SystemSharedMemoryStatus", name="one").regions["one"]
    assert (one.name, one.key, one.offset, one.byte_size) == ("one", first.key, 2, 5)
    error = client.error("SystemSharedMemoryStatus", name="three")
    assert error.code() == NOT_FOUND and "'three'" in error.details()
    client.call("SystemSharedMemoryUnregister", name="one")
    client.call("SystemSharedMemoryUnregister", name="one")
    assert sorted(client.call("SystemSharedMemoryStatus").regions) == ["two"]
    client.call("SystemSharedMemoryUnregister")
    assert not client.call("SystemSharedMemoryStatus").regions


def test_the_extension_is_advertised_where_it_is_allowed(client: Client) -> None:
    extensions = client.call("ServerMetadata").extensions
    assert "system_shared_memory" in extensions


def test_cuda_shared_memory_says_why_it_is_not_offered(client: Client) -> None:
    try:
        open_driver()
    except BackendUnavailableError as error:
        reason = str(error)
    else:
        pytest.skip("this machine has a GPU")
    assert "cuda_shared_memory" not in client.call("ServerMetadata").extensions
    refusal = client.error("CudaSharedMemoryStatus")
    assert refusal.code() == UNIMPLEMENTED and reason in refusal.details()


def test_what_cannot_be_registered_is_refused(client: Client, make: Make) -> None:
    shared = make(10)
    register(client, shared)
    for fields, code, words in (
        ({"name": "r", "key": shared.key, "byte_size": 10}, EXISTS, "'r' is registered already"),
        ({"name": "", "key": shared.key, "byte_size": 10}, INVALID, "no name"),
        ({"name": "s", "key": shared.key, "byte_size": 11}, INVALID, "the object has 10"),
        ({"name": "s", "key": shared.key, "byte_size": 5, "offset": 2**64 - 1}, INVALID, "offset"),
        ({"name": "s", "key": "/other", "byte_size": 1}, INVALID, "keys must begin with 'trtserve-test'"),
        ({"name": "s", "key": "/trtserve-test/../../etc/passwd", "byte_size": 1}, INVALID, "not the name"),
        ({"name": "s", "key": "/trtserve-test-nobody", "byte_size": 1}, NOT_FOUND, "create it first"),
    ):
        error = client.error("SystemSharedMemoryRegister", **fields)
        assert error.code() == code and words in error.details(), error.details()
    assert list(client.call("SystemSharedMemoryStatus").regions) == ["r"]


def too_small_window(message: Any) -> None:
    lie(message.outputs[0], size=15)


def outside(message: Any) -> None:
    lie(message.inputs[0], size=16, offset=50)


def far_outside(message: Any) -> None:
    lie(message.inputs[0], size=16, offset=2**63 - 1)


def negative(message: Any) -> None:
    lie(message.inputs[0], size=16, offset=-1)


def other_size(message: Any) -> None:
    lie(message.inputs[0], size=20)


def no_size(message: Any) -> None:
    del message.inputs[0].parameters["shared_memory_byte_size"]


def unknown_region(message: Any) -> None:
    lie(message.inputs[0], "nobody", 16)


def unknown_region_of_an_output(message: Any) -> None:
    lie(message.outputs[0], "nobody", 16)


def number_as_region(message: Any) -> None:
    message.inputs[0].parameters["shared_memory_region"].int64_param = 1


def raw_beside(message: Any) -> None:
    message.raw_input_contents.append(bytes(16))


def contents_beside(message: Any) -> None:
    message.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])


def other_shape(message: Any) -> None:
    message.inputs[0].shape[:] = [1, 3]


def too_large(message: Any) -> None:
    message.inputs[0].shape[:] = [100_000, 4]
    lie(message.inputs[0], "large", 1_600_000)


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (too_small_window, INVALID, "16 bytes are to be written to the 15"),
        (outside, INVALID, "end at byte 66; the region ends at 64"),
        (far_outside, INVALID, "the region ends at 64"),
        (negative, INVALID, "'shared_memory_offset' is -1"),
        (other_size, INVALID, "= 20 given, 16 wanted"),
        (no_size, INVALID, "'shared_memory_byte_size' is missing"),
        (unknown_region, NOT_FOUND, "inputs[0] 'x': no shared memory region 'nobody'"),
        (unknown_region_of_an_output, NOT_FOUND, "outputs[0] 'y': no shared memory region 'nobody'"),
        (number_as_region, INVALID, "wanted is the name of a region"),
        (raw_beside, INVALID, "raw_input_contents holds 1 entries"),
        (contents_beside, INVALID, "contents beside shared memory"),
        (other_shape, INVALID, "= 16 given, 12 wanted"),
        (too_large, INVALID, "1600000 bytes in shared memory given, at most 1048576"),
    ],
)
def test_a_mistake_is_refused_and_the_next_request_served(
    client: Client, make: Make, spoil: Callable[[Any], None], code: grpc.StatusCode, words: str
) -> None:
    shared, large = make(64), make(1_600_000)
    register(client, shared)
    register(client, large, "large")
    good = shared_request("double", ONES, 16, outputs=["y"])
    lie(good.outputs[0], size=16, offset=16)
    for warm in (False, True):  # the same mistake before and after a good request was worked out
        if warm:
            client.call("ModelInfer", good)
        message = shared_request("double", ONES, 16, outputs=["y"])
        lie(message.outputs[0], size=16, offset=16)
        spoil(message)
        error = client.error("ModelInfer", message)
        assert error.code() == code and words in error.details(), error.details()
    shared.put(ONES)
    client.call("ModelInfer", good)
    np.testing.assert_array_equal(shared.get(np.float32, (1, 4), 16), 2 * ONES)


def test_bytes_that_are_no_booleans_or_strings_are_refused_every_time(client: Client, make: Make) -> None:
    shared = make(16)
    register(client, shared)
    flags = shared_request("flags", np.array([[True, False]]), 2)
    shared.memory[:2] = b"\1\0"
    np.testing.assert_array_equal(client.infer(flags)["y"], [[True, False]])
    shared.memory[:2] = b"\1\2"
    error = client.error("ModelInfer", flags)
    assert error.code() == INVALID and "BOOL bytes must be 0 or 1" in error.details()
    words = shared_request("words", texts(b"abc"), 7)
    shared.memory[:7] = b"\3\0\0\0abc"
    assert client.infer(words)["y"].tolist() == [[b"abc"]]
    shared.memory[:7] = b"\4\0\0\0abc"
    error = client.error("ModelInfer", words)
    assert error.code() == INVALID and "4 bytes announced, 3 left" in error.details()


def test_a_region_that_is_unregistered_is_not_used_by_later_requests(client: Client, make: Make) -> None:
    first, second = make(16), make(16)
    register(client, first)
    first.put(ONES)
    second.put(ONES * 5)
    message = shared_request("double", ONES, 16)
    np.testing.assert_array_equal(client.infer(message)["y"], ONES * 2)
    client.call("SystemSharedMemoryUnregister", name="r")
    assert client.error("ModelInfer", message).code() == NOT_FOUND
    register(client, second)
    np.testing.assert_array_equal(client.infer(message)["y"], ONES * 10)


def test_a_region_that_shrinks_fails_the_requests_that_need_it_and_no_other(client: Client, make: Make) -> None:
    shared = make(32)
    register(client, shared)
    reads = shared_request("double", ONES, 16)
    writes = infer_request("double", {"x": ONES}, outputs=["y"])
    lie(writes.outputs[0], size=16, offset=16)
    client.call("ModelInfer", reads)
    client.call("ModelInfer", writes)
    shared.truncate(8)
    for message in (reads, writes):
        error = client.error("ModelInfer", message)
        assert error.code() == INVALID and "has shrunk since it was registered" in error.details()
    np.testing.assert_array_equal(client.infer(infer_request("double", {"x": ONES}))["y"], ONES * 2)


def test_a_region_that_shrinks_under_a_waiting_request_fails_it_and_not_its_batch(script: Any, make: Make) -> None:
    m = script(allow_client_shared_memory=True)
    shared = make(64)
    register(m.client, shared)
    m.gate.shut()
    first = m.client.future(infer_request("m", {"x": ONES}))
    m.gate.batch()  # it holds the instance; what comes now waits and shares the next batch
    message = shared_request("m", ONES, 16)
    lie(message.inputs[0], size=16, offset=48)
    futures = [m.client.future(each) for each in (message, infer_request("m", {"x": ONES * 3}))]
    m.wait_for_queue(2)
    shared.truncate(50)
    m.gate.open()
    np.testing.assert_array_equal(arrays_of(first.result())["y"], ONES)
    np.testing.assert_array_equal(arrays_of(futures[1].result())["y"], ONES * 3)
    with pytest.raises(grpc.RpcError) as caught:
        futures[0].result()
    assert caught.value.code() == INVALID and "has shrunk" in caught.value.details()
    assert m.engine.batches == [1, 2]


def test_a_request_under_way_keeps_its_region(script: Any, make: Make) -> None:
    m = script(allow_client_shared_memory=True)
    shared = make(32)
    register(m.client, shared)
    shared.put(ONES * 3)
    m.gate.shut()
    message = shared_request("m", ONES, 16, outputs=["y"])
    lie(message.outputs[0], size=16, offset=16)
    future = m.client.future(message)
    m.gate.batch()
    m.client.call("SystemSharedMemoryUnregister")
    m.gate.open()
    future.result()
    np.testing.assert_array_equal(shared.get(np.float32, (1, 4), 16), ONES * 3)


def test_every_call_says_how_to_switch_shared_memory_on(serve: Any, connect: Any, tmp_path: Path) -> None:
    path = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    client = connect(serve(model=(str(path),)))
    assert not {"system_shared_memory", "cuda_shared_memory"} & set(client.call("ServerMetadata").extensions)
    for kind in ("System", "Cuda"):
        for call in ("Register", "Status", "Unregister"):
            error = client.error(f"{kind}SharedMemory{call}")
            assert error.code() == UNIMPLEMENTED and "--allow-client-shared-memory" in error.details()
