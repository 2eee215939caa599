"""The cases of the ONNX project's own backend tests: single operators, small models, the architectures of real ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import loader
from onnx.backend.test.runner import Runner

LIGHT = "onnx/backend/test/data/light/"
"""Where the package keeps real architectures whose weights are made up."""

STORED_KINDS = ("simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class Case:
    """A model with inputs and the outputs that they should give, both in the order of the graph."""

    name: str
    kind: str
    model: onnx.ModelProto
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float

    @property
    def input_names(self) -> list[str]:
        """The graph's inputs, without the weights that old models list among them."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        return [value.name for value in self.model.graph.input if value.name not in weights]

    @property
    def output_names(self) -> list[str]:
        """The graph's outputs."""
        return [value.name for value in self.model.graph.output]


def all_cases() -> list[Case]:
    """Every case that the installed onnx package holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases are computed here, overflows and all
        return [*_node_cases(), *_stored_cases(), *_light_cases()]


def _node_cases() -> Iterator[Case]:
    for case in loader.load_model_tests(kind="node"):
        data = [(list(map(_as_array, inputs)), list(map(_as_array, outputs))) for inputs, outputs in case.data_sets]
        yield Case(case.name, "node", case.model, data, case.rtol, case.atol)


def _stored_cases() -> Iterator[Case]:
    for kind in STORED_KINDS:
        for case in loader.load_model_tests(kind=kind):
            folder = Path(case.model_dir)
            model = onnx.load(str(folder / "model.onnx"))
            data = [_data_set(path) for path in sorted(folder.glob("test_data_set*"))]
            yield Case(f"{kind}.{case.name}", kind, model, data, case.rtol, case.atol)


def _light_cases() -> Iterator[Case]:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for case in loader.load_model_tests(kind="real"):
        if (case.url or "").startswith(LIGHT):
            path = folder / case.url.removeprefix(LIGHT)
            model = onnx.load(str(path))
            weights = {tensor.name for tensor in model.graph.initializer}
            inputs = [
                Runner.generate_dummy_data(value, seed=0, name=case.model_name, random=False)
                for value in model.graph.input
                if value.name not in weights
            ]
            outputs = [_array(path.with_name(f"{path.stem}_output_{n}.pb")) for n in range(len(model.graph.output))]
            yield Case(case.name, "light", model, [(inputs, outputs)], case.rtol, case.atol)


def _as_array(value: Any) -> Any:
    """Scalars and stored tensors as arrays; sequences and what is absent as they are."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _data_set(folder: Path) -> tuple[list[Any], list[Any]]:
    sides = []
    for side in ("input", "output"):
        count = len(list(folder.glob(f"{side}_*.pb")))
        sides.append([_array(folder / f"{side}_{number}.pb") for number in range(count)])
    return sides[0], sides[1]


def _array(path: Path) -> np.ndarray | None:
    """The tensor in the file; None where it holds something else, as cases with sequences do."""
    try:
        return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
    except (TypeError, ValueError, onnx.onnx_cpp2py_export.checker.ValidationError):
        return None
