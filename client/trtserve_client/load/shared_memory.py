"""Requests whose tensors lie in system shared memory, and room there for their outputs; the client does the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from trtserve_client.client import Client
from trtserve_client.errors import ClientError, ServerError, Unimplemented
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import RefusedError, UsageError
from trtserve_client.load.timings import asking
from trtserve_client.messages import infer_request
from trtserve_client.result import Result
from trtserve_client.shared_memory import ALIGNMENT, SharedMemory
from trtserve_protos.tensors import raw_from_array

_CALL_S = 10.0


@contextmanager
def shared_messages(
    client: Client, config: LoadConfig, requests: Sequence[Mapping[str, np.ndarray]], answer: Result
) -> Iterator[list[bytes]]:
    """The message of each request, which refer to memory that the server knows until the end of the `with`.

    There is room for outputs of the sizes of `answer` for each. Raises UsageError where the memory cannot be had,
    RefusedError where the server does not take it.
    """
    rooms = {name: _size(array) for name, array in answer.items()}
    size = sum(_aligned(_size(array)) for request in requests for array in request.values())
    size += len(requests) * sum(map(_aligned, rooms.values()))
    with _made(max(size, 1)) as memory:
        _register(client, config.url, memory)
        try:
            yield [_message(config, memory, request, rooms) for request in requests]
        finally:
            # The server may be gone or have forgotten the memory; ours is taken away all the same.
            with suppress(ClientError):
                client.unregister_shared_memory(memory, timeout_s=_CALL_S)


def _message(
    config: LoadConfig, memory: SharedMemory, request: Mapping[str, np.ndarray], rooms: Mapping[str, int]
) -> bytes:
    inputs = {name: memory.put(array) for name, array in request.items()}
    outputs = {name: memory.room(size) for name, size in rooms.items()}
    return infer_request(config.model, inputs, version=config.version, outputs=outputs, parameters=asking(config))


def _made(size: int) -> SharedMemory:
    try:
        return SharedMemory(size)
    except ClientError as error:
        raise UsageError(str(error)) from None


def _register(client: Client, url: str, memory: SharedMemory) -> None:
    try:
        client.register_shared_memory(memory, timeout_s=_CALL_S)
    except Unimplemented:
        raise RefusedError(
            f"{url} offers no shared memory; start it with shared memory allowed"
            " (trtserve --allow-client-shared-memory), or go without"
        ) from None
    except ServerError as error:
        raise RefusedError(f"{url} refuses the memory: {error.details}") from None
    except ClientError as error:
        raise RefusedError(f"{url} refuses the memory: {error}") from None


def _size(array: np.ndarray) -> int:
    return memoryview(raw_from_array(array)).nbytes


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
