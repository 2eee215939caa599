"""The ONNX project's backend tests, through gRPC: what ONNX Runtime passes in process comes back with the same bytes.

All models are served by one server from one repository. The counts, and what is left out and why, are printed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import make_models
from tests.onnx_backend.cases import Case, all_cases
from tests.onnx_backend.in_process import INTRA_OP_THREADS, LeftOut, outputs_of
from tests.support.oip_client import Client, arrays_of, infer_request, raw_of
from tests.support.running_server import RunningServer
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_protos.oip import ModelInferResponse

IN_FLIGHT = 64
AT_LEAST = {"node": 1000, "pytorch-converted": 50, "pytorch-operator": 20, "simple": 5, "light": 5}
"""Cases of each kind that have to be compared, whatever is left out by this version of ONNX Runtime: a net under it."""


class Suite:
    """The cases that ONNX Runtime passes, with what it gave, and those that are left out, by the reason."""

    def __init__(self) -> None:
        self.passed: dict[str, tuple[Case, list[list[np.ndarray]]]] = {}
        self.left_out: dict[str, list[str]] = defaultdict(list)
        for case in all_cases():
            try:
                self.passed[case.name] = case, outputs_of(case)
            except LeftOut as reason:
                self.left_out[str(reason)].append(case.name)

    def count(self, kind: str) -> int:
        """How many cases of this kind are compared."""
        return sum(case.kind == kind for case, _ in self.passed.values())

    def report(self) -> str:
        """Counts, and every case that is left out under its reason."""
        kinds = ", ".join(f"{self.count(kind)} {kind}" for kind in AT_LEAST)
        lines = [f"ONNX backend tests: {len(self.passed)} cases come back with identical bytes ({kinds}); left out:"]
        for reason, names in sorted(self.left_out.items(), key=lambda item: -len(item[1])):
            lines.append(f"  {len(names)}: {reason}: {' '.join(sorted(names))}")
        return "\n".join(lines)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite()


@pytest.fixture(scope="module")
def server(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with every model of the suite, loaded side by side."""
    folder: Path = tmp_path_factory.mktemp("repository")
    for name, (case, _) in suite.passed.items():
        make_models.save(case.model, folder / name / "1" / "model.onnx")
        # Many operators take none but the inputs of their case, which made-up ones are not.
        (folder / name / "model.toml").write_text("warmup_runs = 0\n")
    running = RunningServer(
        model_repository=(str(folder),),
        instances=1,
        onnxruntime=OnnxRuntimeOptions(intra_op_threads=INTRA_OP_THREADS),
    )
    yield running
    running.stop()


def test_every_kind_of_case_is_there(suite: Suite) -> None:
    assert {kind: suite.count(kind) >= least for kind, least in AT_LEAST.items()} == dict.fromkeys(AT_LEAST, True)


def test_all_models_serve(suite: Suite, server: RunningServer) -> None:
    client = Client(server.url)
    states = client.states()
    client.close()
    assert {name: state for name, state in states.items() if state[0] != "READY"} == {}
    assert states.keys() == suite.passed.keys()


def test_answers_have_the_same_bytes_as_in_process(
    suite: Suite, server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(server.url)
    flights: deque[tuple[str, Any, list[np.ndarray]]] = deque()
    differences: dict[str, str] = {}

    def land() -> None:
        name, future, wanted = flights.popleft()
        if difference := _difference(future.result(), wanted):
            differences[name] = difference

    for name, (case, outputs) in suite.passed.items():
        for (inputs, _), wanted in zip(case.data, outputs, strict=True):
            arrays = dict(zip(case.input_names, map(_sent, inputs), strict=True))
            flights.append((name, client.future(infer_request(name, arrays), timeout=120.0), wanted))
            if len(flights) == IN_FLIGHT:
                land()
    while flights:
        land()
    client.close()
    assert differences == {}
    with capsys.disabled():
        print(f"\n{suite.report()}")


def _difference(response: ModelInferResponse, wanted: list[np.ndarray]) -> str:
    """What of the answer differs from the arrays; "" where nothing does."""
    answers = arrays_of(response)
    if len(answers) != len(wanted):
        return f"{len(answers)} outputs, {len(wanted)} wanted"
    for (name, answer), array in zip(answers.items(), map(_sent, wanted), strict=True):
        if (answer.dtype, answer.shape) != (array.dtype, array.shape):
            return f"{name}: {answer.dtype} {list(answer.shape)}, wanted {array.dtype} {list(array.shape)}"
        if raw_of(answer) != raw_of(array):
            return f"{name}: other bytes"
    return ""


def _sent(array: np.ndarray) -> np.ndarray:
    """Strings as the bytes that travel."""
    if array.dtype.kind not in "SUO":
        return array
    elements = np.empty(array.shape, object)
    elements.flat = [text.encode() if isinstance(text, str) else text for text in array.flat]
    return elements
