"""The timing that a response carries when its caller asks for it (wishes.py), and the names of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trtserve_protos.wishes import TIMING

if TYPE_CHECKING:
    from trtserve_protos.oip import InferParameter

_PREFIX = f"{TIMING}_"


class Timing(NamedTuple):
    """Where the time of one request went, in nanoseconds, and the run that it was part of.

    The request waited `batch_wait_ns` for others to share its batch while an instance was free, and `queue_ns` for its
    turn; the rest are the phases of the whole batch's run, which held `batch_rows` rows. `engine` is the runtime, for
    example "onnxruntime".
    """

    queue_ns: int
    batch_wait_ns: int
    input_ns: int
    compute_ns: int
    output_ns: int
    batch_rows: int
    instance: str
    engine: str


def fill_parameters(target: Mapping[str, InferParameter], timing: Timing) -> None:
    """Writes the timing into a response's map of parameters."""
    for name, value in timing._asdict().items():
        parameter = target[_PREFIX + name]
        if isinstance(value, str):
            parameter.string_param = value
        else:
            parameter.int64_param = value


def from_parameters(values: Mapping[str, Any]) -> Timing | None:
    """The timing among the values of a response's parameters; None where it is not there, or not complete."""
    try:
        return Timing(*(values[_PREFIX + name] for name in Timing._fields))
    except KeyError:
        return None
