"""Shared memory as the client makes it: places, arrays in them, what goes into messages, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from trtserve_client import ClientError, InputError, SharedMemory
from trtserve_client.errors import BadResponse
from trtserve_client.inputs import fit_inputs
from trtserve_client.messages import infer_request, result_from_response, stream_request
from trtserve_client.metadata import ModelMetadata, TensorMetadata
from trtserve_protos import oip


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    with SharedMemory(1000) as made:
        yield made


def path_of(memory: SharedMemory) -> str:
    return "/dev/shm" + memory.key


def test_memory_lives_until_it_is_closed() -> None:
    memory = SharedMemory(10)
    assert os.stat(path_of(memory)).st_size == 10
    assert os.stat(path_of(memory)).st_mode & 0o777 == 0o600
    memory.close()
    memory.close()
    assert not os.path.exists(path_of(memory))
    with pytest.raises(ClientError, match="is closed"):
        memory.view(0, 1)


def test_memory_that_nobody_closed_goes_with_its_process_and_not_with_its_fork() -> None:
    code = (
        "import os, sys; from trtserve_client import SharedMemory; m = SharedMemory(10); pid = os.fork()\n"
        "if pid == 0: sys.exit()\n"
        "os.waitpid(pid, 0); print(os.path.exists('/dev/shm' + m.key), m.key)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, key = run.stdout.split()
    assert kept == "True"
    assert not os.path.exists(f"/dev/shm{key}")


def test_name_and_key_can_be_chosen() -> None:
    key = f"trtserve-test-key-{os.getpid()}"
    with SharedMemory(10, name="n", key=key) as memory:
        assert (memory.name, memory.key) == ("n", key)
        with pytest.raises(ClientError, match="File exists"):
            SharedMemory(10, key=f"/{key}")
    with SharedMemory(10, key=key) as memory:
        assert memory.name == key


@pytest.mark.parametrize("key", ["a/b", "/../a", "..", "a\0"])
def test_a_key_is_a_name(key: str) -> None:
    with pytest.raises(ClientError, match="without another slash"):
        SharedMemory(10, key=key)


@pytest.mark.parametrize(("size", "words"), [(0, "at least 1 wanted"), (-1, "at least 1"), (1 << 60, "cannot be had")])
def test_memory_that_cannot_be_had(size: int, words: str) -> None:
    with pytest.raises(ClientError, match=words):
        SharedMemory(size)


def test_a_tensor_is_an_array_over_the_memory(memory: SharedMemory) -> None:
    tensor = memory.tensor((2, 3), np.float32)
    tensor.array[:] = [[1, 2, 3], [4, 5, 6]]
    assert bytes(memory.view(tensor.offset, 4)) == np.float32(1).tobytes()
    np.testing.assert_array_equal(tensor.array, [[1, 2, 3], [4, 5, 6]])
    assert (tensor.datatype, tensor.shape, tensor.byte_size, tensor.dtype) == ("FP32", (2, 3), 24, np.float32)


def test_places_do_not_overlap_and_are_aligned(memory: SharedMemory) -> None:
    first, second = memory.put(np.arange(5, dtype=np.int8)), memory.tensor((2,), np.int64)
    second.array[:] = -1
    np.testing.assert_array_equal(first.array, np.arange(5))
    assert second.offset == 64
    assert memory.free_bytes == 1000 - 80


def test_what_does_not_fit_is_refused_until_the_memory_is_reset(memory: SharedMemory) -> None:
    memory.room(900)
    with pytest.raises(InputError, match="200 bytes wanted, 40 of 1000 left"):
        memory.room(200)
    memory.reset()
    assert memory.room(1000).offset == 0


def test_strings_are_put_in_their_framing(memory: SharedMemory) -> None:
    tensor = memory.put(np.array([b"ab", "\N{SNOWMAN}"], object))
    assert (tensor.datatype, tensor.byte_size) == ("BYTES", 13)
    assert tensor.array.tolist() == [b"ab", b"\xe2\x98\x83"]
    with pytest.raises(InputError, match="no fixed size"):
        memory.tensor((2,), object)
    with pytest.raises(InputError, match="complex"):
        memory.put(np.zeros(2, complex))


def test_arrays_stay_valid_when_the_memory_is_closed() -> None:
    memory = SharedMemory(8)
    array = memory.put(np.array([1.5, 2.5], np.float32)).array
    memory.close()
    np.testing.assert_array_equal(array, [1.5, 2.5])


def test_a_request_says_where_its_tensors_lie(memory: SharedMemory) -> None:
    memory.room(10)
    x, y = memory.tensor((1, 4), np.float32), memory.room(100)
    data = infer_request("m", {"x": x, "z": np.ones(2, np.float32)}, outputs={"y": y, "w": {}})
    message = oip.ModelInferRequest.FromString(data)
    parameters = message.inputs[0].parameters
    assert parameters["shared_memory_region"].string_param == memory.name
    assert parameters["shared_memory_byte_size"].int64_param == 16
    assert parameters["shared_memory_offset"].int64_param == 64
    assert (message.inputs[0].datatype, list(message.inputs[0].shape)) == ("FP32", [1, 4])
    assert len(message.raw_input_contents) == 1
    assert message.outputs[0].parameters["shared_memory_byte_size"].int64_param == 100
    assert (message.outputs[1].name, dict(message.outputs[1].parameters)) == ("w", {})


def test_inputs_in_shared_memory_are_held_to_the_model(memory: SharedMemory) -> None:
    model = ModelMetadata("m", ("1",), "", (TensorMetadata("x", "FP32", (-1, 4)),), ())
    tensor = memory.tensor((3, 4), np.float32)
    assert fit_inputs(model, {"x": tensor}) == {"x": tensor}
    with pytest.raises(InputError, match=r"float16 .* given, float32 \(FP32\) wanted"):
        fit_inputs(model, {"x": memory.tensor((3, 4), np.float16)})
    with pytest.raises(InputError, match=r"shape \[3, 5\] given"):
        fit_inputs(model, {"x": memory.tensor((3, 5), np.float32)})


def response(datatype: str, shape: tuple[int, ...], size: int | None) -> bytes:
    message = oip.ModelInferResponse(model_name="m")
    output = message.outputs.add(name="y", datatype=datatype, shape=shape)
    if size is not None:
        output.parameters["shared_memory_byte_size"].int64_param = size
    message.outputs.add(name="w", datatype="INT8", shape=[2])
    message.raw_output_contents.extend([b"", b"\1\2"])
    return message.SerializeToString()


def test_a_result_refers_to_the_memory_and_cannot_be_written_to(memory: SharedMemory) -> None:
    room = memory.room(100)
    memory.view(room.offset, 8)[:] = np.array([1.5, 2], np.float32).tobytes()
    for size in (8, None):
        result = result_from_response(response("FP32", (1, 2), size), {"y": room, "w": {}})
        np.testing.assert_array_equal(result["y"], [[1.5, 2]])
        np.testing.assert_array_equal(result["w"], [1, 2])
    assert np.shares_memory(result["y"], np.frombuffer(memory.view(0, 100), np.uint8))
    assert not result["y"].flags.writeable


def test_strings_of_a_result_end_where_the_server_says(memory: SharedMemory) -> None:
    room = memory.room(100)
    memory.view(room.offset, 7)[:] = b"\3\0\0\0abc"
    assert result_from_response(response("BYTES", (1,), 7), {"y": room})["y"].tolist() == [b"abc"]


def test_an_answer_that_does_not_fit_its_place_is_a_bad_response(memory: SharedMemory) -> None:
    with pytest.raises(BadResponse, match="12 bytes for datatype FP32"):
        result_from_response(response("FP32", (3,), 12), {"y": memory.room(8)})


def test_outputs_of_a_stream_cannot_share_a_place(memory: SharedMemory) -> None:
    with pytest.raises(InputError, match="would overwrite"):
        stream_request("m", {}, outputs={"y": memory.room(8)})
    assert stream_request("m", {}, outputs=["y"], id="1") == infer_request("m", {}, outputs=["y"], id="1")
