"""The answer to one inference: output names to arrays, with the names and parameters that came along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from trtserve_protos import timing
from trtserve_protos.timing import Timing

ParameterValue = bool | int | float | str
"""What a parameter of a request, a response or a requested output can hold."""


class Result(Mapping[str, np.ndarray]):
    """Output names to read-only arrays in the model's order of outputs; `dict(result)` makes a plain dict.

    The arrays are views of the received message: `array.copy()` gives one that can be written to. BYTES outputs have
    the numpy type object and hold bytes. `id` is the request's.
    """

    __slots__ = ("_arrays", "id", "model_name", "model_version", "parameters")

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        model_name: str = "",
        model_version: str = "",
        id: str = "",
        parameters: Mapping[str, ParameterValue] | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        self.model_name = model_name
        self.model_version = model_version
        self.id = id
        self.parameters = dict(parameters or {})

    @property
    def timing(self) -> Timing | None:
        """Where the server's time went; None where the request did not ask for it, or the server does not say.

        To ask: parameters={"trtserve_timing": True} on a request, metadata={"trtserve-timing": "true"} on a call.
        """
        return timing.from_parameters(self.parameters)

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"no output {name!r}; the outputs are {', '.join(self._arrays) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    # A mapping would compare its arrays, whose == has no truth value.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        about = [f"model={self.model_name!r}", f"version={self.model_version!r}"]
        if self.id:
            about.append(f"id={self.id!r}")
        about += (f"{name}={array.dtype}{list(array.shape)}" for name, array in self._arrays.items())
        if self.parameters:
            about.append(f"parameters={self.parameters}")
        return f"Result({', '.join(about)})"
