"""Tensors in system shared memory, by Triton's extension: a region for inputs and one for outputs, and the messages.

The regions are made and registered on entering, and unregistered and removed on leaving.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from trtserve_client.load.errors import RefusedError, UsageError
from trtserve_client.load.jobs import Connection
from trtserve_client.load.senders import open_channel
from trtserve_client.result import Result
from trtserve_protos import dtypes, oip, tensors, wire

_FOLDER = Path("/dev/shm")
_ALIGNMENT = 64
_CALL_S = 10.0
_numbers = itertools.count()


class SharedRegions:
    """The tensors of `requests`, and room for the outputs of each, in shared memory that the server knows."""

    def __init__(
        self,
        connection: Connection,
        model: str,
        version: str,
        requests: Sequence[Mapping[str, np.ndarray]],
        answer: Result,
    ) -> None:
        self._connection = connection
        self._model, self._version = model, version
        self._requests = requests
        self._output_sizes = {name: len(tensors.raw_from_array(array)) for name, array in answer.items()}
        self._name = f"trtserve-load-{os.getpid()}-{next(_numbers)}"
        self._file = _FOLDER / self._name
        self.messages: list[bytes] = []

    def __enter__(self) -> SharedRegions:
        inputs = [
            {name: bytes(tensors.raw_from_array(array)) for name, array in request.items()}
            for request in self._requests
        ]
        size = sum(_aligned(len(raw)) for request in inputs for raw in request.values())
        size += len(inputs) * sum(map(_aligned, self._output_sizes.values()))
        try:
            self._fill(inputs, max(size, 1))
            self._register(max(size, 1))
        except OSError as error:
            self._remove()
            raise UsageError(f"{size} bytes of shared memory cannot be had: {error.strerror}") from None
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            request = oip.SystemSharedMemoryUnregisterRequest(name=self._name)
            self._call("SystemSharedMemoryUnregister", request.SerializeToString())
        except RefusedError:
            # The server is gone or has forgotten the region; ours is removed all the same.
            pass
        finally:
            self._remove()

    def _fill(self, inputs: Sequence[Mapping[str, bytes]], size: int) -> None:
        # A file, not multiprocessing's class, which would start a process to watch over it.
        with open(self._file, "xb+") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            with mmap.mmap(file.fileno(), size) as memory:
                self._place_all(inputs, memory)

    def _place_all(self, inputs: Sequence[Mapping[str, bytes]], memory: mmap.mmap) -> None:
        offset = 0
        for request, raw in zip(self._requests, inputs, strict=True):
            message = oip.ModelInferRequest(model_name=self._model, model_version=self._version)
            for name, array in request.items():
                datatype = dtypes.from_numpy(array.dtype).name
                tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
                self._place(tensor, len(raw[name]), offset)
                memory[offset : offset + len(raw[name])] = raw[name]
                offset += _aligned(len(raw[name]))
            for name, size in self._output_sizes.items():
                self._place(message.outputs.add(name=name), size, offset)
                offset += _aligned(size)
            self.messages.append(wire.encode_infer_request(message, []))

    def _place(self, tensor: object, size: int, offset: int) -> None:
        parameters = tensor.parameters  # type: ignore[attr-defined]
        parameters["shared_memory_region"].string_param = self._name
        parameters["shared_memory_byte_size"].int64_param = size
        parameters["shared_memory_offset"].int64_param = offset

    def _register(self, size: int) -> None:
        request = oip.SystemSharedMemoryRegisterRequest(name=self._name, key=f"/{self._name}", byte_size=size)
        self._call("SystemSharedMemoryRegister", request.SerializeToString())

    def _call(self, method: str, request: bytes) -> None:
        with open_channel(self._connection) as channel:
            try:
                call: Any = channel.unary_unary(oip.METHODS[method].path)
                call(request, timeout=_CALL_S, metadata=self._connection.metadata)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    raise RefusedError(
                        f"{self._connection.url} offers no shared memory; start it with shared memory allowed"
                        " (trtserve --allow-client-shared-memory), or go without"
                    ) from None
                raise RefusedError(f"{self._connection.url} refuses the region: {error.details()}") from None

    def _remove(self) -> None:
        self._file.unlink(missing_ok=True)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
