"""The protocol spoken by hand: plain protobuf and numpy, without the server's codec and without the client package."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np

from trtserve_protos import dtypes, health, oip
from trtserve_protos.oip import ModelInferRequest, ModelInferResponse, ModelStatistics

WAIT_S = 20.0
"""How long a test waits for what should come at once."""

_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_METHODS = {**oip.METHODS, **health.METHODS}


class Client:
    """One channel to a server; a call takes a message, or bytes that need not be one."""

    def __init__(self, url: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        # Channels of one process share a connection otherwise, and with it what happens to it.
        options = [*_UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(url, options)
        else:
            self.channel = grpc.secure_channel(url, credentials, options)

    def close(self) -> None:
        """Ends the channel and every call on it."""
        self.channel.close()

    def call(self, name: str, message: Any = None, /, *, timeout: float = WAIT_S, **fields: Any) -> Any:
        """The answer of a unary call; its request is `message`, or made of `fields`."""
        method = _METHODS[name]
        request = method.request_class(**fields) if message is None else message
        return self._unary(name)(request, timeout=timeout)

    def future(self, message: Any, *, timeout: float | None = WAIT_S) -> Any:
        """A ModelInfer under way: a grpc.Future, which is cancelled when it is dropped."""
        return self._unary("ModelInfer").future(message, timeout=timeout)

    def infer(self, message: Any, *, timeout: float = WAIT_S) -> dict[str, np.ndarray]:
        """The outputs of one request."""
        return arrays_of(self.call("ModelInfer", message, timeout=timeout))

    def error(self, name: str, message: Any = None, /, **fields: Any) -> grpc.RpcError:
        """The error that a call ends with; AssertionError where it ends well."""
        try:
            answer = self.call(name, message, **fields)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"{name} was answered with {answer}")

    def stream(
        self, requests: Iterable[Any], *, metadata: Sequence[tuple[str, str]] = (), timeout: float = WAIT_S
    ) -> Any:
        """A ModelStreamInfer under way: an iterator of answers that can be cancelled."""
        method = oip.METHODS["ModelStreamInfer"]
        call = self.channel.stream_stream(method.path, _serialized, method.response_class.FromString)
        return call(iter(requests), timeout=timeout, metadata=metadata)

    def watch(self, service: str) -> Iterator[str]:
        """The names of the states of `service` as they change."""
        method = health.METHODS["Watch"]
        call = self.channel.unary_stream(method.path, _serialized, method.response_class.FromString)
        states = health.HealthCheckResponse.DESCRIPTOR.enum_types_by_name["ServingStatus"].values_by_number
        for answer in call(health.HealthCheckRequest(service=service), timeout=WAIT_S):
            yield states[answer.status].name

    def statistics(self, model: str) -> ModelStatistics:
        """What one model has done."""
        return self.call("ModelStatistics", name=model).model_stats[0]

    def states(self) -> dict[str, tuple[str, str]]:
        """State and reason of every model in the repository index; versions of a model overwrite each other."""
        return {model.name: (model.state, model.reason) for model in self.call("RepositoryIndex").models}

    def _unary(self, name: str) -> Any:
        method = _METHODS[name]
        return self.channel.unary_unary(method.path, _serialized, method.response_class.FromString)


def infer_request(
    model: str,
    inputs: Mapping[str, np.ndarray],
    *,
    raw: bool = True,
    outputs: Iterable[str] = (),
    parameters: Mapping[str, bool | int | float | str] | None = None,
    **fields: Any,
) -> ModelInferRequest:
    """A request with the tensors in raw form, or as typed contents; `fields` are those of the message."""
    request = oip.ModelInferRequest(model_name=model, **fields)
    for name, array in inputs.items():
        datatype = dtypes.from_numpy(array.dtype)
        tensor = request.inputs.add(name=name, datatype=datatype.name, shape=array.shape)
        if raw:
            request.raw_input_contents.append(raw_of(array))
        else:
            getattr(tensor.contents, datatype.contents_field).extend(array.ravel().tolist())
    for name in outputs:
        request.outputs.add(name=name)
    for key, value in (parameters or {}).items():
        field = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[key], field, value)
    return request


def arrays_of(response: ModelInferResponse) -> dict[str, np.ndarray]:
    """The outputs of a response, in its order, from whichever form they have."""
    raw = response.raw_output_contents
    if raw and len(raw) != len(response.outputs):
        raise AssertionError(f"{len(raw)} raw tensors for {len(response.outputs)} outputs")
    return {
        output.name: _array_of(output, raw[index] if raw else None) for index, output in enumerate(response.outputs)
    }


def raw_of(array: np.ndarray) -> bytes:
    """The raw form: row-major, little-endian; a BYTES element is its length and its bytes."""
    if array.dtype.kind != "O":
        return array.astype(array.dtype.newbyteorder("<")).tobytes()
    return b"".join(struct.pack("<I", len(element)) + element for element in array.flat)


def texts(*elements: bytes) -> np.ndarray:
    """One row of BYTES elements."""
    array = np.empty((1, len(elements)), object)
    array[0] = elements
    return array


def _array_of(output: Any, raw: bytes | None) -> np.ndarray:
    datatype = dtypes.from_name(output.datatype)
    shape = tuple(output.shape)
    if raw is None:
        return np.array(getattr(output.contents, datatype.contents_field), datatype.numpy).reshape(shape)
    if datatype.numpy.kind != "O":
        return np.frombuffer(raw, datatype.numpy).reshape(shape)
    elements = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        elements.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _serialized(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
